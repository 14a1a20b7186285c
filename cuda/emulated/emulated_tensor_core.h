// tensor_core.h for a host compiler: the fragment layouts of the PTX ISA, one rendezvous of the warp for each instruction.
//
// Lane l is number t = l % 4 of group g = l / 4.  Fragments, register by register:
//   m16n8k8, tf32     a: (g, t) (g + 8, t) (g, t + 4) (g + 8, t + 4)        b: (t, g) (t + 4, g)
//   m16n8k16, bf16    the same with 2 t, 2 t + 1 and + 8 in place of t and + 4: two neighbours along k in a register
//   both              d: (g, 2 t) (g, 2 t + 1) (g + 8, 2 t) (g + 8, 2 t + 1)
// The unit's order of additions is not documented: here a product is summed over k upwards from zero and then added to d.
#pragma once
#include "minialex/bf16.h"
#include "minialex/kernel.h"

namespace minialex {

// Half away from zero, to the 10 bits of mantissa of tf32; infinities and NaNs stay.
inline uint32_t to_tf32(float value) {
  const uint32_t bits = __float_as_uint(value);
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
}

inline uint32_t pack_bf16(float low, float high) { return bf16_bits(low) | bf16_bits(high) << 16; }

namespace emulated {

struct ProductArguments {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};

struct Tf32 {
  static constexpr int DEPTH = 8, PER_REGISTER = 1;
  static constexpr const char* NAME = "mma_m16n8k8_tf32";
  static float element(uint32_t word, int) { return __uint_as_float(word & ~0x1fffu); }      // the unit does not read the low 13 bits
};

struct Bf16 {
  static constexpr int DEPTH = 16, PER_REGISTER = 2;
  static constexpr const char* NAME = "mma_m16n8k16_bf16";
  static float element(uint32_t word, int half) { return half ? bf16_high(word) : bf16_low(word); }
};

template <class Kind> MINIALEX_UNCHECKED void execute_product(void** lane_arguments, uint32_t) {
  float a[16][Kind::DEPTH], b[Kind::DEPTH][8], sum[16][8] = {};
  for (int lane = 0; lane < 32; ++lane) {
    const auto& own = *static_cast<const ProductArguments*>(lane_arguments[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < Kind::PER_REGISTER; ++i) {
      const int k = t * Kind::PER_REGISTER + i;
      for (int r = 0; r < 4; ++r) a[g + r % 2 * 8][k + r / 2 * Kind::DEPTH / 2] = Kind::element(own.a[r], i);
      for (int r = 0; r < 2; ++r) b[k + r * Kind::DEPTH / 2][g] = Kind::element(own.b[r], i);
    }
  }
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < Kind::DEPTH; ++k)
      for (int n = 0; n < 8; ++n) sum[m][n] += a[m][k] * b[k][n];          // the product is exact in float32
  for (int lane = 0; lane < 32; ++lane) {
    float* d = static_cast<const ProductArguments*>(lane_arguments[lane])->d;
    for (int r = 0; r < 4; ++r) d[r] += sum[lane / 4 + r / 2 * 8][lane % 4 * 2 + r % 2];
  }
}

template <class Kind> void product(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Location location) {
  ProductArguments arguments{d, a, b};
  collective(&arguments, ~0u, &execute_product<Kind>, Kind::NAME, true, location);
}

struct MatrixArguments {
  uint32_t* r;
  const void* row;
};

template <int COUNT, bool TRANSPOSED> MINIALEX_UNCHECKED void execute_ldmatrix(void** lane_arguments, uint32_t) {
  uint16_t matrix[COUNT][8][8];
  for (int lane = 0; lane < COUNT * 8; ++lane)
    std::memcpy(matrix[lane / 8][lane % 8], static_cast<MatrixArguments*>(lane_arguments[lane])->row, 16);
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4 * 2;
    for (int m = 0; m < COUNT; ++m) {
      const uint32_t low = TRANSPOSED ? matrix[m][t][g] : matrix[m][g][t], high = TRANSPOSED ? matrix[m][t + 1][g] : matrix[m][g][t + 1];
      static_cast<MatrixArguments*>(lane_arguments[lane])->r[m] = low | high << 16;
    }
  }
}

template <int COUNT, bool TRANSPOSED> void ldmatrix(uint32_t* r, const void* row, const char* what, Location location) {
  if (current && current->lane < COUNT * 8) {                              // the addresses of the other lanes are not read
    check_shared_pointer(row, 16, 16, what, location);
    note(row, 16, Access::read);
  }
  MatrixArguments arguments{r, row};
  collective(&arguments, ~0u, &execute_ldmatrix<COUNT, TRANSPOSED>, what, true, location);
}

}  // namespace emulated

inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], MINIALEX_CALLER) {
  emulated::product<emulated::Tf32>(d, a, b, MINIALEX_CALLED_AT);
}
inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], MINIALEX_CALLER) {
  emulated::product<emulated::Bf16>(d, a, b, MINIALEX_CALLED_AT);
}

inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, MINIALEX_CALLER) {
  emulated::ldmatrix<4, false>(r, row, "ldmatrix_x4", MINIALEX_CALLED_AT);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, MINIALEX_CALLER) {
  emulated::ldmatrix<4, true>(r, row, "ldmatrix_x4_trans", MINIALEX_CALLED_AT);
}
inline void ldmatrix_x2(uint32_t (&r)[2], const void* row, MINIALEX_CALLER) {
  emulated::ldmatrix<2, false>(r, row, "ldmatrix_x2", MINIALEX_CALLED_AT);
}
inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row, MINIALEX_CALLER) {
  emulated::ldmatrix<2, true>(r, row, "ldmatrix_x2_trans", MINIALEX_CALLED_AT);
}

inline void cp_async_16(void* shared, const void* global, bool valid, MINIALEX_CALLER) {
  emulated::cp_async(shared, global, 16, valid ? 16 : 0, MINIALEX_CALLED_AT);
}
inline void cp_async_4(void* shared, const void* global, bool valid, MINIALEX_CALLER) {
  emulated::cp_async(shared, global, 4, valid ? 4 : 0, MINIALEX_CALLED_AT);
}
inline void cp_async_commit() { emulated::cp_async_commit(); }
template <int N> void cp_async_wait() { emulated::cp_async_wait(N); }

}  // namespace minialex
