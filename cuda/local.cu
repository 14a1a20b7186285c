// Locally connected layers (the CIFAR-10 networks): a convolution whose filters differ from position to position.
#include <minialex/conv_direct.h>
#include <minialex/kernel.h>
#include <minialex/local_variants.h>
#include <minialex/ops.h>

namespace minialex {

const Op<LocalFprop>& local_fprop() {
  static const Op<LocalFprop> op{"local_fprop",
                                 {{"images", "float32", nullptr, local_several_images, nullptr, local_fprop_images},
                                  {"direct", "float32", nullptr, nullptr, nullptr, conv_direct::launch_fprop<true, LocalFprop>}}};
  return op;
}

const Op<LocalDgrad>& local_dgrad() {
  static const Op<LocalDgrad> op{"local_dgrad",
                                 {{"images", "float32", nullptr, local_several_images, nullptr, local_dgrad_images},
                                  {"direct", "float32", nullptr, nullptr, nullptr, conv_direct::launch_dgrad<true, LocalDgrad>}}};
  return op;
}

const Op<LocalWgrad>& local_wgrad() {
  static const Op<LocalWgrad> op{"local_wgrad",
                                 {{"vector", "float32", local_whole_quads, nullptr, nullptr, local_wgrad_vector},
                                  {"direct", "float32", nullptr, nullptr, nullptr, conv_direct::launch_wgrad<true, LocalWgrad>}}};
  return op;
}

}  // namespace minialex
