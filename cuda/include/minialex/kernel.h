// The only header a kernel file includes.  nvcc reads CUDA; a host compiler (MINIALEX_EMULATED) reads the same words bound to the
// emulator, where each CUDA thread is a fiber.  Everything CUDA spells itself (threadIdx, __syncthreads, __shfl_xor_sync,
// atomicAdd, float4, ...) is spelled as in CUDA; the words below are the ones that need two definitions.
//
//   MINIALEX_SHARED(float, tile, [16][64 + 4]);        static shared memory, at the top of a kernel
//   MINIALEX_DYNAMIC_SHARED(Tiles, tiles);             a Tiles& in dynamic shared memory (Tiles is a struct of arrays)
//   MINIALEX_LAUNCH(kernel<64>, grid, block, shared_bytes, stream, arguments...);      template arguments with commas: in ( )
//   MINIALEX_UNROLL for (...)                          every loop that indexes an array of registers needs it
//   MINIALEX_DEVICE float f(float x) { ... }           a device function
#pragma once
#include "check.h"
#include "runtime.h"
#if defined(MINIALEX_EMULATED)
#include "emulated.h"
#else
#define MINIALEX_DEVICE __device__ __forceinline__
#define MINIALEX_UNROLL _Pragma("unroll")
#define MINIALEX_SHARED(type, name, ...) __shared__ __align__(16) type name __VA_ARGS__
#define MINIALEX_DYNAMIC_SHARED(type, name)                            \
  extern __shared__ __align__(128) unsigned char minialex_dynamic_shared[]; \
  type& name = *reinterpret_cast<type*>(minialex_dynamic_shared)
#define MINIALEX_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::minialex::launch(#kernel, kernel, grid, block, shared_bytes, stream, __VA_ARGS__)

namespace minialex {
void cuda_check(cudaError_t status, const char* what, const char* file, int line);      // throws DeviceError (runtime.cu)
#define CUDA_CHECK(call) ::minialex::cuda_check((call), #call, __FILE__, __LINE__)

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, Stream stream,
            Arguments&&... arguments) {
  if (shared_bytes > 0)                                 // CUDA allows 48 KiB unasked, less what the kernel has of static shared memory
    cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)), name, __FILE__, __LINE__);
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
  cuda_check(cudaGetLastError(), name, __FILE__, __LINE__);
}
}  // namespace minialex
#endif

namespace minialex {
// 16 bytes at once.  The emulator checks the alignment, which CUDA answers with a dead context.
#if defined(MINIALEX_EMULATED)
MINIALEX_DEVICE float4 load4(const float* from, MINIALEX_CALLER) {
  emulated::check_aligned(from, 16, "load4", caller_file, caller_line);
  return *reinterpret_cast<const float4*>(from);
}
MINIALEX_DEVICE void store4(float* to, float4 value, MINIALEX_CALLER) {
  emulated::check_aligned(to, 16, "store4", caller_file, caller_line);
  *reinterpret_cast<float4*>(to) = value;
}
#else
MINIALEX_DEVICE float4 load4(const float* from) { return *reinterpret_cast<const float4*>(from); }
MINIALEX_DEVICE void store4(float* to, float4 value) { *reinterpret_cast<float4*>(to) = value; }
#endif
}  // namespace minialex
