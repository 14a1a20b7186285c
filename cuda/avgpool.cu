// Average pooling (the CIFAR-10 networks).  A window that hangs over the border divides by the inputs it has.  Sums go row by row, so no
// chain of additions is longer than two sides of a window.
//
//   vector   4 channels a thread; memory-bound, overlapping windows meet in the caches
//   direct   1 element a thread, any shape
#include <minialex/kernel.h>
#include <minialex/ops.h>
#include <minialex/pool.h>

namespace minialex {
namespace {

constexpr int THREADS = 128;

MINIALEX_DEVICE Quad operator+(const Quad& a, const Quad& b) {
  return {{a.v[0] + b.v[0], a.v[1] + b.v[1], a.v[2] + b.v[2], a.v[3] + b.v[3]}};
}
MINIALEX_DEVICE Quad operator/(const Quad& a, float b) { return {{a.v[0] / b, a.v[1] / b, a.v[2] / b, a.v[3] / b}}; }
MINIALEX_DEVICE void load(const InArray& from, float& to) { to = from[0]; }
MINIALEX_DEVICE void load(const InArray& from, Quad& to) { to = load_quad(from); }
MINIALEX_DEVICE void store(const OutArray& to, float a) { to[0] = a; }
MINIALEX_DEVICE void store(const OutArray& to, const Quad& a) { store_quad(to, a); }
template <class Value> constexpr int CHANNELS = sizeof(Value) / 4;

// Each block has one row of y (fprop) or of x (bprop) of one image; Value is a float or a Quad of channels.
template <class Value>
__global__ void __launch_bounds__(THREADS)
    avgpool_fprop_kernel(InArray x, OutArray y, PoolDims d) {
  const int image = blockIdx.x / d.P, top = int(blockIdx.x % d.P) * d.stride, bottom = min(top + d.window, d.H);
  const int values = d.C / CHANNELS<Value>;
  x += int64_t(image) * d.H * d.W * d.C;
  y += int64_t(blockIdx.x) * d.Q * d.C;
  for (int64_t i = threadIdx.x; i < int64_t(d.Q) * values; i += THREADS) {
    const int q = int(i / values), c = int(i % values) * CHANNELS<Value>, left = q * d.stride, right = min(left + d.window, d.W);
    Value sum{};
    for (int h = top; h < bottom; ++h) {
      Value row{};
      for (int w = left; w < right; ++w) {
        Value seen;
        load(x + (int64_t(h) * d.W + w) * d.C + c, seen);
        row = row + seen;
      }
      sum = sum + row;
    }
    store(y + int64_t(q) * d.C + c, sum / (float(bottom - top) * float(right - left)));
  }
}

template <class Value>
__global__ void __launch_bounds__(THREADS, 8) avgpool_bprop_kernel(InArray dy, OutArray dx, PoolDims d) {
  const int image = blockIdx.x / d.H, h = blockIdx.x % d.H, values = d.C / CHANNELS<Value>;
  const Windows rows = windows_of(h, d.window, d.stride, d.P);
  dy += int64_t(image) * d.P * d.Q * d.C;
  dx += int64_t(blockIdx.x) * d.W * d.C;
  for (int64_t i = threadIdx.x; i < int64_t(d.W) * values; i += THREADS) {
    const int w = int(i / values), c = int(i % values) * CHANNELS<Value>;
    const Windows columns = windows_of(w, d.window, d.stride, d.Q);
    Value sum{};
    for (int p = rows.first; p <= rows.last; ++p) {
      const int height = min(d.window, d.H - p * d.stride);
      Value row{};
      for (int q = columns.first; q <= columns.last; ++q) {
        Value share;
        load(dy + (int64_t(p) * d.Q + q) * d.C + c, share);
        row = row + share / (float(height) * float(min(d.window, d.W - q * d.stride)));
      }
      sum = sum + row;
    }
    store(dx + int64_t(w) * d.C + c, sum);
  }
}

const char* refuses_vector(const PoolDims& d) { return d.C % 4 ? "the channels are no multiple of 4" : nullptr; }

dim3 blocks(const PoolDims& d, int rows) { return dim3(narrow(int64_t(d.images) * rows, "the number of rows")); }

template <class Value> void launch_fprop(const PoolFprop& c, Stream stream) {
  MINIALEX_LAUNCH(avgpool_fprop_kernel<Value>, blocks(c.dims, c.dims.P), dim3(THREADS), 0, stream, c.x, c.y, c.dims);
}
template <class Value> void launch_bprop(const PoolBprop& c, Stream stream) {
  MINIALEX_LAUNCH(avgpool_bprop_kernel<Value>, blocks(c.dims, c.dims.H), dim3(THREADS), 0, stream, c.dy, c.dx, c.dims);
}

}  // namespace

const Op<PoolFprop>& avgpool_fprop() {
  static const Op<PoolFprop> op{"avgpool_fprop",
                                {{"vector", "float32", refuses_vector, nullptr, nullptr, launch_fprop<Quad>},
                                 {"direct", "float32", nullptr, nullptr, nullptr, launch_fprop<float>}}};
  return op;
}

const Op<PoolBprop>& avgpool_bprop() {
  static const Op<PoolBprop> op{"avgpool_bprop",
                                {{"vector", "float32", refuses_vector, nullptr, nullptr, launch_bprop<Quad>},
                                 {"direct", "float32", nullptr, nullptr, nullptr, launch_bprop<float>}}};
  return op;
}

}  // namespace minialex
