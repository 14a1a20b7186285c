// What conv's other files give to the tables at the end of conv.cu: launchers, and the functions of the dims beside them.
#pragma once
#include "ops.h"

namespace minialex {

// conv_tiled_*.cu: float32, one product of tiles.
void conv_fprop_tiled_128x128(const ConvFprop& call, Stream stream);
void conv_fprop_tiled_64x64(const ConvFprop& call, Stream stream);
void conv_dgrad_tiled_128x128(const ConvDgrad& call, Stream stream);
void conv_dgrad_tiled_64x64(const ConvDgrad& call, Stream stream);
void conv_wgrad_tiled_128x128(const ConvWgrad& call, Stream stream);
void conv_wgrad_tiled_64x64(const ConvWgrad& call, Stream stream);
int64_t conv_wgrad_ranges(const ConvDims& dims);       // partial gradients that are added up, a function of N, P and Q
size_t conv_wgrad_tiled_workspace(const ConvDims& dims);

}  // namespace minialex
