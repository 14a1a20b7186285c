// What conv's other files give to the tables at the end of conv.cu: launchers, and the functions of the dims beside them.
#pragma once
#include "ops.h"

namespace minialex {

// conv_tiled_*.cu: float32, one product of tiles.
void conv_fprop_tiled_128x128(const ConvFprop& call, Stream stream);
void conv_fprop_tiled_64x64(const ConvFprop& call, Stream stream);
void conv_dgrad_tiled_128x128(const ConvDgrad& call, Stream stream);
void conv_dgrad_tiled_64x64(const ConvDgrad& call, Stream stream);

}  // namespace minialex
