// Fully connected layer (paper, sections 3.2 and 3.5): y = (P_0 + P_1) + b with P_c = x_c w_c^T, dx = D_0 + D_1, dw = dy^T x.
//
//   rows     linear_rows.cu: up to 8 images, w read once, no tile: the layer is as fast as its weights can be read
//   narrow   linear_tiled.cu: tiles of 32 images x 64
//   wide     linear_tiled.cu: tiles of 128 x 128, where they are enough to occupy the device
//   tiled    linear_tiled.cu: tiles of 64 x 64
//   tf32, bf16   linear_mma.cu: on tensor cores, tiles of 128 x 128 where those are enough, else (_64x64) of 64 x 64
//   direct   here: a thread a number of the output, any shape
//
// All of one precision give the same bits (linear_variants.h).
#include <minialex/kernel.h>
#include <minialex/linear_mma.h>
#include <minialex/linear_variants.h>
#include <minialex/ops.h>
#include <minialex/sum_slices.h>

namespace minialex {
namespace {

constexpr int THREADS = 256;

// One chain of terms a[i * a_step] b[i * b_step].
template <class A, class B> MINIALEX_DEVICE float chain(const A& a, int64_t a_step, const B& b, int64_t b_step, int terms) {
  float sum = 0.f;
  for (int i = 0; i < terms; ++i) sum = multiply_add(a[i * a_step], b[i * b_step], sum);
  return sum;
}

// `terms` of them in chains of `longest`, added in order.
template <class A> MINIALEX_DEVICE float chained(const A& a, int64_t a_step, const float* b, int64_t b_step, int terms, int longest) {
  float sum = chain(a, a_step, b, b_step, min(terms, longest));
  for (int done = longest; done < terms; done += longest)
    sum = __fadd_rn(sum, chain(a + done * a_step, a_step, b + done * b_step, b_step, min(terms - done, longest)));
  return sum;
}

__global__ void __launch_bounds__(THREADS) linear_fprop_direct(LinearDims d, InArray x, const float* __restrict__ w, ActivationOut<1> out) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= d.y_size()) return;
  const int Ky = d.Ky(), n = int(i / Ky % d.N), g = int(i / Ky / d.N);
  const int64_t k = int64_t(g) * Ky + i % Ky;
  float sum = 0.f;
  for (int part = 0; part < d.parts(); ++part) {
    const int gx = d.groups == 1 ? part : g;
    const float product = chained(x + (int64_t(gx) * d.N + n) * d.F, 1, w + k * d.row() + int64_t(part) * d.F, 1, d.F, kLinearChain);
    sum = part ? __fadd_rn(sum, product) : product;
  }
  out(i, {{sum}});
}

__global__ void __launch_bounds__(THREADS) linear_dgrad_direct(LinearDims d, InArray dy, const float* __restrict__ w, GradientOut<1> out) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= d.x_size()) return;
  const int Ky = d.Ky(), f = int(i % d.F), n = int(i / d.F % d.N), g = int(i / d.F / d.N);
  const int columns = d.groups == 1 ? d.Gy : 1;         // of y, that read this feature
  float sum = 0.f;
  for (int column = 0; column < columns; ++column) {
    const int gy = d.groups == 1 ? column : g;
    const float* from = w + int64_t(gy) * Ky * d.row() + (d.groups == 1 ? int64_t(g) * d.F : 0) + f;
    const float product = chained(dy + (int64_t(gy) * d.N + n) * Ky, 1, from, d.row(), Ky, kLinearChain);
    sum = column ? __fadd_rn(sum, product) : product;
  }
  out(i, {{sum}});
}

