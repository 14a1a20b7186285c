// bfloat16 in registers: the upper half of a float32, two to a 32-bit word.  Plain integer arithmetic, the same on both sides.
#pragma once
#include "kernel.h"

namespace minialex {

// Round to nearest, ties to even; every NaN becomes 0x7fff, as cvt.rn.bf16x2 makes it.
MINIALEX_DEVICE uint32_t bf16_bits(float value) {
  const uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
  return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

// The two numbers of a word that pack_bf16(low, high) made; widening is exact.
MINIALEX_DEVICE float bf16_low(uint32_t pair) { return __uint_as_float(pair << 16); }
MINIALEX_DEVICE float bf16_high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

}  // namespace minialex
