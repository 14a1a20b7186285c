// Python arrays as device pointers, and the only checks of them on this side: a device array, of the right type, contiguous,
// aligned, large enough, on the right device.  Shapes that fit together and arrays that overlap are checked before, once for
// all backends (minialex/backends/checks.py).
#pragma once
#include <minialex/bf16.h>
#include <minialex/check.h>
#include <minialex/runtime.h>
#include <pybind11/pybind11.h>

namespace minialex::bindings {
namespace py = pybind11;

// CuPy's arrays describe themselves by __cuda_array_interface__ (version 3).  The emulator's use the same words under a name
// of their own: no library may take make-believe memory for a GPU's.
#if defined(MINIALEX_EMULATED)
inline constexpr const char* kInterface = "__emulated_array_interface__";
#else
inline constexpr const char* kInterface = "__cuda_array_interface__";
#endif
inline constexpr int kAlignment = 16;

template <class T> const char* typestr();
template <> inline const char* typestr<float>() { return "<f4"; }
template <> inline const char* typestr<bf16>() { return "<u2"; }           // which no library has: the bits, in 16-bit words
template <> inline const char* typestr<int32_t>() { return "<i4"; }
template <> inline const char* typestr<uint8_t>() { return "|u1"; }
template <> inline const char* typestr<bool>() { return "|b1"; }

inline bool holds_bf16(const py::handle& array) {
  return py::hasattr(array, kInterface) && py::cast<std::string>(array.attr(kInterface)["typestr"]) == typestr<bf16>();
}

// The address of `array` (argument `name` of `op`), which must hold `count` elements of T on `device`.
template <class T> T* device_pointer(const char* op, const char* name, const py::handle& array, int64_t count, int device) {
  MINIALEX_CHECK(LayoutError, py::hasattr(array, kInterface), op, ": ", name, " is a ", std::string(py::str(py::type::of(array).attr("__name__"))),
                 ", not an array of this backend's device; make it with ops.from_host");
  const py::dict facts = array.attr(kInterface);
  const std::string type = py::cast<std::string>(facts["typestr"]);
  MINIALEX_CHECK(DTypeError, type == typestr<T>(), op, ": ", name, " has type ", type, ", but the kernels need ", typestr<T>(),
                 "; convert it first");
  const py::tuple shape = facts["shape"];
  int64_t size = 1;
  for (const auto& extent : shape) size *= py::cast<int64_t>(extent);
  if (facts.contains("strides") && !facts["strides"].is_none()) {
    const py::tuple strides = facts["strides"];
    int64_t step = sizeof(T);
    for (size_t axis = shape.size(); axis-- > 0;) {
      const int64_t extent = py::cast<int64_t>(shape[axis]);
      MINIALEX_CHECK(LayoutError, extent == 1 || py::cast<int64_t>(strides[axis]) == step, op, ": ", name,
                     " is not contiguous along axis ", axis, "; pass a contiguous copy");
      step *= extent;
    }
  }
  MINIALEX_CHECK(ShapeError, size == count, op, ": ", name, " holds ", size, " elements, but ", count, " are needed");
  const auto address = py::cast<uintptr_t>(py::tuple(facts["data"])[0]);
  MINIALEX_CHECK(LayoutError, address % kAlignment == 0, op, ": ", name, " starts at an address that is no multiple of ", kAlignment,
                 " bytes (a slice that begins in the middle of a row?); pass a copy");
  if (count > 0) {
    const int owner = runtime::device_of(reinterpret_cast<const void*>(address));
    MINIALEX_CHECK(LayoutError, owner == device, op, ": ", name, owner < 0 ? " is not device memory" : text(" lies on device ", owner).c_str(),
                   ", but the op runs on device ", device, "; copy it there first");
  }
  return reinterpret_cast<T*>(address);
}

}  // namespace minialex::bindings
