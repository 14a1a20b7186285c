// Philox4x32-10, a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four random
// words as a pure function of counter and key, so a mask depends neither on the grid nor on what was drawn before.
#pragma once
#include <minialex/kernel.h>

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

}  // namespace minialex
