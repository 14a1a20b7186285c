// The tensor-core rows of linear's tables (linear_mma.cu): a linear layer is a convolution of pictures of one pixel.
#pragma once
#include "conv_mma.h"

namespace minialex {
namespace linear_mma {

const char* refuses_fprop(const LinearDims& dims);
const char* refuses_dgrad(const LinearDims& dims);
const char* refuses_wgrad(const LinearDims& dims);
bool large_fprop(const LinearDims& dims);
bool large_dgrad(const LinearDims& dims);
bool large_wgrad(const LinearDims& dims);
size_t workspace_fprop(const LinearDims& dims);
size_t workspace_dgrad(const LinearDims& dims);
size_t workspace_wgrad(const LinearDims& dims);
size_t workspace_fprop_bf16(const LinearDims& dims);          // of bfloat16, which sums of several parts cannot be carried in
size_t workspace_dgrad_bf16(const LinearDims& dims);

template <class PRECISION, bool LARGE> void launch_fprop(const LinearFprop& call, Stream stream);
template <class PRECISION, bool LARGE> void launch_dgrad(const LinearDgrad& call, Stream stream);
template <class PRECISION, bool LARGE> void launch_wgrad(const LinearWgrad& call, Stream stream);

}  // namespace linear_mma
}  // namespace minialex
