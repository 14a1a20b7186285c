// bfloat16, the upper half of a float32: plain integer arithmetic, the same on both sides.
#pragma once
#include <cstdint>
#include <cstring>
#include "dims.h"

namespace minialex {

// As it lies in memory.
struct bf16 {
  uint16_t bits;
};

MINIALEX_BOTH inline uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
MINIALEX_BOTH inline float of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// Round to nearest, ties to even; every NaN becomes 0x7fff, as cvt.rn.bf16x2 makes it.
MINIALEX_BOTH inline uint32_t bf16_bits(float value) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
  return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

// The two numbers of a word that pack_bf16(low, high) made; widening is exact.
MINIALEX_BOTH inline float bf16_low(uint32_t pair) { return of_bits(pair << 16); }
MINIALEX_BOTH inline float bf16_high(uint32_t pair) { return of_bits(pair & 0xffff0000u); }

MINIALEX_BOTH inline float widened(float value) { return value; }
MINIALEX_BOTH inline float widened(bf16 value) { return bf16_low(value.bits); }

// An activation, or the gradient of one, as an op is handed it: float32, or bfloat16 in precision "bf16".  Numbers are read and written
// one by one, rounded once when written; kernels that want vectors ask for the pointer.  `bytes`: of a number, 4 or 2.
struct InArray {
  const void* at = nullptr;
  int64_t bytes = sizeof(float);

  InArray() = default;
  InArray(const float* floats) : at(floats) {}
  InArray(const bf16* numbers) : at(numbers), bytes(sizeof(bf16)) {}
  MINIALEX_BOTH bool narrow() const { return bytes == sizeof(bf16); }
  MINIALEX_BOTH explicit operator bool() const { return at != nullptr; }
  // What a kernel takes that knows float32 alone.
  operator const float*() const {
    MINIALEX_CHECK(DTypeError, !narrow(), "this variant reads float32, not bfloat16");
    return static_cast<const float*>(at);
  }
  template <class S> MINIALEX_BOTH const S* as() const { return static_cast<const S*>(at); }
  MINIALEX_BOTH InArray operator+(int64_t numbers) const {
    InArray from = *this;
    from.at = static_cast<const char*>(at) + numbers * bytes;
    return from;
  }
  MINIALEX_BOTH void operator+=(int64_t numbers) { *this = *this + numbers; }
  MINIALEX_BOTH float operator[](int64_t i) const { return narrow() ? widened(as<bf16>()[i]) : as<float>()[i]; }
};

struct OutArray {
  void* at = nullptr;
  int64_t bytes = sizeof(float);

  OutArray() = default;
  OutArray(float* floats) : at(floats) {}
  OutArray(bf16* numbers) : at(numbers), bytes(sizeof(bf16)) {}
  MINIALEX_BOTH bool narrow() const { return bytes == sizeof(bf16); }
  MINIALEX_BOTH explicit operator bool() const { return at != nullptr; }
  operator float*() const {
    MINIALEX_CHECK(DTypeError, !narrow(), "this variant writes float32, not bfloat16");
    return static_cast<float*>(at);
  }
  template <class S> MINIALEX_BOTH S* as() const { return static_cast<S*>(at); }
  MINIALEX_BOTH OutArray operator+(int64_t numbers) const {
    OutArray to = *this;
    to.at = static_cast<char*>(at) + numbers * bytes;
    return to;
  }
  MINIALEX_BOTH void operator+=(int64_t numbers) { *this = *this + numbers; }

  struct Number {
    const OutArray& array;
    int64_t i;
    MINIALEX_BOTH void operator=(float value) const {
      if (array.narrow()) array.as<bf16>()[i].bits = static_cast<uint16_t>(bf16_bits(value));
      else array.as<float>()[i] = value;
    }
  };
  MINIALEX_BOTH Number operator[](int64_t i) const { return {*this, i}; }
};

}  // namespace minialex
