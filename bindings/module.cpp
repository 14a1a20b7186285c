// One source, two modules: minialex._cuda by nvcc, minialex._emulated by the host compiler (macro MINIALEX_MODULE).
#include "doorbell.h"

namespace minialex::bindings {
namespace {

// C++ failures become the exceptions of minialex.spec, which every user of the package catches.
template <class Error> bool raised(const std::exception_ptr& pointer, const char* name) {
  try {
    std::rethrow_exception(pointer);
  } catch (const Error& error) {
    py::set_error(py::module_::import("minialex.spec").attr(name), error.what());
    return true;
  } catch (...) {
    return false;
  }
}

void translate(std::exception_ptr pointer) {
  if (!pointer) return;
  if (raised<ShapeError>(pointer, "ShapeError") || raised<DTypeError>(pointer, "DTypeError") || raised<LayoutError>(pointer, "LayoutError") ||
      raised<DeviceMemoryError>(pointer, "DeviceMemoryError") || raised<DeviceError>(pointer, "DeviceError"))
    return;
  std::rethrow_exception(pointer);
}

}  // namespace
}  // namespace minialex::bindings

PYBIND11_MODULE(MINIALEX_MODULE, module) {
  using namespace minialex::bindings;
  module.doc() = "Doorbells of the kernels; used through minialex.backends.";
  py::register_local_exception_translator(translate);
  py::class_<Context>(module, "Context", py::module_local())
      .def(py::init<>())
      .def_readwrite("device", &Context::device)
      .def_readwrite("stream", &Context::stream)
      .def_readwrite("precision", &Context::precision)
      .def_readwrite("workspace", &Context::workspace);
  module.attr("tables") = py::dict();
  module.attr("choices") = py::dict();
  module.attr("refusals") = py::dict();
  for (const auto bind : Announced::all()) bind(module);
}
