// What every doorbell shares: find the variant, get its workspace, say which one it was, ring the launcher without the GIL.
#pragma once
#include <minialex/ops.h>
#include <pybind11/stl.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <set>

#include "arrays.h"

namespace minialex::bindings {

// Where the ops of one backend object run.  `workspace(bytes)` returns the address of scratch memory on the device that nothing
// else uses until the op has ended on `stream`.
struct Context {
  int device = 0;
  uintptr_t stream = 0;
  std::string precision = "float32";
  py::function workspace;
};

using Name = std::optional<std::string>;                // a variant forced by name, or none

// Under MINIALEX_TRACE=1: which variant runs, once for each op and shape.
inline void trace(const char* op, const std::string& dims, const char* variant, const char* precision) {
  static const bool on = [] {
    const char* value = std::getenv("MINIALEX_TRACE");
    return value && *value && *value != '0';
  }();
  if (!on) return;
  static std::mutex mutex;
  static std::set<std::string> said;
  const std::string line = text("[minialex] ", op, " ", dims, " -> ", variant, " (", precision, ")");
  const std::lock_guard<std::mutex> lock(mutex);
  if (said.insert(line).second) std::fprintf(stderr, "%s\n", line.c_str());
}

template <class Call> class Doorbell {
 public:
  // `name` is what the caller called, where two ops share a table.
  Doorbell(const Op<Call>& op, const Context& context, const char* name = nullptr) : op_(op), context_(context), name_(name ? name : op.name) {}

  template <class T> const T* in(const char* name, const py::handle& array, int64_t count) const {
    return device_pointer<T>(name_, name, array, count, context_.device);
  }
  template <class T> T* out(const char* name, const py::handle& array, int64_t count) const {
    return device_pointer<T>(name_, name, array, count, context_.device);
  }
  // Activations and their gradients: float32 or bfloat16.  What goes in says which rows take the call.
  InArray in(const char* name, const py::handle& array, int64_t count) const {
    if (!holds_bf16(array)) return in<float>(name, array, count);
    stored_ = Stored::bf16;
    return in<bf16>(name, array, count);
  }
  OutArray out(const char* name, const py::handle& array, int64_t count) const {
    return holds_bf16(array) ? OutArray(out<bf16>(name, array, count)) : OutArray(out<float>(name, array, count));
  }
  InArray optional(const char* name, const py::handle& array, int64_t count) const {
    return array.is_none() ? InArray() : in(name, array, count);
  }
  template <class T> const T* optional(const char* name, const py::handle& array, int64_t count) const {
    return array.is_none() ? nullptr : in<T>(name, array, count);
  }

  // (threshold, scale, seed, step, layer, first, column, columns); the step is a number or an array of one.
  DropoutMask mask(const py::tuple& words) const {
    const bool number = py::isinstance<py::int_>(words[3]);
    return {py::cast<uint64_t>(words[0]), static_cast<float>(py::cast<double>(words[1])), py::cast<uint64_t>(words[2]),
            number ? py::cast<uint32_t>(words[3]) : 0, py::cast<uint32_t>(words[4]), py::cast<uint32_t>(words[5]), py::cast<int>(words[6]),
            py::cast<int>(words[7]), number ? nullptr : in<int32_t>("step", words[3], 1)};
  }

  void ring(Call call, const Name& variant) const {
    const size_t shared = runtime::shared_per_block(context_.device);
    const std::string& set = context_.precision;
    const char* precision = stored_ == Stored::bf16 ? "bf16" : set == "bf16" ? "float32" : set.c_str();
    const auto& row = variant ? forced(op_, call.dims, *variant, shared, stored_, name_) : choose(op_, call.dims, precision, shared);
    trace(name_, call.dims.text(), row.name, row.precision);
    const size_t bytes = row.workspace ? row.workspace(call.dims) : 0;
    call.workspace = bytes ? reinterpret_cast<void*>(py::cast<uintptr_t>(context_.workspace(bytes))) : nullptr;
    const py::gil_scoped_release release;
    runtime::set_device(context_.device);
    row.launch(call, reinterpret_cast<Stream>(context_.stream));
  }

 private:
  const Op<Call>& op_;
  const Context& context_;
  const char* name_;
  mutable Stored stored_ = Stored::float32;
};

// Makes an op's table visible to Python: module.tables["conv_fprop"] = [(name, precision), ...], and the pure choice as
// module.choices["conv_fprop"](dims, precision, shared bytes of a block) -> name, where `make` builds the dims from Python's words.
template <class Call, class Make> void publish(py::module_& module, const Op<Call>& op, Make make, const char* alias = nullptr) {
  py::list rows;
  for (const auto& variant : op.variants) rows.append(py::make_tuple(variant.name, variant.precision));
  const char* name = alias ? alias : op.name;
  module.attr("tables")[name] = rows;
  module.attr("choices")[name] = py::cpp_function([&op, make](const py::tuple& words, const std::string& precision, size_t shared) {
    return std::string(choose(op, make(words), precision.c_str(), shared).name);
  });
  module.attr("refusals")[name] = py::cpp_function([&op, make](const py::tuple& words, const std::string& variant) -> std::optional<std::string> {
    for (const auto& row : op.variants)
      if (variant == row.name) {
        const char* why = refusal(row, make(words));
        return why ? std::optional<std::string>(why) : std::nullopt;
      }
    throw ShapeError(text(op.name, ": there is no variant ", variant));
  });
}

// Dims from a tuple of whole numbers, in the order of the struct's fields.
template <class Dims, size_t... I> Dims dims_of(const py::tuple& words, std::index_sequence<I...>) { return Dims{py::cast<int>(words[I])...}; }
template <class Dims, size_t Fields> Dims dims_of(const py::tuple& words) {
  MINIALEX_CHECK(ShapeError, words.size() == Fields, "dims of ", words.size(), " numbers, but ", Fields, " are needed");
  return dims_of<Dims>(words, std::make_index_sequence<Fields>());
}

// Each file of bindings/ announces itself: MINIALEX_BIND(relu) { module.def(...); }
struct Announced {
  using Function = void (*)(py::module_&);
  explicit Announced(Function function) { all().push_back(function); }
  static std::vector<Function>& all() {
    static std::vector<Function> functions;
    return functions;
  }
};
#define MINIALEX_BIND(stem)                              \
  static void bind_##stem(py::module_& module);          \
  static const Announced announced_##stem(bind_##stem);  \
  static void bind_##stem(py::module_& module)

}  // namespace minialex::bindings
