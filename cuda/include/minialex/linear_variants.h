// What the variants of the linear ops share: the order of their sums, and the launchers beyond linear.cu.
//
// A sum over a column's features (dgrad: over a column's outputs) is cut into chains of kLinearChain terms: the chains are added
// in order, then the columns in order, then the bias.  So the order is a function of the position in the column alone, and every
// float32 variant, whatever its tiles, gives the same bits: a row in its batch or alone, a column's slice of w or all of w.
// wgrad sums over the images: in chains of kChain.
#pragma once
#include "gemm_tile.h"
#include "ops.h"

namespace minialex {

// 576 = 4,608 / 8 features of fc6 and 2,048 / 3.6 of fc7: at batch 128 a block for each chain and tile fills one wave of 132 SMs
// with two blocks each, fc6 in two waves.  A multiple of every tile's slice.
constexpr int kLinearChain = 576;

inline int chains_of(int terms) { return static_cast<int>(ceil_div(terms, kLinearChain)); }
inline int fprop_sums(const LinearDims& d) { return d.parts() * chains_of(d.F); }
inline int dgrad_sums(const LinearDims& d) { return (d.groups == 1 ? d.Gy : 1) * chains_of(d.Ky()); }

// Chains that blocks of their own have summed lie in the workspace, one output after the other; a single one needs none.
inline size_t fprop_workspace(const LinearDims& d) { return fprop_sums(d) > 1 ? size_t(fprop_sums(d)) * d.y_size() * sizeof(float) : 0; }
inline size_t dgrad_workspace(const LinearDims& d) { return dgrad_sums(d) > 1 ? size_t(dgrad_sums(d)) * d.x_size() * sizeof(float) : 0; }

// y = the chains in order, then bias, relu and dropout, dx = the chains, then the gate; a single chain has been written to the output by its block.
void add_fprop_chains(const LinearFprop& c, Stream stream);
void add_dgrad_chains(const LinearDgrad& c, Stream stream);
void finish_fprop(const LinearFprop& c, Stream stream);                  // what is behind a sum that y holds, with its bias, already
void finish_dgrad(const LinearDgrad& c, Stream stream);

// db of output k over at most a chain of images from `start` on, written or added to what is there; in the kernels of every wgrad.
template <class Numbers>
MINIALEX_DEVICE void linear_bias_gradient(const LinearDims& d, const Numbers& dy, float* db, int k, int start, bool add) {
  const int Ky = d.Ky();
  const auto from = dy + int64_t(k / Ky) * d.N * Ky + k % Ky;
  float sum = 0.f;
  for (int n = start; n < min(start + kChain, d.N); ++n) sum = sum + from[int64_t(n) * Ky];
  db[k] = add ? __fadd_rn(db[k], sum) : sum;
}

// linear_rows.cu: w read once for at most kRows images
constexpr int kRows = 8;
const char* rows_refuse(const LinearDims& d);
void linear_fprop_rows(const LinearFprop& c, Stream stream);
void linear_dgrad_rows(const LinearDgrad& c, Stream stream);
void linear_wgrad_rows(const LinearWgrad& c, Stream stream);

// linear_tiled.cu: tiles of 32 x 64, 64 x 64 and 128 x 128 in shared memory
void linear_fprop_narrow(const LinearFprop& c, Stream stream);
void linear_fprop_tiled(const LinearFprop& c, Stream stream);
void linear_fprop_wide(const LinearFprop& c, Stream stream);
void linear_dgrad_narrow(const LinearDgrad& c, Stream stream);
void linear_dgrad_tiled(const LinearDgrad& c, Stream stream);
void linear_dgrad_wide(const LinearDgrad& c, Stream stream);
void linear_wgrad_tiled(const LinearWgrad& c, Stream stream);
void linear_wgrad_wide(const LinearWgrad& c, Stream stream);

}  // namespace minialex
