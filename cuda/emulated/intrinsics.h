// CUDA's arithmetic, bit and atomic words.  Included by emulated.h.
#pragma once
#include <math.h>
#include <cfloat>
#include <climits>
#include "checker.h"

// Loads and stores that tell a GPU's caches what to keep.
template <class T> MINIALEX_DEVICE T __ldg(const T* pointer) { return *pointer; }
template <class T> MINIALEX_DEVICE T __ldca(const T* pointer) { return *pointer; }
template <class T> MINIALEX_DEVICE T __ldcg(const T* pointer) { return *pointer; }
template <class T> MINIALEX_DEVICE T __ldcs(const T* pointer) { return *pointer; }
template <class T> MINIALEX_DEVICE void __stcg(T* pointer, T value) { *pointer = value; }
template <class T> MINIALEX_DEVICE void __stcs(T* pointer, T value) { *pointer = value; }
template <class T> MINIALEX_DEVICE void __stwb(T* pointer, T value) { *pointer = value; }

[[noreturn]] inline void __trap(MINIALEX_CALLER) { minialex::emulated::fail("__trap at ", MINIALEX_CALLED_AT); }
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

template <class To, class From> To bits_as(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  __builtin_memcpy(&result, &value, sizeof result);
  return result;
}
inline unsigned __float_as_uint(float value) { return bits_as<unsigned>(value); }
inline int __float_as_int(float value) { return bits_as<int>(value); }
inline float __uint_as_float(unsigned value) { return bits_as<float>(value); }
inline float __int_as_float(int value) { return bits_as<float>(value); }

// Rounded once and never contracted with a neighbour; of the machines here only aarch64's compilers contract without being asked.
inline float minialex_rounded(float value) {
#if defined(__aarch64__)
  asm("" : "+w"(value));
#endif
  return value;
}
inline float __fadd_rn(float a, float b) { return minialex_rounded(a + b); }
inline float __fsub_rn(float a, float b) { return minialex_rounded(a - b); }
inline float __fmul_rn(float a, float b) { return minialex_rounded(a * b); }
inline float __fdiv_rn(float a, float b) { return minialex_rounded(a / b); }
inline float __frcp_rn(float a) { return minialex_rounded(1.0f / a); }
inline float __fsqrt_rn(float a) { return sqrtf(a); }

// a b + c rounded once.  Where the compiler may not use such an instruction, a call of the library takes three times as long: the
// product is exact in double, and the sum, rounded to double and then to float, is wrong only where the first rounding ends halfway
// between two floats (closer together below FLT_MIN).
MINIALEX_DEVICE float minialex_fmaf(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fmaf(a, b, c);
#else
  double sum = static_cast<double>(a) * b + c;
  float result = static_cast<float>(sum);
  bool halfway = (bits_as<unsigned long long>(sum) & 0x1FFFFFFF) == 0x10000000;
  if (__builtin_expect(halfway || (__builtin_fabsf(result) < FLT_MIN && sum != 0.0), 0)) return fmaf(a, b, c);
  return result;
#endif
}
#define fmaf(a, b, c) minialex_fmaf(a, b, c)
inline float __fmaf_rn(float a, float b, float c) { return minialex_fmaf(a, b, c); }

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return powf(10.0f, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }      // NaN gives 0

inline int __float2int_rn(float x) { return static_cast<int>(rintf(x)); }
inline int __float2int_rz(float x) { return static_cast<int>(x); }
inline int __float2int_rd(float x) { return static_cast<int>(floorf(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }

inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((static_cast<unsigned long long>(a) * b) >> 32); }
inline int __mulhi(int a, int b) { return static_cast<int>((static_cast<long long>(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __clz(int value) { return value ? __builtin_clz(static_cast<unsigned>(value)) : 32; }
inline int __clzll(long long value) { return value ? __builtin_clzll(static_cast<unsigned long long>(value)) : 64; }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }

template <class A, class B> constexpr auto min(A a, B b) {
  using Both = std::common_type_t<A, B>;
  return Both(b) < Both(a) ? Both(b) : Both(a);
}
template <class A, class B> constexpr auto max(A a, B b) {
  using Both = std::common_type_t<A, B>;
  return Both(a) < Both(b) ? Both(b) : Both(a);
}
// As CUDA: of a number and a NaN, the number.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

// Atomics return the value before.  `update` gives the new value from the old one.
template <class T, class Update> MINIALEX_UNCHECKED T minialex_atomic(T* pointer, Update update) {
  using Bits = std::conditional_t<sizeof(T) == 4, unsigned, unsigned long long>;
  minialex::emulated::check_aligned(pointer, sizeof(T), "an atomic operation");
  minialex::emulated::note(pointer, sizeof(T), minialex::emulated::Access::atomic);
  Bits* word = reinterpret_cast<Bits*>(pointer);
  Bits before = __atomic_load_n(word, __ATOMIC_RELAXED);
  auto updated = [&] { return bits_as<Bits>(update(bits_as<T>(before))); };
  while (!__atomic_compare_exchange_n(word, &before, updated(), true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {}
  return bits_as<T>(before);
}
template <class T> T minialex_atomic_add(T* to, T value) { return minialex_atomic(to, [=](T old) -> T { return old + value; }); }
template <class T> T minialex_atomic_exchange(T* to, T value) { return minialex_atomic(to, [=](T) { return value; }); }
template <class T> T minialex_atomic_max(T* to, T value) { return minialex_atomic(to, [=](T old) { return old < value ? value : old; }); }
template <class T> T minialex_atomic_min(T* to, T value) { return minialex_atomic(to, [=](T old) { return value < old ? value : old; }); }
template <class T> T minialex_atomic_swap(T* to, T expected, T value) {
  return minialex_atomic(to, [=](T old) { return old == expected ? value : old; });
}
// Plain functions, not templates: an argument is converted to the type of the memory, as by CUDA's.
#define MINIALEX_ATOMICS(type)                                                                 \
  inline type atomicAdd(type* to, type value) { return minialex_atomic_add<type>(to, value); } \
  inline type atomicExch(type* to, type value) { return minialex_atomic_exchange<type>(to, value); }
#define MINIALEX_INTEGER_ATOMICS(type)                                                         \
  MINIALEX_ATOMICS(type)                                                                       \
  inline type atomicMax(type* to, type value) { return minialex_atomic_max<type>(to, value); } \
  inline type atomicMin(type* to, type value) { return minialex_atomic_min<type>(to, value); } \
  inline type atomicCAS(type* to, type expected, type value) { return minialex_atomic_swap<type>(to, expected, value); }
MINIALEX_ATOMICS(float)
MINIALEX_INTEGER_ATOMICS(int)
MINIALEX_INTEGER_ATOMICS(unsigned)
MINIALEX_INTEGER_ATOMICS(unsigned long long)
#undef MINIALEX_ATOMICS
#undef MINIALEX_INTEGER_ATOMICS
