// The gradients of filters and biases as a product of tiles: the rows of A are maps, the columns of B are the numbers a filter has
// (tap, channel), the depth are the output pixels of all images.  The depth is cut into ranges of at most kChain pixels, a
// function of N, P and Q alone; each range has its partial gradients in the workspace, and a second kernel adds them in their order.
//
//   variant        registers (sm_80, 90)  shared bytes  bytes from global memory / multiply-adds, of a slice
//   tiled_128x128  123, 125               16,896        8,192 / 131,072
//   tiled_64x64    80, 80                 17,408        8,192 / 65,536
//   adding up      4 bytes read a weight and range, 4 written a weight
#include <minialex/conv_variants.h>
#include <minialex/kernel.h>
#include <minialex/sum_slices.h>

#include <algorithm>

namespace minialex {
namespace {

// Short enough that small layers make work for all multiprocessors, long enough that their partial gradients stay small.
int range_length(const ConvDims& d) {
  const int64_t pixels = int64_t(d.N) * d.P * d.Q, sixteenth = ceil_div(pixels, 16);
  return static_cast<int>(std::clamp<int64_t>(ceil_div(sixteenth, 16) * 16, 256, kChain));
}

struct Plan {
  int pixels, maps, inputs;                            // N P Q, the maps of a group, the numbers of a filter
  int Cx, Cg, Ky;                                      // of the dims, without the division
  int length, ranges;
  int64_t slice;                                       // numbers from one range's partial gradients to the next's: dw, then db
  bool dy_vectors, x_vectors, dw_vectors;
};

Plan plan_of(const ConvDims& d) {
  Plan plan;
  plan.pixels = narrow(int64_t(d.N) * d.P * d.Q, "the number of output pixels");
  plan.Cx = d.Cx(), plan.Cg = d.Cg(), plan.Ky = d.Ky();
  plan.maps = d.Kg(), plan.inputs = d.R * d.S * plan.Cg;
  plan.length = range_length(d);
  plan.ranges = static_cast<int>(ceil_div(plan.pixels, plan.length));
  plan.slice = weights_slice(d.w_size(), d.K);
  plan.dy_vectors = plan.Ky % 4 == 0 && plan.maps % 4 == 0;
  plan.x_vectors = plan.Cx % 4 == 0 && plan.Cg % 4 == 0;
  plan.dw_vectors = plan.inputs % 4 == 0;
  return plan;
}

// VECTORS: four neighbours of a row are four neighbours in memory.  Else each has a place of its own.
template <class Tile, bool VECTORS> struct Pixels {
  using A = AlongExtent<Tile::M, Tile::K, Tile::THREADS>;
  using B = AlongExtent<Tile::N, Tile::K, Tile::THREADS>;
  static_assert(Tile::M == Tile::N && A::VECTORS == 1 && B::VECTORS == 1, "a thread reads dy and x at the same pixel");
  static constexpr int PLACES = VECTORS ? 1 : 4;
  const ConvDims& d;
  const Plan& plan;
  const float *dy, *x;
  int pixel, stop, n, p, q;                            // the thread's pixel in this slice
  int map[PLACES], input[PLACES], r[PLACES], s[PLACES];       // offsets in dy of the maps, in x of the inputs; their taps
  int maps, inputs;                                    // from the thread's first on

  MINIALEX_DEVICE Pixels(const ConvDims& d_, const Plan& plan_, const float* dy_, const float* x_, int group, int range)
      : d(d_), plan(plan_), dy(dy_), x(x_) {
    const int start = range * plan.length;
    stop = min(start + plan.length, plan.pixels);
    pixel = start + A::depth(0);
    q = pixel % d.Q, p = pixel / d.Q % d.P, n = pixel / d.Q / d.P;
    maps = plan.maps - int(blockIdx.y) * Tile::M - A::extent(0);
    inputs = plan.inputs - int(blockIdx.x) * Tile::N - B::extent(0);
    MINIALEX_UNROLL
    for (int e = 0; e < PLACES; ++e) {
      const int k = group * plan.maps + min(plan.maps - maps + e, plan.maps - 1);
      const int i = min(plan.inputs - inputs + e, plan.inputs - 1), channel = group * plan.Cg + i % plan.Cg;
      map[e] = k / plan.Ky * plan.pixels * plan.Ky + k % plan.Ky;
      s[e] = i / plan.Cg % d.S, r[e] = i / plan.Cg / d.S;
      input[e] = channel / plan.Cx * d.N * d.H * d.W * plan.Cx + (r[e] * d.W + s[e]) * plan.Cx + channel % plan.Cx;
    }
  }
  MINIALEX_DEVICE bool inside(int e, int top, int left) const {
    return top + r[e] >= 0 && top + r[e] < d.H && left + s[e] >= 0 && left + s[e] < d.W;
  }
  MINIALEX_DEVICE void next(float4 (&a)[1], float4 (&b)[1]) {
    const int top = d.stride * p - d.before, left = d.stride * q - d.before;
    const int corner = ((n * d.H + top) * d.W + left) * plan.Cx, sent = pixel * plan.Ky;
    const bool here = pixel < stop;
    if (VECTORS) {
      a[0] = here && maps > 0 ? load4(dy + (sent + map[0])) : make_float4(0.f, 0.f, 0.f, 0.f);
      b[0] = here && inputs > 0 && inside(0, top, left) ? load4(x + (corner + input[0])) : make_float4(0.f, 0.f, 0.f, 0.f);
    } else {
      float left4[4], right4[4];
      MINIALEX_UNROLL
      for (int e = 0; e < PLACES; ++e) {
        left4[e] = here && e < maps ? dy[sent + map[e]] : 0.f;
        right4[e] = here && e < inputs && inside(e, top, left) ? x[corner + input[e]] : 0.f;
      }
      a[0] = make_float4(left4[0], left4[PLACES > 1 ? 1 : 0], left4[PLACES > 1 ? 2 : 0], left4[PLACES > 1 ? 3 : 0]);
      b[0] = make_float4(right4[0], right4[PLACES > 1 ? 1 : 0], right4[PLACES > 1 ? 2 : 0], right4[PLACES > 1 ? 3 : 0]);
    }
    pixel += Tile::K;
    q += Tile::K;
    while (q >= d.Q) {
      q -= d.Q;
      if (++p == d.P) {
        p = 0;
        ++n;
      }
    }
  }
};

// The bias gradients of a tile's maps over a range: 32 maps, and 8 rows of threads that share out the range's pixels; their sums are
// added in the order of the rows.
constexpr int LANES = 32, ROWS = 8;
using RowSums = float[ROWS][LANES];
template <class Tile>
MINIALEX_DEVICE void bias_gradients(const ConvDims& d, const Plan& plan, const float* dy, int group, int range, RowSums& sums, float* to) {
  static_assert(Tile::THREADS == LANES * ROWS && Tile::M % LANES == 0, "all threads of a block take part");
  const int lane = threadIdx.x % LANES, row = int(threadIdx.x) / LANES;
  const int stop = min((range + 1) * plan.length, plan.pixels);
  for (int first = int(blockIdx.y) * Tile::M; first < min((int(blockIdx.y) + 1) * Tile::M, plan.maps); first += LANES) {
    const int k = group * plan.maps + first + lane;
    const bool here = first + lane < plan.maps;
    float sum = 0.f;
    if (here) {
      const float* sent = dy + (int64_t(k / plan.Ky) * plan.pixels * plan.Ky + k % plan.Ky);
      for (int pixel = range * plan.length + row; pixel < stop; pixel += ROWS) sum = sum + sent[int64_t(pixel) * plan.Ky];
    }
    __syncthreads();                                   // the sums of the maps before have been added
    sums[row][lane] = sum;
    __syncthreads();
    if (row > 0 || !here) continue;
    for (int other = 1; other < ROWS; ++other) sum = sum + sums[other][lane];
    to[k] = sum;
  }
}

// blockIdx: x the numbers of a filter, behind the last of them the bias gradients; y the maps; z group * ranges + range.
template <class Tile, bool VECTORS, int BLOCKS>
__global__ void __launch_bounds__(Tile::THREADS, BLOCKS)
    conv_wgrad_tiled(ConvDims d, Plan plan, const float* __restrict__ x, const float* __restrict__ dy, float* __restrict__ partials) {
  union Shared {
    typename Tile::Shared tiles;
    RowSums sums;
  };
  MINIALEX_SHARED(Shared, shared, );
  const int group = int(blockIdx.z) / plan.ranges, range = int(blockIdx.z) % plan.ranges;
  if (blockIdx.x + 1 == gridDim.x) {
    bias_gradients<Tile>(d, plan, dy, group, range, shared.sums, partials + (range * plan.slice + d.w_size()));
    return;
  }
  Pixels<Tile, VECTORS> pixels(d, plan, dy, x, group, range);
  float sum[Tile::TM][Tile::TN];
  clear<Tile>(sum);
  multiply<Tile>(shared.tiles, pixels, (pixels.stop - range * plan.length + Tile::K - 1) / Tile::K, sum);
  hand_over<Tile>(shared.tiles, sum, plan.dw_vectors, [&](int row, int column, const float* from) {
    const int map = int(blockIdx.y) * Tile::M + row, input = int(blockIdx.x) * Tile::N + column;
    if (map >= plan.maps || input >= plan.inputs) return;
    const int block = int(blockIdx.z) / plan.ranges * plan.maps + map;
    float* to = partials + (int(blockIdx.z) % plan.ranges * plan.slice + int64_t(block) * plan.inputs + input);
    if (plan.dw_vectors) store4(to, load4(from));
    else *to = *from;
  });
}

template <class Tile, bool VECTORS, int BLOCKS> void launch(const ConvWgrad& c, Stream stream) {
  const ConvDims& d = c.dims;
  const Plan plan = plan_of(d);
  float* partials = static_cast<float*>(c.workspace);
  const int products = narrow(int64_t(d.groups) * plan.ranges, "groups times ranges");
  const dim3 grid(ceil_div(plan.inputs, Tile::N) + 1, ceil_div(plan.maps, Tile::M), products);
  MINIALEX_LAUNCH((conv_wgrad_tiled<Tile, VECTORS, BLOCKS>), grid, dim3(Tile::THREADS), 0, stream, d, plan, c.x, c.dy, partials);
  add_up({partials, 1, plan.ranges, d.w_size() + d.K, plan.slice}, WeightsOut{c.dw, c.db, d.w_size(), c.accumulate}, stream);
}

}  // namespace

int64_t conv_wgrad_ranges(const ConvDims& d) { return ceil_div(int64_t(d.N) * d.P * d.Q, range_length(d)); }
size_t conv_wgrad_tiled_workspace(const ConvDims& d) { return conv_wgrad_ranges(d) * weights_slice(d.w_size(), d.K) * sizeof(float); }
void conv_wgrad_tiled_128x128(const ConvWgrad& c, Stream stream) { launch<Tile128x128, true, 2>(c, stream); }
void conv_wgrad_tiled_64x64(const ConvWgrad& c, Stream stream) {
  const Plan plan = plan_of(c.dims);
  if (plan.dy_vectors && plan.x_vectors) launch<Tile64x64, true, 3>(c, stream);
  else launch<Tile64x64, false, 3>(c, stream);
}

}  // namespace minialex
