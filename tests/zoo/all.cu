// One translation unit: the headers take longer than the cases.
#include "barriers.cu"
#include "correct.cu"
#include "copies.cu"
#include "launches.cu"
#include "memory.cu"
#include "streams.cu"
#include "warps.cu"
