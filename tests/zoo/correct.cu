// Programs without a mistake that a careless checker would complain about.
#include "zoo.h"

namespace minialex::zoo {
namespace {

constexpr unsigned EVERY_LANE = 0xFFFFFFFFu;

// Barriers in a loop, then shuffles, then one thread for all.
__global__ void block_sum(const float* x, float* y) {
  MINIALEX_SHARED(float, partial, [SIZE]);
  MINIALEX_SHARED(float, warps, [SIZE / 32]);
  const int i = threadIdx.x;
  partial[i] = x[i];
  for (int round = 0; round < 3; ++round) {
    __syncthreads();
    const float mirrored = partial[SIZE - 1 - i];
    __syncthreads();
    partial[i] = mirrored;
  }
  float sum = partial[i];
  for (int bits = 16; bits; bits /= 2) sum += __shfl_xor_sync(EVERY_LANE, sum, bits);
  if (i % 32 == 0) warps[i / 32] = sum;
  __syncthreads();
  if (i == 0) y[0] = warps[0] + warps[1];
}
CORRECT(block_sum) {
  Lab lab;
  RUN(block_sum, SIZE, lab.x, lab.y);
  return lab.holds([](int i) { return i == 0 ? SIZE * (SIZE + 1) / 2.f : 0.f; });
}

// Each warp has its own tile and needs no barrier of the block; the halves of a warp meet on their own before.
__global__ void warps_on_their_own(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [SIZE]);
  const int i = threadIdx.x, lane = i % 32;
  tile[i] = x[i];
  if (lane < 16) {
    __syncwarp(0xFFFFu);
    const float neighbour = tile[i ^ 1];
    __syncwarp(0xFFFFu);
    tile[i] = neighbour;
  }
  __syncwarp();
  y[i] = tile[i / 32 * 32 + 31 - lane];
}
CORRECT(warps_on_their_own) {
  Lab lab;
  RUN(warps_on_their_own, SIZE, lab.x, lab.y);
  return lab.holds([&](int i) {
    const int from = i / 32 * 32 + 31 - i % 32;
    return lab.input[from % 32 < 16 ? from ^ 1 : from];
  });
}

__global__ void histogram(const float* x, int* bins) {
  MINIALEX_SHARED(int, own, [4]);
  const int i = threadIdx.x;
  if (i < 4) own[i] = 0;
  __syncthreads();
  atomicAdd(&own[i % 4], int(x[i]));
  __syncthreads();
  if (i < 4) atomicAdd(&bins[i], own[i]);
}
CORRECT(histogram) {
  Lab lab;
  auto* bins = reinterpret_cast<int*>(device_array(4));
  runtime::fill(bins, 0, 4 * sizeof(int), lab.stream);
  MINIALEX_LAUNCH(histogram, 3, SIZE, 0, lab.stream, lab.x, bins);
  int got[4];
  runtime::copy(got, bins, sizeof got, lab.stream);
  for (int i = 0; i < 4; ++i)
    if (got[i] != 3 * (16 * (i + 1) + 4 * 120)) return false;
  return true;
}

// Neighbours write the bytes and halves of one word.
__global__ void parts_of_words(const float* x, float* y) {
  MINIALEX_SHARED(uint16_t, halves, [SIZE]);
  MINIALEX_SHARED(uint8_t, bytes, [SIZE]);
  const int i = threadIdx.x;
  halves[i] = static_cast<uint16_t>(x[i]);
  bytes[i] = static_cast<uint8_t>(x[i]);
  __syncthreads();
  const int mirrored = SIZE - 1 - i;
  y[i] = float(halves[mirrored] + bytes[mirrored]) / 2.f;
}
CORRECT(parts_of_words) {
  Lab lab;
  RUN(parts_of_words, SIZE, lab.x, lab.y);
  return lab.mirrored();
}

// Three tiles in flight, the usual ring: one barrier a round is enough.
__global__ void copy_pipeline(const float* x, float* y, int rounds) {
  MINIALEX_SHARED(float, tile, [3][SIZE]);
  const int i = threadIdx.x;
  for (int stage = 0; stage < 2; ++stage) {
    cp_async_4(&tile[stage][i], &x[(i + stage) % SIZE], stage < rounds);
    cp_async_commit();
  }
  float sum = 0.f;
  for (int round = 0; round < rounds; ++round) {
    cp_async_wait<1>();
    __syncthreads();
    const int next = round + 2;
    cp_async_4(&tile[next % 3][i], &x[(i + next) % SIZE], next < rounds);
    cp_async_commit();
    sum += tile[round % 3][SIZE - 1 - i];
  }
  cp_async_wait<0>();
  y[i] = sum;
}
CORRECT(copy_pipeline) {
  Lab lab;
  RUN(copy_pipeline, SIZE, lab.x, lab.y, 7);
  return lab.holds([&](int i) {
    float sum = 0.f;
    for (int round = 0; round < 7; ++round) sum += lab.input[(SIZE - 1 - i + round) % SIZE];
    return sum;
  });
}

// d = a * b with a = 2 everywhere and b = 1: 8 products of 2 each.
__global__ void product(float* y) {
  MINIALEX_SHARED(float, tile, [16][8]);
  const int i = threadIdx.x;
  for (int j = i; j < 128; j += 32) tile[j / 8][j % 8] = 2.f;
  __syncwarp();
  uint32_t a[4], b[2] = {to_tf32(1.f), to_tf32(1.f)};
  ldmatrix_x4(a, &tile[i % 16][i / 16 * 4]);
  float d[4] = {};
  mma_m16n8k8_tf32(d, a, b);
  y[i] = d[0] + d[1] + d[2] + d[3];
}
CORRECT(product) {
  Lab lab;
  RUN(product, 32, lab.y);
  return lab.holds([](int i) { return i < 32 ? 64.f : 0.f; });
}

// Threads beyond the data leave at once where no barrier follows; blocks and grids in three dimensions.
__global__ void ragged_grid(const float* x, float* y, int size) {
  const int thread = threadIdx.x + 2 * (threadIdx.y + 3 * threadIdx.z), block = blockIdx.x + 2 * (blockIdx.y + 2 * blockIdx.z);
  const int i = block * 12 + thread;
  if (i >= size) return;
  y[i] = x[size - 1 - i];
}
CORRECT(ragged_grid) {
  Lab lab;
  MINIALEX_LAUNCH(ragged_grid, dim3(2, 2, 2), dim3(2, 3, 2), 0, lab.stream, lab.x, lab.y, SIZE);
  return lab.mirrored();
}

__global__ void adds_one(float* y) { y[threadIdx.x] += 1.f; }
CORRECT(memory_used_again) {                       // addresses of freed memory, kernels in one stream, a stream behind a synchronise
  Lab lab;
  for (int round = 0; round < 3; ++round) {
    float* z = device_array();
    runtime::fill(z, 0, SIZE * sizeof(float), lab.stream);
    Stream other = runtime::stream_create();
    for (int i = 0; i < 2; ++i) RUN(adds_one, SIZE, z);
    runtime::stream_synchronize(lab.stream);
    MINIALEX_LAUNCH(adds_one, 1, SIZE, 0, other, z);
    if (!lab.holds([](int) { return 3.f; }, z, other)) return false;
    runtime::stream_destroy(other);
    runtime::release(z);
  }
  return true;
}

struct MixedTiles { float a[SIZE]; float4 b[SIZE]; };
__global__ void dynamic_tiles(const float* x, float* y) {
  MINIALEX_DYNAMIC_SHARED(MixedTiles, tiles);
  const int i = threadIdx.x;
  tiles.a[i] = x[i];
  store4(&tiles.b[i].x, make_float4(x[i], 0.f, 0.f, 0.f));
  __syncthreads();
  const float4 four = load4(&tiles.b[SIZE - 1 - i].x);
  y[i] = (tiles.a[SIZE - 1 - i] + four.x + four.y) / 2.f;
}
CORRECT(dynamic_tiles) {
  Lab lab;
  MINIALEX_LAUNCH(dynamic_tiles, 1, SIZE, sizeof(MixedTiles), lab.stream, lab.x, lab.y);
  return lab.mirrored();
}

}  // namespace
}  // namespace minialex::zoo
