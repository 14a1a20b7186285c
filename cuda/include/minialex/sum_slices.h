// A sum that several blocks made: each wrote a slice of the output's numbers, and one kernel adds the slices in their order.
//
//   total = P_0 + P_1 + ...     P_c is the sum of part c's slices, which lie one behind the other
//
// What becomes of a total is said by an Out, `out(i, total)` for number i of the output: so a sum ends with what the op wants behind it.
#pragma once
#include "gemm_tile.h"
#include "philox.h"
#include "stored.h"

namespace minialex {

// COUNT neighbouring numbers in registers: a thread's share.
template <int COUNT> struct Some {
  float v[COUNT];
  template <class Numbers> MINIALEX_DEVICE static Some load(const Numbers& from) {
    if constexpr (COUNT == 4) {
      const float4 four = load4(from);
      return {{four.x, four.y, four.z, four.w}};
    } else {
      return {{from[0]}};
    }
  }
  MINIALEX_DEVICE void store(const OutArray& to) const {
    if constexpr (COUNT == 4) store4(to, make_float4(v[0], v[1], v[2], v[3]));
    else to[0] = v[0];
  }
  MINIALEX_DEVICE Some operator+(const Some& other) const {
    Some sum;
    MINIALEX_UNROLL for (int e = 0; e < COUNT; ++e) sum.v[e] = v[e] + other.v[e];
    return sum;
  }
};

struct Slices {
  const float* from;
  int parts, ranges;
  int64_t size, stride;                                 // numbers of a slice, and how far they lie apart

  template <int COUNT> MINIALEX_DEVICE Some<COUNT> total(int64_t i) const {
    using Numbers = Some<COUNT>;
    Numbers total{};
    for (int part = 0; part < parts; ++part) {
      Numbers sum{};
      for (int done = 0; done < ranges; done += kChain) {
        const float* at = from + (int64_t(part) * ranges + done) * stride + i;
        Numbers chain = Numbers::load(at);
        for (int range = 1; range < min(ranges - done, kChain); ++range) chain = chain + Numbers::load(at + range * stride);
        sum = done ? sum + chain : chain;
      }
      total = part ? total + sum : sum;
    }
    return total;
  }
};

// The gradients of weights, and behind them in each slice those of the biases: one launch for both.
struct WeightsOut {
  static constexpr int COUNT = 1;
  float *dw, *db;
  int64_t weights;
  bool accumulate;
  MINIALEX_DEVICE void operator()(int64_t i, Some<1> total) const {
    float* to = i < weights ? dw + i : db + (i - weights);
    *to = accumulate ? *to + total.v[0] : total.v[0];
  }
};
inline int64_t weights_slice(int64_t weights, int64_t biases) { return ceil_div(weights + biases, 4) * 4; }      // slices start aligned

// y (columns, images, channels) of linear layers, or (columns, positions, channels): + bias, then relu, then dropout of each image.
template <int COUNT_> struct ActivationOut {
  static constexpr int COUNT = COUNT_;
  OutArray y;
  int64_t per_column;
  int channels;
  const float* bias;                                    // nullptr: none
  bool relu;
  DropoutMask dropout;
  MINIALEX_DEVICE void operator()(int64_t i, Some<COUNT> total) const {
    const int column = int(i / per_column), channel = int(i % channels), image = int(i % per_column / channels);
    MINIALEX_UNROLL for (int e = 0; e < COUNT; ++e) {
      if (bias) total.v[e] = total.v[e] + bias[int64_t(column) * channels + channel + e];
      if (relu) total.v[e] = rectified(total.v[e]);
    }
    if (dropout.columns) {
      const int64_t first = int64_t(dropout.column + column) * channels + channel;
      const uint4 words = dropout_words(dropout, uint32_t(first / 4), uint32_t(image));
      const uint32_t word[] = {COUNT == 4 ? words.x : word_of(words, first), words.y, words.z, words.w};
      MINIALEX_UNROLL for (int e = 0; e < COUNT; ++e) total.v[e] = dropped(as_stored(y, total.v[e]), word[e], dropout);
    }
    total.store(y + i);
  }
};

// dx, behind the gate of a ReLU below.
template <int COUNT_> struct GradientOut {
  static constexpr int COUNT = COUNT_;
  OutArray dx;
  InArray gate;                                         // nullptr: none
  float scale;
  MINIALEX_DEVICE void operator()(int64_t i, Some<COUNT> total) const {
    if (gate) {
      const Some<COUNT> open = Some<COUNT>::load(gate + i);
      MINIALEX_UNROLL for (int e = 0; e < COUNT; ++e) total.v[e] = gated(open.v[e], scale, as_stored(dx, total.v[e]));
    }
    total.store(dx + i);
  }
};

constexpr int SUM_THREADS = 256;
template <class Out>
__global__ void __launch_bounds__(SUM_THREADS, 4) sum_slices(Slices slices, Out out) {
  const int64_t i = (int64_t(blockIdx.x) * SUM_THREADS + threadIdx.x) * Out::COUNT;
  if (i < slices.size) out(i, slices.total<Out::COUNT>(i));
}

template <class Out> void add_up(const Slices& slices, const Out& out, Stream stream) {
  const dim3 grid(narrow(ceil_div(slices.size, SUM_THREADS * Out::COUNT), "the number of blocks"));
  MINIALEX_LAUNCH(sum_slices<Out>, grid, dim3(SUM_THREADS), 0, stream, slices, out);
}

// A call whose sums lie in `parts` x `ranges` slices at `from`, its workspace; or in its float32 output, which is finished where it is.
template <class Fprop>
void add_up_fprop(const Fprop& c, const void* from, int parts, int ranges, const float* bias, bool relu, Stream stream) {
  const auto& d = c.dims;
  const Slices slices{static_cast<const float*>(from), parts, ranges, d.y_size(), d.y_size()};
  if (d.Ky() % 4 == 0) add_up(slices, ActivationOut<4>{c.y, d.y_size() / d.Gy, d.Ky(), bias, relu, c.dropout}, stream);
  else add_up(slices, ActivationOut<1>{c.y, d.y_size() / d.Gy, d.Ky(), bias, relu, c.dropout}, stream);
}
template <class Dgrad> void add_up_dgrad(const Dgrad& c, const void* from, int parts, int ranges, Stream stream) {
  const int64_t size = c.dims.x_size();
  const Slices slices{static_cast<const float*>(from), parts, ranges, size, size};
  if (size % 4 == 0) add_up(slices, GradientOut<4>{c.dx, c.gate, c.scale}, stream);
  else add_up(slices, GradientOut<1>{c.dx, c.gate, c.scale}, stream);
}

}  // namespace minialex
