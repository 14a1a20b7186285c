// Linear layers on tensor cores: the convolutions of pictures of one pixel with windows of one tap, whose sums conv_mma_shape.h
// cuts into ranges so that even 128 images make enough blocks.  Parts, order of additions and bits are those of the convolution.
#include <minialex/linear_mma.h>

namespace minialex {
namespace linear_mma {
namespace {

// A picture of one pixel: a column of x has F channels, one of y K / Gy maps.
ConvDims as_conv(const LinearDims& d) { return {d.N, d.Gx, d.Gy, 1, 1, d.Gx * d.F, d.K, 1, 1, 1, 1, 1, 0, 0, d.groups}; }

}  // namespace

const char* refuses_fprop(const LinearDims& d) { return conv_mma::refuses_fprop(as_conv(d)); }
const char* refuses_dgrad(const LinearDims& d) { return conv_mma::refuses_dgrad(as_conv(d)); }
const char* refuses_wgrad(const LinearDims& d) { return conv_mma::refuses_wgrad(as_conv(d)); }
bool large_fprop(const LinearDims& d) { return conv_mma::large_fprop(as_conv(d)); }
bool large_dgrad(const LinearDims& d) { return conv_mma::large_dgrad(as_conv(d)); }
bool large_wgrad(const LinearDims& d) { return conv_mma::large_wgrad(as_conv(d)); }
size_t workspace_fprop(const LinearDims& d) { return conv_mma::workspace_fprop(as_conv(d)); }
size_t workspace_dgrad(const LinearDims& d) { return conv_mma::workspace_dgrad(as_conv(d)); }
size_t workspace_wgrad(const LinearDims& d) { return conv_mma::workspace_wgrad(as_conv(d)); }
size_t workspace_fprop_bf16(const LinearDims& d) { return conv_mma::workspace_fprop_bf16(as_conv(d)); }
size_t workspace_dgrad_bf16(const LinearDims& d) { return conv_mma::workspace_dgrad_bf16(as_conv(d)); }

template <class PRECISION, bool LARGE> void launch_fprop(const LinearFprop& c, Stream stream) {
  conv_mma::launch_fprop<PRECISION, LARGE>({as_conv(c.dims), c.x, c.w, c.b, c.y, c.relu, c.dropout, c.workspace}, stream);
}
template <class PRECISION, bool LARGE> void launch_dgrad(const LinearDgrad& c, Stream stream) {
  conv_mma::launch_dgrad<PRECISION, LARGE>({as_conv(c.dims), c.dy, c.w, c.dx, c.gate, c.scale, c.workspace}, stream);
}
template <class PRECISION, bool LARGE> void launch_wgrad(const LinearWgrad& c, Stream stream) {
  conv_mma::launch_wgrad<PRECISION, LARGE>({as_conv(c.dims), c.x, c.dy, c.dw, c.db, c.accumulate, c.workspace}, stream);
}

#define MINIALEX_LINEAR_MMA(PRECISION, LARGE)                                            \
  template void launch_fprop<mma::PRECISION, LARGE>(const LinearFprop&, Stream);         \
  template void launch_dgrad<mma::PRECISION, LARGE>(const LinearDgrad&, Stream);         \
  template void launch_wgrad<mma::PRECISION, LARGE>(const LinearWgrad&, Stream);
MINIALEX_LINEAR_MMA(TF32, true)
MINIALEX_LINEAR_MMA(TF32, false)
MINIALEX_LINEAR_MMA(BF16, true)
MINIALEX_LINEAR_MMA(BF16, false)
MINIALEX_LINEAR_MMA(BF16X3, true)
MINIALEX_LINEAR_MMA(BF16X3, false)
MINIALEX_LINEAR_MMA(BF16X6, true)
MINIALEX_LINEAR_MMA(BF16X6, false)
#undef MINIALEX_LINEAR_MMA

}  // namespace linear_mma
}  // namespace minialex