__global__ void __launch_bounds__(THREADS) linear_wgrad_direct(LinearDims d, InArray x, InArray dy, float* __restrict__ dw,
                                                               float* __restrict__ db, bool accumulate) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= d.w_size()) return;
  if (i < d.K)
    for (int done = 0; done < d.N; done += kChain) linear_bias_gradient(d, dy, db, int(i), done, accumulate || done);
  const int Ky = d.Ky(), k = int(i / d.row()), g = k / Ky, place = int(i % d.row());
  const int gx = d.groups == 1 ? place / d.F : g;
  const InArray left = dy + int64_t(g) * d.N * Ky + k % Ky;
  const InArray right = x + int64_t(gx) * d.N * d.F + place % d.F;
  for (int done = 0; done < d.N; done += kChain) {
    const float sum = chain(left + int64_t(done) * Ky, Ky, right + int64_t(done) * d.F, d.F, min(d.N - done, kChain));
    dw[i] = accumulate || done ? __fadd_rn(dw[i], sum) : sum;
  }
}

dim3 blocks(int64_t size) { return dim3(narrow(ceil_div(size, THREADS), "the number of blocks")); }

void launch_fprop_direct(const LinearFprop& c, Stream stream) {
  MINIALEX_LAUNCH(linear_fprop_direct, blocks(c.dims.y_size()), dim3(THREADS), 0, stream, c.dims, c.x, c.w,
                  ActivationOut<1>{c.y, c.dims.y_size() / c.dims.Gy, c.dims.Ky(), c.b, c.relu, c.dropout});
}
void launch_dgrad_direct(const LinearDgrad& c, Stream stream) {
  MINIALEX_LAUNCH(linear_dgrad_direct, blocks(c.dims.x_size()), dim3(THREADS), 0, stream, c.dims, c.dy, c.w,
                  GradientOut<1>{c.dx, c.gate, c.scale});
}
void launch_wgrad_direct(const LinearWgrad& c, Stream stream) {
  MINIALEX_LAUNCH(linear_wgrad_direct, blocks(c.dims.w_size()), dim3(THREADS), 0, stream, c.dims, c.x, c.dy, c.dw, c.db,
                  c.accumulate);
}

// At most so many images that a larger tile would be mostly empty.
bool few_images(const LinearDims& d) { return d.N <= 32; }

// Enough large tiles to give most of a large GPU's SMs one; the same bits on a smaller one.
constexpr int64_t kEnoughBlocks = 96;
int64_t wide_blocks(int64_t rows, int64_t columns) { return ceil_div(rows, 128) * ceil_div(columns, 128); }
bool wide_fprop(const LinearDims& d) { return d.N > 64 && wide_blocks(d.N, d.Ky()) * d.Gy * fprop_sums(d) >= kEnoughBlocks; }
bool wide_dgrad(const LinearDims& d) { return d.N > 64 && wide_blocks(d.N, d.F) * d.Gx * dgrad_sums(d) >= kEnoughBlocks; }
bool wide_wgrad(const LinearDims& d) { return wide_blocks(d.Ky(), d.F) * d.Gy * d.parts() >= kEnoughBlocks; }

}  // namespace

void add_fprop_chains(const LinearFprop& c, Stream stream) {
  if (fprop_sums(c.dims) > 1) add_up_fprop(c, c.workspace, c.dims.parts(), chains_of(c.dims.F), c.b, c.relu, stream);
  else finish_fprop(c, stream);
}
void add_dgrad_chains(const LinearDgrad& c, Stream stream) {
  if (dgrad_sums(c.dims) > 1) add_up_dgrad(c, c.workspace, c.dims.groups == 1 ? c.dims.Gy : 1, chains_of(c.dims.Ky()), stream);
  else finish_dgrad(c, stream);
}
void finish_fprop(const LinearFprop& c, Stream stream) {
  if (c.relu || c.dropout.columns) add_up_fprop(c, c.y.at, 1, 1, nullptr, c.relu, stream);
}
void finish_dgrad(const LinearDgrad& c, Stream stream) {
  if (c.gate) add_up_dgrad(c, c.dx.at, 1, 1, stream);
}

