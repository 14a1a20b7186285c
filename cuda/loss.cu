// Softmax and multinomial logistic loss (paper, section 3.5):
//   p = softmax(x), loss[n] = log(sum of exp(x[n, k])) - x[n, label], dx = (p - onehot) * scale.
//
//   warp     forward: a warp a row, lanes in turn over the logits, sums by a tree of shuffles; in training dx on the way
//   vector   backward: 4 floats a thread, where a row is whole vectors
//   direct   forward: a thread a row; backward: a thread a number; any shape
//
// The largest logit is subtracted first, so nothing overflows, and the loss comes from the logits, so a p of 0 has a finite
// loss.  Three passes over a row that stays in the cache.  A label that is no class gives a loss of NaN and a row of NaN
// gradients: the host never looks at labels on a device, and a wrong one must not pass for a right one.
#include <minialex/kernel.h>
#include <minialex/ops.h>
#include <minialex/stored.h>

namespace minialex {
namespace {

constexpr int THREADS = 128;
constexpr int WARP = 32, WARPS = THREADS / WARP;
constexpr int CHAIN = 4096;                             // additions one after another, at most

// As NumPy's maximum: a NaN wins, so that a diverged run shows itself.
MINIALEX_DEVICE float larger(float a, float b) { return a > b || a != a ? a : b; }

// log(total) - z, z the label's distance from the largest logit; a label outside reads nothing.
MINIALEX_DEVICE float loss_of(const InArray& row, int label, int K, float largest, float total) {
  return label >= 0 && label < K ? logf(total) - (row[label] - largest) : nanf("");
}

// (p - 1) * scale or p * scale; the subtraction is exact where p >= 1/2 and rounds once elsewhere, as in NumPy.
MINIALEX_DEVICE float gradient(float p, int k, int label, int K, float scale) {
  if (label < 0 || label >= K) return nanf("");
  return __fmul_rn(k == label ? p - 1.f : p, scale);
}

__global__ void __launch_bounds__(THREADS, 8) loss_fprop_direct(LossDims d, InArray x, const int32_t* __restrict__ labels,
                                                             float* __restrict__ p, float* __restrict__ loss, OutArray dx,
                                                             float scale) {
  const int64_t n = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (n >= d.N) return;
  const InArray row = x + n * d.K;
  float* out = p + n * d.K;
  float largest = row[0];
  for (int k = 1; k < d.K; ++k) largest = larger(row[k], largest);
  float total = 0.f;
  for (int start = 0; start < d.K; start += CHAIN) {
    float chain = 0.f;
    for (int k = start; k < min(start + CHAIN, d.K); ++k) chain += out[k] = expf(row[k] - largest);
    total += chain;
  }
  for (int k = 0; k < d.K; ++k) {
    out[k] /= total;
    if (dx) dx[n * d.K + k] = gradient(out[k], k, labels[n], d.K, scale);
  }
  loss[n] = loss_of(row, labels[n], d.K, largest, total);
}

// Lane l adds the numbers l, l + 32, ...: 32 chains of K / 32, then five rounds of pairs whose order is that of the lanes.
__global__ void __launch_bounds__(THREADS, 8) loss_fprop_warp(LossDims d, InArray x, const int32_t* __restrict__ labels,
                                                           float* __restrict__ p, float* __restrict__ loss, OutArray dx, float scale) {
  const int lane = int(threadIdx.x) % WARP;
  const int64_t n = int64_t(blockIdx.x) * WARPS + int(threadIdx.x) / WARP;
  if (n >= d.N) return;                                 // the whole warp
  const InArray row = x + n * d.K;
  float* out = p + n * d.K;
  float largest = row[0];
  for (int k = lane; k < d.K; k += WARP) largest = larger(row[k], largest);
  for (int apart = WARP / 2; apart > 0; apart /= 2) largest = larger(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, apart));
  float total = 0.f;
  for (int k = lane; k < d.K; k += WARP) total += out[k] = expf(row[k] - largest);
  for (int apart = WARP / 2; apart > 0; apart /= 2) total += __shfl_xor_sync(0xFFFFFFFFu, total, apart);
  for (int k = lane; k < d.K; k += WARP) {              // each lane reads what it wrote
    out[k] /= total;
    if (dx) dx[n * d.K + k] = gradient(out[k], k, labels[n], d.K, scale);
  }
  if (lane == 0) loss[n] = loss_of(row, labels[n], d.K, largest, total);
}

__global__ void __launch_bounds__(THREADS) loss_bprop_direct(LossDims d, const float* __restrict__ p, const int32_t* __restrict__ labels,
                                                             OutArray dx, float scale) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i < int64_t(d.N) * d.K) dx[i] = gradient(p[i], int(i % d.K), labels[i / d.K], d.K, scale);
}

