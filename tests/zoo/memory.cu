// Mistakes with shared, global and local memory.
#include "zoo.h"

namespace minialex::zoo {
namespace {

__global__ void missing_barrier_before_reading(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [SIZE]);
  const int i = threadIdx.x;
  tile[i] = x[i];                                  // @missing_barrier_before_reading
  y[i] = tile[SIZE - 1 - i];                       // @missing_barrier_before_reading
}
BUG(missing_barrier_before_reading) {
  Lab lab;
  RUN(missing_barrier_before_reading, SIZE, lab.x, lab.y);
  return lab.mirrored();
}

__global__ void missing_barrier_before_next_tile(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [SIZE]);
  const int i = threadIdx.x;
  float sum = 0.f;
  for (int round = 0; round < 4; ++round) {
    tile[i] = x[(i + round) % SIZE];               // @missing_barrier_before_next_tile
    __syncthreads();
    sum += tile[SIZE - 1 - i];                     // @missing_barrier_before_next_tile
  }
  y[i] = sum;
}
BUG(missing_barrier_before_next_tile) {
  Lab lab;
  RUN(missing_barrier_before_next_tile, SIZE, lab.x, lab.y);
  return lab.holds([&](int i) {
    float sum = 0.f;
    for (int round = 0; round < 4; ++round) sum += lab.input[(SIZE - 1 - i + round) % SIZE];
    return sum;
  });
}

// Lanes of a warp need not run in lockstep (since Volta): neighbours exchange with __syncwarp in between, or not at all.
__global__ void lockstep_assumed(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [SIZE]);
  const int i = threadIdx.x;
  tile[i] = x[i];                                  // @lockstep_assumed
  y[i] = tile[i ^ 1];                              // @lockstep_assumed
}
BUG(lockstep_assumed) {
  Lab lab;
  RUN(lockstep_assumed, 32, lab.x, lab.y);
  return lab.holds([&](int i) { return i < 32 ? lab.input[i ^ 1] : 0.f; });
}

__global__ void sum_without_atomics(const float* x, float* y) {
  y[threadIdx.x % 4] += x[threadIdx.x];            // @sum_without_atomics
}
BUG(sum_without_atomics) {
  Lab lab;
  RUN(sum_without_atomics, SIZE, lab.x, lab.y);
  return lab.holds([&](int i) {
    float sum = 0.f;
    for (int j = i; i < 4 && j < SIZE; j += 4) sum += lab.input[j];
    return sum;
  });
}

__global__ void sum_without_atomics_between_blocks(const float* x, float* y) {
  if (threadIdx.x == 0) y[0] += x[blockIdx.x];     // @sum_without_atomics_between_blocks
}
BUG(sum_without_atomics_between_blocks) {
  Lab lab;
  MINIALEX_LAUNCH(sum_without_atomics_between_blocks, SIZE, 32, 0, lab.stream, lab.x, lab.y);
  return lab.holds([&](int i) { return i == 0 ? SIZE * (SIZE + 1) / 2.f : 0.f; });
}

// The tiles of neighbouring blocks overlap by one element: 17 where 16 were meant.
__global__ void overlapping_tiles(const float* x, float* y) {
  const int i = blockIdx.x * 16 + threadIdx.x;
  if (i < SIZE) y[i] = x[i];                       // @overlapping_tiles
}
BUG(overlapping_tiles) {
  Lab lab;
  MINIALEX_LAUNCH(overlapping_tiles, 4, 17, 0, lab.stream, lab.x, lab.y);
  return lab.copied();
}

// The second block wants what the first wrote; a launch is no place for that.
__global__ void blocks_assumed_in_order(const float* x, float* y) {
  const int i = threadIdx.x;
  if (blockIdx.x == 0) y[i] = x[i];                // @blocks_assumed_in_order
  else y[32 + i] = y[i] + 1.f;                     // @blocks_assumed_in_order
}
BUG(blocks_assumed_in_order) {
  Lab lab;
  MINIALEX_LAUNCH(blocks_assumed_in_order, 2, 32, 0, lab.stream, lab.x, lab.y);
  return lab.holds([&](int i) { return i < 32 ? lab.input[i] : lab.input[i - 32] + 1.f; });
}

