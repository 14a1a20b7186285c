// float32 numbers as sums of bf16, whose products on tensor cores add up to nearly float32's.
//
// x = x[0] + x[1] + x[2], each the bf16 nearest to what those before it leave: |x[1]| <= 2^-8 |x|, |x[2]| <= 2^-17 |x|, and three parts,
// 24 bits, are x itself.  Of the products of parts
//   bf16x3   x[0] y[0] + x[0] y[1] + x[1] y[0]                leave out at most 2 / 2^16 of |x y|
//   bf16x6   and x[0] y[2] + x[1] y[1] + x[2] y[0]            at most (1 + 2^-10) / 2^24, twice float32's rounding of a product
// On the emulator sums of normal random numbers have 0.3 to 0.9 of the float32 rows' error (root mean square) in bf16x6, and in bf16x3
// 13 to 17 times theirs where there are 360 terms or more, up to 110 times of a few terms, which is 1/50 to 1/100 of tf32's.
// Nothing of a part lies below 2^-133, bf16's least number: of numbers under 2^-110 bf16x6 keeps fewer bits, as bf16x3 does of those
// under 2^-117.  The emulator's unit takes subnormal parts as they are; whether a device's does was not measured.
// Infinities, NaNs and numbers above 3.39e38, which round to infinity, have no such parts: gemm_mma.h repairs their sums.
#pragma once
#include "tensor_core.h"

namespace minialex {

// Of two numbers at once, as words of bf16: the first in bits 0..15.  The differences are exact.
template <int PARTS> MINIALEX_DEVICE void split_bf16(uint32_t (&parts)[PARTS], float x, float y) {
  MINIALEX_UNROLL for (int p = 0; p < PARTS; ++p) {
    parts[p] = pack_bf16(x, y);
    x = x - bf16_low(parts[p]), y = y - bf16_high(parts[p]);
  }
}

}  // namespace minialex
