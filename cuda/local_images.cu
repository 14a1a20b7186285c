// Locally connected layers whose weights are read once for several images: nothing else in such a layer is reused, and its
// weights are most of what it moves.  A thread has one place of the output for 4 images, or 4 neighbouring weights.
//
//   images   fprop, dgrad: 4 images a thread, a weight comes from memory once for all of them
//   vector   wgrad: 4 channels of a filter a thread, x in vectors of 4 and dy once for them
//
// Each number is summed in the order of the direct kernels (conv_direct.h): the same bits.
#include <minialex/conv_direct.h>
#include <minialex/kernel.h>
#include <minialex/local_variants.h>
#include <minialex/stored.h>

namespace minialex {
namespace {

constexpr int THREADS = conv_direct::THREADS, IMAGES = 4;

// Place i of an activation (columns, N, rows, width, channels), N in steps of IMAGES.  Images beyond the batch are read as its
// last one and never written.
struct Place {
  int channel, column, row, first, g;
  MINIALEX_DEVICE Place(int64_t i, int channels, int width, int rows, int steps)
      : channel(int(i % channels)), column(int(i / channels % width)), row(int(i / channels / width % rows)),
        first(int(i / channels / width / rows % steps) * IMAGES), g(int(i / channels / width / rows / steps)) {}
};

__global__ void __launch_bounds__(THREADS, 2)
    local_fprop_images_kernel(ConvDims d, InArray x, const float* __restrict__ w, const float* __restrict__ b,
                              OutArray y, bool relu) {
  const int steps = (d.N + IMAGES - 1) / IMAGES, Ky = d.Ky(), Cx = d.Cx(), part = d.part();
  const int64_t i = conv_direct::number();
  if (i >= int64_t(d.Gy) * steps * d.P * d.Q * Ky) return;
  const Place at(i, Ky, d.Q, d.P, steps);
  const int k = at.g * Ky + at.channel, first = k / d.Kg() * d.Cg();
  const int64_t image = int64_t(d.H) * d.W * Cx;
  float total[IMAGES];
  MINIALEX_UNROLL for (int n = 0; n < IMAGES; ++n) total[n] = 0.f;
  for (int c = 0; c < d.parts(); ++c) {
    const InArray column = x + int64_t(first / Cx + c) * d.N * image + first % Cx;
    ChainedSum sum[IMAGES];
    for (int r = 0; r < d.R; ++r) {
      const int h = d.stride * at.row - d.before + r;
      if (h < 0 || h >= d.H) continue;
      for (int s = 0; s < d.S; ++s) {
        const int v = d.stride * at.column - d.before + s;
        if (v < 0 || v >= d.W) continue;
        const InArray seen = column + (int64_t(h) * d.W + v) * Cx;
        const float* row = w + conv_direct::filter<true>(d, at.row, at.column, k, r, s) + c * part;
        for (int j = 0; j < part; ++j) {
          const float weight = row[j];
          MINIALEX_UNROLL for (int n = 0; n < IMAGES; ++n) sum[n].add(seen[min(at.first + n, d.N - 1) * image + j], weight);
        }
      }
    }
    MINIALEX_UNROLL for (int n = 0; n < IMAGES; ++n) total[n] = c ? total[n] + sum[n].value() : sum[n].value();
  }
  const float bias = b ? b[(int64_t(at.row) * d.Q + at.column) * d.K + k] : 0.f;
  MINIALEX_UNROLL for (int n = 0; n < IMAGES; ++n) {
    if (at.first + n >= d.N) continue;
    const float value = b ? total[n] + bias : total[n];
    y[(((int64_t(at.g) * d.N + at.first + n) * d.P + at.row) * d.Q + at.column) * Ky + at.channel] = relu ? rectified(value) : value;
  }
}

__global__ void __launch_bounds__(THREADS, 2)
    local_dgrad_images_kernel(ConvDims d, InArray dy, const float* __restrict__ w, OutArray dx,
                              InArray gate, float scale) {
  const int steps = (d.N + IMAGES - 1) / IMAGES, Ky = d.Ky(), Cx = d.Cx();
  const int64_t i = conv_direct::number();
  if (i >= int64_t(d.Gx) * steps * d.H * d.W * Cx) return;
  const Place at(i, Cx, d.W, d.H, steps);
  const int channel = at.g * Cx + at.channel, group = channel / d.Cg(), c = channel % d.Cg();
  const int maps = d.Kg() < Ky ? d.Kg() : Ky;          // of the group, in one column of y
  const int64_t image = int64_t(d.P) * d.Q * Ky;
  float total[IMAGES];
  MINIALEX_UNROLL for (int n = 0; n < IMAGES; ++n) total[n] = 0.f;
  for (int first = group * d.Kg(); first < (group + 1) * d.Kg(); first += maps) {
    const InArray column = dy + int64_t(first / Ky) * d.N * image + first % Ky;
    ChainedSum sum[IMAGES];
    for (int r = 0; r < d.R; ++r) {
      const int from_p = at.row + d.before - r;        // stride * p, if a window has its tap r here
      if (from_p < 0 || from_p % d.stride || from_p / d.stride >= d.P) continue;
      for (int s = 0; s < d.S; ++s) {
        const int from_q = at.column + d.before - s;
        if (from_q < 0 || from_q % d.stride || from_q / d.stride >= d.Q) continue;
        const int p = from_p / d.stride, q = from_q / d.stride;
        const InArray sent = column + (int64_t(p) * d.Q + q) * Ky;
        const float* row = w + conv_direct::filter<true>(d, p, q, first, r, s) + c;
        for (int k = 0; k < maps; ++k) {
          const float weight = row[int64_t(k) * d.R * d.S * d.Cg()];
          MINIALEX_UNROLL for (int n = 0; n < IMAGES; ++n) sum[n].add(sent[min(at.first + n, d.N - 1) * image + k], weight);
        }
      }
    }
    MINIALEX_UNROLL for (int n = 0; n < IMAGES; ++n) total[n] = first == group * d.Kg() ? sum[n].value() : total[n] + sum[n].value();
  }
  MINIALEX_UNROLL for (int n = 0; n < IMAGES; ++n)
    if (at.first + n < d.N) {
      const int64_t place = (((int64_t(at.g) * d.N + at.first + n) * d.H + at.row) * d.W + at.column) * Cx + at.channel;
      dx[place] = gate ? gated(gate[place], scale, as_stored(dx, total[n])) : total[n];
    }
}

__global__ void __launch_bounds__(THREADS) local_wgrad_vector_kernel(ConvDims d, InArray x, InArray dy,
                                                                     float* __restrict__ dw, bool accumulate) {
  const int64_t i = conv_direct::number() * 4;
  const int Cg = d.Cg(), Cx = d.Cx(), Ky = d.Ky();
  if (i >= d.w_size() * d.P * d.Q) return;
  const int s = int(i / Cg % d.S), r = int(i / Cg / d.S % d.R), k = int(i / Cg / d.S / d.R % d.K), position = int(i / d.w_size());
  const int p = position / d.Q, q = position % d.Q, h = d.stride * p - d.before + r, v = d.stride * q - d.before + s;
  const int channel = k / d.Kg() * Cg + int(i % Cg);
  ChainedSum sum[4];
  if (h >= 0 && h < d.H && v >= 0 && v < d.W) {
    const InArray seen = x + int64_t(channel / Cx) * d.N * d.H * d.W * Cx + (int64_t(h) * d.W + v) * Cx + channel % Cx;
    const InArray sent = dy + int64_t(k / Ky) * d.N * d.P * d.Q * Ky + (int64_t(p) * d.Q + q) * Ky + k % Ky;
    for (int n = 0; n < d.N; ++n) {
      const float4 four = load4(seen + int64_t(n) * d.H * d.W * Cx);
      const float error = sent[int64_t(n) * d.P * d.Q * Ky];
      sum[0].add(error, four.x), sum[1].add(error, four.y), sum[2].add(error, four.z), sum[3].add(error, four.w);
    }
  }
  const float4 made = make_float4(sum[0].value(), sum[1].value(), sum[2].value(), sum[3].value());
  store4(dw + i, accumulate ? add4(load4(dw + i), made) : made);
}

}  // namespace

const char* local_whole_quads(const ConvDims& d) {
  return d.part() % 4 || d.Cx() % 4 ? "the channels a filter reads are no multiple of 4" : nullptr;
}

void local_fprop_images(const LocalFprop& c, Stream stream) {
  const int64_t threads = ceil_div(c.dims.N, IMAGES) * c.dims.P * c.dims.Q * c.dims.K;
  MINIALEX_LAUNCH(local_fprop_images_kernel, conv_direct::blocks(threads), dim3(THREADS), 0, stream, c.dims, c.x, c.w, c.b, c.y, c.relu);
}
void local_dgrad_images(const LocalDgrad& c, Stream stream) {
  const int64_t threads = ceil_div(c.dims.N, IMAGES) * c.dims.H * c.dims.W * c.dims.C;
  MINIALEX_LAUNCH(local_dgrad_images_kernel, conv_direct::blocks(threads), dim3(THREADS), 0, stream, c.dims, c.dy, c.w, c.dx,
                  c.gate, c.scale);
}
void local_wgrad_vector(const LocalWgrad& c, Stream stream) {
  const int64_t positions = int64_t(c.dims.P) * c.dims.Q;
  MINIALEX_LAUNCH(local_wgrad_vector_kernel, conv_direct::blocks(c.dims.w_size() * positions / 4), dim3(THREADS), 0, stream, c.dims, c.x,
                  c.dy, c.dw, c.accumulate);
  MINIALEX_LAUNCH((conv_direct::wgrad_bias<true>), conv_direct::blocks(c.dims.K * positions), dim3(THREADS), 0, stream, c.dims, c.dy, c.db,
                  c.accumulate);
}

}  // namespace minialex
