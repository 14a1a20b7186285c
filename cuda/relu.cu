// ReLU: y = max(x, 0), dx = dy where y > 0 (paper, section 3.1).
//
//   vector   4 floats a thread: 8 bytes moved an element forward, 12 backward; memory-bound
//   direct   1 float a thread, any size
#include <minialex/kernel.h>
#include <minialex/ops.h>
#include <minialex/stored.h>

namespace minialex {
namespace {

constexpr int THREADS = 256;

// As NumPy's maximum(x, 0): a NaN stays a NaN, so that it is seen and not silently cut to 0.
MINIALEX_DEVICE float relu(float x) { return x > 0.f || x != x ? x : 0.f; }
MINIALEX_DEVICE float masked(float y, float dy) { return y > 0.f ? dy : 0.f; }

__global__ void __launch_bounds__(THREADS) relu_fprop_direct(InArray x, OutArray y, int64_t size) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i < size) y[i] = relu(x[i]);
}

__global__ void __launch_bounds__(THREADS) relu_bprop_direct(InArray y, InArray dy, OutArray dx, int64_t size) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i < size) dx[i] = masked(y[i], dy[i]);
}

// No __restrict__: the op may work in place, where each thread reads its elements before it writes them.
__global__ void __launch_bounds__(THREADS) relu_fprop_vector(InArray x, OutArray y, int64_t size) {
  const int64_t i = (int64_t(blockIdx.x) * THREADS + threadIdx.x) * 4;
  if (i + 4 <= size) {
    const float4 a = load4(x + i);
    store4(y + i, make_float4(relu(a.x), relu(a.y), relu(a.z), relu(a.w)));
  } else {
    for (int64_t j = i; j < size; ++j) y[j] = relu(x[j]);
  }
}

__global__ void __launch_bounds__(THREADS) relu_bprop_vector(InArray y, InArray dy, OutArray dx, int64_t size) {
  const int64_t i = (int64_t(blockIdx.x) * THREADS + threadIdx.x) * 4;
  if (i + 4 <= size) {
    const float4 a = load4(y + i), d = load4(dy + i);
    store4(dx + i, make_float4(masked(a.x, d.x), masked(a.y, d.y), masked(a.z, d.z), masked(a.w, d.w)));
  } else {
    for (int64_t j = i; j < size; ++j) dx[j] = masked(y[j], dy[j]);
  }
}

dim3 blocks(const MapDims& dims, int per_thread) {
  return dim3(narrow(ceil_div(dims.size, int64_t(THREADS) * per_thread), "the number of blocks"));
}

void launch_fprop_direct(const MapFprop& c, Stream stream) {
  MINIALEX_LAUNCH(relu_fprop_direct, blocks(c.dims, 1), dim3(THREADS), 0, stream, c.x, c.y, c.dims.size);
}
void launch_fprop_vector(const MapFprop& c, Stream stream) {
  MINIALEX_LAUNCH(relu_fprop_vector, blocks(c.dims, 4), dim3(THREADS), 0, stream, c.x, c.y, c.dims.size);
}
void launch_bprop_direct(const MapBprop& c, Stream stream) {
  MINIALEX_LAUNCH(relu_bprop_direct, blocks(c.dims, 1), dim3(THREADS), 0, stream, c.y, c.dy, c.dx, c.dims.size);
}
void launch_bprop_vector(const MapBprop& c, Stream stream) {
  MINIALEX_LAUNCH(relu_bprop_vector, blocks(c.dims, 4), dim3(THREADS), 0, stream, c.y, c.dy, c.dx, c.dims.size);
}

}  // namespace

const Op<MapFprop>& relu_fprop() {
  static const Op<MapFprop> op{"relu_fprop",
                               {{"vector", "float32", nullptr, nullptr, nullptr, launch_fprop_vector},
                                {"direct", "float32", nullptr, nullptr, nullptr, launch_fprop_direct}}};
  return op;
}

const Op<MapBprop>& relu_bprop() {
  static const Op<MapBprop> op{"relu_bprop",
                               {{"vector", "float32", nullptr, nullptr, nullptr, launch_bprop_vector},
                                {"direct", "float32", nullptr, nullptr, nullptr, launch_bprop_direct}}};
  return op;
}

}  // namespace minialex
