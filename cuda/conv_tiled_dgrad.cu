// The gradient of the input as a product of tiles: the rows of A are pixels of x, the depth is (tap, map), the columns of B are
// channels.  Each pixel gathers from the windows that cover it, so nothing is added from two sides.  At stride 1 every tap of an
// inner pixel counts; at stride t one in t * t, the others are zeros that are multiplied (AlexNet's only such layer is its first).
//
//   variant        registers (sm_80, 90)  shared bytes  bytes from global memory / multiply-adds, of a slice
//   tiled_128x128  128, 119               16,896        8,192 / 131,072
//   tiled_64x64    80, 79                 17,408        8,192 / 65,536
#include <minialex/conv_variants.h>
#include <minialex/gemm_tile.h>
#include <minialex/kernel.h>

namespace minialex {
namespace {

struct Plan {
  int pixels, channels;                                // rows and columns of the product: N H W, and the channels of a group
  int Cx, Cg, Ky;                                      // of the dims, without the division
  int maps;                                            // of a group within one column of y: a tap has so many floats
  int parts;                                           // columns of y that a channel's gradient comes from
  int slices;                                          // of the depth, for one part
  bool dy_vectors, w_vectors, dx_vectors;
};

Plan plan_of(const ConvDims& d, int depth) {
  Plan plan;
  plan.pixels = narrow(int64_t(d.N) * d.H * d.W, "the number of pixels");
  plan.Cx = d.Cx(), plan.Cg = d.Cg(), plan.Ky = d.Ky();
  plan.channels = plan.Cg;
  plan.maps = d.Kg() < plan.Ky ? d.Kg() : plan.Ky;
  plan.parts = d.Kg() / plan.maps;
  plan.slices = narrow(int64_t(d.R) * d.S * ceil_div(plan.maps, depth), "the number of slices");
  plan.dy_vectors = plan.Ky % 4 == 0 && plan.maps % 4 == 0;
  plan.w_vectors = plan.Cg % 4 == 0;
  plan.dx_vectors = plan.Cx % 4 == 0 && plan.Cg % 4 == 0;
  return plan;
}

// The window position p that has tap r at row h, if there is one: stride p = h + before - r.
template <bool ANY> MINIALEX_DEVICE int position(int from, int stride, int positions) {
  if (from < 0) return -1;
  const int p = ANY ? from / stride : from;
  if (!ANY) stride = 1;
  return p * stride == from && p < positions ? p : -1;
}

template <class Tile, bool ANY> struct Senders {
  using A = AlongDepth<Tile::M, Tile::K, Tile::THREADS>;
  using B = AlongExtent<Tile::N, Tile::K, Tile::THREADS>;
  const ConvDims& d;
  const Plan& plan;
  const float *dy, *w;
  int r = 0, s = 0, k = 0;                             // where the slice begins: tap, and map within the part
  int top[A::VECTORS], left[A::VECTORS], image[A::VECTORS];      // of the thread's pixels: h + before, w + before, offset in dy
  int sender[A::VECTORS];                              // offset in dy of the position that has tap (r, s) here, or -1
  int row[B::VECTORS], channels;                       // offset in w of the thread's first map; channels from there on

  MINIALEX_DEVICE Senders(const ConvDims& d_, const Plan& plan_, const float* dy_, const float* w_, int group, int part)
      : d(d_), plan(plan_), dy(dy_), w(w_) {
    const int first = group * (plan.maps * plan.parts) + part * plan.maps;         // map of all K
    MINIALEX_UNROLL
    for (int v = 0; v < A::VECTORS; ++v) {
      const int pixel = min(int(blockIdx.x) * Tile::M + A::extent(v), plan.pixels - 1);
      top[v] = pixel / d.W % d.H + d.before;
      left[v] = pixel % d.W + d.before;
      image[v] = (first / plan.Ky * d.N + pixel / d.W / d.H) * d.P * d.Q * plan.Ky + first % plan.Ky + A::depth(v);
    }
    const int channel = int(blockIdx.y) * Tile::N + B::extent(0);
    channels = plan.channels - channel;
    MINIALEX_UNROLL
    for (int v = 0; v < B::VECTORS; ++v) row[v] = (first + B::depth(v)) * d.R * d.S * plan.Cg + channel;
    enter();
  }
  // The tap (r, s).
  MINIALEX_DEVICE void enter() {
    MINIALEX_UNROLL
    for (int v = 0; v < A::VECTORS; ++v) {
      const int p = position<ANY>(top[v] - r, d.stride, d.P), q = position<ANY>(left[v] - s, d.stride, d.Q);
      sender[v] = p < 0 || q < 0 ? -1 : image[v] + (p * d.Q + q) * plan.Ky;
    }
  }
  MINIALEX_DEVICE void next(float4 (&a)[A::VECTORS], float4 (&b)[B::VECTORS]) {
    const int w_step = ((k * d.R + r) * d.S + s) * plan.Cg;
    MINIALEX_UNROLL
    for (int v = 0; v < A::VECTORS; ++v)
      a[v] = read4(dy + (sender[v] + k), k + A::depth(v), 0, sender[v] < 0 ? 0 : plan.maps, plan.dy_vectors);
    MINIALEX_UNROLL
    for (int v = 0; v < B::VECTORS; ++v)
      b[v] = read4(w + (row[v] + w_step), 0, 0, k + B::depth(v) < plan.maps ? channels : 0, plan.w_vectors);
    k += Tile::K;
    if (k < plan.maps) return;
    k = 0;
    if (++s == d.S) {
      s = 0;
      ++r;
    }
    enter();
  }
};

// dx = D_0 of the first part, dx + D_g of the later ones.  ANY stride and any length of a part's sum; else stride 1 and one chain.
template <class Tile, bool ANY, int BLOCKS>
__global__ void __launch_bounds__(Tile::THREADS, BLOCKS)
    conv_dgrad_tiled(ConvDims d, Plan plan, int part, const float* __restrict__ dy, const float* __restrict__ w, float* dx,
                     const float* __restrict__ gate, float scale) {
  MINIALEX_SHARED(typename Tile::Shared, shared, );
  Senders<Tile, ANY> senders(d, plan, dy, w, blockIdx.z, part);
  float sum[Tile::TM][Tile::TN];
  if (ANY) {
    multiply_in_chains<Tile>(shared, senders, plan.slices, sum);
  } else {
    clear<Tile>(sum);
    multiply<Tile>(shared, senders, plan.slices, sum);
  }
  hand_over<Tile>(shared, sum, plan.dx_vectors, [&](int row, int column, const float* from) {
    const int pixel = int(blockIdx.x) * Tile::M + row, channel = int(blockIdx.y) * Tile::N + column;
    const int c = int(blockIdx.z) * plan.channels + channel;
    if (pixel >= plan.pixels || channel >= plan.channels) return;
    const int64_t place = (int64_t(c / plan.Cx) * plan.pixels + pixel) * plan.Cx + c % plan.Cx;
    float* to = dx + place;
    const bool last = part + 1 == plan.parts && gate;
    if (plan.dx_vectors) {
      const float4 four = part ? add4(load4(to), load4(from)) : load4(from);
      store4(to, last ? gated4(load4(gate + place), scale, four) : four);
    } else {
      const float value = part ? *to + *from : *from;
      *to = last ? gated(gate[place], scale, value) : value;
    }
  });
}

template <class Tile, bool ANY, int BLOCKS> void launch(const ConvDgrad& c, Stream stream) {
  const Plan plan = plan_of(c.dims, Tile::K);
  const dim3 grid(ceil_div(plan.pixels, Tile::M), ceil_div(plan.channels, Tile::N), c.dims.groups);
  for (int part = 0; part < plan.parts; ++part)
    MINIALEX_LAUNCH((conv_dgrad_tiled<Tile, ANY, BLOCKS>), grid, dim3(Tile::THREADS), 0, stream, c.dims, plan, part, c.dy, c.w, c.dx, c.gate,
                    c.scale);
}

}  // namespace

void conv_dgrad_tiled_128x128(const ConvDgrad& c, Stream stream) { launch<Tile128x128, false, 2>(c, stream); }
void conv_dgrad_tiled_64x64(const ConvDgrad& c, Stream stream) { launch<Tile64x64, true, 3>(c, stream); }

}  // namespace minialex