__global__ void atomic_read_plainly(int* counter, float* y) {
  atomicAdd(counter, 1);                           // @atomic_read_plainly
  y[threadIdx.x] = *counter == SIZE ? 1.f : 0.f;   // @atomic_read_plainly
}
BUG(atomic_read_plainly) {
  Lab lab;
  auto* counter = reinterpret_cast<int*>(device_array(1));
  runtime::fill(counter, 0, sizeof(int), lab.stream);
  RUN(atomic_read_plainly, SIZE, counter, lab.y);
  return lab.holds([](int) { return 1.f; });
}

__global__ void shared_read_past_end(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [SIZE]);
  MINIALEX_SHARED(float, other, [SIZE]);
  const int i = threadIdx.x;
  tile[i] = x[i];
  other[i] = 0.f;
  __syncthreads();
  y[i] = tile[i + 1];                              // @shared_read_past_end
}
BUG(shared_read_past_end) {
  Lab lab;
  RUN(shared_read_past_end, SIZE, lab.x, lab.y);
  return lab.holds([&](int i) { return i < SIZE - 1 ? lab.input[i + 1] : 0.f; });
}

__global__ void shared_write_past_end(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [SIZE]);
  const int i = threadIdx.x;
  tile[i + 1] = x[i];                              // @shared_write_past_end
  __syncthreads();
  y[i] = i ? tile[i] : x[0];
}
BUG(shared_write_past_end) {
  Lab lab;
  RUN(shared_write_past_end, SIZE, lab.x, lab.y);
  return lab.holds([&](int i) { return i ? lab.input[i - 1] : lab.input[0]; });
}

struct Rows { float values[SIZE]; };
__global__ void dynamic_shared_past_end(const float* x, float* y) {
  MINIALEX_DYNAMIC_SHARED(Rows, rows);
  const int i = threadIdx.x;
  float* first = rows.values;
  first[i] = x[i];
  if (i == 0) first[SIZE + 2] = 1.f;               // @dynamic_shared_past_end
  __syncthreads();
  y[i] = first[SIZE - 1 - i];
}
BUG(dynamic_shared_past_end) {
  Lab lab;
  MINIALEX_LAUNCH(dynamic_shared_past_end, 1, SIZE, sizeof(Rows), lab.stream, lab.x, lab.y);
  return lab.mirrored();
}

// Stays inside the array and leaves the row: right by the memory's layout, undefined by the language.
__global__ void row_overrun(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [4][16]);
  const int i = threadIdx.x;
  tile[i / 16][i % 16] = x[i];
  __syncthreads();
  y[i] = tile[0][i];                               // @row_overrun
}
BUG(row_overrun) {
  Lab lab;
  RUN(row_overrun, SIZE, lab.x, lab.y);
  return lab.copied();
}

__global__ void local_array_overrun(const float* x, float* y, int last) {
  float room[8] = {};
  float* values = room;
  float kept[4] = {};
  const int i = threadIdx.x;
  for (int j = 0; j <= last; ++j) kept[j] = x[i];  // @local_array_overrun
  values[0] = kept[i % 4];
  y[i] = values[0];
}
BUG(local_array_overrun) {
  Lab lab;
  RUN(local_array_overrun, SIZE, lab.x, lab.y, 4);
  return lab.copied();
}

__global__ void global_read_past_end(const float* x, float* y) {
  const int i = threadIdx.x;
  y[i] = x[i + 1];                                 // @global_read_past_end
}
BUG(global_read_past_end) {
  Lab lab;
  RUN(global_read_past_end, SIZE, lab.x, lab.y);
  return lab.holds([&](int i) { return i < SIZE - 1 ? lab.input[i + 1] : 0.f; });
}

__global__ void global_write_past_end(const float* x, float* y) {
  const int i = threadIdx.x;
  y[i] = x[i];
  if (i == 0) y[SIZE] = 1.f;                       // @global_write_past_end
}
BUG(global_write_past_end) {
  Lab lab;
  RUN(global_write_past_end, SIZE, lab.x, lab.y);
  return lab.copied();
}

__global__ void global_write_before_start(const float* x, float* y) {
  const int i = threadIdx.x;
  y[i - 1] = x[i];                                 // @global_write_before_start
}
BUG(global_write_before_start) {
  Lab lab;
  RUN(global_write_before_start, SIZE, lab.x, lab.y);
  return lab.holds([&](int i) { return i < SIZE - 1 ? lab.input[i + 1] : 0.f; });
}

