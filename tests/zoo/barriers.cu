// Mistakes with __syncthreads: undefined behaviour on a GPU, which may hang, go on or be right by chance.
#include "zoo.h"

namespace minialex::zoo {
namespace {

__global__ void divergent_barrier(const float* x, float* y) {
  const int i = threadIdx.x;
  y[i] = x[i];
  if (i < 16) __syncthreads();                     // @divergent_barrier
}
BUG(divergent_barrier) {
  Lab lab;
  RUN(divergent_barrier, SIZE, lab.x, lab.y);
  return lab.copied();
}

__global__ void early_return(const float* x, float* y, int size) {
  MINIALEX_SHARED(float, tile, [SIZE]);
  const int i = threadIdx.x;
  if (i >= size) return;
  tile[i] = x[i];
  __syncthreads();                                 // @early_return
  y[i] = tile[size - 1 - i];
}
BUG(early_return) {
  Lab lab;
  RUN(early_return, SIZE, lab.x, lab.y, 50);
  return lab.holds([&](int i) { return i < 50 ? lab.input[49 - i] : 0.f; });
}

__global__ void two_different_barriers(const float* x, float* y) {
  const int i = threadIdx.x;
  if (i < 32) {
    y[i] = x[i];
    __syncthreads();                               // @two_different_barriers
  } else {
    y[i] = 2.f * x[i];
    __syncthreads();                               // @two_different_barriers
  }
}
BUG(two_different_barriers) {
  Lab lab;
  RUN(two_different_barriers, SIZE, lab.x, lab.y);
  return lab.holds([&](int i) { return lab.input[i] * (i < 32 ? 1.f : 2.f); });
}

// Each warp goes round as often as it has work, with a barrier in every round.
__global__ void barrier_in_unequal_loop(const float* x, float* y) {
  const int i = threadIdx.x;
  float sum = 0.f;
  for (int round = 0; round <= i / 32; ++round) {
    sum += x[i];
    __syncthreads();                               // @barrier_in_unequal_loop
  }
  y[i] = sum;
}
BUG(barrier_in_unequal_loop) {
  Lab lab;
  RUN(barrier_in_unequal_loop, SIZE, lab.x, lab.y);
  return lab.holds([&](int i) { return lab.input[i] * (i < 32 ? 1.f : 2.f); });
}

__global__ void barrier_against_shuffle(const float* x, float* y) {
  const int i = threadIdx.x;
  float value = x[i];
  if (i < 32) {
    if (i == 5) __syncthreads();                   // @barrier_against_shuffle
    value = __shfl_xor_sync(0xFFFFFFFFu, value, 1);        // @barrier_against_shuffle
  }
  y[i] = value;
}
BUG(barrier_against_shuffle) {
  Lab lab;
  RUN(barrier_against_shuffle, 32, lab.x, lab.y);
  return lab.holds([&](int i) { return i < 32 ? lab.input[i ^ 1] : 0.f; });
}

}  // namespace
}  // namespace minialex::zoo
