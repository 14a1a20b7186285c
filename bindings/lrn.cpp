#include "doorbell.h"

namespace minialex::bindings {

MINIALEX_BIND(lrn) {
  const auto dims = [](const py::tuple& words) { return dims_of<NormDims, 5>(words); };
  publish(module, lrn_fprop(), dims);
  publish(module, lrn_bprop(), dims);
  module.def("lrn_fprop", [dims](const py::tuple& words, py::object x, py::object y, float k, float alpha, float beta,
                                 const Context& context, const Name& variant) {
    const Doorbell bell(lrn_fprop(), context);
    const NormDims d = dims(words);
    bell.ring({d, bell.in("x", x, d.size()), bell.out("y", y, d.size()), k, alpha, beta, nullptr}, variant);
  });
  module.def("lrn_bprop", [dims](const py::tuple& words, py::object x, py::object dy, py::object dx, float k, float alpha, float beta,
                                 const Context& context, const Name& variant) {
    const Doorbell bell(lrn_bprop(), context);
    const NormDims d = dims(words);
    bell.ring({d, bell.in("x", x, d.size()), bell.in("dy", dy, d.size()), bell.out("dx", dx, d.size()), k, alpha,
               beta, nullptr},
              variant);
  });
}

}  // namespace minialex::bindings
