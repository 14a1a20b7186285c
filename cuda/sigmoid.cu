// Sigmoid, the other saturating unit of section 3.1: y = 1 / (1 + exp(-x)), dx = dy y (1 - y).
//
//   vector   4 floats a thread: 8 bytes moved an element forward, 12 backward; memory-bound
//   direct   1 float a thread, any size
#include <minialex/map.h>

namespace minialex {
namespace {

struct Sigmoid {
  // For x < 0 it is exp(x) / (1 + exp(x)), the same number: the exponential never overflows, and small y keep their digits.
  static MINIALEX_DEVICE float fprop(float x) {
    const float small = expf(-fabsf(x));                // in (0, 1]
    return __fdiv_rn(x < 0.f ? small : 1.f, __fadd_rn(1.f, small));
  }
  static MINIALEX_DEVICE float bprop(float y, float dy) { return __fmul_rn(__fmul_rn(dy, y), __fsub_rn(1.f, y)); }
};

}  // namespace

const Op<MapFprop>& sigmoid_fprop() {
  static const Op<MapFprop> op = map_fprop<Sigmoid>("sigmoid_fprop");
  return op;
}

const Op<MapBprop>& sigmoid_bprop() {
  static const Op<MapBprop> op = map_bprop<Sigmoid>("sigmoid_bprop");
  return op;
}

}  // namespace minialex
