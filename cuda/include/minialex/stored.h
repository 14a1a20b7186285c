// Vectors of stored numbers, float32 or bfloat16, as float32 in registers: four of them are 16 or 8 bytes at once.  An InArray or OutArray
// is asked which at run time, where a branch costs nothing beside the memory; kernels that must not branch are templates over the type.
#pragma once
#include "tensor_core.h"

namespace minialex {

#if defined(MINIALEX_EMULATED)
MINIALEX_DEVICE float4 load4(const bf16* from, MINIALEX_CALLER) {
  emulated::check_aligned(from, 8, "load4", caller_file, caller_line);
#else
MINIALEX_DEVICE float4 load4(const bf16* from) {
#endif
  const uint2 pairs = *reinterpret_cast<const uint2*>(from);
  return make_float4(bf16_low(pairs.x), bf16_high(pairs.x), bf16_low(pairs.y), bf16_high(pairs.y));
}

#if defined(MINIALEX_EMULATED)
MINIALEX_DEVICE void store4(bf16* to, float4 value, MINIALEX_CALLER) {
  emulated::check_aligned(to, 8, "store4", caller_file, caller_line);
#else
MINIALEX_DEVICE void store4(bf16* to, float4 value) {
#endif
  // One number of 64 bits: two of 32 nvcc stores apart where it pleases.
  *reinterpret_cast<uint64_t*>(to) = uint64_t(pack_bf16(value.z, value.w)) << 32 | pack_bf16(value.x, value.y);
}

MINIALEX_DEVICE void store1(float* to, float value) { *to = value; }
MINIALEX_DEVICE void store1(bf16* to, float value) { to->bits = static_cast<uint16_t>(pack_bf16(value, 0.f)); }

// What is read again of a value that was stored as S, or in an array like this: where one op does what two would, its bits are theirs.
template <class S> MINIALEX_DEVICE float as_stored(float value) {
  if constexpr (sizeof(S) == sizeof(bf16)) return bf16_low(pack_bf16(value, 0.f));
  else return value;
}

MINIALEX_DEVICE float4 load4(const InArray& from) { return from.narrow() ? load4(from.as<bf16>()) : load4(from.as<float>()); }
MINIALEX_DEVICE void store4(const OutArray& to, float4 value) {
  if (to.narrow()) store4(to.as<bf16>(), value);
  else store4(to.as<float>(), value);
}

template <class Array> MINIALEX_DEVICE float as_stored(const Array& like, float value) { return like.narrow() ? as_stored<bf16>(value) : value; }

// The same of two neighbours.
MINIALEX_DEVICE float2 load2(const InArray& from) {
  if (!from.narrow()) return *from.as<float2>();
  const uint32_t pair = *from.as<uint32_t>();
  return make_float2(bf16_low(pair), bf16_high(pair));
}
MINIALEX_DEVICE void store2(const OutArray& to, float2 value) {
  if (to.narrow()) *to.as<uint32_t>() = pack_bf16(value.x, value.y);
  else *to.as<float2>() = value;
}

// launch(S{}) with the type of the stored numbers.
template <class Launch> void by_storage(const InArray& array, Launch launch) {
  if (array.narrow()) launch(bf16{});
  else launch(float{});
}

}  // namespace minialex
