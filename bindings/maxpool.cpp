#include "doorbell.h"

namespace minialex::bindings {

MINIALEX_BIND(maxpool) {
  const auto dims = [](const py::tuple& words) {
    const auto word = [&](int i) { return py::cast<int>(words[i]); };
    return PoolDims{word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7), word(8) != 0};
  };
  publish(module, maxpool_fprop(), dims);
  publish(module, maxpool_bprop(), dims);
  module.def("maxpool_fprop", [dims](const py::tuple& words, py::object x, py::object y, const Context& context, const Name& variant) {
    const Doorbell bell(maxpool_fprop(), context);
    const PoolDims d = dims(words);
    bell.ring({d, bell.in("x", x, d.x_size()), bell.out("y", y, d.y_size()), nullptr}, variant);
  });
  module.def("maxpool_bprop", [dims](const py::tuple& words, py::object x, py::object y, py::object dy, py::object dx, bool relu,
                                     const Context& context, const Name& variant) {
    const Doorbell bell(maxpool_bprop(), context);
    const PoolDims d = dims(words);
    bell.ring({d, bell.in("x", x, d.x_size()), bell.in("y", y, d.y_size()), bell.in("dy", dy, d.y_size()),
               bell.out("dx", dx, d.x_size()), relu, nullptr},
              variant);
  });
}

}  // namespace minialex::bindings
