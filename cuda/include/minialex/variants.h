// How an op is implemented more than once: a table of variants, best first, and the pure choice between them.
#pragma once
#include <cstring>
#include <string>
#include <vector>
#include "check.h"
#include "runtime.h"

namespace minialex {

// What the activations of a call are stored as, or those that a row takes.
enum class Stored { any, float32, bf16 };
inline const char* words(Stored stored) { return stored == Stored::bf16 ? "bfloat16" : "float32"; }

// A way to run an op whose arguments are a Call: `Call::Dims dims`, pointers, and `void* workspace`.
// `refuses`, `prefers` and `workspace` are functions of the dims alone, so the choice never depends on data, addresses or placement.  Of
// the device it knows one thing, how much shared memory a block may have: a row that wants more is no row there.
template <class Call> struct Variant {
  using Dims = typename Call::Dims;
  const char* name;                                   // by idea: "direct", "tiled", "vector", "tf32", "bf16x3"
  const char* precision;                              // of its products: "float32", "tf32", "bf16", "bf16x3", "bf16x6"
  const char* (*refuses)(const Dims&);                // nullptr: runs every shape; else returns nullptr or the rule broken, in words
  bool (*prefers)(const Dims&);                       // nullptr: always; false leaves the shape to a later row
  size_t (*workspace)(const Dims&);                   // nullptr: none; else bytes
  void (*launch)(const Call&, Stream);
  size_t shared = 0;                                  // bytes of a block, where more than the 99 KiB of any GPU since sm_80
  Stored takes = Stored::any;                         // of a float32 row that takes one kind of activations alone
};

// The rows stand in the order of preference; the last one is "direct" and runs every shape.
template <class Call> struct Op {
  const char* name;
  std::vector<Variant<Call>> variants;
};

// What a row takes: those that multiply in bf16 bfloat16, in another precision than float32 float32.
template <class Call> Stored taken(const Variant<Call>& variant) {
  if (!std::strcmp(variant.precision, "float32")) return variant.takes;
  return std::strcmp(variant.precision, "bf16") ? Stored::float32 : Stored::bf16;
}
template <class Call> bool takes(const Variant<Call>& variant, Stored stored) {
  return taken(variant) == Stored::any || taken(variant) == stored;
}

template <class Call> const char* refusal(const Variant<Call>& variant, const typename Call::Dims& dims) {
  return variant.refuses ? variant.refuses(dims) : nullptr;
}

// The first row of the wanted precision that runs and prefers these dims on a device whose blocks have `shared` bytes; where no row of
// that precision does, of float32.  Precision "bf16" means activations stored as bfloat16, every other one activations of float32.
template <class Call>
const Variant<Call>& choose(const Op<Call>& op, const typename Call::Dims& dims, const char* precision, size_t shared) {
  const Stored stored = std::strcmp(precision, "bf16") ? Stored::float32 : Stored::bf16;
  for (const char* wanted : {precision, "float32"})
    for (const auto& variant : op.variants)
      if (!std::strcmp(variant.precision, wanted) && takes(variant, stored) && variant.shared <= shared && !refusal(variant, dims) &&
          (!variant.prefers || variant.prefers(dims)))
        return variant;
  return op.variants.back();
}

// The row called `name`; ShapeError where there is none, or it refuses the dims or wants more than `shared` bytes, DTypeError where it does
// not take what is stored.  `caller`: the op's name in the message, where two ops share a table.
template <class Call>
const Variant<Call>& forced(const Op<Call>& op, const typename Call::Dims& dims, const std::string& name, size_t shared,
                            Stored stored, const char* caller = nullptr) {
  caller = caller ? caller : op.name;
  std::string names;
  for (const auto& variant : op.variants) {
    if (name == variant.name) {
      const char* why = refusal(variant, dims);
      MINIALEX_CHECK(DTypeError, takes(variant, stored), caller, ": variant ", name, " takes activations of ", words(taken(variant)), ", not of ",
                     words(stored));
      MINIALEX_CHECK(ShapeError, !why, caller, ": variant ", name, " does not run ", dims.text(), ": ", why ? why : "");
      MINIALEX_CHECK(ShapeError, variant.shared <= shared, caller, ": variant ", name, " does not run ", dims.text(), ": its blocks take ",
                     variant.shared, " bytes of shared memory, this device gives ", shared);
      return variant;
    }
    names += names.empty() ? "" : ", ";
    names += variant.name;
  }
  throw ShapeError(text(caller, ": there is no variant ", name, "; there are ", names));
}

}  // namespace minialex
