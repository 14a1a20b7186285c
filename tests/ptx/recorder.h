// Included before a kernel file (g++ -include): its launches are written down instead of done, for the interpreter to do them.
#pragma once
#include <minialex/kernel.h>
#include <vector>

namespace minialex::recorder {

struct Launch {
  const void* kernel;
  dim3 grid, block;
  size_t shared_bytes;
  std::vector<std::vector<unsigned char>> arguments;     // the bytes of each
};
std::vector<Launch>& launches();

template <class T> std::vector<unsigned char> bytes_of(const T& value) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(&value);
  return {bytes, bytes + sizeof(T)};
}

template <class... Parameters, class... Arguments>
void record(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, Arguments&&... arguments) {
  const auto* address = reinterpret_cast<const void*>(kernel);
  launches().push_back({address, grid, block, shared_bytes, {bytes_of(static_cast<Parameters>(arguments))...}});
}

}  // namespace minialex::recorder

#undef MINIALEX_LAUNCH
#define MINIALEX_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ((void)(stream), ::minialex::recorder::record(kernel, grid, block, shared_bytes, __VA_ARGS__))
