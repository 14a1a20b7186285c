// The runtime's calls for the Python side of the emulated backend, and what both backends are asked about their devices.
#include "doorbell.h"
#if defined(MINIALEX_EMULATED)
#include "graphs.h"
#include "settings.h"
#endif

namespace minialex::bindings {
namespace {

void* address(uintptr_t value) { return reinterpret_cast<void*>(value); }
Stream stream(uintptr_t value) { return reinterpret_cast<Stream>(value); }
Event event(uintptr_t value) { return reinterpret_cast<Event>(value); }
template <class T> uintptr_t number(T pointer) { return reinterpret_cast<uintptr_t>(pointer); }

struct OwnStream {
  Stream stream = runtime::stream_create(true);          // what is captured is the chain that others run beside
  ~OwnStream() {
    try {
      runtime::stream_destroy(stream);
    } catch (const std::exception&) {
    }
  }
};

// Gone with the Python object that holds it; launches that still run end first.
struct OwnGraph {
  Graph graph;
  int device;
  OwnGraph(Graph graph_, int device_) : graph(graph_), device(device_) {}
  OwnGraph(const OwnGraph&) = delete;
  ~OwnGraph() {
    try {
      runtime::graph_destroy(graph);
    } catch (const std::exception&) {                    // the process may be ending
    }
  }
};

// A C-contiguous host buffer of exactly `bytes` bytes.
py::buffer_info host(const py::buffer& buffer, size_t bytes, bool writable) {
  auto info = buffer.request(writable);
  MINIALEX_CHECK(ShapeError, size_t(info.size * info.itemsize) == bytes, "a copy of ", bytes, " bytes with a host array of ", info.size * info.itemsize);
  return info;
}

}  // namespace

MINIALEX_BIND(runtime) {
  module.def("device_count", &runtime::device_count);
#if defined(MINIALEX_EMULATED)
  module.def("configure", &emulated::configure);       // order of threads, mode of streams, ...: cuda/emulated/settings.h
#endif
  module.def("unavailable_reason", &runtime::unavailable_reason);
  module.def("describe", &runtime::describe);
  module.def("shared_per_block", &runtime::shared_per_block);
  module.def("set_device", &runtime::set_device);
  module.def("memory_info", [](int device) {
    size_t free_bytes = 0, total_bytes = 0;
    runtime::set_device(device);
    runtime::memory_info(&free_bytes, &total_bytes);
    return py::make_tuple(free_bytes, total_bytes);
  });
  module.def("can_access_peer", &runtime::can_access_peer);
  module.def("enable_peer", [](int device, int peer) {
    runtime::set_device(device);
    runtime::enable_peer(peer);
  });
  module.def("allocate", [](int device, size_t bytes) {
    runtime::set_device(device);
    return number(runtime::allocate(bytes));
  });
  module.def("release", [](uintptr_t pointer) { runtime::release(address(pointer)); });
  module.def("allocate_pinned", [](size_t bytes) { return number(runtime::allocate_pinned(bytes)); });
  module.def("release_pinned", [](uintptr_t pointer) { runtime::release_pinned(address(pointer)); });
  module.def("stream_create", [](int device) {
    runtime::set_device(device);
    return number(runtime::stream_create());
  });
  module.def("stream_destroy", [](uintptr_t s) { runtime::stream_destroy(stream(s)); });
  module.def("stream_synchronize", [](uintptr_t s) { runtime::stream_synchronize(stream(s)); }, py::call_guard<py::gil_scoped_release>());
  module.def("device_synchronize", [](int device) {
    runtime::set_device(device);
    runtime::device_synchronize();
  }, py::call_guard<py::gil_scoped_release>());
  module.def("event_create", [](int device) {
    runtime::set_device(device);
    return number(runtime::event_create());
  });
  module.def("event_destroy", [](uintptr_t e) { runtime::event_destroy(event(e)); });
  module.def("event_record", [](uintptr_t e, uintptr_t s) { runtime::event_record(event(e), stream(s)); });
  module.def("stream_wait", [](uintptr_t s, uintptr_t e) { runtime::stream_wait(stream(s), event(e)); });
  module.def("event_synchronize", [](uintptr_t e) { runtime::event_synchronize(event(e)); }, py::call_guard<py::gil_scoped_release>());
  module.def("upload", [](uintptr_t to, const py::buffer& from, size_t bytes, uintptr_t s) {
    const auto info = host(from, bytes, false);
    const py::gil_scoped_release release;
    runtime::copy(address(to), info.ptr, bytes, stream(s));
  });
  module.def("download", [](const py::buffer& to, uintptr_t from, size_t bytes, uintptr_t s) {
    const auto info = host(to, bytes, true);
    const py::gil_scoped_release release;
    runtime::copy(info.ptr, address(from), bytes, stream(s));
    runtime::stream_synchronize(stream(s));
  });
  module.def("copy", [](uintptr_t to, uintptr_t from, size_t bytes, uintptr_t s) {
    runtime::copy(address(to), address(from), bytes, stream(s));
  }, py::call_guard<py::gil_scoped_release>());
  module.def("copy_peer", [](uintptr_t to, int to_device, uintptr_t from, int from_device, size_t bytes, uintptr_t s) {
    runtime::copy_peer(address(to), to_device, address(from), from_device, bytes, stream(s));
  }, py::call_guard<py::gil_scoped_release>());
  module.def("fill", [](uintptr_t pointer, int byte, size_t bytes, uintptr_t s) {
    runtime::fill(address(pointer), byte, bytes, stream(s));
  }, py::call_guard<py::gil_scoped_release>());
  // The work that `body(stream)` asks of that stream, as a graph that has not run.
  module.def("capture", [](int device, const py::function& body) {
    runtime::set_device(device);
    const OwnStream own;
    runtime::capture_begin(own.stream);
    try {
      body(number(own.stream));
    } catch (...) {                                      // the first error is the one to tell
      try {
        runtime::graph_destroy(runtime::capture_end(own.stream));
      } catch (const std::exception&) {
      }
      throw;
    }
    return std::make_unique<OwnGraph>(runtime::capture_end(own.stream), device);
  });
  py::class_<OwnGraph>(module, "Graph", py::module_local())
      .def("launch", [](const OwnGraph& own, uintptr_t s) {
        runtime::set_device(own.device);
        runtime::graph_launch(own.graph, stream(s));
      }, py::call_guard<py::gil_scoped_release>())
#if defined(MINIALEX_EMULATED)
      .def("kernels", [](const OwnGraph& own) {          // (name and shape, bytes of the arguments) of each
        py::list rows;
        for (const auto& [name, arguments] : emulated::graph_kernels(own.graph)) rows.append(py::make_tuple(name, py::bytes(arguments)));
        return rows;
      })
#endif
      .def("depth", [](const OwnGraph& own) { return runtime::graph_depth(own.graph); })     // launches of its longest chain
      .def("__len__", [](const OwnGraph& own) { return runtime::graph_size(own.graph); });
}

}  // namespace minialex::bindings
