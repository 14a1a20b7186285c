// What the three tensor-core convolutions share: the shape with its divisors, how a long sum is cut into ranges, and where the
// numbers of an activation go, with or without a sum of slices (sum_slices.h) before.
#pragma once
#include <climits>
#include "conv_mma.h"
#include "gemm_mma.h"
#include "sum_slices.h"

namespace minialex {
namespace conv_mma {

struct ConvShape {
  ConvDims dims;
  mma::Divider PQ, Q, S, Cg, Cx, Ky, part, maps;
  explicit ConvShape(const ConvDims& d)
      : dims(d), PQ(d.P * d.Q), Q(d.Q), S(d.S), Cg(d.Cg()), Cx(d.Cx()), Ky(d.Ky()), part(d.part()), maps(maps_of(d)) {}
  // Maps of a group that lie in one column of y; dgrad's sums over each are complete before they are added.
  static MINIALEX_BOTH int maps_of(const ConvDims& d) { return d.Kg() < d.Ky() ? d.Kg() : d.Ky(); }
  MINIALEX_BOTH int maps_per_column() const { return maps_of(dims); }
};

constexpr int NOWHERE = INT_MIN / 2;                    // a row or column that no tap brings back into a picture

// ---- ranges of a sum: functions of its length alone, never of what is spread over devices or blocks
struct Ranges {
  int count, length;
  MINIALEX_BOTH int end(int range, int depth) const { return (range + 1) * length < depth ? (range + 1) * length : depth; }
};

inline Ranges cut(int64_t depth, int64_t count) {
  const int64_t length = ceil_div(ceil_div(depth, count), mma::DEPTH) * mma::DEPTH;
  return {int(ceil_div(depth, length)), int(length)};
}

// Pictures of one pixel (linear layers) make few tiles, but each part of their sums is as long as a picture: it is cut into
// ranges of about 1,024 products, and each range of each part goes to blocks of its own.  Other shapes: no ranges, count 0.
inline Ranges ranges_of(const ConvDims& d, int64_t depth) {
  return d.H * d.W * d.R * d.S == 1 ? cut(depth, ceil_div(depth, 1024)) : Ranges{0, int(depth)};
}
// A single slice is the output itself, unless that is bfloat16 and not `finished` by the kernel that makes it.
inline int slices_of(const ConvDims& d, int64_t depth, int parts, bool finished = true) {
  const int slices = ranges_of(d, depth).count * parts;
  return slices > 1 || !finished ? slices : 0;
}
// Numbers of the output's size that the workspace has in bfloat16: the slices, or the sum of the parts so far.
inline int carried_bf16(const ConvDims& d, int64_t depth, int parts) {
  const int slices = slices_of(d, depth, parts, false);
  return slices ? slices : parts > 1 ? 1 : 0;
}

// Whether tiles of 128 x 128 fill the device (about 100 blocks) and do not pad much more than those of 64 x 64.
inline bool large_pays(int64_t M, int64_t N, int64_t copies) {
  const int64_t large = ceil_div(M, 128) * ceil_div(N, 128), small = ceil_div(M, 64) * ceil_div(N, 64);
  return large * copies >= 96 && large * 4 * 2 <= small * 3;
}

inline const char* refuses_sizes(const ConvDims& d) {
  const int64_t most = INT_MAX / 2;                     // leaves room for a tile that reaches beyond the end
  if (int64_t(d.N) * d.P * d.Q > most || int64_t(d.N) * d.H * d.W > most) return "a column has more than 2^30 positions; use a smaller batch";
  if (int64_t(d.H + d.R) * (d.W + d.S) * d.Cx() > most || int64_t(d.P) * d.Q * d.Ky() > most) return "a picture has more than 2^30 numbers";
  if (int64_t(d.R) * d.S * d.Cg() > most) return "a filter has more than 2^30 numbers";
  if (d.groups > 65535) return "more than 65,535 groups";
  return nullptr;
}

// ---- the output of fprop and dgrad: columns of (pixels, channels)
// NARROW: activations are bfloat16, though `to` may be float32; the sum of the first parts is carried as float32.
template <bool NARROW> struct TileOut {
  OutArray to;
  float* carried;                                       // where `to` is, unless NARROW
  const float* bias;                                    // nullptr: none
  mma::Divider channels;                                // of a column
  int64_t pixels;
  int M, N, base;                                       // pixels, channels of the group, its first channel
  bool first, last, relu;                               // first: the first part; last: bias, gate and relu follow
  InArray gate;                                         // nullptr: none
  float scale;

  MINIALEX_DEVICE float finished(float value, float before, int channel, float open) const {
    if (!first) value = before + value;
    if (last && bias) value = value + bias[channel];
    if (last && gate) value = gated(open, scale, NARROW ? as_stored(to, value) : value);
    return last && relu ? rectified(value) : value;
  }
  MINIALEX_DEVICE void one(int64_t i, float value, int channel) const {
    value = finished(value, first ? 0.f : carried[i], channel, last && gate ? gate[i] : 0.f);
    if (NARROW && last) to[i] = value;
    else carried[i] = value;
  }
  MINIALEX_DEVICE void operator()(int m, int n, float left, float right) const {
    if (m >= M || n >= N) return;
    const int per_column = int(channels.divisor), channel = base + n;
    int c;
    const int column = channels.divide(channel, c);
    const int64_t i = (column * pixels + m) * per_column + c;
    if (per_column % 2 == 0 && N % 2 == 0) {            // then n + 1 is there too, in the same column, and the pair is aligned
      float2* pair = reinterpret_cast<float2*>(carried + i);
      const float2 before = first ? make_float2(0.f, 0.f) : *pair;
      const float2 opened = last && gate ? load2(gate + i) : make_float2(0.f, 0.f);
      const float2 values = make_float2(finished(left, before.x, channel, opened.x), finished(right, before.y, channel + 1, opened.y));
      if (NARROW && last) store2(to + i, values);
      else *pair = values;
      return;
    }
    one(i, left, channel);
    if (n + 1 < N) one(c + 1 == per_column ? ((column + 1) * pixels + m) * per_column : i + 1, right, channel + 1);
  }
};

// What a kernel of fprop or dgrad is made of, its two operands being given.
template <class Precision, class T, class A_, class B_> struct TileKernel {
  using Number = typename Precision::Activation;
  using A = A_;
  using B = B_;
  using Multiply = mma::Product<Precision, T, A, B>;
  using Out = TileOut<sizeof(Number) == sizeof(bf16)>;
};

}  // namespace conv_mma
}  // namespace minialex
