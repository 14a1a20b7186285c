// CUDA's shuffles and votes, each one rendezvous of the lanes in its mask.  Included by emulated.h.
#pragma once
#include "primitives.h"

namespace minialex::emulated {

enum class Shuffle { from_lane, up, down, exclusive_or };

template <class T> struct ShuffleArguments {
  T value, result;
  int64_t operand;
  int width;
};

// The lane `lane` reads from: itself, where the wanted one lies outside its group of `width` (exclusive_or may read an earlier group).
inline int shuffle_source(Shuffle kind, int lane, int64_t operand, int width) {
  int first = lane & ~(width - 1);
  if (kind == Shuffle::from_lane) return first + static_cast<int>(operand & (width - 1));
  int64_t source = kind == Shuffle::up ? lane - operand : kind == Shuffle::down ? lane + operand : lane ^ operand;
  int64_t lowest = kind == Shuffle::exclusive_or ? 0 : first;
  return source < lowest || source >= first + width ? lane : static_cast<int>(source);
}

template <class T, Shuffle KIND> MINIALEX_UNCHECKED void execute_shuffle(void** lane_arguments, uint32_t mask) {
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    auto& own = *static_cast<ShuffleArguments<T>*>(lane_arguments[lane]);
    int source = shuffle_source(KIND, lane, own.operand, own.width);
    if (mask >> source & 1) own.result = static_cast<ShuffleArguments<T>*>(lane_arguments[source])->value;
    else std::memset(static_cast<void*>(&own.result), 0xFF, sizeof(T));      // a lane that is not there: undefined, so poison
  }
}

template <Shuffle KIND, class T> T shuffle(unsigned mask, T value, int64_t operand, int width, const char* what, Location location) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA shuffles 4 or 8 bytes");
  if (width < 1 || width > 32 || (width & (width - 1))) fail(what, " at ", location, ": width ", width, " is no power of two up to 32");
  ShuffleArguments<T> arguments{value, value, operand, width};
  collective(&arguments, mask, &execute_shuffle<T, KIND>, what, false, location);
  return arguments.result;
}

struct VoteArguments {
  bool predicate;
  uint32_t result;
};
MINIALEX_UNCHECKED inline void execute_vote(void** lane_arguments, uint32_t mask) {
  uint32_t result = 0;
  for (int lane = 0; lane < 32; ++lane)
    if ((mask >> lane & 1) && static_cast<VoteArguments*>(lane_arguments[lane])->predicate) result |= 1u << lane;
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1) static_cast<VoteArguments*>(lane_arguments[lane])->result = result;
}
inline uint32_t vote(unsigned mask, bool predicate, const char* what, Location location) {
  VoteArguments arguments{predicate, 0};
  collective(&arguments, mask, &execute_vote, what, false, location);
  return arguments.result;
}

}  // namespace minialex::emulated

inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, MINIALEX_CALLER) { minialex::emulated::sync_warp(mask, MINIALEX_CALLED_AT); }

template <class T> T __shfl_sync(unsigned mask, T value, int lane, int width = 32, MINIALEX_CALLER) {
  using namespace minialex::emulated;
  return shuffle<Shuffle::from_lane>(mask, value, lane, width, "__shfl_sync", MINIALEX_CALLED_AT);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, MINIALEX_CALLER) {
  using namespace minialex::emulated;
  return shuffle<Shuffle::up>(mask, value, delta, width, "__shfl_up_sync", MINIALEX_CALLED_AT);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, MINIALEX_CALLER) {
  using namespace minialex::emulated;
  return shuffle<Shuffle::down>(mask, value, delta, width, "__shfl_down_sync", MINIALEX_CALLED_AT);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, MINIALEX_CALLER) {
  using namespace minialex::emulated;
  return shuffle<Shuffle::exclusive_or>(mask, value, bits, width, "__shfl_xor_sync", MINIALEX_CALLED_AT);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, MINIALEX_CALLER) {
  return minialex::emulated::vote(mask, predicate != 0, "__ballot_sync", MINIALEX_CALLED_AT);
}
inline int __any_sync(unsigned mask, int predicate, MINIALEX_CALLER) {
  return minialex::emulated::vote(mask, predicate != 0, "__any_sync", MINIALEX_CALLED_AT) != 0;
}
inline int __all_sync(unsigned mask, int predicate, MINIALEX_CALLER) {
  return minialex::emulated::vote(mask, predicate == 0, "__all_sync", MINIALEX_CALLED_AT) == 0;
}
