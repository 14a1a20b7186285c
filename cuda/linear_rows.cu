// Linear layers for at most kRows = 8 images: each weight comes from memory once and meets every image in registers.
//
//   fprop   a thread an output; slices of w turn in shared memory, so that memory is read along the rows: 4 bytes a weight
//   dgrad   a thread a feature: neighbours read neighbouring weights as they lie; 4 bytes a weight
//   wgrad   a thread 4 features of 4 outputs; 4 bytes written a weight
//
// The sums have the order of linear_variants.h: chains by blocks of their own, added by add_*_chains.
#include <minialex/linear_variants.h>

namespace minialex {
namespace {

constexpr int THREADS = 128;
constexpr int SLICE = 32;                               // features of w in shared memory at a time
static_assert(kLinearChain % SLICE == 0 && kRows == 8, "chains are whole slices; two float4 hold a number of every image");

// The images' numbers of one term side by side: two 16-byte reads serve all eight.
using Terms = float[kLinearChain][kRows];

// terms[i][n] = from[n * stride + i]; images beyond N count as 0.
MINIALEX_DEVICE void stage(Terms& terms, const float* from, int64_t stride, int count, int N) {
  for (int t = int(threadIdx.x); t < count * kRows; t += THREADS) {
    const int n = t / count, i = t % count;
    terms[i][n] = n < N ? from[n * stride + i] : 0.f;
  }
}

MINIALEX_DEVICE void add_term(float weight, const float (&term)[kRows], float (&sum)[kRows]) {
  const float4 low = load4(term), high = load4(term + 4);
  sum[0] = multiply_add(low.x, weight, sum[0]);
  sum[1] = multiply_add(low.y, weight, sum[1]);
  sum[2] = multiply_add(low.z, weight, sum[2]);
  sum[3] = multiply_add(low.w, weight, sum[3]);
  sum[4] = multiply_add(high.x, weight, sum[4]);
  sum[5] = multiply_add(high.y, weight, sum[5]);
  sum[6] = multiply_add(high.z, weight, sum[6]);
  sum[7] = multiply_add(high.w, weight, sum[7]);
}

// blockIdx: x 128 outputs of a column, y the column of y, z part * chains + chain.
__global__ void __launch_bounds__(THREADS) linear_fprop_rows_kernel(LinearDims d, const float* __restrict__ x, const float* __restrict__ w,
                                                                    const float* __restrict__ b, float* __restrict__ out, int chains) {
  constexpr int LANES = SLICE / 4, VECTORS = SLICE / 4;                       // threads along a row, float4s of a thread
  MINIALEX_SHARED(Terms, terms, );
  MINIALEX_SHARED(float, weights, [SLICE][THREADS + 1]);                      // + 1: turning stores meet no bank twice
  const int t = int(threadIdx.x), Ky = d.Ky(), g = int(blockIdx.y), part = int(blockIdx.z) / chains;
  const int start = int(blockIdx.z) % chains * kLinearChain, count = min(kLinearChain, d.F - start), first = int(blockIdx.x) * THREADS;
  const int gx = d.groups == 1 ? part : g;
  const bool vectors = d.F % 4 == 0;
  const float* from = w + int64_t(g) * Ky * d.row() + int64_t(part) * d.F + start;
  stage(terms, x + int64_t(gx) * d.N * d.F + start, d.F, count, d.N);
  float sum[kRows] = {};
  for (int slice = 0; slice < count; slice += SLICE) {
    float4 held[VECTORS];
    const int f = slice + t % LANES * 4;
    MINIALEX_UNROLL
    for (int v = 0; v < VECTORS; ++v) {
      const int k = first + t / LANES + v * (THREADS / LANES);
      held[v] = k < Ky ? read4(from + int64_t(k) * d.row() + f, f, 0, count, vectors) : make_float4(0.f, 0.f, 0.f, 0.f);
    }
    __syncthreads();                                    // the slice before has been used; the terms are there
    MINIALEX_UNROLL
    for (int v = 0; v < VECTORS; ++v) {
      const int k = t / LANES + v * (THREADS / LANES), place = t % LANES * 4;
      weights[place][k] = held[v].x;
      weights[place + 1][k] = held[v].y;
      weights[place + 2][k] = held[v].z;
      weights[place + 3][k] = held[v].w;
    }
    __syncthreads();
    for (int i = 0; i < min(SLICE, count - slice); ++i) add_term(weights[i][t], terms[slice + i], sum);
  }
  const int k = first + t;
  if (k >= Ky) return;
  float* to = out + int64_t(blockIdx.z) * d.y_size() + int64_t(g) * d.N * Ky + k;
  const bool biased = b && gridDim.z == 1;
  MINIALEX_UNROLL
  for (int n = 0; n < kRows; ++n) {
    if (n < d.N) to[int64_t(n) * Ky] = biased ? __fadd_rn(sum[n], b[int64_t(g) * Ky + k]) : sum[n];
  }
}

// blockIdx: x 128 features of a column, y the column of x, z output column * chains + chain.
__global__ void __launch_bounds__(THREADS) linear_dgrad_rows_kernel(LinearDims d, const float* __restrict__ dy, const float* __restrict__ w,
                                                                    float* __restrict__ out, int chains) {
  MINIALEX_SHARED(Terms, terms, );
  const int Ky = d.Ky(), g = int(blockIdx.y), gy = d.groups == 1 ? int(blockIdx.z) / chains : g;
  const int start = int(blockIdx.z) % chains * kLinearChain, count = min(kLinearChain, Ky - start);
  const int64_t f = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  stage(terms, dy + int64_t(gy) * d.N * Ky + start, Ky, count, d.N);
  __syncthreads();
  if (f >= d.F) return;
  const float* from = w + (int64_t(gy) * Ky + start) * d.row() + (d.groups == 1 ? int64_t(g) * d.F : 0) + f;
  float sum[kRows] = {};
#pragma unroll 8
  for (int i = 0; i < count; ++i) add_term(from[int64_t(i) * d.row()], terms[i], sum);
  float* to = out + int64_t(blockIdx.z) * d.x_size() + int64_t(g) * d.N * d.F + f;
  MINIALEX_UNROLL
  for (int n = 0; n < kRows; ++n) {
    if (n < d.N) to[int64_t(n) * d.F] = sum[n];
  }
}

constexpr int OUTPUTS = 4;                              // of a thread of wgrad: x is read once for so many

// blockIdx: x 512 features of a row of w, the rows in fours.
__global__ void __launch_bounds__(THREADS) linear_wgrad_rows_kernel(LinearDims d, const float* __restrict__ x, const float* __restrict__ dy,
                                                                    float* __restrict__ dw, float* __restrict__ db, bool accumulate, int across) {
  const int Ky = d.Ky(), fours = (Ky + OUTPUTS - 1) / OUTPUTS;
  const int place = (int(blockIdx.x) % across * THREADS + int(threadIdx.x)) * 4;
  const int g = int(blockIdx.x) / across / fours, k = int(blockIdx.x) / across % fours * OUTPUTS;
  if (int(blockIdx.x) % across == 0 && int(threadIdx.x) < min(OUTPUTS, Ky - k))
    linear_bias_gradient(d, dy, db, g * Ky + k + int(threadIdx.x), 0, accumulate);
  if (place >= d.row()) return;
  const bool vectors = d.F % 4 == 0;                    // then a vector lies within one column of x, too
  MINIALEX_UNROLL
  for (int e = 0; e < 4; e += 1) {
    if (vectors && e) break;
    const int f = place + e;
    if (f >= d.row()) break;
    const float* from = x + int64_t(d.groups == 1 ? f / d.F : g) * d.N * d.F + f % d.F;
    float4 sum[OUTPUTS];
    MINIALEX_UNROLL
    for (int o = 0; o < OUTPUTS; ++o) sum[o] = make_float4(0.f, 0.f, 0.f, 0.f);
    for (int n = 0; n < d.N; ++n) {
      const float* number = from + int64_t(n) * d.F;
      const float4 term = vectors ? load4(number) : make_float4(number[0], 0.f, 0.f, 0.f);
      MINIALEX_UNROLL
      for (int o = 0; o < OUTPUTS; ++o) {
        const float slope = k + o < Ky ? dy[(int64_t(g) * d.N + n) * Ky + k + o] : 0.f;
        sum[o] = make_float4(multiply_add(slope, term.x, sum[o].x), multiply_add(slope, term.y, sum[o].y), multiply_add(slope, term.z, sum[o].z),
                             multiply_add(slope, term.w, sum[o].w));
      }
    }
    MINIALEX_UNROLL
    for (int o = 0; o < OUTPUTS; ++o) {
      if (k + o >= Ky) continue;
      float* to = dw + (int64_t(g) * Ky + k + o) * d.row() + f;
      if (vectors)
        store4(to, accumulate ? add4(load4(to), sum[o]) : sum[o]);
      else
        *to = accumulate ? __fadd_rn(*to, sum[o].x) : sum[o].x;
    }
  }
}

dim3 grid(const LinearDims& d, int extent, int columns, int sums) {
  MINIALEX_CHECK(ShapeError, columns <= 65535 && sums <= 65535, "linear: ", d.text(), " needs a grid of ", columns, " x ", sums,
                 ", but CUDA allows 65,535 each; use variant direct");
  return dim3(narrow(ceil_div(extent, THREADS), "the number of blocks"), static_cast<unsigned>(columns), static_cast<unsigned>(sums));
}

}  // namespace

const char* rows_refuse(const LinearDims& d) { return d.N > kRows ? "it holds no more than 8 images" : nullptr; }

void linear_fprop_rows(const LinearFprop& c, Stream stream) {
  const LinearDims& d = c.dims;
  const int sums = fprop_sums(d);
  MINIALEX_LAUNCH(linear_fprop_rows_kernel, grid(d, d.Ky(), d.Gy, sums), dim3(THREADS), 0, stream, d, c.x, c.w, c.b,
                  sums > 1 ? static_cast<float*>(c.workspace) : static_cast<float*>(c.y), chains_of(d.F));
  add_fprop_chains(c, stream);
}

void linear_dgrad_rows(const LinearDgrad& c, Stream stream) {
  const LinearDims& d = c.dims;
  const int sums = dgrad_sums(d);
  MINIALEX_LAUNCH(linear_dgrad_rows_kernel, grid(d, d.F, d.Gx, sums), dim3(THREADS), 0, stream, d, c.dy, c.w,
                  sums > 1 ? static_cast<float*>(c.workspace) : static_cast<float*>(c.dx), chains_of(d.Ky()));
  add_dgrad_chains(c, stream);
}

void linear_wgrad_rows(const LinearWgrad& c, Stream stream) {
  const LinearDims& d = c.dims;
  const int across = static_cast<int>(ceil_div(d.row(), THREADS * 4));
  const int64_t blocks = across * ceil_div(d.Ky(), OUTPUTS) * d.Gy;
  MINIALEX_LAUNCH(linear_wgrad_rows_kernel, dim3(narrow(blocks, "the number of blocks")), dim3(THREADS), 0, stream, d, c.x, c.dy, c.dw,
                  c.db, c.accumulate, across);
}

}  // namespace minialex
