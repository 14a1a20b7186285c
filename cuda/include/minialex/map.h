// An elementwise unit as two kernels each way: `direct` one float a thread, `vector` four.  A Unit is a struct of two device
// functions, y = fprop(x) and dx = bprop(y, dy); both kernels call the same function, so both give the same bits.
#pragma once
#include <minialex/kernel.h>
#include <minialex/ops.h>
#include <minialex/stored.h>

namespace minialex {

constexpr int kMapThreads = 256;

template <class Unit>
__global__ void __launch_bounds__(kMapThreads) map_fprop_direct(InArray x, OutArray y, int64_t size) {
  const int64_t i = int64_t(blockIdx.x) * kMapThreads + threadIdx.x;
  if (i < size) y[i] = Unit::fprop(x[i]);
}

template <class Unit>
__global__ void __launch_bounds__(kMapThreads) map_bprop_direct(InArray y, InArray dy, OutArray dx, int64_t size) {
  const int64_t i = int64_t(blockIdx.x) * kMapThreads + threadIdx.x;
  if (i < size) dx[i] = Unit::bprop(y[i], dy[i]);
}

// No __restrict__: the ops may work in place, where each thread reads its elements before it writes them.
template <class Unit>
__global__ void __launch_bounds__(kMapThreads) map_fprop_vector(InArray x, OutArray y, int64_t size) {
  const int64_t i = (int64_t(blockIdx.x) * kMapThreads + threadIdx.x) * 4;
  if (i + 4 <= size) {
    const float4 a = load4(x + i);
    store4(y + i, make_float4(Unit::fprop(a.x), Unit::fprop(a.y), Unit::fprop(a.z), Unit::fprop(a.w)));
  } else {
    for (int64_t j = i; j < size; ++j) y[j] = Unit::fprop(x[j]);
  }
}

template <class Unit>
__global__ void __launch_bounds__(kMapThreads) map_bprop_vector(InArray y, InArray dy, OutArray dx, int64_t size) {
  const int64_t i = (int64_t(blockIdx.x) * kMapThreads + threadIdx.x) * 4;
  if (i + 4 <= size) {
    const float4 a = load4(y + i), d = load4(dy + i);
    store4(dx + i, make_float4(Unit::bprop(a.x, d.x), Unit::bprop(a.y, d.y), Unit::bprop(a.z, d.z), Unit::bprop(a.w, d.w)));
  } else {
    for (int64_t j = i; j < size; ++j) dx[j] = Unit::bprop(y[j], dy[j]);
  }
}

inline dim3 map_blocks(const MapDims& dims, int per_thread) {
  return dim3(narrow(ceil_div(dims.size, int64_t(kMapThreads) * per_thread), "the number of blocks"));
}

template <class Unit> void launch_map_fprop_direct(const MapFprop& c, Stream stream) {
  MINIALEX_LAUNCH(map_fprop_direct<Unit>, map_blocks(c.dims, 1), dim3(kMapThreads), 0, stream, c.x, c.y, c.dims.size);
}
template <class Unit> void launch_map_fprop_vector(const MapFprop& c, Stream stream) {
  MINIALEX_LAUNCH(map_fprop_vector<Unit>, map_blocks(c.dims, 4), dim3(kMapThreads), 0, stream, c.x, c.y, c.dims.size);
}
template <class Unit> void launch_map_bprop_direct(const MapBprop& c, Stream stream) {
  MINIALEX_LAUNCH(map_bprop_direct<Unit>, map_blocks(c.dims, 1), dim3(kMapThreads), 0, stream, c.y, c.dy, c.dx, c.dims.size);
}
template <class Unit> void launch_map_bprop_vector(const MapBprop& c, Stream stream) {
  MINIALEX_LAUNCH(map_bprop_vector<Unit>, map_blocks(c.dims, 4), dim3(kMapThreads), 0, stream, c.y, c.dy, c.dx, c.dims.size);
}

// The tables: the same two rows for every unit.
template <class Unit> Op<MapFprop> map_fprop(const char* name) {
  return {name, {{"vector", "float32", nullptr, nullptr, nullptr, launch_map_fprop_vector<Unit>},
                 {"direct", "float32", nullptr, nullptr, nullptr, launch_map_fprop_direct<Unit>}}};
}
template <class Unit> Op<MapBprop> map_bprop(const char* name) {
  return {name, {{"vector", "float32", nullptr, nullptr, nullptr, launch_map_bprop_vector<Unit>},
                 {"direct", "float32", nullptr, nullptr, nullptr, launch_map_bprop_direct<Unit>}}};
}

}  // namespace minialex