const Op<LinearFprop>& linear_fprop() {
  static const Op<LinearFprop> op{"linear_fprop",
                                  {{"rows", "float32", rows_refuse, nullptr, fprop_workspace, linear_fprop_rows, 0, Stored::float32},
                                   {"narrow", "float32", nullptr, few_images, fprop_workspace, linear_fprop_narrow, 0, Stored::float32},
                                   {"wide", "float32", nullptr, wide_fprop, fprop_workspace, linear_fprop_wide, 0, Stored::float32},
                                   {"tiled", "float32", nullptr, nullptr, fprop_workspace, linear_fprop_tiled, 0, Stored::float32},
                                   {"tf32", "tf32", linear_mma::refuses_fprop, linear_mma::large_fprop, linear_mma::workspace_fprop,
                                    linear_mma::launch_fprop<mma::TF32, true>, conv_mma::SHARED_LARGE},
                                   {"tf32_64x64", "tf32", linear_mma::refuses_fprop, nullptr, linear_mma::workspace_fprop,
                                    linear_mma::launch_fprop<mma::TF32, false>},
                                   {"bf16", "bf16", linear_mma::refuses_fprop, linear_mma::large_fprop, linear_mma::workspace_fprop_bf16,
                                    linear_mma::launch_fprop<mma::BF16, true>},
                                   {"bf16_64x64", "bf16", linear_mma::refuses_fprop, nullptr, linear_mma::workspace_fprop_bf16,
                                    linear_mma::launch_fprop<mma::BF16, false>},
                                   {"bf16x3", "bf16x3", linear_mma::refuses_fprop, linear_mma::large_fprop, linear_mma::workspace_fprop,
                                    linear_mma::launch_fprop<mma::BF16X3, true>, conv_mma::SHARED_LARGE},
                                   {"bf16x3_64x64", "bf16x3", linear_mma::refuses_fprop, nullptr, linear_mma::workspace_fprop,
                                    linear_mma::launch_fprop<mma::BF16X3, false>},
                                   {"bf16x6", "bf16x6", linear_mma::refuses_fprop, linear_mma::large_fprop, linear_mma::workspace_fprop,
                                    linear_mma::launch_fprop<mma::BF16X6, true>, conv_mma::SHARED_LARGE},
                                   {"bf16x6_64x64", "bf16x6", linear_mma::refuses_fprop, nullptr, linear_mma::workspace_fprop,
                                    linear_mma::launch_fprop<mma::BF16X6, false>},
                                   {"direct", "float32", nullptr, nullptr, nullptr, launch_fprop_direct}}};
  return op;
}

