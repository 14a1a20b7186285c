// The tensor-core rows of conv's tables (conv_mma_*.cu), and what linear's rows make of them (linear_mma.cu): launchers, and
// the functions of the dims beside them.  PRECISION is a struct of mma, below; LARGE takes tiles of 128 x 128, else 64 x 64.
#pragma once
#include "ops.h"

namespace minialex {
namespace mma {
struct TF32;
struct BF16;
struct BF16X3;
struct BF16X6;
}  // namespace mma

namespace conv_mma {

const char* refuses_fprop(const ConvDims& dims);
const char* refuses_dgrad(const ConvDims& dims);
const char* refuses_wgrad(const ConvDims& dims);
bool large_fprop(const ConvDims& dims);                 // whether large tiles pay
bool large_dgrad(const ConvDims& dims);
bool large_wgrad(const ConvDims& dims);
size_t workspace_fprop(const ConvDims& dims);
size_t workspace_dgrad(const ConvDims& dims);
size_t workspace_wgrad(const ConvDims& dims);
size_t workspace_fprop_bf16(const ConvDims& dims);          // of bfloat16, which sums of several parts cannot be carried in
size_t workspace_dgrad_bf16(const ConvDims& dims);

constexpr size_t SHARED_LARGE = 112 * 1024;             // bytes of a block of tiles of 128 x 128 that hold float32 (all but bf16), at most

template <class PRECISION, bool LARGE> void launch_fprop(const ConvFprop& call, Stream stream);
template <class PRECISION, bool LARGE> void launch_dgrad(const ConvDgrad& call, Stream stream);
template <class PRECISION, bool LARGE> void launch_wgrad(const ConvWgrad& call, Stream stream);

}  // namespace conv_mma
}  // namespace minialex
