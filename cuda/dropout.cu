// Dropout (paper, section 4.2): y = x * scale where a random word is below keep * 2^32, else 0.  Backward draws the same words
// again and is the same kernel.  At test time y = x * factor.
//
// Element e = (h W + w) (columns C) + (column + g) C + c of an image has word e % 4 of philox(e / 4, image, step, layer): the channels
// of all the network's columns count as one run, so a mask does not depend on which device holds which column.
//
//   dropout_fprop  vector   4 channels a thread from one Philox call; C must be a multiple of 4
//                  direct   1 channel a thread, any shape: four times the random words
//   dropout_test   vector   4 floats a thread
//                  direct   1 float a thread, any size
// The step of the mask is an argument, or stands in device memory (`dial`), so that a graph of the launch may be replayed at another step.
// All move 8 bytes an element; the ten rounds cost about 100 integer instructions a call, a quarter of that each element.
#include <minialex/kernel.h>
#include <minialex/ops.h>
#include <minialex/philox.h>

namespace minialex {
namespace {

constexpr int THREADS = 256;

// What decides a mask, besides the place of an element.
struct Mask {
  uint64_t threshold, seed;
  uint32_t step, layer, first;
  int column, columns;
  float scale;
};

MINIALEX_DEVICE uint4 words(const Mask& mask, const int32_t* dial, uint32_t quad, uint32_t image) {
  return philox(make_uint4(quad, mask.first + image, dial ? uint32_t(*dial) : mask.step, mask.layer), mask.seed);
}

// The threshold has 33 bits: with keep = 1 every word is below.
MINIALEX_DEVICE float masked(float x, uint32_t word, const Mask& mask) { return word < mask.threshold ? __fmul_rn(x, mask.scale) : 0.f; }

__global__ void __launch_bounds__(THREADS) dropout_direct(const float* x, float* y, DropoutDims dims, Mask mask, const int32_t* dial) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= dims.size()) return;
  const int64_t positions = int64_t(dims.H) * dims.W, channels = int64_t(mask.columns) * dims.C;
  const int64_t c = i % dims.C, position = i / dims.C % positions, row = i / dims.C / positions, image = row % dims.N, g = row / dims.N;
  const int64_t e = position * channels + (mask.column + g) * dims.C + c;
  const uint4 four = words(mask, dial, uint32_t(e / 4), uint32_t(image));
  const uint32_t word = e % 4 == 0 ? four.x : e % 4 == 1 ? four.y : e % 4 == 2 ? four.z : four.w;
  y[i] = masked(x[i], word, mask);
}

// A block stays in one image of one column, so that a thread divides once.  Four channels that begin at a multiple of 4 are the
// four words of one call.  No __restrict__: y may be x.
__global__ void __launch_bounds__(THREADS) dropout_vector(const float* x, float* y, DropoutDims dims, Mask mask,
                                                          const int32_t* dial, int blocks) {
  const int row = blockIdx.x / blocks;                 // g * N + image
  const int quads = dims.C / 4, quad = (blockIdx.x - row * blocks) * THREADS + threadIdx.x;
  if (quad >= dims.H * dims.W * quads) return;
  const int g = row / dims.N, image = row - g * dims.N;
  const int position = quad / quads, c = quad - position * quads;
  const uint4 four = words(mask, dial, uint32_t(position) * mask.columns * quads + (mask.column + g) * quads + c, image);
  const int64_t i = (int64_t(row) * dims.H * dims.W * quads + quad) * 4;
  const float4 a = load4(x + i);
  store4(y + i, make_float4(masked(a.x, four.x, mask), masked(a.y, four.y, mask), masked(a.z, four.z, mask), masked(a.w, four.w, mask)));
}

__global__ void __launch_bounds__(THREADS) dropout_test_direct(const float* x, float* y, float factor, int64_t size) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i < size) y[i] = __fmul_rn(x[i], factor);
}

__global__ void __launch_bounds__(THREADS) dropout_test_vector(const float* x, float* y, float factor, int64_t size) {
  const int64_t i = (int64_t(blockIdx.x) * THREADS + threadIdx.x) * 4;
  if (i + 4 <= size) {
    const float4 a = load4(x + i);
    store4(y + i, make_float4(__fmul_rn(a.x, factor), __fmul_rn(a.y, factor), __fmul_rn(a.z, factor), __fmul_rn(a.w, factor)));
  } else {
    for (int64_t j = i; j < size; ++j) y[j] = __fmul_rn(x[j], factor);
  }
}

const char* whole_quads(const DropoutDims& dims) {
  if (dims.C % 4) return "the channels of a column are no multiple of 4";
  return int64_t(dims.H) * dims.W * dims.C > std::numeric_limits<int>::max() ? "an image is larger than an int counts" : nullptr;
}

Mask mask_of(const Dropout& c) { return {c.threshold, c.seed, c.step, c.layer, c.first, c.column, c.columns, c.scale}; }
int blocks(int64_t threads) { return narrow(ceil_div(threads, THREADS), "the number of blocks"); }

void launch_direct(const Dropout& c, Stream stream) {
  MINIALEX_LAUNCH(dropout_direct, dim3(blocks(c.dims.size())), dim3(THREADS), 0, stream, c.x, c.y, c.dims, mask_of(c), c.dial);
}
void launch_vector(const Dropout& c, Stream stream) {
  const int per_image = blocks(int64_t(c.dims.H) * c.dims.W * c.dims.C / 4);
  const int grid = narrow(int64_t(per_image) * c.dims.G * c.dims.N, "the number of blocks");
  MINIALEX_LAUNCH(dropout_vector, dim3(grid), dim3(THREADS), 0, stream, c.x, c.y, c.dims, mask_of(c), c.dial, per_image);
}
void launch_test_direct(const DropoutTest& c, Stream stream) {
  MINIALEX_LAUNCH(dropout_test_direct, dim3(blocks(c.dims.size)), dim3(THREADS), 0, stream, c.x, c.y, c.factor, c.dims.size);
}
void launch_test_vector(const DropoutTest& c, Stream stream) {
  MINIALEX_LAUNCH(dropout_test_vector, dim3(blocks(ceil_div(c.dims.size, 4))), dim3(THREADS), 0, stream, c.x, c.y, c.factor, c.dims.size);
}

}  // namespace

const Op<Dropout>& dropout_fprop() {
  static const Op<Dropout> op{"dropout_fprop",
                              {{"vector", "float32", whole_quads, nullptr, nullptr, launch_vector},
                               {"direct", "float32", nullptr, nullptr, nullptr, launch_direct}}};
  return op;
}

const Op<DropoutTest>& dropout_test() {
  static const Op<DropoutTest> op{"dropout_test",
                                  {{"vector", "float32", nullptr, nullptr, nullptr, launch_test_vector},
                                   {"direct", "float32", nullptr, nullptr, nullptr, launch_test_direct}}};
  return op;
}

}  // namespace minialex