const Op<LinearDgrad>& linear_dgrad() {
  static const Op<LinearDgrad> op{"linear_dgrad",
                                  {{"rows", "float32", rows_refuse, nullptr, dgrad_workspace, linear_dgrad_rows, 0, Stored::float32},
                                   {"narrow", "float32", nullptr, few_images, dgrad_workspace, linear_dgrad_narrow, 0, Stored::float32},
                                   {"wide", "float32", nullptr, wide_dgrad, dgrad_workspace, linear_dgrad_wide, 0, Stored::float32},
                                   {"tiled", "float32", nullptr, nullptr, dgrad_workspace, linear_dgrad_tiled, 0, Stored::float32},
                                   {"tf32", "tf32", linear_mma::refuses_dgrad, linear_mma::large_dgrad, linear_mma::workspace_dgrad,
                                    linear_mma::launch_dgrad<mma::TF32, true>, conv_mma::SHARED_LARGE},
                                   {"tf32_64x64", "tf32", linear_mma::refuses_dgrad, nullptr, linear_mma::workspace_dgrad,
                                    linear_mma::launch_dgrad<mma::TF32, false>},
                                   {"bf16", "bf16", linear_mma::refuses_dgrad, linear_mma::large_dgrad, linear_mma::workspace_dgrad_bf16,
                                    linear_mma::launch_dgrad<mma::BF16, true>},
                                   {"bf16_64x64", "bf16", linear_mma::refuses_dgrad, nullptr, linear_mma::workspace_dgrad_bf16,
                                    linear_mma::launch_dgrad<mma::BF16, false>},
                                   {"bf16x3", "bf16x3", linear_mma::refuses_dgrad, linear_mma::large_dgrad, linear_mma::workspace_dgrad,
                                    linear_mma::launch_dgrad<mma::BF16X3, true>, conv_mma::SHARED_LARGE},
                                   {"bf16x3_64x64", "bf16x3", linear_mma::refuses_dgrad, nullptr, linear_mma::workspace_dgrad,
                                    linear_mma::launch_dgrad<mma::BF16X3, false>},
                                   {"bf16x6", "bf16x6", linear_mma::refuses_dgrad, linear_mma::large_dgrad, linear_mma::workspace_dgrad,
                                    linear_mma::launch_dgrad<mma::BF16X6, true>, conv_mma::SHARED_LARGE},
                                   {"bf16x6_64x64", "bf16x6", linear_mma::refuses_dgrad, nullptr, linear_mma::workspace_dgrad,
                                    linear_mma::launch_dgrad<mma::BF16X6, false>},
                                   {"direct", "float32", nullptr, nullptr, nullptr, launch_dgrad_direct}}};
  return op;
}

const Op<LinearWgrad>& linear_wgrad() {
  static const Op<LinearWgrad> op{"linear_wgrad",
                                  {{"rows", "float32", rows_refuse, nullptr, nullptr, linear_wgrad_rows, 0, Stored::float32},
                                   {"wide", "float32", nullptr, wide_wgrad, nullptr, linear_wgrad_wide, 0, Stored::float32},
                                   {"tiled", "float32", nullptr, nullptr, nullptr, linear_wgrad_tiled, 0, Stored::float32},
                                   {"tf32", "tf32", linear_mma::refuses_wgrad, linear_mma::large_wgrad, linear_mma::workspace_wgrad,
                                    linear_mma::launch_wgrad<mma::TF32, true>, conv_mma::SHARED_LARGE},
                                   {"tf32_64x64", "tf32", linear_mma::refuses_wgrad, nullptr, linear_mma::workspace_wgrad,
                                    linear_mma::launch_wgrad<mma::TF32, false>},
                                   {"bf16", "bf16", linear_mma::refuses_wgrad, linear_mma::large_wgrad, linear_mma::workspace_wgrad,
                                    linear_mma::launch_wgrad<mma::BF16, true>},
                                   {"bf16_64x64", "bf16", linear_mma::refuses_wgrad, nullptr, linear_mma::workspace_wgrad,
                                    linear_mma::launch_wgrad<mma::BF16, false>},
                                   {"bf16x3", "bf16x3", linear_mma::refuses_wgrad, linear_mma::large_wgrad, linear_mma::workspace_wgrad,
                                    linear_mma::launch_wgrad<mma::BF16X3, true>, conv_mma::SHARED_LARGE},
                                   {"bf16x3_64x64", "bf16x3", linear_mma::refuses_wgrad, nullptr, linear_mma::workspace_wgrad,
                                    linear_mma::launch_wgrad<mma::BF16X3, false>},
                                   {"bf16x6", "bf16x6", linear_mma::refuses_wgrad, linear_mma::large_wgrad, linear_mma::workspace_wgrad,
                                    linear_mma::launch_wgrad<mma::BF16X6, true>, conv_mma::SHARED_LARGE},
                                   {"bf16x6_64x64", "bf16x6", linear_mma::refuses_wgrad, nullptr, linear_mma::workspace_wgrad,
                                    linear_mma::launch_wgrad<mma::BF16X6, false>},
                                   {"direct", "float32", nullptr, nullptr, nullptr, launch_wgrad_direct}}};
  return op;
}

}  // namespace minialex
