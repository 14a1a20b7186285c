// CUDA's words for a host compiler: what a kernel file sees when it is built with MINIALEX_EMULATED.
#pragma once
#include <math.h>
#include <cstdlib>
#include <memory>
#include <new>
#include <tuple>
#include <type_traits>
#include "checker.h"
#include "minialex/runtime.h"
#include "primitives.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

// Inlined as by nvcc, so functions of one name in two kernel files do not meet in the linker.
#define MINIALEX_DEVICE inline __attribute__((always_inline))
#define MINIALEX_UNROLL
// The array is known by the address of its tag; a tag that could not be written might be merged with another.
#define MINIALEX_SHARED(type, name, ...)                         \
  using name##_shared_type = type __VA_ARGS__;                   \
  static char name##_shared_tag;                                 \
  name##_shared_type& name = *static_cast<name##_shared_type*>(  \
      ::minialex::emulated::static_shared(&name##_shared_tag, #name, sizeof(name##_shared_type), alignof(name##_shared_type)))
#define MINIALEX_DYNAMIC_SHARED(type, name) \
  type& name = *static_cast<type*>(::minialex::emulated::dynamic_shared(sizeof(type), MINIALEX_HERE))
#define MINIALEX_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::minialex::emulated::launch(MINIALEX_HERE, #kernel, kernel, grid, block, shared_bytes, stream, __VA_ARGS__)

#define threadIdx (::minialex::emulated::current->index)
#define blockIdx (::minialex::emulated::current->block->index)
#define blockDim (::minialex::emulated::current->block->block_size)
#define gridDim (::minialex::emulated::current->block->grid_size)
constexpr int warpSize = 32;

namespace minialex::emulated {

struct KernelLaunch {
  Location location;                               // of MINIALEX_LAUNCH
  const char* name;
  dim3 grid, block;
  size_t shared_bytes;
  std::shared_ptr<void> arguments;
  size_t argument_bytes;
  const void* const* pointers;                     // by number of the argument; nullptr for those that are no pointers
  int argument_count;
  void (*run_thread)(const void* arguments);
};
void enqueue(KernelLaunch&& kernel, Stream stream);

template <class... Parameters> struct KernelCall {
  std::tuple<Parameters...> values;
  void (*kernel)(Parameters...);
  const void* pointers[sizeof...(Parameters) + 1];
  static void run_thread(const void* arguments) {
    auto* call = static_cast<const KernelCall*>(arguments);
    std::apply(call->kernel, call->values);
  }
};

template <class T> const void* as_pointer(const T& value) {
  if constexpr (std::is_pointer_v<T>) return value;
  else return nullptr;
}

template <class... Parameters, class... Arguments>
void launch(Location location, const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, Stream stream,
            Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "CUDA copies a kernel's arguments byte by byte");
  using Call = KernelCall<Parameters...>;
  std::shared_ptr<void> memory(std::calloc(1, sizeof(Call)), std::free);   // zero: the bytes between arguments are looked at, too
  auto* call = new (memory.get()) Call{std::tuple<Parameters...>(static_cast<Parameters>(arguments)...), kernel, {}};
#if defined(__has_builtin)
#if __has_builtin(__builtin_clear_padding)                                // also those inside structs, where anything may be left
  std::apply([](Parameters&... values) { (__builtin_clear_padding(&values), ...); }, call->values);
#endif
#endif
  std::apply([&](const Parameters&... values) { int i = 0; ((call->pointers[i++] = as_pointer(values)), ...); }, call->values);
  enqueue({location, name, grid, block, shared_bytes, memory, sizeof call->values, call->pointers, sizeof...(Parameters),
           &Call::run_thread}, stream);
}

}  // namespace minialex::emulated

inline void __syncthreads(MINIALEX_CALLER) { minialex::emulated::barrier(MINIALEX_CALLED_AT); }
inline int __syncthreads_and(int predicate, MINIALEX_CALLER) {
  return minialex::emulated::barrier_reduce(predicate, minialex::emulated::Reduce::all, MINIALEX_CALLED_AT);
}
inline int __syncthreads_or(int predicate, MINIALEX_CALLER) {
  return minialex::emulated::barrier_reduce(predicate, minialex::emulated::Reduce::any, MINIALEX_CALLED_AT);
}
inline int __syncthreads_count(int predicate, MINIALEX_CALLER) {
  return minialex::emulated::barrier_reduce(predicate, minialex::emulated::Reduce::count, MINIALEX_CALLED_AT);
}

#include "intrinsics.h"
#include "warp_words.h"
