// Convolution on tensor cores, forward: rows are output positions, columns the maps of a group, the depth is (r, s, c) of a part.
//
//   row          tile        threads   registers, at most (sm_80 / 90 / 100)   shared bytes
//   tf32         128 x 128   256       176 / 190 / 186                           113,664
//   tf32_64x64   64 x 64     128       124 / 128 / 141                            56,832
//   bf16         128 x 128   256       178 / 194 / 222                            44,032
//   bf16_64x64   64 x 64     128       138 / 152 / 158                            22,016
//   bf16x3       128 x 128   256       229 / 235 / 244                           113,664
//   bf16x3_64x64 64 x 64     128       155 / 160 / 166                            56,832
//   bf16x6       128 x 128   256       244 / 251 / 254                           113,664
//   bf16x6_64x64 64 x 64     128       166 / 167 / 168                            56,832
#include <minialex/conv_mma_shape.h>
#include <minialex/kernel.h>
#include <minialex/ops.h>

namespace minialex {
namespace conv_mma {
namespace {

// A: what the window at an output position sees.
template <class Number_, bool WHOLE> struct Windows {
  using Number = Number_;
  static constexpr bool DEPTH_MAJOR = true;
  static constexpr int VECTOR = WHOLE ? mma::whole_vector<Number> : 1;
  struct alignas(16) Place { int64_t offset; int h, w; };           // of the window's corner, which may lie outside
  struct Tap { int offset, r, s; };

  const ConvShape& shape;
  const Number* x;                                      // at the part's first channel
  MINIALEX_DEVICE Windows(const ConvShape& shape, const Number* x, int group, int part) : shape(shape) {
    const ConvDims& d = shape.dims;
    int c;
    const int column = shape.Cx.divide(group * d.Cg(), c) + part;
    this->x = x + int64_t(column) * d.N * d.H * d.W * d.Cx() + c;
  }
  MINIALEX_DEVICE Place place(int m) const {
    const ConvDims& d = shape.dims;
    if (m >= d.N * d.P * d.Q) return {0, NOWHERE, 0};
    int pq, q;
    const int n = shape.PQ.divide(m, pq), p = shape.Q.divide(pq, q), h = p * d.stride - d.before, w = q * d.stride - d.before;
    return {((int64_t(n) * d.H + h) * d.W + w) * d.Cx(), h, w};
  }
  MINIALEX_DEVICE Tap tap(int k) const {
    const ConvDims& d = shape.dims;
    int c, s;
    const int r = shape.S.divide(shape.part.divide(k, c), s);
    if (r >= d.R) return {0, NOWHERE, 0};
    return {(r * d.W + s) * d.Cx() + c, r, s};
  }
  MINIALEX_DEVICE const Number* at(const Place& place, const Tap& tap, bool& valid) const {
    valid = unsigned(place.h + tap.r) < unsigned(shape.dims.H) && unsigned(place.w + tap.s) < unsigned(shape.dims.W);
    return valid ? x + place.offset + tap.offset : x;
  }
};

// B: the filters, a map a column.
template <bool WHOLE> struct Filters {
  using Number = float;
  static constexpr bool DEPTH_MAJOR = true;
  static constexpr int VECTOR = WHOLE ? 4 : 1;
  struct Place { int64_t offset; };                     // -1: no map
  struct Tap { int offset; };                           // -1: no tap

  const ConvShape& shape;
  const float* w;
  MINIALEX_DEVICE Filters(const ConvShape& shape, const float* w, int group, int part) : shape(shape) {
    const ConvDims& d = shape.dims;
    this->w = w + int64_t(group) * d.Kg() * d.R * d.S * d.Cg() + part * d.part();
  }
  MINIALEX_DEVICE Place place(int n) const { return {n < shape.dims.Kg() ? int64_t(n) * shape.dims.R * shape.dims.S * shape.dims.Cg() : -1}; }
  MINIALEX_DEVICE Tap tap(int k) const {
    int c;
    const int tap = shape.part.divide(k, c);
    return {tap < shape.dims.R * shape.dims.S ? tap * shape.dims.Cg() + c : -1};
  }
  MINIALEX_DEVICE const float* at(const Place& place, const Tap& tap, bool& valid) const {
    valid = place.offset >= 0 && tap.offset >= 0;
    return valid ? w + place.offset + tap.offset : w;
  }
};

template <class Precision, class T, bool WHOLE>
using Kernel = TileKernel<Precision, T, Windows<typename Precision::Activation, WHOLE>, Filters<WHOLE>>;

// Block x: a tile, those of one row of tiles side by side; y: a group; z: a range of a part's depth, where the sum is cut.
template <class Precision, class T, bool WHOLE>
__global__ void __launch_bounds__(T::THREADS, T::BLOCKS) fprop(ConvShape shape, Ranges ranges, const typename Precision::Activation* __restrict__ x,
                                                               const float* __restrict__ w, const float* __restrict__ b, OutArray y, float* carried,
                                                               bool relu) {
  using K = Kernel<Precision, T, WHOLE>;
  MINIALEX_DYNAMIC_SHARED(typename K::Multiply::Shared, shared);
  const ConvDims& d = shape.dims;
  const int across = (d.Kg() + T::N - 1) / T::N, m = int(blockIdx.x) / across * T::M, n = int(blockIdx.x) % across * T::N, group = blockIdx.y;
  const int depth = d.R * d.S * d.part();
  const bool cut = ranges.count > 0;
  const int range = cut ? int(blockIdx.z) % ranges.count : 0, begin = range * ranges.length, end = ranges.end(range, depth);
  const int from = cut ? int(blockIdx.z) / ranges.count : 0, to = cut ? from + 1 : d.parts();
  const int64_t slice = blockIdx.z * d.y_size();
  typename K::Multiply product(shared);
  for (int part = from; part < to; ++part) {
    product.run(typename K::A(shape, x, group, part), typename K::B(shape, w, group, part), m, n, begin, end);
    product.each(m, n, typename K::Out{y + slice, carried + slice, b, shape.Ky, int64_t(d.N) * d.P * d.Q, d.N * d.P * d.Q, d.Kg(), group * d.Kg(),
                                       part == from, part + 1 == to, relu, {}, 1.f});
  }
}

int64_t depth_of(const ConvDims& d) { return int64_t(d.R) * d.S * d.part(); }

template <class Precision, class T, bool WHOLE> void launch(const ConvFprop& c, Stream stream) {
  using K = Kernel<Precision, T, WHOLE>;
  const ConvDims& d = c.dims;
  const bool stored_bf16 = c.x.narrow();
  const int slices = slices_of(d, depth_of(d), d.parts(), !(stored_bf16 && c.dropout.columns));
  const Ranges ranges = slices ? ranges_of(d, depth_of(d)) : Ranges{0, int(depth_of(d))};
  const dim3 grid(narrow(ceil_div(int64_t(d.N) * d.P * d.Q, T::M) * ceil_div(d.Kg(), T::N), "the number of tiles"), d.groups, slices ? slices : 1);
  float* partial = static_cast<float*>(c.workspace);
  const OutArray y = slices ? OutArray(partial) : c.y;
  MINIALEX_LAUNCH((fprop<Precision, T, WHOLE>), grid, dim3(T::THREADS), sizeof(typename K::Multiply::Shared), stream, ConvShape(d), ranges,
                  c.x.as<typename K::Number>(), c.w, slices ? nullptr : c.b, y, stored_bf16 ? partial : static_cast<float*>(y), c.relu && !slices);
  if (slices) add_up_fprop(c, partial, d.parts(), ranges.count, c.b, c.relu, stream);
  else if (c.dropout.columns) add_up_fprop(c, c.y.at, 1, 1, nullptr, false, stream);
}

}  // namespace

const char* refuses_fprop(const ConvDims& d) {
  if (depth_of(d) > mma::LONGEST_SUM) return "a filter reads more than 32,768 numbers of a column, a chain of more than 4,096 additions";
  return refuses_sizes(d);
}
bool large_fprop(const ConvDims& d) {
  const int slices = slices_of(d, depth_of(d), d.parts());
  return large_pays(int64_t(d.N) * d.P * d.Q, d.Kg(), int64_t(d.groups) * (slices ? slices : 1));
}
size_t workspace_fprop(const ConvDims& d) { return sizeof(float) * slices_of(d, depth_of(d), d.parts()) * d.y_size(); }
size_t workspace_fprop_bf16(const ConvDims& d) { return sizeof(float) * carried_bf16(d, depth_of(d), d.parts()) * d.y_size(); }

template <class PRECISION, bool LARGE> void launch_fprop(const ConvFprop& c, Stream stream) {
  using T = std::conditional_t<LARGE, mma::Large, mma::Small>;
  if (c.dims.part() % mma::whole_vector<typename PRECISION::Activation> == 0) launch<PRECISION, T, true>(c, stream);
  else launch<PRECISION, T, false>(c, stream);
}
template void launch_fprop<mma::TF32, true>(const ConvFprop&, Stream);
template void launch_fprop<mma::TF32, false>(const ConvFprop&, Stream);
template void launch_fprop<mma::BF16, true>(const ConvFprop&, Stream);
template void launch_fprop<mma::BF16, false>(const ConvFprop&, Stream);
template void launch_fprop<mma::BF16X3, true>(const ConvFprop&, Stream);
template void launch_fprop<mma::BF16X3, false>(const ConvFprop&, Stream);
template void launch_fprop<mma::BF16X6, true>(const ConvFprop&, Stream);
template void launch_fprop<mma::BF16X6, false>(const ConvFprop&, Stream);

}  // namespace conv_mma
}  // namespace minialex
