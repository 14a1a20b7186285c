#include "doorbell.h"

namespace minialex::bindings {

MINIALEX_BIND(sgd) {
  const auto dims = [](const py::tuple& words) { return SGDDims{py::cast<int64_t>(words[0]), py::cast<int>(words[1])}; };
  publish(module, sgd_update(), dims);
  module.def("sgd_update", [dims](const py::tuple& words, py::object w, py::object v, py::object dw, const py::list& rows, float momentum,
                                  py::object rates, const Context& context, const Name& variant) {
    const Doorbell bell(sgd_update(), context);
    const SGDDims d = dims(words);
    std::vector<Segment> segments;
    for (const auto& item : rows) {
      const auto row = py::cast<py::tuple>(item);
      segments.push_back({py::cast<int64_t>(row[0]), py::cast<int64_t>(row[1]), py::cast<double>(row[2]), py::cast<double>(row[3])});
    }
    MINIALEX_CHECK(ShapeError, segments.size() == size_t(d.segments), "sgd_update: ", segments.size(), " segments, but dims say ", d.segments);
    bell.ring({d, bell.out<float>("w", w, d.size), bell.out<float>("v", v, d.size), bell.in<float>("dw", dw, d.size), segments.data(),
               momentum, bell.optional<float>("rates", rates, 2 * d.segments), nullptr}, variant);
  });
}

}  // namespace minialex::bindings
