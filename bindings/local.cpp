#include "doorbell.h"

namespace minialex::bindings {

MINIALEX_BIND(local) {
  const auto dims = [](const py::tuple& words) { return dims_of<ConvDims, 15>(words); };
  publish(module, local_fprop(), dims);
  publish(module, local_dgrad(), dims);
  publish(module, local_wgrad(), dims);
  module.def("local_fprop", [dims](const py::tuple& words, py::object x, py::object w, py::object b, py::object y, const Context& context,
                                   const Name& variant) {
    const Doorbell bell(local_fprop(), context);
    const ConvDims d = dims(words);
    const int64_t positions = int64_t(d.P) * d.Q;
    bell.ring({{d, bell.in("x", x, d.x_size()), bell.in<float>("w", w, positions * d.w_size()),
                bell.optional<float>("b", b, positions * d.K), bell.out("y", y, d.y_size()), false, {}, nullptr}}, variant);
  });
  module.def("local_dgrad", [dims](const py::tuple& words, py::object dy, py::object w, py::object dx, py::object gate, double scale,
                                   const Context& context, const Name& variant) {
    const Doorbell bell(local_dgrad(), context);
    const ConvDims d = dims(words);
    bell.ring({{d, bell.in("dy", dy, d.y_size()), bell.in<float>("w", w, int64_t(d.P) * d.Q * d.w_size()),
                bell.out("dx", dx, d.x_size()), bell.optional("gate", gate, d.x_size()), static_cast<float>(scale), nullptr}},
              variant);
  });
  module.def("local_wgrad", [dims](const py::tuple& words, py::object x, py::object dy, py::object dw, py::object db, bool accumulate,
                                   const Context& context, const Name& variant) {
    const Doorbell bell(local_wgrad(), context);
    const ConvDims d = dims(words);
    const int64_t positions = int64_t(d.P) * d.Q;
    bell.ring({{d, bell.in("x", x, d.x_size()), bell.in("dy", dy, d.y_size()),
                bell.out<float>("dw", dw, positions * d.w_size()),
                bell.out<float>("db", db, positions * d.K), accumulate, nullptr}}, variant);
  });
}

}  // namespace minialex::bindings
