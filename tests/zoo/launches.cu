// Mistakes of the host: sizes of a launch, shared memory, arguments, handles.
#include "zoo.h"

namespace minialex::zoo {
namespace {

__global__ void copies(const float* x, float* y) {
  const int i = threadIdx.x;
  if (i < SIZE) y[i] = x[i];
}

BUG(block_of_2048_threads) {
  Lab lab;
  RUN(copies, 2048, lab.x, lab.y);                 // @block_of_2048_threads
  return lab.copied();
}

BUG(empty_grid) {
  Lab lab;
  MINIALEX_LAUNCH(copies, 0, SIZE, 0, lab.stream, lab.x, lab.y);   // @empty_grid
  return lab.copied();
}

BUG(grid_too_tall) {
  Lab lab;
  MINIALEX_LAUNCH(copies, dim3(1, 70000), SIZE, 0, lab.stream, lab.x, lab.y);      // @grid_too_tall
  return lab.copied();
}

BUG(too_much_dynamic_shared_memory) {
  Lab lab;
  MINIALEX_LAUNCH(copies, 1, SIZE, 228 * 1024, lab.stream, lab.x, lab.y);  // @too_much_dynamic_shared_memory
  return lab.copied();
}

__global__ void too_much_static_shared_memory(const float* x, float* y) {
  MINIALEX_SHARED(float, tile, [200][64]);
  const int i = threadIdx.x;
  tile[i][i] = x[i];
  y[i] = tile[i][i];
}
BUG(too_much_static_shared_memory) {
  Lab lab;
  RUN(too_much_static_shared_memory, SIZE, lab.x, lab.y);
  return lab.copied();
}

struct Tiles { float a[SIZE], b[SIZE]; };
__global__ void dynamic_shared_memory_too_small(const float* x, float* y) {
  MINIALEX_DYNAMIC_SHARED(Tiles, tiles);           // @dynamic_shared_memory_too_small
  const int i = threadIdx.x;
  tiles.b[i] = x[i];
  y[i] = tiles.b[i];
}
BUG(dynamic_shared_memory_too_small) {
  Lab lab;
  MINIALEX_LAUNCH(dynamic_shared_memory_too_small, 1, SIZE, sizeof(float) * SIZE, lab.stream, lab.x, lab.y);
  return lab.copied();
}

BUG(pageable_memory_as_argument) {
  Lab lab;
  RUN(copies, SIZE, lab.input.data(), lab.y);      // @pageable_memory_as_argument
  return lab.copied();
}

BUG(default_stream) {
  Lab lab;
  MINIALEX_LAUNCH(copies, 1, SIZE, 0, nullptr, lab.x, lab.y);
  return lab.copied();
}

BUG(stream_of_another_device) {
  Lab lab;
  runtime::set_device(1);
  Stream other = runtime::stream_create();
  runtime::set_device(0);
  MINIALEX_LAUNCH(copies, 1, SIZE, 0, other, lab.x, lab.y);
  return lab.copied();
}

BUG(destroyed_stream) {
  Lab lab;
  Stream other = runtime::stream_create();
  runtime::stream_destroy(other);
  MINIALEX_LAUNCH(copies, 1, SIZE, 0, other, lab.x, lab.y);
  return lab.copied();
}

BUG(released_twice) {
  Lab lab;
  float* array = device_array();
  runtime::release(array);
  runtime::release(array);
  return true;
}

BUG(released_in_the_middle) {
  Lab lab;
  runtime::release(lab.x + 16);
  return true;
}

BUG(copy_past_the_end_of_an_allocation) {
  Lab lab;
  std::vector<float> longer(SIZE + 1);
  runtime::copy(lab.y, longer.data(), longer.size() * sizeof(float), lab.stream);
  runtime::stream_synchronize(lab.stream);
  return true;
}

}  // namespace
}  // namespace minialex::zoo
