// Overlapping max-pooling (paper, section 3.4).  The gradient is gathered: each input asks the windows that hold it whether it won them.
//
//   vector   4 channels a thread, the paper's 3/2 with constant loops; memory-bound, overlapping windows meet in the caches
//   direct   1 element a thread, any shape
#include <minialex/kernel.h>
#include <minialex/ops.h>
#include <minialex/pool.h>

namespace minialex {
namespace {

constexpr int THREADS = 128;

// Each block has one row of y (fprop) or of x (bprop) of one image.
__global__ void __launch_bounds__(THREADS) maxpool_fprop_direct(InArray x, OutArray y, PoolDims d) {
  const int image = blockIdx.x / d.P, p = blockIdx.x % d.P;
  x += int64_t(image) * d.H * d.W * d.C;
  y += int64_t(blockIdx.x) * d.Q * d.C;
  for (int64_t i = threadIdx.x; i < int64_t(d.Q) * d.C; i += THREADS) {
    const int q = int(i / d.C), c = int(i % d.C), top = p * d.stride, left = q * d.stride;
    float best = x[(int64_t(top) * d.W + left) * d.C + c];
    for (int h = top; h < min(top + d.window, d.H); ++h)
      for (int w = left; w < min(left + d.window, d.W); ++w) best = larger(best, x[(int64_t(h) * d.W + w) * d.C + c]);
    y[i] = best;
  }
}

__global__ void __launch_bounds__(THREADS, 8)
    maxpool_bprop_direct(InArray x, InArray y, InArray dy, OutArray dx, PoolDims d, bool relu) {
  const int image = blockIdx.x / d.H, h = blockIdx.x % d.H;
  x += int64_t(image) * d.H * d.W * d.C;
  y += int64_t(image) * d.P * d.Q * d.C;
  dy += int64_t(image) * d.P * d.Q * d.C;
  dx += int64_t(blockIdx.x) * d.W * d.C;
  for (int64_t i = threadIdx.x; i < int64_t(d.W) * d.C; i += THREADS) {
    const int w = int(i / d.C), c = int(i % d.C);
    const auto value = [&](int r, int s) { return x[(int64_t(r) * d.W + s) * d.C + c]; };
    const float here = value(h, w);
    dx[i] = masked(relu, here, pool_gradient(d, h, w, here, y + c, dy + c, value));
  }
}

// WINDOW and STRIDE of 0: as the dims say.
template <class S, int WINDOW, int STRIDE>
__global__ void __launch_bounds__(THREADS) maxpool_fprop_vector(const S* __restrict__ x, S* __restrict__ y, PoolDims d) {
  const int window = WINDOW ? WINDOW : d.window, stride = STRIDE ? STRIDE : d.stride;
  const int image = blockIdx.x / d.P, top = int(blockIdx.x % d.P) * stride, quads = d.C / 4;
  x += int64_t(image) * d.H * d.W * d.C;
  y += int64_t(blockIdx.x) * d.Q * d.C;
  for (int i = threadIdx.x; i < d.Q * quads; i += THREADS) {
    const int q = i / quads, c = (i - q * quads) * 4, left = q * stride;
    Quad best = load_quad(x + (int64_t(top) * d.W + left) * d.C + c);
    MINIALEX_UNROLL for (int r = 0; r < window; ++r) {
      MINIALEX_UNROLL for (int s = 0; s < window; ++s) {
        // A window that hangs over the border looks at the last row or column again: no branch, and no other maximum.
        const int h = min(top + r, d.H - 1), w = min(left + s, d.W - 1);
        best = larger(best, load_quad(x + (int64_t(h) * d.W + w) * d.C + c));
      }
    }
    store_quad(y + int64_t(i) * 4, best);
  }
}

template <class S, int WINDOW, int STRIDE>
__global__ void __launch_bounds__(THREADS, 8)
    maxpool_bprop_vector(const S* __restrict__ x, const S* __restrict__ y, const S* __restrict__ dy, S* __restrict__ dx,
                         PoolDims d, bool relu) {
  if (WINDOW) d.window = WINDOW;
  if (STRIDE) d.stride = STRIDE;
  const int image = blockIdx.x / d.H, h = blockIdx.x % d.H, quads = d.C / 4;
  x += int64_t(image) * d.H * d.W * d.C;
  y += int64_t(image) * d.P * d.Q * d.C;
  dy += int64_t(image) * d.P * d.Q * d.C;
  dx += int64_t(blockIdx.x) * d.W * d.C;
  for (int i = threadIdx.x; i < d.W * quads; i += THREADS) {
    const int w = i / quads, c = (i - w * quads) * 4;
    const auto value = [&](int r, int s, int channel) { return widened(x[(int64_t(r) * d.W + s) * d.C + c + channel]); };
    const Quad here = load_quad(x + (int64_t(h) * d.W + w) * d.C + c);
    Quad sum = pool_gradient(d, h, w, here, y + c, dy + c, value);
    MINIALEX_UNROLL for (int e = 0; e < 4; ++e) sum.v[e] = masked(relu, here.v[e], sum.v[e]);
    store_quad(dx + int64_t(i) * 4, sum);
  }
}

const char* refuses_vector(const PoolDims& d) {
  if (d.C % 4) return "the channels are no multiple of 4";
  return int64_t(d.W) * d.C > std::numeric_limits<int>::max() ? "a row has more elements than an int can count" : nullptr;
}

bool paper(const PoolDims& d) { return d.window == 3 && d.stride == 2; }

dim3 blocks(const PoolDims& d, int rows) { return dim3(narrow(int64_t(d.images) * rows, "the number of rows")); }

void launch_fprop_direct(const PoolFprop& c, Stream stream) {
  MINIALEX_LAUNCH(maxpool_fprop_direct, blocks(c.dims, c.dims.P), dim3(THREADS), 0, stream, c.x, c.y, c.dims);
}
void launch_bprop_direct(const PoolBprop& c, Stream stream) {
  MINIALEX_LAUNCH(maxpool_bprop_direct, blocks(c.dims, c.dims.H), dim3(THREADS), 0, stream, c.x, c.y, c.dy, c.dx, c.dims, c.relu);
}
void launch_fprop_vector(const PoolFprop& c, Stream stream) {
  by_storage(c.x, [&](auto number) {
    using S = decltype(number);
    MINIALEX_LAUNCH((paper(c.dims) ? maxpool_fprop_vector<S, 3, 2> : maxpool_fprop_vector<S, 0, 0>), blocks(c.dims, c.dims.P), dim3(THREADS), 0,
                    stream, c.x.as<S>(), c.y.as<S>(), c.dims);
  });
}
void launch_bprop_vector(const PoolBprop& c, Stream stream) {
  by_storage(c.x, [&](auto number) {
    using S = decltype(number);
    MINIALEX_LAUNCH((paper(c.dims) ? maxpool_bprop_vector<S, 3, 2> : maxpool_bprop_vector<S, 0, 0>), blocks(c.dims, c.dims.H), dim3(THREADS), 0,
                    stream, c.x.as<S>(), c.y.as<S>(), c.dy.as<S>(), c.dx.as<S>(), c.dims, c.relu);
  });
}

}  // namespace

const Op<PoolFprop>& maxpool_fprop() {
  static const Op<PoolFprop> op{"maxpool_fprop",
                                {{"vector", "float32", refuses_vector, nullptr, nullptr, launch_fprop_vector},
                                 {"direct", "float32", nullptr, nullptr, nullptr, launch_fprop_direct}}};
  return op;
}

const Op<PoolBprop>& maxpool_bprop() {
  static const Op<PoolBprop> op{"maxpool_bprop",
                                {{"vector", "float32", refuses_vector, nullptr, nullptr, launch_bprop_vector},
                                 {"direct", "float32", nullptr, nullptr, nullptr, launch_bprop_direct}}};
  return op;
}

}  // namespace minialex
