#include "doorbell.h"

namespace minialex::bindings {

MINIALEX_BIND(linear) {
  const auto dims = [](const py::tuple& words) { return dims_of<LinearDims, 6>(words); };
  publish(module, linear_fprop(), dims);
  publish(module, linear_fprop(), dims, "linear_relu_fprop");
  publish(module, linear_dgrad(), dims);
  publish(module, linear_wgrad(), dims);
  module.def("linear_fprop", [dims](const py::tuple& words, py::object x, py::object w, py::object b, py::object y, bool relu, py::object dropout,
                                    const Context& context, const Name& variant) {
    const Doorbell bell(linear_fprop(), context, relu ? "linear_relu_fprop" : "linear_fprop");
    const LinearDims d = dims(words);
    bell.ring({d, bell.in("x", x, d.x_size()), bell.in<float>("w", w, d.w_size()), bell.optional<float>("b", b, d.K),
               bell.out("y", y, d.y_size()), relu, dropout.is_none() ? DropoutMask{} : bell.mask(dropout), nullptr}, variant);
  });
  module.def("linear_dgrad", [dims](const py::tuple& words, py::object dy, py::object w, py::object dx, py::object gate, double scale,
                                    const Context& context, const Name& variant) {
    const Doorbell bell(linear_dgrad(), context);
    const LinearDims d = dims(words);
    bell.ring({d, bell.in("dy", dy, d.y_size()), bell.in<float>("w", w, d.w_size()), bell.out("dx", dx, d.x_size()),
               bell.optional("gate", gate, d.x_size()), static_cast<float>(scale), nullptr}, variant);
  });
  module.def("linear_wgrad", [dims](const py::tuple& words, py::object x, py::object dy, py::object dw, py::object db, bool accumulate,
                                    const Context& context, const Name& variant) {
    const Doorbell bell(linear_wgrad(), context);
    const LinearDims d = dims(words);
    bell.ring({d, bell.in("x", x, d.x_size()), bell.in("dy", dy, d.y_size()), bell.out<float>("dw", dw, d.w_size()),
               bell.out<float>("db", db, d.K), accumulate, nullptr}, variant);
  });
}

}  // namespace minialex::bindings
