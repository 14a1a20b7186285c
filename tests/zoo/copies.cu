// Mistakes with asynchronous copies from global to shared memory (cp.async).
#include "zoo.h"

namespace minialex::zoo {
namespace {

__global__ void copy_not_waited_for(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [SIZE]);
  const int i = threadIdx.x;
  cp_async_4(&tile[i], &x[i], true);               // @copy_not_waited_for
  cp_async_commit();
  __syncthreads();
  y[i] = tile[i];                                  // @copy_not_waited_for
  cp_async_wait<0>();
}
BUG(copy_not_waited_for) {
  Lab lab;
  RUN(copy_not_waited_for, SIZE, lab.x, lab.y);
  return lab.copied();
}

// A wait is for the thread's own copies: a barrier must follow for those of the others.
__global__ void copy_not_synchronised(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [SIZE]);
  const int i = threadIdx.x;
  cp_async_4(&tile[i], &x[i], true);
  cp_async_commit();
  cp_async_wait<0>();
  y[i] = tile[SIZE - 1 - i];                       // @copy_not_synchronised
}
BUG(copy_not_synchronised) {
  Lab lab;
  RUN(copy_not_synchronised, SIZE, lab.x, lab.y);
  return lab.mirrored();
}

__global__ void one_group_too_few(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [2][SIZE]);
  const int i = threadIdx.x;
  for (int half = 0; half < 2; ++half) {
    cp_async_4(&tile[half][i], &x[i], true);       // @one_group_too_few
    cp_async_commit();
  }
  cp_async_wait<1>();
  __syncthreads();
  y[i] = tile[0][i] + tile[1][i];                  // @one_group_too_few
  cp_async_wait<0>();
}
BUG(one_group_too_few) {
  Lab lab;
  RUN(one_group_too_few, SIZE, lab.x, lab.y);
  return lab.holds([&](int i) { return 2.f * lab.input[i]; });
}

__global__ void copy_never_waited_for(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [SIZE]);
  const int i = threadIdx.x;
  cp_async_4(&tile[i], &x[i], true);
  cp_async_commit();
  y[i] = x[i];
}
BUG(copy_never_waited_for) {
  Lab lab;
  RUN(copy_never_waited_for, SIZE, lab.x, lab.y);
  return lab.copied();
}

__global__ void copy_misaligned(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [SIZE]);
  const int i = threadIdx.x;
  if (i < 15) cp_async_16(&tile[4 * i], &x[4 * i + 1], true);      // @copy_misaligned
  cp_async_wait<0>();
  __syncthreads();
  y[i] = i < 60 ? tile[i] : 0.f;
}
BUG(copy_misaligned) {
  Lab lab;
  RUN(copy_misaligned, SIZE, lab.x, lab.y);
  return lab.holds([&](int i) { return i < 60 ? lab.input[i + 1] : 0.f; });
}

__global__ void copy_from_past_end(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [SIZE]);
  const int i = threadIdx.x;
  cp_async_4(&tile[i], &x[i + 1], true);           // @copy_from_past_end
  cp_async_commit();
  cp_async_wait<0>();
  y[i] = tile[i];
}
BUG(copy_from_past_end) {
  Lab lab;
  RUN(copy_from_past_end, SIZE, lab.x, lab.y);
  return lab.holds([&](int i) { return i < SIZE - 1 ? lab.input[i + 1] : 0.f; });
}

__global__ void copy_to_past_end(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [SIZE]);
  const int i = threadIdx.x;
  float* start = tile;
  cp_async_4(start + i + 1, &x[i], true);          // @copy_to_past_end
  cp_async_commit();
  cp_async_wait<0>();
  y[i] = start[i + 1];
}
BUG(copy_to_past_end) {
  Lab lab;
  RUN(copy_to_past_end, SIZE, lab.x, lab.y);
  return lab.copied();
}

// The next tile is fetched into the buffer that other threads still read.
__global__ void copy_over_a_tile_in_use(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [SIZE]);
  const int i = threadIdx.x;
  float sum = 0.f;
  for (int round = 0; round < 2; ++round) {
    cp_async_4(&tile[i], &x[i], true);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    sum += tile[SIZE - 1 - i];                     // @copy_over_a_tile_in_use
  }
  y[i] = sum;
}
BUG(copy_over_a_tile_in_use) {
  Lab lab;
  RUN(copy_over_a_tile_in_use, SIZE, lab.x, lab.y);
  return lab.holds([&](int i) { return 2.f * lab.input[SIZE - 1 - i]; });
}

}  // namespace
}  // namespace minialex::zoo
