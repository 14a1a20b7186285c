// Convolution on tensor cores, gradient of the input: rows are positions of x, columns the channels of a group, the depth is
// (r, s, map) of the maps in one column of y.
//
//   row          tile        threads   registers, at most (sm_80 / 90 / 100)   shared bytes
//   tf32         128 x 128   256       148 / 160 / 172                           109,664
//   tf32_64x64   64 x 64     128       102 / 112 / 136                            56,416
//   bf16         128 x 128   256       195 / 204 / 228                            40,032
//   bf16_64x64   64 x 64     128       150 / 148 / 153                            20,576
//   bf16x3       128 x 128   256       215 / 219 / 236                           109,664
//   bf16x3_64x64 64 x 64     128       140 / 142 / 156                            56,416
//   bf16x6       128 x 128   256       238 / 241 / 250                           109,664
//   bf16x6_64x64 64 x 64     128       154 / 155 / 157                            56,416
#include <minialex/conv_mma_shape.h>
#include <minialex/kernel.h>
#include <minialex/ops.h>

namespace minialex {
namespace conv_mma {
namespace {

// A stride parts the positions of x, counted from the border's edge, into stride^2 phases: those of one phase meet the taps of that
// phase, each in its own window, as in a convolution of stride 1.  Other taps are not part of their sums.
struct Phase {
  int first_h, first_w, H, W, first_r, first_s, R, S;   // the first of x's positions and how many; the same of the filter's taps
  mma::Divider by_HW, by_W, by_S;

