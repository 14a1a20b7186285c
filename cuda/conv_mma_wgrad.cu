// Convolution on tensor cores, gradients of filters and biases: rows are the maps of a group, columns (r, s, c) of a filter, the
// depth is all output positions.  It is cut into ranges by the number of positions alone; each range of a tile is a block,
// whose slice of dw and db waits in the workspace until sum_slices adds the ranges in their order.  A single range writes both itself.
//
//   row          tile        threads   registers, at most (sm_80 / 90 / 100)   shared bytes
//   tf32         128 x 128   256       146 / 158 / 148                           104,480
//   tf32_64x64   64 x 64     128       116 / 124 / 112                            55,328
//   bf16         128 x 128   256       171 / 183 / 188                            52,256
//   bf16_64x64   64 x 64     128       127 / 135 / 137                            27,680
//   bf16x3       128 x 128   256       184 / 182 / 197                           104,480
//   bf16x3_64x64 64 x 64     128       130 / 132 / 127                            55,328
//   bf16x6       128 x 128   256       196 / 194 / 212                           104,480
//   bf16x6_64x64 64 x 64     128       147 / 150 / 142                            55,328
#include <minialex/conv_mma_shape.h>
#include <minialex/kernel.h>
#include <minialex/ops.h>

namespace minialex {
namespace conv_mma {
namespace {

// A: dy, a map a row.
template <class Number_, bool WHOLE> struct Gradients {
  using Number = Number_;
  static constexpr bool DEPTH_MAJOR = false;
  static constexpr int VECTOR = WHOLE ? mma::whole_vector<Number> : 1;
  struct Place { int64_t offset; };                     // -1: no map
  struct Tap { int position; };

  const ConvShape& shape;
  const Number* dy;
  int first_map;
  MINIALEX_DEVICE Gradients(const ConvShape& shape, const Number* dy, int group) : shape(shape), dy(dy), first_map(group * shape.dims.Kg()) {}
  MINIALEX_DEVICE Place place(int m) const {
    const ConvDims& d = shape.dims;
    if (m >= d.Kg()) return {-1};
    int k;
    const int column = shape.Ky.divide(first_map + m, k);
    return {int64_t(column) * d.N * d.P * d.Q * d.Ky() + k};
  }
  MINIALEX_DEVICE Tap tap(int k) const { return {k}; }
  MINIALEX_DEVICE const Number* at(const Place& place, const Tap& tap, bool& valid) const {
    const ConvDims& d = shape.dims;
    valid = place.offset >= 0 && tap.position < d.N * d.P * d.Q;
    return valid ? dy + place.offset + int64_t(tap.position) * d.Ky() : dy;
  }
};

// B: what number (r, s, c) of a filter sees at each output position.
template <class Number_, bool WHOLE> struct Seen {
  using Number = Number_;
  static constexpr bool DEPTH_MAJOR = false;
  static constexpr int VECTOR = WHOLE ? mma::whole_vector<Number> : 1;
  struct Place { int64_t offset; int r, s; };
  struct Tap { int64_t offset; int h, w; };             // of the window's corner

  const ConvShape& shape;
  const Number* x;
  int first_channel;
  MINIALEX_DEVICE Seen(const ConvShape& shape, const Number* x, int group) : shape(shape), x(x), first_channel(group * shape.dims.Cg()) {}
  MINIALEX_DEVICE Place place(int n) const {
    const ConvDims& d = shape.dims;
    int c, s;
    const int r = shape.S.divide(shape.Cg.divide(n, c), s);
    if (r >= d.R) return {0, NOWHERE, 0};
    const int column = shape.Cx.divide(first_channel + c, c);
    return {int64_t(column) * d.N * d.H * d.W * d.Cx() + int64_t(r * d.W + s) * d.Cx() + c, r, s};
  }
  MINIALEX_DEVICE Tap tap(int k) const {
    const ConvDims& d = shape.dims;
    if (k >= d.N * d.P * d.Q) return {0, NOWHERE, 0};
    int pq, q;
    const int n = shape.PQ.divide(k, pq), p = shape.Q.divide(pq, q), h = p * d.stride - d.before, w = q * d.stride - d.before;
    return {((int64_t(n) * d.H + h) * d.W + w) * d.Cx(), h, w};
  }
  MINIALEX_DEVICE const Number* at(const Place& place, const Tap& tap, bool& valid) const {
    valid = unsigned(place.r + tap.h) < unsigned(shape.dims.H) && unsigned(place.s + tap.w) < unsigned(shape.dims.W);
    return valid ? x + place.offset + tap.offset : x;
  }
};

struct FilterOut {
  float* to;                                            // at the group's first map
  int M, N;
  bool accumulate;

