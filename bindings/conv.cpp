#include "doorbell.h"

namespace minialex::bindings {

MINIALEX_BIND(conv) {
  const auto dims = [](const py::tuple& words) { return dims_of<ConvDims, 15>(words); };
  publish(module, conv_fprop(), dims);
  publish(module, conv_fprop(), dims, "conv_relu_fprop");
  publish(module, conv_dgrad(), dims);
  publish(module, conv_wgrad(), dims);
  module.def("conv_fprop", [dims](const py::tuple& words, py::object x, py::object w, py::object b, py::object y, bool relu, const Context& context,
                                  const Name& variant) {
    const Doorbell bell(conv_fprop(), context, relu ? "conv_relu_fprop" : "conv_fprop");
    const ConvDims d = dims(words);
    bell.ring({d, bell.in("x", x, d.x_size()), bell.in<float>("w", w, d.w_size()), bell.optional<float>("b", b, d.K),
               bell.out("y", y, d.y_size()), relu, {}, nullptr}, variant);
  });
  module.def("conv_dgrad", [dims](const py::tuple& words, py::object dy, py::object w, py::object dx, py::object gate, double scale,
                                  const Context& context, const Name& variant) {
    const Doorbell bell(conv_dgrad(), context);
    const ConvDims d = dims(words);
    bell.ring({d, bell.in("dy", dy, d.y_size()), bell.in<float>("w", w, d.w_size()), bell.out("dx", dx, d.x_size()),
               bell.optional("gate", gate, d.x_size()), static_cast<float>(scale), nullptr}, variant);
  });
  module.def("conv_wgrad", [dims](const py::tuple& words, py::object x, py::object dy, py::object dw, py::object db, bool accumulate,
                                  const Context& context, const Name& variant) {
    const Doorbell bell(conv_wgrad(), context);
    const ConvDims d = dims(words);
    bell.ring({d, bell.in("x", x, d.x_size()), bell.in("dy", dy, d.y_size()), bell.out<float>("dw", dw, d.w_size()),
               bell.out<float>("db", db, d.K), accumulate, nullptr}, variant);
  });
}

}  // namespace minialex::bindings
