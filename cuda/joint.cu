// The sum of a joint layer whose two columns' products were made apart: y = (p + q) + b (paper, section 3.2; cuda/README.md).
//
//   vector   4 floats a thread, where a position's channels are whole vectors: 12 bytes moved an element; memory-bound
//   direct   1 float a thread, any shape
//
// Both add in the order of the fprops' sums, so a layer gives the same bits on one device and on two.
#include <minialex/kernel.h>
#include <minialex/ops.h>
#include <minialex/stored.h>

namespace minialex {
namespace {

constexpr int THREADS = 256;

// The plain additions are spelled out, so that no compiler turns their order round.
MINIALEX_DEVICE float joined(float p, float q, float b) { return __fadd_rn(__fadd_rn(p, q), b); }
MINIALEX_DEVICE float4 joined(float4 p, float4 q, float4 b) {
  return make_float4(joined(p.x, q.x, b.x), joined(p.y, q.y, b.y), joined(p.z, q.z, b.z), joined(p.w, q.w, b.w));
}

// The element's place in b: its column, then its channel in the column.
MINIALEX_DEVICE int64_t bias_of(const JointSum::Dims& d, int64_t i) { return i / d.per_column * d.C + i % d.per_column % d.C; }

// No __restrict__: y may be p or q, and each thread reads its elements before it writes them.
// Without biases -0 is added, which changes no number: x + -0 is x even where x is -0.
__global__ void __launch_bounds__(THREADS) joint_sum_direct(JointSum::Dims d, InArray p, InArray q, const float* b, OutArray y) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i < d.size) y[i] = joined(p[i], q[i], b ? b[bias_of(d, i)] : -0.f);
}

// C is a multiple of 4, so a vector lies within one position, and its four biases are neighbours.
__global__ void __launch_bounds__(THREADS) joint_sum_vector(JointSum::Dims d, InArray p, InArray q, const float* b, OutArray y) {
  const int64_t i = (int64_t(blockIdx.x) * THREADS + threadIdx.x) * 4;
  if (i >= d.size) return;
  const float4 bias = b ? load4(b + bias_of(d, i)) : make_float4(-0.f, -0.f, -0.f, -0.f);
  store4(y + i, joined(load4(p + i), load4(q + i), bias));
}

const char* needs_whole_vectors(const JointSum::Dims& d) { return d.C % 4 ? "the channels of a column are no multiple of 4" : nullptr; }

dim3 blocks(const JointSum::Dims& d, int per_thread) {
  return dim3(narrow(ceil_div(d.size, int64_t(THREADS) * per_thread), "the number of blocks"));
}

void launch_vector(const JointSum& c, Stream stream) {
  MINIALEX_LAUNCH(joint_sum_vector, blocks(c.dims, 4), dim3(THREADS), 0, stream, c.dims, c.p, c.q, c.b, c.y);
}
void launch_direct(const JointSum& c, Stream stream) {
  MINIALEX_LAUNCH(joint_sum_direct, blocks(c.dims, 1), dim3(THREADS), 0, stream, c.dims, c.p, c.q, c.b, c.y);
}

}  // namespace

const Op<JointSum>& joint_sum() {
  static const Op<JointSum> op{"joint_sum",
                               {{"vector", "float32", needs_whole_vectors, nullptr, nullptr, launch_vector},
                                {"direct", "float32", nullptr, nullptr, nullptr, launch_direct}}};
  return op;
}

}  // namespace minialex