__global__ void null_pointer_written(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];
}
BUG(null_pointer_written) {
  Lab lab;
  RUN(null_pointer_written, SIZE, lab.x, nullptr);
  return lab.copied();
}

__global__ void shared_read_before_write(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [SIZE]);
  const int i = threadIdx.x;
  if (i < SIZE - 1) tile[i] = x[i];
  __syncthreads();
  y[i] = tile[SIZE - 1 - i];                       // @shared_read_before_write
}
BUG(shared_read_before_write) {
  Lab lab;
  RUN(shared_read_before_write, SIZE, lab.x, lab.y);
  return lab.holds([&](int i) { return i ? lab.input[SIZE - 1 - i] : 0.f; });
}

__global__ void global_read_before_write(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];                 // @global_read_before_write
}
BUG(global_read_before_write) {
  Lab lab;
  RUN(global_read_before_write, SIZE, device_array(), lab.y);
  return lab.holds([](int) { return 0.f; });
}

__global__ void accumulates_into_nothing(const float* x, float* y) {
  y[threadIdx.x] += x[threadIdx.x];                // @accumulates_into_nothing
}
BUG(accumulates_into_nothing) {
  Lab lab;
  float* fresh = device_array();
  RUN(accumulates_into_nothing, SIZE, lab.x, fresh);
  return lab.holds([&](int i) { return lab.input[i]; }, fresh);
}

__global__ void misaligned_float4(const float* x, float* y) {
  const float4 four = *reinterpret_cast<const float4*>(x + 1);     // @misaligned_float4
  y[threadIdx.x] = four.x + four.w;
}
BUG(misaligned_float4) {
  Lab lab;
  RUN(misaligned_float4, SIZE, lab.x, lab.y);
  return lab.holds([&](int) { return lab.input[1] + lab.input[4]; });
}

__global__ void misaligned_load4(const float* x, float* y) {
  const float4 four = load4(x + threadIdx.x);      // @misaligned_load4
  y[threadIdx.x] = four.x + four.w;
}
BUG(misaligned_load4) {
  Lab lab;
  RUN(misaligned_load4, 32, lab.x, lab.y);
  return lab.holds([&](int i) { return i < 32 ? lab.input[i] + lab.input[i + 3] : 0.f; });
}

__global__ void divided_by_zero(const float* x, float* y, int parts) {
  const int i = threadIdx.x;
  y[i] = x[i / parts];
}
BUG(divided_by_zero) {
  Lab lab;
  RUN(divided_by_zero, SIZE, lab.x, lab.y, 0);
  return lab.copied();
}

// 2^31 elements and more: the product must be int64_t.
__global__ void int_overflow(const float* x, float* y, int images, int size) {
  const int i = threadIdx.x;
  const int last = images * size;                  // @int_overflow
  y[i] = i < last || last < 0 ? x[i] : 0.f;
}
BUG(int_overflow) {
  Lab lab;
  RUN(int_overflow, SIZE, lab.x, lab.y, 40000, 60000);
  return lab.copied();
}

__global__ void shift_too_far(const float* x, float* y, int by) {
  const int i = threadIdx.x;
  const int mask = 1 << by;                        // @shift_too_far
  y[i] = mask >= 0 ? x[i] : 0.f;
}
BUG(shift_too_far) {
  Lab lab;
  RUN(shift_too_far, SIZE, lab.x, lab.y, 32);
  return lab.copied();
}

__global__ void large_local_array(const float* x, float* y) {
  volatile float local[100 << 10];
  const int i = threadIdx.x;
  local[i] = x[i];
  y[i] = local[i];
}
BUG(large_local_array) {
  Lab lab;
  RUN(large_local_array, SIZE, lab.x, lab.y);
  return lab.copied();
}

float depth(const float* x, int n) {
  volatile float kept[64] = {x[n % SIZE]};
  return n < 0 ? kept[0] : depth(x, n + 1) + kept[0];
}
__global__ void infinite_recursion(const float* x, float* y) { y[threadIdx.x] = depth(x, int(threadIdx.x)); }
BUG(infinite_recursion) {
  Lab lab;
  RUN(infinite_recursion, SIZE, lab.x, lab.y);
  return lab.copied();
}

}  // namespace
}  // namespace minialex::zoo
