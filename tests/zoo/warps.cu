// Mistakes with what a warp does together: shuffles, votes, tensor-core products, ldmatrix.
#include "zoo.h"

namespace minialex::zoo {
namespace {

constexpr unsigned ALL = 0xFFFFFFFFu, LOW_HALF = 0xFFFFu;

__global__ void shuffle_in_divergent_code(const float* x, float* y) {
  const int i = threadIdx.x;
  float value = x[i];
  if (i % 32 < 16) value += __shfl_xor_sync(ALL, value, 1);        // @shuffle_in_divergent_code
  y[i] = value;
}
BUG(shuffle_in_divergent_code) {
  Lab lab;
  RUN(shuffle_in_divergent_code, SIZE, lab.x, lab.y);
  return lab.holds([&](int i) { return lab.input[i] + (i % 32 < 16 ? lab.input[i ^ 1] : 0.f); });
}

__global__ void shuffle_from_outside_the_mask(const float* x, float* y) {
  const int i = threadIdx.x;
  float value = x[i];
  if (i % 32 < 16) value = __shfl_sync(LOW_HALF, value, 20);
  y[i] = value;
}
BUG(shuffle_from_outside_the_mask) {
  Lab lab;
  RUN(shuffle_from_outside_the_mask, SIZE, lab.x, lab.y);
  return lab.holds([&](int i) { return i % 32 < 16 ? lab.input[i / 32 * 32 + 20] : lab.input[i]; });
}

__global__ void lane_not_in_its_mask(const float* x, float* y) {
  const int i = threadIdx.x;
  y[i] = __shfl_sync(LOW_HALF, x[i], 3);           // @lane_not_in_its_mask
}
BUG(lane_not_in_its_mask) {
  Lab lab;
  RUN(lane_not_in_its_mask, 32, lab.x, lab.y);
  return lab.holds([&](int i) { return i < 32 ? lab.input[3] : 0.f; });
}

__global__ void vote_after_some_returned(const float* x, float* y, int size) {
  const int i = threadIdx.x;
  if (i >= size) return;
  y[i] = __any_sync(ALL, x[i] > 10.f) ? x[i] : 0.f;        // @vote_after_some_returned
}
BUG(vote_after_some_returned) {
  Lab lab;
  RUN(vote_after_some_returned, 32, lab.x, lab.y, 20);
  return lab.holds([&](int i) { return i < 20 ? lab.input[i] : 0.f; });
}

__global__ void two_different_shuffles(const float* x, float* y) {
  const int i = threadIdx.x;
  if (i % 32 < 16) {
    y[i] = __shfl_xor_sync(ALL, x[i], 16);         // @two_different_shuffles
  } else {
    y[i] = __shfl_xor_sync(ALL, x[i], 16);         // @two_different_shuffles
  }
}
BUG(two_different_shuffles) {
  Lab lab;
  RUN(two_different_shuffles, 32, lab.x, lab.y);
  return lab.holds([&](int i) { return i < 32 ? lab.input[i ^ 16] : 0.f; });
}

__global__ void deadlock(const float* x, float* y) {
  const int i = threadIdx.x;
  float value = x[i];
  if (i == 3) value = __shfl_sync(0xFu, value, 0);         // @deadlock
  else if (i < 4) __syncwarp(0xFu);                // @deadlock
  else __syncwarp(~0xFu);
  if (i >= 4) __syncthreads();
  y[i] = value;
}
BUG(deadlock) {
  Lab lab;
  RUN(deadlock, 32, lab.x, lab.y);
  return lab.holds([&](int i) { return i == 3 ? lab.input[0] : i < 32 ? lab.input[i] : 0.f; });
}

__global__ void product_by_half_a_warp(float* y) {
  float d[4] = {};
  const uint32_t a[4] = {}, b[2] = {};
  if (threadIdx.x >= 16) return;
  mma_m16n8k8_tf32(d, a, b);                       // @product_by_half_a_warp
  y[threadIdx.x] = d[0];
}
BUG(product_by_half_a_warp) {
  Lab lab;
  RUN(product_by_half_a_warp, 32, lab.y);
  return lab.holds([](int) { return 0.f; });
}

__global__ void product_in_divergent_code(float* y) {
  float d[4] = {};
  const uint32_t a[4] = {}, b[2] = {};
  if (threadIdx.x < 16) mma_m16n8k16_bf16(d, a, b);        // @product_in_divergent_code
  y[threadIdx.x] = d[0];
}
BUG(product_in_divergent_code) {
  Lab lab;
  RUN(product_in_divergent_code, 32, lab.y);
  return lab.holds([](int) { return 0.f; });
}

__global__ void ldmatrix_by_half_a_warp(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [32 * 4]);
  const int i = threadIdx.x;
  for (int j = 0; j < 4; ++j) tile[4 * i + j] = x[i];
  __syncthreads();
  uint32_t r[4] = {};
  if (i < 16) ldmatrix_x4(r, tile + 4 * i);        // @ldmatrix_by_half_a_warp
  y[i] = __uint_as_float(r[0]);
}
BUG(ldmatrix_by_half_a_warp) {
  Lab lab;
  RUN(ldmatrix_by_half_a_warp, 32, lab.x, lab.y);
  return lab.holds([](int) { return 0.f; });
}

__global__ void ldmatrix_misaligned(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [32 * 5]);
  const int i = threadIdx.x;
  for (int j = 0; j < 5; ++j) tile[5 * i + j] = x[i];
  __syncthreads();
  uint32_t r[4] = {};
  ldmatrix_x4(r, tile + 5 * i);                    // @ldmatrix_misaligned
  y[i] = __uint_as_float(r[0]);
}
BUG(ldmatrix_misaligned) {
  Lab lab;
  RUN(ldmatrix_misaligned, 32, lab.x, lab.y);
  return lab.holds([&](int i) { return i < 32 ? lab.input[i / 4] : 0.f; });
}

// The rows of a tile another warp has written, and no barrier.
__global__ void ldmatrix_without_barrier(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [SIZE * 4]);
  const int i = threadIdx.x;
  for (int j = 0; j < 4; ++j) tile[4 * i + j] = x[i];      // @ldmatrix_without_barrier
  uint32_t r[4];
  ldmatrix_x4(r, tile + 4 * (SIZE - 1 - i));       // @ldmatrix_without_barrier
  y[i] = __uint_as_float(r[0]);
}
BUG(ldmatrix_without_barrier) {
  Lab lab;
  RUN(ldmatrix_without_barrier, SIZE, lab.x, lab.y);
  return lab.holds([&](int i) { return lab.input[SIZE - 1 - (i / 32 * 32 + i % 32 / 4)]; });
}

}  // namespace
}  // namespace minialex::zoo
