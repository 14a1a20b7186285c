// Tensor-core products and asynchronous copies (sm_80 and up): thin wrappers of one PTX instruction each, and the emulator's
// versions with the same fragment layouts.  Included by the kernels that use them, after kernel.h.
//
//   uint32_t to_tf32(float)                  cvt.rna.tf32.f32
//   uint32_t pack_bf16(float low, float high) cvt.rn.bf16x2.f32, `low` in bits 0..15
//   mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])       d += a b, row.col
//   mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
//   ldmatrix_x4(uint32_t (&r)[4], const void* row), ldmatrix_x4_trans, ldmatrix_x2(uint32_t (&r)[2], ...), ldmatrix_x2_trans
//   cp_async_16(void* shared, const void* global, bool valid), cp_async_4      zero-fills where !valid (global must still be a legal address)
//   cp_async_commit(), cp_async_wait<N>()
//   bf16_bits(float), bf16_low(uint32_t pair), bf16_high(uint32_t pair)          bf16.h: plain arithmetic, the same on both sides
#pragma once
#include "bf16.h"
#include "kernel.h"
#if defined(MINIALEX_EMULATED)
#include "emulated_tensor_core.h"
#else
#include "tensor_core_ptx.h"
#endif
