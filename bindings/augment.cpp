#include "doorbell.h"

namespace minialex::bindings {

MINIALEX_BIND(augment) {
  const auto dims = [](const py::tuple& words) {
    const auto word = [&](int i) { return py::cast<int>(words[i]); };
    return AugmentDims{word(0), word(1), word(2), word(3), word(4), word(5), word(6), py::cast<bool>(words[7])};
  };
  publish(module, augment_fprop(), dims);
  module.def("augment_fprop", [dims](const py::tuple& words, py::object images, py::object mean, py::object offsets, py::object flips,
                                     py::object noise, py::object y, double scale, const Context& context, const Name& variant) {
    const Doorbell bell(augment_fprop(), context);
    const AugmentDims d = dims(words);
    const int64_t N = d.N, C = d.C, picture = int64_t(d.H0) * d.W0 * C;
    const auto* flip = reinterpret_cast<const uint8_t*>(bell.in<bool>("flips", flips, N));      // NumPy's bool: a byte, 0 or 1
    bell.ring({d, bell.in<uint8_t>("images", images, N * picture), bell.in<float>("mean", mean, picture),
               bell.in<int32_t>("offsets", offsets, N * 2), flip, bell.in<float>("noise", noise, N * C),
               bell.out("y", y, N * d.H * d.W * C), static_cast<float>(scale), nullptr},
              variant);
  });
}

}  // namespace minialex::bindings
