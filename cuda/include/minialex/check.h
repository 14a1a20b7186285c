// The kinds of failure, and the only checks of the C++ side: CHECK for arguments, CUDA_CHECK for the runtime's answers.
#pragma once
#include <cstdint>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>

namespace minialex {

// Each becomes the Python exception of the same name in minialex.spec (bindings/module.cpp).
struct ShapeError : std::runtime_error { using std::runtime_error::runtime_error; };
struct DTypeError : std::runtime_error { using std::runtime_error::runtime_error; };
struct LayoutError : std::runtime_error { using std::runtime_error::runtime_error; };
struct DeviceError : std::runtime_error { using std::runtime_error::runtime_error; };         // the runtime or the emulator refused
struct DeviceMemoryError : std::runtime_error { using std::runtime_error::runtime_error; };   // no memory left on the device

template <class... Parts> std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// CHECK(ShapeError, condition, "conv_fprop: ", ...) throws with the values of the message's parts.
#define MINIALEX_CHECK(error, condition, ...) \
  do {                                        \
    if (!(condition)) throw ::minialex::error(::minialex::text(__VA_ARGS__)); \
  } while (0)

// The one place where a size loses bits: everything is counted in int64_t, kernels index in int where that is proved to fit.
inline int narrow(int64_t value, const char* what) {
  MINIALEX_CHECK(ShapeError, value >= 0 && value <= std::numeric_limits<int>::max(), what, " is ", value,
                 ", more than a kernel's int can count; use a smaller batch");
  return static_cast<int>(value);
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace minialex