__global__ void __launch_bounds__(THREADS) loss_bprop_vector(LossDims d, const float* __restrict__ p, const int32_t* __restrict__ labels,
                                                             OutArray dx, float scale) {
  const int64_t i = (int64_t(blockIdx.x) * THREADS + threadIdx.x) * 4;
  if (i >= int64_t(d.N) * d.K) return;
  const int label = labels[i / d.K], k = int(i % d.K);
  const float4 a = load4(p + i);
  store4(dx + i, make_float4(gradient(a.x, k, label, d.K, scale), gradient(a.y, k + 1, label, d.K, scale),
                             gradient(a.z, k + 2, label, d.K, scale), gradient(a.w, k + 3, label, d.K, scale)));
}

const char* needs_short_chains(const LossDims& d) { return d.K > WARP * CHAIN ? "a lane's sum would be a chain of more than 4,096" : nullptr; }
const char* needs_whole_vectors(const LossDims& d) { return d.K % 4 ? "a row is no multiple of 4" : nullptr; }

dim3 blocks(int64_t work, int per_block) { return dim3(narrow(ceil_div(work, per_block), "the number of blocks")); }

void launch_fprop_warp(const LossFprop& c, Stream stream) {
  MINIALEX_LAUNCH(loss_fprop_warp, blocks(c.dims.N, WARPS), dim3(THREADS), 0, stream, c.dims, c.x, c.labels, c.p, c.loss, c.dx, c.scale);
}
void launch_fprop_direct(const LossFprop& c, Stream stream) {
  MINIALEX_LAUNCH(loss_fprop_direct, blocks(c.dims.N, THREADS), dim3(THREADS), 0, stream, c.dims, c.x, c.labels, c.p, c.loss, c.dx, c.scale);
}
void launch_bprop_vector(const LossBprop& c, Stream stream) {
  MINIALEX_LAUNCH(loss_bprop_vector, blocks(int64_t(c.dims.N) * c.dims.K, THREADS * 4), dim3(THREADS), 0, stream, c.dims, c.p, c.labels, c.dx,
                  c.scale);
}
void launch_bprop_direct(const LossBprop& c, Stream stream) {
  MINIALEX_LAUNCH(loss_bprop_direct, blocks(int64_t(c.dims.N) * c.dims.K, THREADS), dim3(THREADS), 0, stream, c.dims, c.p, c.labels, c.dx,
                  c.scale);
}

}  // namespace

const Op<LossFprop>& loss_fprop() {
  static const Op<LossFprop> op{"loss_fprop",
                                {{"warp", "float32", needs_short_chains, nullptr, nullptr, launch_fprop_warp},
                                 {"direct", "float32", nullptr, nullptr, nullptr, launch_fprop_direct}}};
  return op;
}

const Op<LossBprop>& loss_bprop() {
  static const Op<LossBprop> op{"loss_bprop",
                                {{"vector", "float32", needs_whole_vectors, nullptr, nullptr, launch_bprop_vector},
                                 {"direct", "float32", nullptr, nullptr, nullptr, launch_bprop_direct}}};
  return op;
}

}  // namespace minialex
