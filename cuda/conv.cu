// Convolution (paper, sections 3.2 and 3.5): the tables of its variants.
#include <minialex/conv_direct.h>
#include <minialex/conv_variants.h>
#include <minialex/kernel.h>
#include <minialex/ops.h>

namespace minialex {

const Op<ConvFprop>& conv_fprop() {
  static const Op<ConvFprop> op{"conv_fprop",
                                {
                                  {"direct", "float32", nullptr, nullptr, nullptr, conv_direct::launch_fprop<false, ConvFprop>},
                                }};
  return op;
}

const Op<ConvDgrad>& conv_dgrad() {
  static const Op<ConvDgrad> op{"conv_dgrad",
                                {
                                  {"direct", "float32", nullptr, nullptr, nullptr, conv_direct::launch_dgrad<false, ConvDgrad>},
                                }};
  return op;
}

const Op<ConvWgrad>& conv_wgrad() {
  static const Op<ConvWgrad> op{"conv_wgrad",
                                {
                                  {"direct", "float32", nullptr, nullptr, nullptr, conv_direct::launch_wgrad<false, ConvWgrad>},
                                }};
  return op;
}

}  // namespace minialex
