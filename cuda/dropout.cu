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
// The step of the mask is an argument, or stands in device memory (DropoutMask::dial), so that a graph of the launch may be replayed at another step.
// All move 8 bytes an element; the ten rounds cost about 100 integer instructions a call, a quarter of that each element.
#include <minialex/kernel.h>
#include <minialex/ops.h>
#include <minialex/philox.h>
#include <minialex/stored.h>

namespace minialex {
namespace {

constexpr int THREADS = 256;

__global__ void __launch_bounds__(THREADS) dropout_direct(InArray x, OutArray y, DropoutDims dims, DropoutMask mask) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= dims.size()) return;
  const int64_t positions = int64_t(dims.H) * dims.W, channels = int64_t(mask.columns) * dims.C;
  const int64_t c = i % dims.C, position = i / dims.C % positions, row = i / dims.C / positions, image = row % dims.N, g = row / dims.N;
  const int64_t e = position * channels + (mask.column + g) * dims.C + c;
  y[i] = dropped(x[i], word_of(dropout_words(mask, uint32_t(e / 4), uint32_t(image)), e), mask);
}

// A block stays in one image of one column, so that a thread divides once.  Four channels that begin at a multiple of 4 are the
// four words of one call.  No __restrict__: y may be x.
__global__ void __launch_bounds__(THREADS) dropout_vector(InArray x, OutArray y, DropoutDims dims, DropoutMask mask, int blocks) {
  const int row = blockIdx.x / blocks;                 // g * N + image
  const int quads = dims.C / 4, quad = (blockIdx.x - row * blocks) * THREADS + threadIdx.x;
  if (quad >= dims.H * dims.W * quads) return;
  const int g = row / dims.N, image = row - g * dims.N;
  const int position = quad / quads, c = quad - position * quads;
  const uint4 four = dropout_words(mask, uint32_t(position) * mask.columns * quads + (mask.column + g) * quads + c, image);
  const int64_t i = (int64_t(row) * dims.H * dims.W * quads + quad) * 4;
  const float4 a = load4(x + i);
  store4(y + i, make_float4(dropped(a.x, four.x, mask), dropped(a.y, four.y, mask), dropped(a.z, four.z, mask), dropped(a.w, four.w, mask)));
}

__global__ void __launch_bounds__(THREADS) dropout_test_direct(InArray x, OutArray y, float factor, int64_t size) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i < size) y[i] = __fmul_rn(x[i], factor);
}

__global__ void __launch_bounds__(THREADS) dropout_test_vector(InArray x, OutArray y, float factor, int64_t size) {
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

int blocks(int64_t threads) { return narrow(ceil_div(threads, THREADS), "the number of blocks"); }

void launch_direct(const Dropout& c, Stream stream) {
  MINIALEX_LAUNCH(dropout_direct, dim3(blocks(c.dims.size())), dim3(THREADS), 0, stream, c.x, c.y, c.dims, c.mask);
}
void launch_vector(const Dropout& c, Stream stream) {
  const int per_image = blocks(int64_t(c.dims.H) * c.dims.W * c.dims.C / 4);
  const int grid = narrow(int64_t(per_image) * c.dims.G * c.dims.N, "the number of blocks");
  MINIALEX_LAUNCH(dropout_vector, dim3(grid), dim3(THREADS), 0, stream, c.x, c.y, c.dims, c.mask, per_image);
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
