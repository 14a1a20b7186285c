#include "doorbell.h"

namespace minialex::bindings {

MINIALEX_BIND(dropout) {
  const auto dims = [](const py::tuple& words) { return dims_of<DropoutDims, 5>(words); };
  publish(module, dropout_test(), [](const py::tuple& words) { return MapDims{py::cast<int64_t>(words[0])}; });
  // One multiplication by the mask under two names.
  const auto ring = [&module, dims](const char* op, const char* from, const char* to) {
    publish(module, dropout_fprop(), dims, op);
    module.def(op, [=](const py::tuple& words, py::object x, py::object y, const py::tuple& mask, const Context& context,
                       const Name& variant) {
      const Doorbell bell(dropout_fprop(), context, op);
      const auto d = dims(words);
      bell.ring({d, bell.in(from, x, d.size()), bell.out(to, y, d.size()), bell.mask(mask), nullptr}, variant);
    });
  };
  ring("dropout_fprop", "x", "y");
  ring("dropout_bprop", "dy", "dx");
  module.def("dropout_test", [](const py::tuple& words, py::object x, py::object y, double factor, const Context& context,
                                const Name& variant) {
    const Doorbell bell(dropout_test(), context);
    const MapDims d{py::cast<int64_t>(words[0])};
    bell.ring({d, bell.in("x", x, d.size), bell.out("y", y, d.size), static_cast<float>(factor), nullptr}, variant);
  });
}

}  // namespace minialex::bindings
