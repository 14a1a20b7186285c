#include "doorbell.h"

namespace minialex::bindings {

MINIALEX_BIND(dropout) {
  publish(module, dropout_fprop(), [](const py::tuple& words) { return dims_of<DropoutDims, 5>(words); });
  publish(module, dropout_test(), [](const py::tuple& words) { return MapDims{py::cast<int64_t>(words[0])}; });
  module.def("dropout_fprop", [](const py::tuple& words, py::object x, py::object y, uint64_t threshold, double scale, uint64_t seed,
                                 uint32_t step, uint32_t layer, uint32_t first, const Context& context, const Name& variant) {
    const Doorbell bell(dropout_fprop(), context);
    const auto d = dims_of<DropoutDims, 5>(words);
    const float* from = bell.in<float>("x", x, d.size());
    float* to = bell.out<float>("y", y, d.size());
    bell.ring({d, from, to, threshold, static_cast<float>(scale), seed, step, layer, first, nullptr}, variant);
  });
  module.def("dropout_test", [](const py::tuple& words, py::object x, py::object y, double factor, const Context& context,
                                const Name& variant) {
    const Doorbell bell(dropout_test(), context);
    const MapDims d{py::cast<int64_t>(words[0])};
    bell.ring({d, bell.in<float>("x", x, d.size), bell.out<float>("y", y, d.size), static_cast<float>(factor), nullptr}, variant);
  });
}

}  // namespace minialex::bindings
