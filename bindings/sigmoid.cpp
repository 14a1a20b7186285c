#include "doorbell.h"

namespace minialex::bindings {

MINIALEX_BIND(sigmoid) {
  const auto dims = [](const py::tuple& words) { return MapDims{py::cast<int64_t>(words[0])}; };
  publish(module, sigmoid_fprop(), dims);
  publish(module, sigmoid_bprop(), dims);
  module.def("sigmoid_fprop", [dims](const py::tuple& words, py::object x, py::object y, const Context& context, const Name& variant) {
    const Doorbell bell(sigmoid_fprop(), context);
    const MapDims d = dims(words);
    bell.ring({d, bell.in("x", x, d.size), bell.out("y", y, d.size), nullptr}, variant);
  });
  module.def("sigmoid_bprop", [dims](const py::tuple& words, py::object y, py::object dy, py::object dx, const Context& context,
                                     const Name& variant) {
    const Doorbell bell(sigmoid_bprop(), context);
    const MapDims d = dims(words);
    bell.ring({d, bell.in("y", y, d.size), bell.in("dy", dy, d.size), bell.out("dx", dx, d.size), nullptr}, variant);
  });
}

}  // namespace minialex::bindings