  MINIALEX_DEVICE Phase(const ConvDims& d, int phase) {
    first_r = phase / d.stride, first_s = phase % d.stride;
    first_h = (first_r + (d.before + d.stride - 1) / d.stride * d.stride - d.before) % d.stride;
    first_w = (first_s + (d.before + d.stride - 1) / d.stride * d.stride - d.before) % d.stride;
    H = count(first_h, d.H, d.stride), W = count(first_w, d.W, d.stride);
    R = count(first_r, d.R, d.stride), S = count(first_s, d.S, d.stride);
    if (S == 0) R = 0;                                  // windows apart from each other: these positions get zeros
    by_HW = mma::Divider(max(1, H * W)), by_W = mma::Divider(max(1, W)), by_S = mma::Divider(max(1, S));
  }
  static MINIALEX_BOTH int count(int first, int extent, int stride) { return first < extent ? (extent - 1 - first) / stride + 1 : 0; }
};

// A: dy where a tap of a window meets a position of x.
template <class Number_, bool WHOLE> struct Senders {
  using Number = Number_;
  static constexpr bool DEPTH_MAJOR = true;
  static constexpr int VECTOR = WHOLE ? mma::whole_vector<Number> : 1;
  struct alignas(16) Place { int64_t offset; int p, q; };           // of the picture in dy; the window whose first tap of the phase is here
  struct Tap { int map, r, s; };

  const ConvShape& shape;
  const Phase& phase;
  const Number* dy;                                     // at the part's first map
  MINIALEX_DEVICE Senders(const ConvShape& shape, const Phase& phase, const Number* dy, int first_map) : shape(shape), phase(phase) {
    const ConvDims& d = shape.dims;
    int k;
    const int column = shape.Ky.divide(first_map, k);
    this->dy = dy + int64_t(column) * d.N * d.P * d.Q * d.Ky() + k;
  }
  MINIALEX_DEVICE Place place(int m) const {
    const ConvDims& d = shape.dims;
    if (m >= d.N * phase.H * phase.W) return {0, NOWHERE, 0};
    int hw, w;
    const int n = phase.by_HW.divide(m, hw), h = phase.by_W.divide(hw, w);
    return {int64_t(n) * d.P * d.Q * d.Ky(), h + (phase.first_h + d.before) / d.stride, w + (phase.first_w + d.before) / d.stride};
  }
  MINIALEX_DEVICE Tap tap(int k) const {
    int map, s;
    const int r = phase.by_S.divide(shape.maps.divide(k, map), s);
    return {map, r < phase.R ? r : -NOWHERE, s};
  }
  MINIALEX_DEVICE const Number* at(const Place& place, const Tap& tap, bool& valid) const {
    const ConvDims& d = shape.dims;
    const int p = place.p - tap.r, q = place.q - tap.s;
    valid = unsigned(p) < unsigned(d.P) && unsigned(q) < unsigned(d.Q);
    return valid ? dy + place.offset + (p * d.Q + q) * d.Ky() + tap.map : dy;
  }
};

// B: the filters' numbers for a channel, a channel a column.
template <bool WHOLE> struct Filters {
  using Number = float;
  static constexpr bool DEPTH_MAJOR = false;
  static constexpr int VECTOR = WHOLE ? 4 : 1;
  struct Place { int c; };
  struct Tap { int64_t offset; };                       // -1: no tap

  const ConvShape& shape;
  const Phase& phase;
  const float* w;
  MINIALEX_DEVICE Filters(const ConvShape& shape, const Phase& phase, const float* w, int first_map) : shape(shape), phase(phase) {
    const ConvDims& d = shape.dims;
    this->w = w + int64_t(first_map) * d.R * d.S * d.Cg();
  }
  MINIALEX_DEVICE Place place(int n) const { return {n}; }
  MINIALEX_DEVICE Tap tap(int k) const {
    const ConvDims& d = shape.dims;
    int map, s;
    const int r = phase.by_S.divide(shape.maps.divide(k, map), s);
    if (r >= phase.R) return {-1};
    return {((int64_t(map) * d.R + phase.first_r + r * d.stride) * d.S + phase.first_s + s * d.stride) * d.Cg()};
  }
  MINIALEX_DEVICE const float* at(const Place& place, const Tap& tap, bool& valid) const {
    valid = place.c < shape.dims.Cg() && tap.offset >= 0;
    return valid ? w + tap.offset + place.c : w;
  }
};

template <class Precision, class T, bool WHOLE>
struct Kernel : TileKernel<Precision, T, Senders<typename Precision::Activation, WHOLE>, Filters<WHOLE>> {
  struct Shared {
    typename Kernel::Multiply::Shared tiles;
    Phase phase;
  };
};

// Block x: a tile, those of one row of tiles side by side; y: a group; z: a phase, and a range of a part's depth, where the sum is cut.
template <class Precision, class T, bool WHOLE>
__global__ void __launch_bounds__(T::THREADS, T::BLOCKS) dgrad(ConvShape shape, Ranges ranges, const typename Precision::Activation* __restrict__ dy,
                                                               const float* __restrict__ w, OutArray dx, float* carried, InArray gate, float scale) {
  using K = Kernel<Precision, T, WHOLE>;
  MINIALEX_DYNAMIC_SHARED(typename K::Shared, shared);
  const ConvDims& d = shape.dims;
  const int across = (d.Cg() + T::N - 1) / T::N, m = int(blockIdx.x) / across * T::M, n = int(blockIdx.x) % across * T::N, group = blockIdx.y;
  const int phases = d.stride * d.stride, slice = int(blockIdx.z) / phases;
  if (threadIdx.x == 0) shared.phase = Phase(d, int(blockIdx.z) % phases);
  __syncthreads();
  const Phase& phase = shared.phase;
  const int positions = d.N * phase.H * phase.W, maps = shape.maps_per_column(), depth = phase.R * phase.S * maps;
  if (m >= positions) return;                           // the first phases have more than others
  const bool cut = ranges.count > 0;
  const int range = cut ? slice % ranges.count : 0, begin = range * ranges.length, end = cut ? ranges.end(range, depth) : depth;
  const int from = cut ? slice / ranges.count : 0, to = cut ? from + 1 : d.Kg() / maps;
  typename K::Multiply product(shared.tiles);
  for (int part = from; part < to; ++part) {
    const int first_map = group * d.Kg() + part * maps;
    product.run(typename K::A(shape, phase, dy, first_map), typename K::B(shape, phase, w, first_map), m, n, begin, end);
    const typename K::Out out{dx + slice * d.x_size(), carried + slice * d.x_size(), nullptr, shape.Cx, int64_t(d.N) * d.H * d.W,
                              d.N * d.H * d.W, d.Cg(), group * d.Cg(), part == from, part + 1 == to, false, gate, scale};
    product.each(m, n, [&](int row, int column, float left, float right) {
      if (row >= positions) return;
      if (d.stride > 1) {
        int hw, w;
        const int image = phase.by_HW.divide(row, hw), h = phase.by_W.divide(hw, w);
        row = (image * d.H + phase.first_h + h * d.stride) * d.W + phase.first_w + w * d.stride;
      }
      out(row, column, left, right);
    });
  }
}

int64_t depth_of(const ConvDims& d) { return int64_t(d.R) * d.S * ConvShape::maps_of(d); }
int64_t positions_of(const ConvDims& d) { return d.N * ceil_div(d.H, d.stride) * ceil_div(d.W, d.stride); }     // of the largest phase
int parts_of(const ConvDims& d) { return d.Kg() / ConvShape::maps_of(d); }

template <class Precision, class T, bool WHOLE> void launch(const ConvDgrad& c, Stream stream) {
  using K = Kernel<Precision, T, WHOLE>;
  const ConvDims& d = c.dims;
  const bool stored_bf16 = c.dy.narrow();
  const int slices = slices_of(d, depth_of(d), parts_of(d));
  const Ranges ranges = slices ? ranges_of(d, depth_of(d)) : Ranges{0, int(depth_of(d))};
  const dim3 grid(narrow(ceil_div(positions_of(d), T::M) * ceil_div(d.Cg(), T::N), "the number of tiles"), d.groups,
                  d.stride * d.stride * (slices ? slices : 1));
  float* partial = static_cast<float*>(c.workspace);
  const OutArray dx = slices ? OutArray(partial) : c.dx;
  MINIALEX_LAUNCH((dgrad<Precision, T, WHOLE>), grid, dim3(T::THREADS), sizeof(typename K::Shared), stream, ConvShape(d), ranges,
                  c.dy.as<typename K::Number>(), c.w, dx, stored_bf16 ? partial : static_cast<float*>(dx), slices ? InArray() : c.gate, c.scale);
  if (slices) add_up_dgrad(c, partial, parts_of(d), ranges.count, stream);
}

}  // namespace

const char* refuses_dgrad(const ConvDims& d) {
  if (depth_of(d) > mma::LONGEST_SUM) return "the maps of a column have more than 32,768 taps, a chain of more than 4,096 additions";
  if (int64_t(d.stride) * d.stride * (slices_of(d, depth_of(d), parts_of(d)) + 1) > 65535) return "stride^2, a layer of blocks each, is above 65,535";
  return refuses_sizes(d);
}
bool large_dgrad(const ConvDims& d) {
  const int slices = slices_of(d, depth_of(d), parts_of(d));
  return large_pays(positions_of(d), d.Cg(), int64_t(d.groups) * d.stride * d.stride * (slices ? slices : 1));
}
size_t workspace_dgrad(const ConvDims& d) { return sizeof(float) * slices_of(d, depth_of(d), parts_of(d)) * d.x_size(); }
size_t workspace_dgrad_bf16(const ConvDims& d) { return sizeof(float) * carried_bf16(d, depth_of(d), parts_of(d)) * d.x_size(); }

template <class PRECISION, bool LARGE> void launch_dgrad(const ConvDgrad& c, Stream stream) {
  using T = std::conditional_t<LARGE, mma::Large, mma::Small>;
  const bool whole = ConvShape::maps_of(c.dims) % mma::whole_vector<typename PRECISION::Activation> == 0 && c.dims.Cg() % 4 == 0;
  if (whole) launch<PRECISION, T, true>(c, stream);
  else launch<PRECISION, T, false>(c, stream);
}
template void launch_dgrad<mma::TF32, true>(const ConvDgrad&, Stream);
template void launch_dgrad<mma::TF32, false>(const ConvDgrad&, Stream);
template void launch_dgrad<mma::BF16, true>(const ConvDgrad&, Stream);
template void launch_dgrad<mma::BF16, false>(const ConvDgrad&, Stream);
template void launch_dgrad<mma::BF16X3, true>(const ConvDgrad&, Stream);
template void launch_dgrad<mma::BF16X3, false>(const ConvDgrad&, Stream);
template void launch_dgrad<mma::BF16X6, true>(const ConvDgrad&, Stream);
template void launch_dgrad<mma::BF16X6, false>(const ConvDgrad&, Stream);

}  // namespace conv_mma
}  // namespace minialex
