#include "doorbell.h"

namespace minialex::bindings {

MINIALEX_BIND(loss) {
  const auto dims = [](const py::tuple& words) { return dims_of<LossDims, 2>(words); };
  publish(module, loss_fprop(), dims);
  publish(module, loss_bprop(), dims);
  module.def("loss_fprop", [dims](const py::tuple& words, py::object x, py::object labels, py::object p, py::object loss, py::object dx,
                                  float scale, const Context& context, const Name& variant) {
    const Doorbell bell(loss_fprop(), context);
    const LossDims d = dims(words);
    const int64_t size = int64_t(d.N) * d.K;
    bell.ring({d, bell.in("x", x, size), bell.in<int32_t>("labels", labels, d.N), bell.out<float>("p", p, size),
               bell.out<float>("loss", loss, d.N), dx.is_none() ? OutArray() : bell.out("dx", dx, size), scale, nullptr}, variant);
  });
  module.def("loss_bprop", [dims](const py::tuple& words, py::object p, py::object labels, py::object dx, float scale,
                                  const Context& context, const Name& variant) {
    const Doorbell bell(loss_bprop(), context);
    const LossDims d = dims(words);
    const int64_t size = int64_t(d.N) * d.K;
    bell.ring({d, bell.in<float>("p", p, size), bell.in<int32_t>("labels", labels, d.N), bell.out("dx", dx, size), scale, nullptr},
              variant);
  });
}

}  // namespace minialex::bindings
