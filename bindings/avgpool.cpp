#include "doorbell.h"

namespace minialex::bindings {

MINIALEX_BIND(avgpool) {
  const auto dims = [](const py::tuple& words) {
    const auto word = [&](int i) { return py::cast<int>(words[i]); };
    return PoolDims{word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7), word(8) != 0};
  };
  publish(module, avgpool_fprop(), dims);
  publish(module, avgpool_bprop(), dims);
  module.def("avgpool_fprop", [dims](const py::tuple& words, py::object x, py::object y, const Context& context, const Name& variant) {
    const Doorbell bell(avgpool_fprop(), context);
    const PoolDims d = dims(words);
    bell.ring({d, bell.in("x", x, d.x_size()), bell.out("y", y, d.y_size()), nullptr}, variant);
  });
  module.def("avgpool_bprop", [dims](const py::tuple& words, py::object dy, py::object dx, const Context& context, const Name& variant) {
    const Doorbell bell(avgpool_bprop(), context);
    const PoolDims d = dims(words);
    bell.ring({d, {}, {}, bell.in("dy", dy, d.y_size()), bell.out("dx", dx, d.x_size()), false, nullptr}, variant);
  });
}

}  // namespace minialex::bindings
