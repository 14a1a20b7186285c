// The arithmetic of the norms, shared by every kernel that has one: each rounding is written out (nvcc would contract products and
// sums as it likes, differently from kernel to kernel), so fused and unfused kernels and all variants give the same bits.
#pragma once
#include "quad.h"

namespace minialex {

struct NormConstants {
  float k, alpha, beta;
  float twice;                                         // 2 alpha beta
  template <class Call> explicit NormConstants(const Call& c) : k(c.k), alpha(c.alpha), beta(c.beta), twice(2 * c.alpha * c.beta) {}
};

MINIALEX_DEVICE float norm_scale(float squares, const NormConstants& n) { return fmaf(n.alpha, squares, n.k); }

// scale^-beta.  PAPER: beta is 3/4, two special functions instead of a power; 5 units of rounding in all.
template <bool PAPER> MINIALEX_DEVICE float norm_power(float scale, const NormConstants& n) {
  if (!PAPER) return powf(scale, -n.beta);
  const float root = rsqrtf(scale);
  return __fmul_rn(root, __fsqrt_rn(root));
}

// What dy of this element adds to the gradient of each x in its window, up to the factor -2 alpha beta x.
MINIALEX_DEVICE float norm_through(float x, float dy, float scale, float power) {
  return __fdiv_rn(__fmul_rn(__fmul_rn(dy, power), x), scale);
}

MINIALEX_DEVICE float norm_gradient(float x, float dy, float power, float through, const NormConstants& n) {
  return fmaf(__fmul_rn(-n.twice, x), through, __fmul_rn(dy, power));
}

// ---- across channels.  `pixel` points to the C channels of one pixel (Numbers: a pointer or an InArray); windows are clipped to them.
template <class Numbers> MINIALEX_DEVICE float channel_scale(const Numbers& pixel, int c, int C, int radius, const NormConstants& n) {
  float squares = 0;
  for (int j = max(c - radius, 0); j <= min(c + radius, C - 1); ++j) squares = fmaf(pixel[j], pixel[j], squares);
  return norm_scale(squares, n);
}

template <bool PAPER, class Numbers>
MINIALEX_DEVICE float channel_norm(const Numbers& pixel, int c, int C, int radius, const NormConstants& n) {
  return __fmul_rn(pixel[c], norm_power<PAPER>(channel_scale(pixel, c, C, radius, n), n));
}

// Channels c - 4 .. c + 7 of a pixel in global or shared memory, zeros beyond its ends: they change no sum, not even by a rounding.
struct Around {
  float v[12];
};
template <class Numbers> MINIALEX_DEVICE Around around(const Numbers& pixel, int c, int C) {
  const Quad none = {{0, 0, 0, 0}}, left = c >= 4 ? load_quad(pixel + (c - 4)) : none, right = c + 4 < C ? load_quad(pixel + (c + 4)) : none;
  const Quad here = load_quad(pixel + c);
  Around a;
  MINIALEX_UNROLL for (int i = 0; i < 4; ++i) {
    a.v[i] = left.v[i];
    a.v[4 + i] = here.v[i];
    a.v[8 + i] = right.v[i];
  }
  return a;
}

// Four neighbouring channels of one pixel on their way through the norm.
template <int RADIUS, bool PAPER> struct NormQuad {
  static_assert(RADIUS <= 4, "the window must lie within the neighbouring quads");
  Quad x, scale, power;

  template <class Numbers> MINIALEX_DEVICE NormQuad(const Numbers& pixel, int c, int C, const NormConstants& n) {
    const Around a = around(pixel, c, C);
    MINIALEX_UNROLL for (int i = 0; i < 4; ++i) {
      float squares = 0;
      MINIALEX_UNROLL for (int j = -RADIUS; j <= RADIUS; ++j) squares = fmaf(a.v[4 + i + j], a.v[4 + i + j], squares);
      x.v[i] = a.v[4 + i];
      scale.v[i] = norm_scale(squares, n);
      power.v[i] = norm_power<PAPER>(scale.v[i], n);
    }
  }

  MINIALEX_DEVICE Quad y() const {
    Quad out;
    MINIALEX_UNROLL for (int i = 0; i < 4; ++i) out.v[i] = __fmul_rn(x.v[i], power.v[i]);
    return out;
  }

  MINIALEX_DEVICE Quad through(const Quad& dy) const {
    Quad out;
    MINIALEX_UNROLL for (int i = 0; i < 4; ++i) out.v[i] = norm_through(x.v[i], dy.v[i], scale.v[i], power.v[i]);
    return out;
  }

  // `throughs`: of all the pixel's channels, as through() made them.
  MINIALEX_DEVICE Quad dx(const Quad& dy, const float* throughs, int c, int C, const NormConstants& n) const {
    const Around a = around(throughs, c, C);
    Quad out;
    MINIALEX_UNROLL for (int i = 0; i < 4; ++i) {
      float sum = 0;
      MINIALEX_UNROLL for (int j = -RADIUS; j <= RADIUS; ++j) sum = __fadd_rn(sum, a.v[4 + i + j]);
      out.v[i] = norm_gradient(x.v[i], dy.v[i], power.v[i], sum, n);
    }
    return out;
  }
};

}  // namespace minialex
