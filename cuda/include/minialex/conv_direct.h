// The plainest convolution, one thread an output number, and every shape: the last row of conv's and local's tables, and the
// first thing to compare a faster kernel with.  LOCAL: filters and biases of their own at each output position.
//
//   fprop   parts x (R S part) terms a thread   x, w through the caches
//   dgrad   terms / stride^2
//   wgrad   N P Q terms a thread (LOCAL: N), no workspace
#pragma once
#include "dims.h"
#include "gemm_tile.h"
#include "stored.h"

namespace minialex {
namespace conv_direct {

constexpr int THREADS = 256;

MINIALEX_DEVICE int64_t number() { return int64_t(blockIdx.x) * THREADS + threadIdx.x; }
inline dim3 blocks(int64_t outputs) { return dim3(narrow(ceil_div(outputs, THREADS), "the number of blocks")); }

// The filter row (map k, tap r, s) at output position (p, q); Cg numbers.
template <bool LOCAL> MINIALEX_DEVICE int64_t filter(const ConvDims& d, int p, int q, int k, int r, int s) {
  const int64_t map = LOCAL ? (int64_t(p) * d.Q + q) * d.K + k : k;
  return ((map * d.R + r) * d.S + s) * d.Cg();
}

// y = (P_0 + P_1 + ...) + b, P_c the product over part c.
template <bool LOCAL>
__global__ void __launch_bounds__(THREADS, 4) fprop(ConvDims d, InArray x, const float* __restrict__ w,
                                                    const float* __restrict__ b, OutArray y, bool relu) {
  const int64_t i = number();
  if (i >= d.y_size()) return;
  const int Ky = d.Ky(), Cx = d.Cx(), part = d.part();
  const int q = int(i / Ky % d.Q), p = int(i / Ky / d.Q % d.P), n = int(i / Ky / d.Q / d.P % d.N), gy = int(i / Ky / d.Q / d.P / d.N);
  const int k = gy * Ky + int(i % Ky);
  const int first = k / d.Kg() * d.Cg();               // the first channel the filter reads, of all C
  float total = 0.f;
  for (int c = 0; c < d.parts(); ++c) {
    const InArray column = x + int64_t(first / Cx + c) * d.N * d.H * d.W * Cx + first % Cx;
    ChainedSum sum;
    for (int r = 0; r < d.R; ++r) {
      const int h = d.stride * p - d.before + r;
      if (h < 0 || h >= d.H) continue;
      for (int s = 0; s < d.S; ++s) {
        const int v = d.stride * q - d.before + s;
        if (v < 0 || v >= d.W) continue;
        const InArray seen = column + ((int64_t(n) * d.H + h) * d.W + v) * Cx;
        const float* row = w + filter<LOCAL>(d, p, q, k, r, s) + c * part;
        for (int j = 0; j < part; ++j) sum.add(seen[j], row[j]);
      }
    }
    total = c ? total + sum.value() : sum.value();
  }
  if (b) total = total + b[LOCAL ? (int64_t(p) * d.Q + q) * d.K + k : k];
  y[i] = relu ? rectified(total) : total;
}

// dx = D_0 + D_1 + ... over the output columns that read this column of x.
template <bool LOCAL>
__global__ void __launch_bounds__(THREADS, 3) dgrad(ConvDims d, InArray dy, const float* __restrict__ w,
                                                    OutArray dx, InArray gate, float scale) {
  const int64_t i = number();
  if (i >= d.x_size()) return;
  const int Ky = d.Ky(), Cx = d.Cx();
  const int v = int(i / Cx % d.W), h = int(i / Cx / d.W % d.H), n = int(i / Cx / d.W / d.H % d.N), gx = int(i / Cx / d.W / d.H / d.N);
  const int channel = gx * Cx + int(i % Cx), group = channel / d.Cg(), c = channel % d.Cg();
  const int maps = d.Kg() < Ky ? d.Kg() : Ky;          // of the group, in one column of y
  float total = 0.f;
  for (int first = group * d.Kg(); first < (group + 1) * d.Kg(); first += maps) {
    const InArray column = dy + int64_t(first / Ky) * d.N * d.P * d.Q * Ky + first % Ky;
    ChainedSum sum;
    for (int r = 0; r < d.R; ++r) {
      const int from_p = h + d.before - r;             // stride * p, if a window has its tap r here
      if (from_p < 0 || from_p % d.stride || from_p / d.stride >= d.P) continue;
      for (int s = 0; s < d.S; ++s) {
        const int from_q = v + d.before - s;
        if (from_q < 0 || from_q % d.stride || from_q / d.stride >= d.Q) continue;
        const int p = from_p / d.stride, q = from_q / d.stride;
        const InArray sent = column + ((int64_t(n) * d.P + p) * d.Q + q) * Ky;
        const float* row = w + filter<LOCAL>(d, p, q, first, r, s) + c;
        for (int k = 0; k < maps; ++k) sum.add(sent[k], row[int64_t(k) * d.R * d.S * d.Cg()]);
      }
    }
    total = first == group * d.Kg() ? sum.value() : total + sum.value();
  }
  dx[i] = gate ? gated(gate[i], scale, as_stored(dx, total)) : total;
}

// dw = the sum over all N P Q output positions, or over the N of its own (LOCAL).
template <bool LOCAL>
__global__ void __launch_bounds__(THREADS, 4) wgrad(ConvDims d, InArray x, InArray dy,
                                                    float* __restrict__ dw, bool accumulate) {
  const int64_t i = number();
  const int Cg = d.Cg(), Cx = d.Cx(), Ky = d.Ky();
  if (i >= d.w_size() * (LOCAL ? d.P * d.Q : 1)) return;
  const int s = int(i / Cg % d.S), r = int(i / Cg / d.S % d.R), k = int(i / Cg / d.S / d.R % d.K);
  const int position = int(i / d.w_size());            // 0 unless LOCAL
  const int channel = k / d.Kg() * Cg + int(i % Cg);
  const InArray seen = x + int64_t(channel / Cx) * d.N * d.H * d.W * Cx + channel % Cx;
  const InArray sent = dy + int64_t(k / Ky) * d.N * d.P * d.Q * Ky + k % Ky;
  ChainedSum sum;
  for (int n = 0; n < d.N; ++n) {
    for (int p = LOCAL ? position / d.Q : 0; p < (LOCAL ? position / d.Q + 1 : d.P); ++p) {
      const int h = d.stride * p - d.before + r;
      if (h < 0 || h >= d.H) continue;
      for (int q = LOCAL ? position % d.Q : 0; q < (LOCAL ? position % d.Q + 1 : d.Q); ++q) {
        const int v = d.stride * q - d.before + s;
        if (v < 0 || v >= d.W) continue;
        sum.add(sent[((int64_t(n) * d.P + p) * d.Q + q) * Ky], seen[((int64_t(n) * d.H + h) * d.W + v) * Cx]);
      }
    }
  }
  dw[i] = accumulate ? dw[i] + sum.value() : sum.value();
}

template <bool LOCAL>
__global__ void __launch_bounds__(THREADS, 4) wgrad_bias(ConvDims d, InArray dy, float* __restrict__ db,
                                                         bool accumulate) {
  const int64_t i = number();
  if (i >= int64_t(d.K) * (LOCAL ? d.P * d.Q : 1)) return;
  const int k = int(i % d.K), Ky = d.Ky();
  const int64_t position = i / d.K, positions = int64_t(d.P) * d.Q;
  const InArray sent = dy + int64_t(k / Ky) * d.N * positions * Ky + k % Ky;
  ChainedSum sum;
  for (int64_t pixel = position; pixel < d.N * positions; pixel += LOCAL ? positions : 1) sum.add(sent[pixel * Ky], 1.f);
  db[i] = accumulate ? db[i] + sum.value() : sum.value();
}

template <bool LOCAL, class Call> void launch_fprop(const Call& c, Stream stream) {
  MINIALEX_LAUNCH((fprop<LOCAL>), blocks(c.dims.y_size()), dim3(THREADS), 0, stream, c.dims, c.x, c.w, c.b, c.y, c.relu);
}
template <bool LOCAL, class Call> void launch_dgrad(const Call& c, Stream stream) {
  MINIALEX_LAUNCH((dgrad<LOCAL>), blocks(c.dims.x_size()), dim3(THREADS), 0, stream, c.dims, c.dy, c.w, c.dx, c.gate, c.scale);
}
template <bool LOCAL, class Call> void launch_wgrad(const Call& c, Stream stream) {
  const int64_t positions = LOCAL ? int64_t(c.dims.P) * c.dims.Q : 1;
  MINIALEX_LAUNCH((wgrad<LOCAL>), blocks(c.dims.w_size() * positions), dim3(THREADS), 0, stream, c.dims, c.x, c.dy, c.dw, c.accumulate);
  MINIALEX_LAUNCH((wgrad_bias<LOCAL>), blocks(c.dims.K * positions), dim3(THREADS), 0, stream, c.dims, c.dy, c.db, c.accumulate);
}

}  // namespace conv_direct
}  // namespace minialex
