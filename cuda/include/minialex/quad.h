// Four neighbouring channels in registers, moved as 16 bytes.
#pragma once
#include "kernel.h"

namespace minialex {

struct Quad {
  float v[4];
};

MINIALEX_DEVICE Quad load_quad(const float* from) {
  const float4 a = load4(from);
  return {{a.x, a.y, a.z, a.w}};
}

MINIALEX_DEVICE void store_quad(float* to, const Quad& a) { store4(to, make_float4(a.v[0], a.v[1], a.v[2], a.v[3])); }

}  // namespace minialex
