// Forward convolution as a product of tiles: the rows of A are output pixels, the depth is the window, the columns of B are maps.
// Nothing is unfolded in memory: each thread knows its pixel and walks through the window.
//
// For a fixed filter row r the numbers a whole filter reads are one run of S * C floats in NHWC, clipped at the border to a part of
// that run; where a filter reads some channels of a pixel only, a run is one tap.  conv1 (C = 3) has 11 runs of 33.
//
//   variant        registers (sm_80, 90)  shared bytes  bytes from global memory / multiply-adds, of a slice
//   tiled_128x128  128, 120               16,896        8,192 / 131,072
//   tiled_64x64    79, 80                 17,408        8,192 / 65,536
#include <minialex/conv_variants.h>
#include <minialex/gemm_tile.h>
#include <minialex/kernel.h>

namespace minialex {
namespace {

struct Plan {
  int pixels, maps;                                    // rows and columns of the product: N P Q, and the maps of a group
  int Cx, Cg, Ky;                                      // of the dims, without the division
  int tap, taps, length;                               // a run is `taps` taps of a filter row, `tap` floats each
  int slices;                                          // of the depth, for one part
  bool x_vectors, w_vectors, y_vectors;
};

// A run takes a filter row at once where the filter reads whole pixels.  Sums in several chains go tap by tap instead: their cuts
// must not depend on how the layer is split into columns.
bool whole_rows(const ConvDims& d) { return d.Gx == 1 && d.groups == 1 && int64_t(d.R) * d.S * ceil_div(d.part(), 16) * 16 <= kChain; }

Plan plan_of(const ConvDims& d, int depth) {
  Plan plan;
  plan.pixels = narrow(int64_t(d.N) * d.P * d.Q, "the number of output pixels");
  plan.maps = d.Kg();
  plan.taps = whole_rows(d) ? d.S : 1;
  plan.Cx = d.Cx(), plan.Cg = d.Cg(), plan.Ky = d.Ky(), plan.tap = d.part();
  plan.length = plan.taps * plan.tap;
  plan.slices = narrow(int64_t(d.R) * (d.S / plan.taps) * ceil_div(plan.length, depth), "the number of slices");
  const int Cx = plan.Cx;
  const bool whole = whole_rows(d) && d.stride * Cx % 4 == 0 && d.before * Cx % 4 == 0 && d.W * Cx % 4 == 0;
  plan.x_vectors = (Cx % 4 == 0 && d.part() % 4 == 0) || whole;
  plan.w_vectors = d.Cg() % 4 == 0 && d.part() % 4 == 0;
  plan.y_vectors = d.Ky() % 4 == 0 && plan.maps % 4 == 0;
  return plan;
}

template <class Tile> struct Windows {
  using A = AlongDepth<Tile::M, Tile::K, Tile::THREADS>;
  using B = AlongDepth<Tile::N, Tile::K, Tile::THREADS>;
  const ConvDims& d;
  const Plan& plan;
  const float *x, *w;
  int r = 0, s = 0, k = 0;                             // where the slice begins: tap, and place within its run
  int top[A::VECTORS], left[A::VECTORS], corner[A::VECTORS];     // of the thread's pixels' windows: row, column, offset in x
  int low[A::VECTORS], high[A::VECTORS];               // what of the run lies within the image
  int row[B::VECTORS];                                 // offset in w of the thread's maps

  MINIALEX_DEVICE Windows(const ConvDims& d_, const Plan& plan_, const float* x_, const float* w_, int group, int part)
      : d(d_), plan(plan_), x(x_), w(w_) {
    const int column = group * plan.Cg / plan.Cx + part, channel = group * plan.Cg % plan.Cx;
    MINIALEX_UNROLL
    for (int v = 0; v < A::VECTORS; ++v) {
      const int pixel = min(int(blockIdx.x) * Tile::M + A::extent(v), plan.pixels - 1);
      top[v] = d.stride * (pixel / d.Q % d.P) - d.before;
      left[v] = d.stride * (pixel % d.Q) - d.before;
      corner[v] = (((column * d.N + pixel / d.Q / d.P) * d.H + top[v]) * d.W + left[v]) * plan.Cx + channel + A::depth(v);
    }
    MINIALEX_UNROLL
    for (int v = 0; v < B::VECTORS; ++v) {
      const int map = group * plan.maps + min(int(blockIdx.y) * Tile::N + B::extent(v), plan.maps - 1);
      row[v] = map * d.R * d.S * plan.Cg + part * plan.tap + B::depth(v);
    }
    enter();
  }
  // The run at (r, s).
  MINIALEX_DEVICE void enter() {
    MINIALEX_UNROLL
    for (int v = 0; v < A::VECTORS; ++v) {
      low[v] = max(0, -left[v] - s) * plan.tap - A::depth(v);
      high[v] = top[v] + r >= 0 && top[v] + r < d.H ? min(plan.taps, d.W - left[v] - s) * plan.tap - A::depth(v) : -A::depth(v);
    }
  }
  MINIALEX_DEVICE void next(float4 (&a)[A::VECTORS], float4 (&b)[B::VECTORS]) {
    const int a_step = (r * d.W + s) * plan.Cx + k, b_step = (r * d.S + s) * plan.Cg + k;
    MINIALEX_UNROLL
    for (int v = 0; v < A::VECTORS; ++v) a[v] = read4(x + (corner[v] + a_step), k, low[v], high[v], plan.x_vectors);
    MINIALEX_UNROLL
    for (int v = 0; v < B::VECTORS; ++v) b[v] = read4(w + (row[v] + b_step), k + B::depth(v), 0, plan.length, plan.w_vectors);
    k += Tile::K;
    if (k < plan.length) return;
    k = 0;
    s += plan.taps;
    if (s >= d.S) {
      s = 0;
      ++r;
    }
    enter();
  }
};

// y = P_0 of the first part, y + P_c of the later ones; the last one adds b.  LONG: a part's sum may take several chains.
template <class Tile, bool LONG, int BLOCKS>
__global__ void __launch_bounds__(Tile::THREADS, BLOCKS)
    conv_fprop_tiled(ConvDims d, Plan plan, int part, const float* __restrict__ x, const float* __restrict__ w,
                     const float* __restrict__ b, float* y, bool relu) {
  MINIALEX_SHARED(typename Tile::Shared, shared, );
  Windows<Tile> windows(d, plan, x, w, blockIdx.z, part);
  float sum[Tile::TM][Tile::TN];
  if (LONG) {
    multiply_in_chains<Tile>(shared, windows, plan.slices, sum);
  } else {
    clear<Tile>(sum);
    multiply<Tile>(shared, windows, plan.slices, sum);
  }
  hand_over<Tile>(shared, sum, plan.y_vectors, [&](int row, int column, const float* from) {
    const int pixel = int(blockIdx.x) * Tile::M + row, map = int(blockIdx.y) * Tile::N + column, k = int(blockIdx.z) * plan.maps + map;
    if (pixel >= plan.pixels || map >= plan.maps) return;
    float* to = y + ((int64_t(k / plan.Ky) * plan.pixels + pixel) * plan.Ky + k % plan.Ky);
    if (plan.y_vectors) {
      float4 value = load4(from);
      if (part) value = add4(load4(to), value);
      if (b) value = add4(value, load4(b + k));
      if (relu) value = make_float4(rectified(value.x), rectified(value.y), rectified(value.z), rectified(value.w));
      store4(to, value);
    } else {
      float value = part ? *to + *from : *from;
      if (b) value = value + b[k];
      *to = relu ? rectified(value) : value;
    }
  });
}

template <class Tile, bool LONG, int BLOCKS> void launch(const ConvFprop& c, Stream stream) {
  const Plan plan = plan_of(c.dims, Tile::K);
  const dim3 grid(ceil_div(plan.pixels, Tile::M), ceil_div(plan.maps, Tile::N), c.dims.groups);
  for (int part = 0; part < c.dims.parts(); ++part) {
    const bool last = part + 1 == c.dims.parts();
    MINIALEX_LAUNCH((conv_fprop_tiled<Tile, LONG, BLOCKS>), grid, dim3(Tile::THREADS), 0, stream, c.dims, plan, part, c.x, c.w,
                    last ? c.b : nullptr, c.y, last && c.relu);
  }
}

}  // namespace

void conv_fprop_tiled_128x128(const ConvFprop& c, Stream stream) { launch<Tile128x128, false, 2>(c, stream); }
void conv_fprop_tiled_64x64(const ConvFprop& c, Stream stream) { launch<Tile64x64, true, 3>(c, stream); }

}  // namespace minialex
