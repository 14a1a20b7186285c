// The variants of the locally connected layers that lie in local_images.cu, for the tables in local.cu.
#pragma once
#include "ops.h"

namespace minialex {

const char* local_whole_quads(const ConvDims& d);
void local_fprop_images(const LocalFprop& c, Stream stream);
void local_dgrad_images(const LocalDgrad& c, Stream stream);
void local_wgrad_vector(const LocalWgrad& c, Stream stream);
inline bool local_several_images(const ConvDims& d) { return d.N > 1; }

}  // namespace minialex
