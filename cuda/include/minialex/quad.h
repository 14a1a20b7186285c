// Four neighbouring channels in registers, moved as 16 bytes, or as 8 of bfloat16.
#pragma once
#include "stored.h"

namespace minialex {

struct Quad {
  float v[4];
};

MINIALEX_DEVICE Quad quad_of(const float4& a) { return {{a.x, a.y, a.z, a.w}}; }
MINIALEX_DEVICE float4 four_of(const Quad& a) { return make_float4(a.v[0], a.v[1], a.v[2], a.v[3]); }

template <class S> MINIALEX_DEVICE Quad load_quad(const S* from) { return quad_of(load4(from)); }
template <class S> MINIALEX_DEVICE void store_quad(S* to, const Quad& a) { store4(to, four_of(a)); }
MINIALEX_DEVICE Quad load_quad(const InArray& from) { return quad_of(load4(from)); }
MINIALEX_DEVICE void store_quad(const OutArray& to, const Quad& a) { store4(to, four_of(a)); }

}  // namespace minialex
