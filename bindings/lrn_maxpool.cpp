#include "doorbell.h"

namespace minialex::bindings {

MINIALEX_BIND(lrn_maxpool) {
  const auto dims = [](const py::tuple& words) {
    const auto word = [&](int i) { return py::cast<int>(words[i]); };
    return NormPoolDims{{word(0), word(1), word(2), word(3), word(4)},
                        {word(5), word(6), word(7), word(8), word(9), word(10), word(11), word(12), word(13) != 0}};
  };
  publish(module, lrn_maxpool_fprop(), dims);
  publish(module, lrn_maxpool_bprop(), dims);
  module.def("lrn_maxpool_fprop", [dims](const py::tuple& words, py::object x, py::object y, float k, float alpha, float beta,
                                         const Context& context, const Name& variant) {
    const Doorbell bell(lrn_maxpool_fprop(), context);
    const NormPoolDims d = dims(words);
    bell.ring({d, bell.in("x", x, d.pool.x_size()), bell.out("y", y, d.pool.y_size()), k, alpha, beta, nullptr}, variant);
  });
  module.def("lrn_maxpool_bprop", [dims](const py::tuple& words, py::object x, py::object y, py::object dy, py::object dx, float k,
                                         float alpha, float beta, bool relu, const Context& context, const Name& variant) {
    const Doorbell bell(lrn_maxpool_bprop(), context);
    const NormPoolDims d = dims(words);
    bell.ring({d, bell.in("x", x, d.pool.x_size()), bell.in("y", y, d.pool.y_size()),
               bell.in("dy", dy, d.pool.y_size()), bell.out("dx", dx, d.pool.x_size()), k, alpha, beta, relu, nullptr},
              variant);
  });
}

}  // namespace minialex::bindings
