// Response normalisation across channels with the max-pool behind it, in one trip: x is read once, the normalised values live in shared
// memory only.  Same bits as cuda/lrn.cu followed by cuda/maxpool.cu, with which it shares norm.h and pool.h: what lrn would have stored
// is rounded so.
//
//   tiled    a block has some rows of one image; normalised rows go through a ring as many rows long as a window, 4 channels a thread
//   direct   1 element a thread, which normalises again whatever it looks at; any shape
#include <minialex/kernel.h>
#include <minialex/norm.h>
#include <minialex/ops.h>
#include <minialex/pool.h>

namespace minialex {
namespace {

constexpr int THREADS = 256, DIRECT_THREADS = 128;
constexpr int MOST_SHARED = 95 * 1024;                 // two blocks share an SM; 4 KiB are left for what bprop has besides

// ---- direct: each block has one row of y (fprop) or of x (bprop) of one image.
template <bool PAPER>
__global__ void __launch_bounds__(DIRECT_THREADS)
    lrn_maxpool_fprop_direct(InArray x, OutArray y, PoolDims d, int radius, NormConstants n) {
  const int image = blockIdx.x / d.P, p = blockIdx.x % d.P;
  x += int64_t(image) * d.H * d.W * d.C;
  y += int64_t(blockIdx.x) * d.Q * d.C;
  for (int64_t i = threadIdx.x; i < int64_t(d.Q) * d.C; i += DIRECT_THREADS) {
    const int q = int(i / d.C), c = int(i % d.C), top = p * d.stride, left = q * d.stride;
    const auto value = [&](int h, int w) { return as_stored(x, channel_norm<PAPER>(x + (int64_t(h) * d.W + w) * d.C, c, d.C, radius, n)); };
    float best = value(top, left);
    for (int h = top; h < min(top + d.window, d.H); ++h)
      for (int w = left; w < min(left + d.window, d.W); ++w) best = larger(best, value(h, w));
    y[i] = best;
  }
}

template <bool PAPER>
__global__ void __launch_bounds__(DIRECT_THREADS, 4)
    lrn_maxpool_bprop_direct(InArray x, InArray y, InArray dy, OutArray dx, PoolDims d, int radius, NormConstants n, bool relu) {
  const int image = blockIdx.x / d.H, h = blockIdx.x % d.H;
  x += int64_t(image) * d.H * d.W * d.C;
  y += int64_t(image) * d.P * d.Q * d.C;
  dy += int64_t(image) * d.P * d.Q * d.C;
  dx += int64_t(blockIdx.x) * d.W * d.C;
  for (int64_t i = threadIdx.x; i < int64_t(d.W) * d.C; i += DIRECT_THREADS) {
    const int w = int(i / d.C), here = int(i % d.C);
    const InArray pixel = x + (int64_t(h) * d.W + w) * d.C;
    float through = 0, power_here = 0, gradient_here = 0;
    for (int c = max(here - radius, 0); c <= min(here + radius, d.C - 1); ++c) {
      const float scale = channel_scale(pixel, c, d.C, radius, n), power = norm_power<PAPER>(scale, n);
      const auto value = [&](int r, int s) { return as_stored(x, channel_norm<PAPER>(x + (int64_t(r) * d.W + s) * d.C, c, d.C, radius, n)); };
      const float gradient = as_stored(x, pool_gradient(d, h, w, as_stored(x, __fmul_rn(pixel[c], power)), y + c, dy + c, value));
      through = __fadd_rn(through, norm_through(pixel[c], gradient, scale, power));
      if (c == here) power_here = power, gradient_here = gradient;
    }
    dx[i] = masked(relu, pixel[here], norm_gradient(pixel[here], gradient_here, power_here, through, n));
  }
}

// ---- tiled: a block's threads are `pixels` neighbouring pixels of a row, 4 channels each; those left over only meet at the barriers.
struct Lanes {
  int pixels, pixel, c;
  MINIALEX_DEVICE explicit Lanes(int C) : pixels(THREADS / (C / 4)), pixel(int(threadIdx.x) / (C / 4)) {
    c = (int(threadIdx.x) - pixel * (C / 4)) * 4;
  }
};

template <class S, int RADIUS, bool PAPER>
__global__ void __launch_bounds__(THREADS)
    lrn_maxpool_fprop_tiled(const S* __restrict__ x, S* __restrict__ y, PoolDims d, NormConstants n, int strips, int rows) {
  MINIALEX_DYNAMIC_SHARED(S, normalised);
  const Lanes at(d.C);
  const bool active = at.pixel < at.pixels;
  const int image = blockIdx.x / strips, begin = int(blockIdx.x % strips) * rows, end = min(begin + rows, d.P), row = d.W * d.C;
  S* ring = &normalised;
  x += int64_t(image) * d.H * row;
  y += int64_t(image) * d.P * d.Q * d.C + at.c;
  int h = 0;
  for (int p = begin; p < end; ++p) {
    for (h = max(h, p * d.stride); h < min(p * d.stride + d.window, d.H); ++h)
      for (int w = active ? at.pixel : d.W; w < d.W; w += at.pixels) {
        const S* pixel = x + int64_t(h) * row + w * d.C;
        store_quad(ring + h % d.window * row + w * d.C + at.c, NormQuad<RADIUS, PAPER>(pixel, at.c, d.C, n).y());
      }
    __syncthreads();
    for (int q = active ? at.pixel : d.Q; q < d.Q; q += at.pixels) {
      const int top = p * d.stride, left = q * d.stride;
      Quad best = load_quad(ring + top % d.window * row + left * d.C + at.c);
      for (int r = top; r < min(top + d.window, d.H); ++r) {
        const S* from = ring + r % d.window * row + at.c;
        for (int s = left; s < min(left + d.window, d.W); ++s) best = larger(best, load_quad(from + s * d.C));
      }
      store_quad(y + (int64_t(p) * d.Q + q) * d.C, best);
    }
    __syncthreads();                                   // the ring's oldest rows are overwritten next
  }
}

// Rows begin .. end of x.  Whether an input won a window depends on that window's maximum, which y has, and on what stands before the
// input in row order: the ring holds its row and the rows above that a window can reach.
template <class S, int RADIUS, bool PAPER>
__global__ void __launch_bounds__(THREADS, 3)
    lrn_maxpool_bprop_tiled(const S* __restrict__ x, const S* __restrict__ y, const S* __restrict__ dy, S* __restrict__ dx,
                            PoolDims d, NormConstants n, bool relu, int strips, int rows) {
  MINIALEX_DYNAMIC_SHARED(S, normalised);
  MINIALEX_SHARED(float, throughs, [THREADS * 4]);
  const Lanes at(d.C);
  const int image = blockIdx.x / strips, begin = int(blockIdx.x % strips) * rows, end = min(begin + rows, d.H), row = d.W * d.C;
  S* ring = &normalised;
  x += int64_t(image) * d.H * row;
  dx += int64_t(image) * d.H * row;
  y += int64_t(image) * d.P * d.Q * d.C + at.c;
  dy += int64_t(image) * d.P * d.Q * d.C + at.c;
  const auto value = [&](int r, int s, int i) { return widened(ring[r % d.window * row + s * d.C + at.c + i]); };
  for (int h = max(0, begin - d.window + 1); h < end; ++h)
    for (int start = 0; start < d.W; start += at.pixels) {
      const int w = start + at.pixel;
      const bool active = at.pixel < at.pixels && w < d.W;
      const int64_t pixel = int64_t(h) * row + (active ? w * d.C : 0);
      const NormQuad<RADIUS, PAPER> norm(x + pixel, at.c, d.C, n);
      Quad here = norm.y();
      MINIALEX_UNROLL for (int i = 0; i < 4; ++i) here.v[i] = as_stored<S>(here.v[i]);
      if (active) store_quad(ring + h % d.window * row + w * d.C + at.c, here);
      if (h < begin) continue;
      __syncthreads();
      Quad gradient = {{0, 0, 0, 0}};
      if (active) gradient = pool_gradient(d, h, w, here, y, dy, value);
      MINIALEX_UNROLL for (int i = 0; i < 4; ++i) gradient.v[i] = as_stored<S>(gradient.v[i]);
      store_quad(throughs + threadIdx.x * 4, norm.through(gradient));
      __syncthreads();                                 // behind it nobody looks at the ring until the next barrier: its oldest row may go
      if (!active) continue;
      Quad out = norm.dx(gradient, throughs + at.pixel * d.C, at.c, d.C, n);
      MINIALEX_UNROLL for (int i = 0; i < 4; ++i) out.v[i] = masked(relu, norm.x.v[i], out.v[i]);
      store_quad(dx + pixel + at.c, out);
    }
}

int64_t ring_bytes(const PoolDims& d, size_t number = sizeof(float)) { return int64_t(d.window) * d.W * d.C * int64_t(number); }

const char* refuses_tiled(const NormPoolDims& d) {
  if (d.norm.C % 4) return "the channels are no multiple of 4";
  if (d.norm.C > THREADS * 4) return "a pixel has more channels than a block's threads hold";
  if (d.norm.n != 5 && d.norm.n != 9) return "the norm's window is neither 5 nor 9";
  return ring_bytes(d.pool) > MOST_SHARED ? "the rows of a window are larger than shared memory" : nullptr;
}

// Rows of y for a block: 8, where a window's rows are normalised twice only at the strips' borders, or fewer for few images.
struct Strips {
  int rows, count;
  explicit Strips(const PoolDims& d) : rows(8) {
    while (rows > 1 && d.images * ceil_div(d.P, rows) < 2 * 132) rows /= 2;
    count = int(ceil_div(d.P, rows));
  }
};

bool paper(float beta) { return beta == 0.75f; }

dim3 blocks(int images, int64_t each) { return dim3(narrow(images * each, "the number of blocks")); }

void launch_fprop_direct(const NormPoolFprop& c, Stream stream) {
  MINIALEX_LAUNCH((paper(c.beta) ? lrn_maxpool_fprop_direct<true> : lrn_maxpool_fprop_direct<false>),
                  blocks(c.dims.pool.images, c.dims.pool.P), dim3(DIRECT_THREADS), 0, stream, c.x, c.y, c.dims.pool,
                  c.dims.norm.n / 2, NormConstants(c));
}
void launch_bprop_direct(const NormPoolBprop& c, Stream stream) {
  MINIALEX_LAUNCH((paper(c.beta) ? lrn_maxpool_bprop_direct<true> : lrn_maxpool_bprop_direct<false>),
                  blocks(c.dims.pool.images, c.dims.pool.H), dim3(DIRECT_THREADS), 0, stream, c.x, c.y, c.dy, c.dx, c.dims.pool,
                  c.dims.norm.n / 2, NormConstants(c), c.relu);
}

template <int RADIUS> void fprop_tiled(const NormPoolFprop& c, Stream stream) {
  const Strips strips(c.dims.pool);
  by_storage(c.x, [&](auto number) {
    using S = decltype(number);
    MINIALEX_LAUNCH((paper(c.beta) ? lrn_maxpool_fprop_tiled<S, RADIUS, true> : lrn_maxpool_fprop_tiled<S, RADIUS, false>),
                    blocks(c.dims.pool.images, strips.count), dim3(THREADS), size_t(ring_bytes(c.dims.pool, sizeof(S))), stream, c.x.as<S>(),
                    c.y.as<S>(), c.dims.pool, NormConstants(c), strips.count, strips.rows);
  });
}
template <int RADIUS> void bprop_tiled(const NormPoolBprop& c, Stream stream) {
  const int rows = narrow(int64_t(Strips(c.dims.pool).rows) * c.dims.pool.stride, "the stride"), count = int(ceil_div(c.dims.pool.H, rows));
  by_storage(c.x, [&](auto number) {
    using S = decltype(number);
    MINIALEX_LAUNCH((paper(c.beta) ? lrn_maxpool_bprop_tiled<S, RADIUS, true> : lrn_maxpool_bprop_tiled<S, RADIUS, false>),
                    blocks(c.dims.pool.images, count), dim3(THREADS), size_t(ring_bytes(c.dims.pool, sizeof(S))), stream, c.x.as<S>(),
                    c.y.as<S>(), c.dy.as<S>(), c.dx.as<S>(), c.dims.pool, NormConstants(c), c.relu, count, rows);
  });
}
void launch_fprop_tiled(const NormPoolFprop& c, Stream stream) {
  c.dims.norm.n == 5 ? fprop_tiled<2>(c, stream) : fprop_tiled<4>(c, stream);
}
void launch_bprop_tiled(const NormPoolBprop& c, Stream stream) {
  c.dims.norm.n == 5 ? bprop_tiled<2>(c, stream) : bprop_tiled<4>(c, stream);
}

}  // namespace

const Op<NormPoolFprop>& lrn_maxpool_fprop() {
  static const Op<NormPoolFprop> op{"lrn_maxpool_fprop",
                                    {{"tiled", "float32", refuses_tiled, nullptr, nullptr, launch_fprop_tiled},
                                     {"direct", "float32", nullptr, nullptr, nullptr, launch_fprop_direct}}};
  return op;
}

const Op<NormPoolBprop>& lrn_maxpool_bprop() {
  static const Op<NormPoolBprop> op{"lrn_maxpool_bprop",
                                    {{"tiled", "float32", refuses_tiled, nullptr, nullptr, launch_bprop_tiled},
                                     {"direct", "float32", nullptr, nullptr, nullptr, launch_bprop_direct}}};
  return op;
}

}  // namespace minialex
