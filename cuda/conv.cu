// Convolution (paper, sections 3.2 and 3.5): the tables of its variants.
#include <minialex/conv_direct.h>
#include <minialex/conv_mma.h>
#include <minialex/conv_variants.h>
#include <minialex/kernel.h>
#include <minialex/ops.h>

#include <algorithm>
#include <limits>

namespace minialex {
namespace {

// Tiled variants count numbers in int, and lie on the axes of a grid.
const char* too_large(const ConvDims& d) {
  const int64_t limit = std::numeric_limits<int>::max();
  if (d.x_size() > limit || d.y_size() > limit || d.w_size() > limit) return "an array of more than 2^31 - 1 numbers";
  return d.groups > 65535 || d.K > 65535 * 64 || d.C > 65535 * 64 ? "too many groups or channels for a grid" : nullptr;
}

// One chain of additions for each part.  As a multiple of 16 a tap, so that tiles of all depths agree.
bool one_chain(const ConvDims& d, int tap) { return int64_t(d.R) * d.S * ceil_div(tap, 16) * 16 <= 4096; }
const char* fprop_in_one_chain(const ConvDims& d) {
  return one_chain(d, d.part()) ? too_large(d) : "a filter reads more than 4,096 numbers of a column, rounded up to 16 a tap";
}
const char* dgrad_in_one_chain(const ConvDims& d) {
  if (d.stride != 1) return "a stride above 1";
  return one_chain(d, std::min(d.Kg(), d.Ky())) ? too_large(d) : "a pixel hears from more than 4,096 maps and taps, rounded up to 16 a tap";
}

const char* wgrad_refuses(const ConvDims& d) {
  return d.groups * conv_wgrad_ranges(d) > 65535 ? "too many groups and pixels for a grid" : too_large(d);
}
const char* wgrad_by_vectors(const ConvDims& d) {
  const bool fours = d.Cx() % 4 == 0 && d.Cg() % 4 == 0 && d.Ky() % 4 == 0 && d.Kg() % 4 == 0;
  return fours ? wgrad_refuses(d) : "channels or maps that are no multiples of 4";
}

// A large tile reads shared memory half as often; it pays where it is filled and there is one for each of some 100 multiprocessors.
bool fills_large_tiles(int64_t rows, int64_t columns, int64_t products) {
  const int64_t down = ceil_div(rows, 128), across = ceil_div(columns, 128);
  return down * across * products >= 100 && rows * columns * 4 >= down * across * 128 * 128 * 3;
}
bool dgrad_fills(const ConvDims& d) { return fills_large_tiles(int64_t(d.N) * d.H * d.W, d.Cg(), d.groups); }
bool fprop_fills(const ConvDims& d) { return fills_large_tiles(int64_t(d.N) * d.P * d.Q, d.Kg(), d.groups); }
bool wgrad_fills(const ConvDims& d) { return fills_large_tiles(d.Kg(), int64_t(d.R) * d.S * d.Cg(), d.groups * conv_wgrad_ranges(d)); }

// Where most of a tile would be zeros, a thread for each number wins: taps that a stride leaves out, channels that there are not.
bool dgrad_pays(const ConvDims& d) { return int64_t(d.stride) * d.stride * ceil_div(d.Cg(), 64) * 64 <= 8 * int64_t(d.Cg()); }

}  // namespace

const Op<ConvFprop>& conv_fprop() {
  static const Op<ConvFprop> op{"conv_fprop",
                                {
                                  {"tiled_128x128", "float32", fprop_in_one_chain, fprop_fills, nullptr,
                                   conv_fprop_tiled_128x128, 0, Stored::float32},
                                  {"tiled_64x64", "float32", too_large, nullptr, nullptr, conv_fprop_tiled_64x64, 0, Stored::float32},
                                  {"tf32", "tf32", conv_mma::refuses_fprop, conv_mma::large_fprop, conv_mma::workspace_fprop,
                                   conv_mma::launch_fprop<mma::TF32, true>, conv_mma::SHARED_LARGE},
                                  {"tf32_64x64", "tf32", conv_mma::refuses_fprop, nullptr, conv_mma::workspace_fprop,
                                   conv_mma::launch_fprop<mma::TF32, false>},
                                  {"bf16", "bf16", conv_mma::refuses_fprop, conv_mma::large_fprop, conv_mma::workspace_fprop_bf16,
                                   conv_mma::launch_fprop<mma::BF16, true>},
                                  {"bf16_64x64", "bf16", conv_mma::refuses_fprop, nullptr, conv_mma::workspace_fprop_bf16,
                                   conv_mma::launch_fprop<mma::BF16, false>},
                                  {"bf16x3", "bf16x3", conv_mma::refuses_fprop, conv_mma::large_fprop, conv_mma::workspace_fprop,
                                   conv_mma::launch_fprop<mma::BF16X3, true>, conv_mma::SHARED_LARGE},
                                  {"bf16x3_64x64", "bf16x3", conv_mma::refuses_fprop, nullptr, conv_mma::workspace_fprop,
                                   conv_mma::launch_fprop<mma::BF16X3, false>},
                                  {"bf16x6", "bf16x6", conv_mma::refuses_fprop, conv_mma::large_fprop, conv_mma::workspace_fprop,
                                   conv_mma::launch_fprop<mma::BF16X6, true>, conv_mma::SHARED_LARGE},
                                  {"bf16x6_64x64", "bf16x6", conv_mma::refuses_fprop, nullptr, conv_mma::workspace_fprop,
                                   conv_mma::launch_fprop<mma::BF16X6, false>},
                                  {"direct", "float32", nullptr, nullptr, nullptr, conv_direct::launch_fprop<false, ConvFprop>},
                                }};
  return op;
}

const Op<ConvDgrad>& conv_dgrad() {
  static const Op<ConvDgrad> op{"conv_dgrad",
                                {
                                  {"tiled_128x128", "float32", dgrad_in_one_chain, dgrad_fills, nullptr,
                                   conv_dgrad_tiled_128x128, 0, Stored::float32},
                                  {"tiled_64x64", "float32", too_large, dgrad_pays, nullptr, conv_dgrad_tiled_64x64, 0, Stored::float32},
                                  {"tf32", "tf32", conv_mma::refuses_dgrad, conv_mma::large_dgrad, conv_mma::workspace_dgrad,
                                   conv_mma::launch_dgrad<mma::TF32, true>, conv_mma::SHARED_LARGE},
                                  {"tf32_64x64", "tf32", conv_mma::refuses_dgrad, nullptr, conv_mma::workspace_dgrad,
                                   conv_mma::launch_dgrad<mma::TF32, false>},
                                  {"bf16", "bf16", conv_mma::refuses_dgrad, conv_mma::large_dgrad, conv_mma::workspace_dgrad_bf16,
                                   conv_mma::launch_dgrad<mma::BF16, true>},
                                  {"bf16_64x64", "bf16", conv_mma::refuses_dgrad, nullptr, conv_mma::workspace_dgrad_bf16,
                                   conv_mma::launch_dgrad<mma::BF16, false>},
                                  {"bf16x3", "bf16x3", conv_mma::refuses_dgrad, conv_mma::large_dgrad, conv_mma::workspace_dgrad,
                                   conv_mma::launch_dgrad<mma::BF16X3, true>, conv_mma::SHARED_LARGE},
                                  {"bf16x3_64x64", "bf16x3", conv_mma::refuses_dgrad, nullptr, conv_mma::workspace_dgrad,
                                   conv_mma::launch_dgrad<mma::BF16X3, false>},
                                  {"bf16x6", "bf16x6", conv_mma::refuses_dgrad, conv_mma::large_dgrad, conv_mma::workspace_dgrad,
                                   conv_mma::launch_dgrad<mma::BF16X6, true>, conv_mma::SHARED_LARGE},
                                  {"bf16x6_64x64", "bf16x6", conv_mma::refuses_dgrad, nullptr, conv_mma::workspace_dgrad,
                                   conv_mma::launch_dgrad<mma::BF16X6, false>},
                                  {"direct", "float32", nullptr, nullptr, nullptr, conv_direct::launch_dgrad<false, ConvDgrad>},
                                }};
  return op;
}

const Op<ConvWgrad>& conv_wgrad() {
  static const Op<ConvWgrad> op{"conv_wgrad",
                                {
                                  {"tiled_128x128", "float32", wgrad_by_vectors, wgrad_fills, conv_wgrad_tiled_workspace,
                                   conv_wgrad_tiled_128x128, 0, Stored::float32},
                                  {"tiled_64x64", "float32", wgrad_refuses, nullptr, conv_wgrad_tiled_workspace,
                                   conv_wgrad_tiled_64x64, 0, Stored::float32},
                                  {"tf32", "tf32", conv_mma::refuses_wgrad, conv_mma::large_wgrad, conv_mma::workspace_wgrad,
                                   conv_mma::launch_wgrad<mma::TF32, true>, conv_mma::SHARED_LARGE},
                                  {"tf32_64x64", "tf32", conv_mma::refuses_wgrad, nullptr, conv_mma::workspace_wgrad,
                                   conv_mma::launch_wgrad<mma::TF32, false>},
                                  {"bf16", "bf16", conv_mma::refuses_wgrad, conv_mma::large_wgrad, conv_mma::workspace_wgrad,
                                   conv_mma::launch_wgrad<mma::BF16, true>},
                                  {"bf16_64x64", "bf16", conv_mma::refuses_wgrad, nullptr, conv_mma::workspace_wgrad,
                                   conv_mma::launch_wgrad<mma::BF16, false>},
                                  {"bf16x3", "bf16x3", conv_mma::refuses_wgrad, conv_mma::large_wgrad, conv_mma::workspace_wgrad,
                                   conv_mma::launch_wgrad<mma::BF16X3, true>, conv_mma::SHARED_LARGE},
                                  {"bf16x3_64x64", "bf16x3", conv_mma::refuses_wgrad, nullptr, conv_mma::workspace_wgrad,
                                   conv_mma::launch_wgrad<mma::BF16X3, false>},
                                  {"bf16x6", "bf16x6", conv_mma::refuses_wgrad, conv_mma::large_wgrad, conv_mma::workspace_wgrad,
                                   conv_mma::launch_wgrad<mma::BF16X6, true>, conv_mma::SHARED_LARGE},
                                  {"bf16x6_64x64", "bf16x6", conv_mma::refuses_wgrad, nullptr, conv_mma::workspace_wgrad,
                                   conv_mma::launch_wgrad<mma::BF16X6, false>},
                                  {"direct", "float32", nullptr, nullptr, nullptr, conv_direct::launch_wgrad<false, ConvWgrad>},
                                }};
  return op;
}

}  // namespace minialex
