// Tanh, the saturating unit of figure 1 of the paper: y = tanh(x), dx = dy (1 - y^2).
//
//   vector   4 floats a thread: 8 bytes moved an element forward, 12 backward; memory-bound
//   direct   1 float a thread, any size
#include <minialex/map.h>

namespace minialex {
namespace {

struct Tanh {
  static MINIALEX_DEVICE float fprop(float x) { return tanhf(x); }
  // 1 - y^2 in one rounding: near saturation the difference is small, and a rounded square would cost it its digits.
  static MINIALEX_DEVICE float bprop(float y, float dy) { return __fmul_rn(dy, fmaf(-y, y, 1.f)); }
};

}  // namespace

const Op<MapFprop>& tanh_fprop() {
  static const Op<MapFprop> op = map_fprop<Tanh>("tanh_fprop");
  return op;
}

const Op<MapBprop>& tanh_bprop() {
  static const Op<MapBprop> op = map_bprop<Tanh>("tanh_bprop");
  return op;
}

}  // namespace minialex
