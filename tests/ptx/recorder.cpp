// Calls an op's variant with addresses of the interpreter's memory and gives the launches it asks for, as text.
#include "recorder.h"
#include <dlfcn.h>
#include <cstdint>
#include <iomanip>
#include <minialex/ops.h>

namespace minialex::recorder {

std::vector<Launch>& launches() {
  static std::vector<Launch> list;
  return list;
}

namespace {

// What a test gives: the numbers of the dims in their order, addresses, and the op's other floats.
struct Given {
  const char* variant;
  const int* n;
  float* const* p;
  const float* f;
};

// The rows of precision bf16 read activations of bfloat16.
bool narrow_of(const char* variant) { return std::string(variant) == "bf16" || std::string(variant) == "bf16_64x64"; }
InArray read(const Given& given, int i) {
  return narrow_of(given.variant) ? InArray(reinterpret_cast<const bf16*>(given.p[i])) : InArray(given.p[i]);
}

template <class Call> void call(const Op<Call>& op, const Given& given, const Call& arguments) {
  const Stored stored = narrow_of(given.variant) ? Stored::bf16 : Stored::float32;
  forced(op, arguments.dims, given.variant, SIZE_MAX, stored).launch(arguments, nullptr);
}

ConvDims conv_dims(const int* n) { return {n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11], n[12], n[13], n[14]}; }
NormDims norm_dims(const int* n) { return {n[0], n[1], n[2], n[3], n[4]}; }
PoolDims pool_dims(const int* n) { return {n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8] != 0}; }

void call_by_name(const std::string& op, const Given& g) {
  float* const* p = g.p;                               // the workspace is the last address of each
  if (op == "conv_fprop") call(conv_fprop(), g, {conv_dims(g.n), read(g, 0), p[1], p[2], p[3], false, {}, p[4]});
  else if (op == "conv_dgrad") call(conv_dgrad(), g, {conv_dims(g.n), read(g, 0), p[1], p[2], {}, 1.f, p[3]});
  else if (op == "conv_wgrad") call(conv_wgrad(), g, {conv_dims(g.n), read(g, 0), read(g, 1), p[2], p[3], false, p[4]});
  else if (op == "lrn_fprop") call(lrn_fprop(), g, {norm_dims(g.n), p[0], p[1], g.f[0], g.f[1], g.f[2], p[2]});
  else if (op == "lrn_bprop") call(lrn_bprop(), g, {norm_dims(g.n), p[0], p[1], p[2], g.f[0], g.f[1], g.f[2], p[3]});
  else if (op == "maxpool_fprop") call(maxpool_fprop(), g, {pool_dims(g.n), p[0], p[1], p[2]});
  else if (op == "maxpool_bprop") call(maxpool_bprop(), g, {pool_dims(g.n), p[0], p[1], p[2], p[3], false, p[4]});
  else throw ShapeError(text("the recorder knows no op ", op));
}

std::string as_text(const Launch& launch) {
  Dl_info library{};
  dladdr(launch.kernel, &library);
  const auto offset = static_cast<const char*>(launch.kernel) - static_cast<const char*>(library.dli_fbase);
  std::ostringstream out;
  out << offset;
  for (const dim3& size : {launch.grid, launch.block}) out << ' ' << size.x << ' ' << size.y << ' ' << size.z;
  out << ' ' << launch.shared_bytes << std::hex << std::setfill('0');
  for (const auto& argument : launch.arguments) {
    out << ' ';
    for (unsigned byte : argument) out << std::setw(2) << byte;
  }
  return out.str();
}

}  // namespace

// One line for each launch; where something is wrong, a line that begins with "error: ".
extern "C" const char* record_op(const char* op, const char* variant, const int* dims, float* const* pointers, const float* floats) {
  static std::string answer;
  try {
    launches().clear();
    call_by_name(op, {variant, dims, pointers, floats});
    answer.clear();
    for (const Launch& launch : launches()) answer += as_text(launch) + "\n";
  } catch (const std::exception& error) {
    answer = text("error: ", error.what());
  }
  return answer.c_str();
}

// The rows of an op's table, best first, as "name precision" lines; "" where the op has none.
template <class Call> std::string rows(const Op<Call>& op) {
  std::string names;
  for (const auto& variant : op.variants) names += text(variant.name, ' ', variant.precision, '\n');
  return names;
}
extern "C" const char* table_of(const char* name) {
  static std::string answer;
  const std::string op = name;
  answer = op == "conv_fprop" ? rows(conv_fprop()) : op == "conv_dgrad" ? rows(conv_dgrad()) : op == "conv_wgrad" ? rows(conv_wgrad())
           : op == "lrn_fprop" ? rows(lrn_fprop()) : op == "lrn_bprop" ? rows(lrn_bprop())
           : op == "maxpool_fprop" ? rows(maxpool_fprop()) : op == "maxpool_bprop" ? rows(maxpool_bprop()) : "";
  return answer.c_str();
}

}  // namespace minialex::recorder