  MINIALEX_DEVICE void operator()(int m, int n, float left, float right) const {
    if (m >= M || n >= N) return;
    float* at = to + int64_t(m) * N + n;
    if (N % 2 == 0) {                                   // then n + 1 is there too, and the pair is aligned
      float2* pair = reinterpret_cast<float2*>(at);
      *pair = accumulate ? make_float2(pair->x + left, pair->y + right) : make_float2(left, right);
      return;
    }
    at[0] = accumulate ? at[0] + left : left;
    if (n + 1 < N) at[1] = accumulate ? at[1] + right : right;
  }
};

// The bias gradients of a tile's maps, from the numbers of dy on their way to the product, not yet rounded: number k of a range goes to
// chain k % CHAINS of its map, whatever the tile, and the chains are added in order.
template <class Copy, int M> struct BiasGradients {
  static constexpr int CHAINS = Copy::DOWN > 8 ? Copy::DOWN : 8;        // 16 of bfloat16 in whole vectors
  static constexpr int EACH = CHAINS / Copy::DOWN;      // chains of a thread
  static_assert(EACH * Copy::DOWN == CHAINS && Copy::COUNT % EACH == 0, "a thread's chains are the same in each step");
  using Shared = float[CHAINS][M];
  float sum[EACH][Copy::VECTOR] = {};

  MINIALEX_DEVICE void add(const Copy& copy, int stage) {
    copy.each_number(stage, [&](int i, int v, float number) { sum[i % EACH][v] = sum[i % EACH][v] + number; });
  }
  MINIALEX_DEVICE void store(Shared& chains, float* to, int maps, bool accumulate) const {
    MINIALEX_UNROLL for (int e = 0; e < EACH; ++e)
      MINIALEX_UNROLL for (int v = 0; v < Copy::VECTOR; ++v)
        chains[int(threadIdx.x) / Copy::ACROSS + e * Copy::DOWN][int(threadIdx.x) % Copy::ACROSS * Copy::VECTOR + v] = sum[e][v];
    __syncthreads();
    const int map = threadIdx.x;
    if (map >= M || map >= maps) return;
    float total = chains[0][map];
    for (int chain = 1; chain < CHAINS; ++chain) total = total + chains[chain][map];
    to[map] = accumulate ? to[map] + total : total;
  }
};

template <class Precision, class T, bool WHOLE_DY, bool WHOLE_X> struct Kernel {
  using Number = typename Precision::Activation;
  using A = Gradients<Number, WHOLE_DY>;
  using B = Seen<Number, WHOLE_X>;
  using Multiply = mma::Product<Precision, T, A, B>;
  using Biases = BiasGradients<typename Multiply::CopyA, T::M>;
  union Shared {
    typename Multiply::Shared tiles;
    typename Biases::Shared chains;
  };
};

// Block x: a tile, y: a group, z: a range of positions, whose slices lie `slice` numbers apart.  The first tile of a map has its db.
template <class Precision, class T, bool WHOLE_DY, bool WHOLE_X>
__global__ void __launch_bounds__(T::THREADS, T::BLOCKS) wgrad(ConvShape shape, Ranges ranges, const typename Precision::Activation* __restrict__ x,
                                                               const typename Precision::Activation* __restrict__ dy, float* __restrict__ dw,
                                                               float* __restrict__ db, int64_t slice, bool accumulate) {
  using K = Kernel<Precision, T, WHOLE_DY, WHOLE_X>;
  MINIALEX_DYNAMIC_SHARED(typename K::Shared, shared);
  const ConvDims& d = shape.dims;
  const int width = d.R * d.S * d.Cg(), across = (width + T::N - 1) / T::N, group = blockIdx.y, range = blockIdx.z;
  const int m = int(blockIdx.x) / across * T::M, n = int(blockIdx.x) % across * T::N;
  typename K::Multiply product(shared.tiles);
  typename K::Biases biases;
  product.run(typename K::A(shape, dy, group), typename K::B(shape, x, group), m, n, range * ranges.length, ranges.end(range, d.N * d.P * d.Q),
              [&](const typename K::Multiply::CopyA& copy, int stage) { if (n == 0) biases.add(copy, stage); });
  product.each(m, n, FilterOut{dw + range * slice + int64_t(group) * d.Kg() * width, d.Kg(), width, accumulate});
  if (n > 0) return;
  __syncthreads();                                      // the tiles have been multiplied
  biases.store(shared.chains, db + range * slice + group * d.Kg() + m, d.Kg() - m, accumulate);
}

// About 4,096 positions a range, so that AlexNet's few tiles fill a device; at most 128 ranges, since each writes a slice of dw, unless
// chains grew too long.
Ranges ranges_of_positions(const ConvDims& d) {
  const int64_t positions = int64_t(d.N) * d.P * d.Q, ranges = ceil_div(positions, 4096), needed = ceil_div(positions, mma::LONGEST_SUM / 2);
  return cut(positions, ranges < 128 ? ranges : needed > 128 ? needed : 128);
}

template <class Precision, class T, bool WHOLE_DY, bool WHOLE_X> void launch(const ConvWgrad& c, Stream stream) {
  const ConvDims& d = c.dims;
  const Ranges ranges = ranges_of_positions(d);
  const int64_t width = int64_t(d.R) * d.S * d.Cg(), slice = weights_slice(d.w_size(), d.K);
  const bool single = ranges.count == 1;
  float* dw = single ? c.dw : static_cast<float*>(c.workspace);
  float* db = single ? c.db : dw + d.w_size();
  const dim3 grid(narrow(ceil_div(d.Kg(), T::M) * ceil_div(width, T::N), "the number of tiles"), d.groups, ranges.count);
  using K = Kernel<Precision, T, WHOLE_DY, WHOLE_X>;
  using Number = typename K::Number;
  MINIALEX_LAUNCH((wgrad<Precision, T, WHOLE_DY, WHOLE_X>), grid, dim3(T::THREADS), sizeof(typename K::Shared), stream, ConvShape(d), ranges,
                  c.x.as<Number>(), c.dy.as<Number>(), dw, db, slice, single && c.accumulate);
  if (!single) add_up({dw, 1, ranges.count, d.w_size() + d.K, slice}, WeightsOut{c.dw, c.db, d.w_size(), c.accumulate}, stream);
}

}  // namespace

const char* refuses_wgrad(const ConvDims& d) { return refuses_sizes(d); }
bool large_wgrad(const ConvDims& d) { return large_pays(d.Kg(), int64_t(d.R) * d.S * d.Cg(), int64_t(d.groups) * ranges_of_positions(d).count); }
size_t workspace_wgrad(const ConvDims& d) {
  const int count = ranges_of_positions(d).count;
  return count == 1 ? 0 : sizeof(float) * count * weights_slice(d.w_size(), d.K);
}

template <class PRECISION, bool LARGE> void launch_wgrad(const ConvWgrad& c, Stream stream) {
  using T = std::conditional_t<LARGE, mma::Large, mma::Small>;
  constexpr int VECTOR = mma::whole_vector<typename PRECISION::Activation>;
  const bool whole_dy = c.dims.Kg() % VECTOR == 0 && c.dims.Ky() % VECTOR == 0, whole_x = c.dims.part() % VECTOR == 0;
  if (whole_dy && whole_x) return launch<PRECISION, T, true, true>(c, stream);
  if constexpr (VECTOR == 4) {                          // of float32: the first layer, whose pixels have three numbers
    if (whole_dy) return launch<PRECISION, T, true, false>(c, stream);
  }
  launch<PRECISION, T, false, false>(c, stream);
}
template void launch_wgrad<mma::TF32, true>(const ConvWgrad&, Stream);
template void launch_wgrad<mma::TF32, false>(const ConvWgrad&, Stream);
template void launch_wgrad<mma::BF16, true>(const ConvWgrad&, Stream);
template void launch_wgrad<mma::BF16, false>(const ConvWgrad&, Stream);
template void launch_wgrad<mma::BF16X3, true>(const ConvWgrad&, Stream);
template void launch_wgrad<mma::BF16X3, false>(const ConvWgrad&, Stream);
template void launch_wgrad<mma::BF16X6, true>(const ConvWgrad&, Stream);
template void launch_wgrad<mma::BF16X6, false>(const ConvWgrad&, Stream);

}  // namespace conv_mma
}  // namespace minialex
