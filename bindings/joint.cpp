#include "doorbell.h"

namespace minialex::bindings {

MINIALEX_BIND(joint) {
  const auto dims = [](const py::tuple& words) {
    return JointSum::Dims{py::cast<int64_t>(words[0]), py::cast<int>(words[1]), py::cast<int>(words[2]), py::cast<int>(words[3])};
  };
  publish(module, joint_sum(), dims);
  module.def("joint_sum", [dims](const py::tuple& words, py::object p, py::object q, py::object b, py::object y, const Context& context,
                                 const Name& variant) {
    const Doorbell bell(joint_sum(), context);
    const JointSum::Dims d = dims(words);
    bell.ring({d, bell.in("p", p, d.size), bell.in("q", q, d.size), bell.optional<float>("b", b, int64_t(d.G) * d.C),
               bell.out("y", y, d.size), nullptr}, variant);
  });
}

}  // namespace minialex::bindings
