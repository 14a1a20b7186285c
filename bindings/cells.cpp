#include "doorbell.h"

namespace minialex::bindings {

MINIALEX_BIND(cells) {
  const auto dims = [](const py::tuple& words) { return dims_of<CellsDims, 5>(words); };
  publish(module, cells_fprop(), dims);
  publish(module, cells_bprop(), dims);
  module.def("cells_fprop", [dims](const py::tuple& words, py::object x, py::object y, const Context& context, const Name& variant) {
    const Doorbell bell(cells_fprop(), context);
    const CellsDims d = dims(words);
    bell.ring({d, bell.in<float>("x", x, d.x_size()), bell.out("y", y, d.y_size()), nullptr}, variant);
  });
  module.def("cells_bprop", [dims](const py::tuple& words, py::object dy, py::object dx, const Context& context, const Name& variant) {
    const Doorbell bell(cells_bprop(), context);
    const CellsDims d = dims(words);
    bell.ring({d, bell.in<float>("dy", dy, d.y_size()), bell.out<float>("dx", dx, d.x_size()), nullptr}, variant);
  });
}

}  // namespace minialex::bindings
