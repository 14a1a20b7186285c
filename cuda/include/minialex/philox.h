// Philox4x32-10, a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four random
// words as a pure function of counter and key, so a mask depends neither on the grid nor on what was drawn before.
#pragma once
#include "kernel.h"
#include "ops.h"

namespace minialex {

MINIALEX_DEVICE uint4 philox(uint4 counter, uint64_t key) {
  unsigned left = static_cast<unsigned>(key), right = static_cast<unsigned>(key >> 32);
  MINIALEX_UNROLL
  for (int round = 0; round < 10; ++round) {
    const unsigned high0 = __umulhi(0xD2511F53u, counter.x), low0 = 0xD2511F53u * counter.x;
    const unsigned high1 = __umulhi(0xCD9E8D57u, counter.z), low1 = 0xCD9E8D57u * counter.z;
    counter = make_uint4(high1 ^ counter.y ^ left, low1, high0 ^ counter.w ^ right, low0);
    left += 0x9E3779B9u;
    right += 0xBB67AE85u;
  }
  return counter;
}

// The four words of elements 4 quad .. 4 quad + 3 of image `image` of the array, and what becomes of a value with its word.  The
// threshold has 33 bits: with keep = 1 every word is below.
MINIALEX_DEVICE uint4 dropout_words(const DropoutMask& mask, uint32_t quad, uint32_t image) {
  return philox(make_uint4(quad, mask.first + image, mask.dial ? uint32_t(*mask.dial) : mask.step, mask.layer), mask.seed);
}
MINIALEX_DEVICE float dropped(float x, uint32_t word, const DropoutMask& mask) { return word < mask.threshold ? __fmul_rn(x, mask.scale) : 0.f; }
MINIALEX_DEVICE uint32_t word_of(const uint4& four, int64_t e) { return e % 4 == 0 ? four.x : e % 4 == 1 ? four.y : e % 4 == 2 ? four.z : four.w; }

}  // namespace minialex
