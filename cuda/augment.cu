// The network's input from stored pictures (paper, sections 2 and 4.1), in one trip: crop, flip, subtract the mean, add the
// colour noise, scale.  y = ((image - mean) + noise) * scale, rounded after each step as the formula says: the same bits everywhere.
//
// With mean_at="crop" a pixel loses the mean of its own place in the picture; with "centre" every output place loses the mean
// at that place of the centre crop.  A crop that leaves its picture reads nothing and writes NaN: offsets live on the device.
// y may be kept as cells of cell x cell pixels, as a first convolution of that stride reads it (cells.cu): the same numbers elsewhere.
//
//   vector   4 numbers a thread, neighbours in y: 4 bytes of the picture and 16 of y; the mean, read by all pictures, stays in the
//            cache.  A row of W * C numbers, or of a cell, must be a multiple of 4.
//   direct   1 number a thread, any shape
#include <minialex/kernel.h>
#include <minialex/ops.h>
#include <minialex/stored.h>

namespace minialex {
namespace {

constexpr int THREADS = 256;

// One output row: where its crop begins in the picture and in the mean, and which way it runs.
struct Row {
  const uint8_t* image;                                // number 0 of the crop's row
  const float *own_mean, *centre_mean;                 // number 0 of the mean's rows for "crop" and "centre"
  const float* noise;
  bool flip, inside;
};

MINIALEX_DEVICE Row row_of(const AugmentFprop& a, int n, int h) {
  const AugmentDims& d = a.dims;
  const int top = a.offsets[2 * n], left = a.offsets[2 * n + 1];
  const bool inside = top >= 0 && left >= 0 && top <= d.H0 - d.H && left <= d.W0 - d.W;
  const int64_t own = (int64_t(inside ? top : 0) + h) * d.W0 + (inside ? left : 0);
  const int64_t centre = (int64_t((d.H0 - d.H) / 2) + h) * d.W0 + (d.W0 - d.W) / 2;
  return {a.images + (int64_t(n) * d.H0 * d.W0 + own) * d.C, a.mean + own * d.C, a.mean + centre * d.C, a.noise + int64_t(n) * d.C,
          a.flips[n] != 0, inside};
}

// Channel c of column w of the output row.
MINIALEX_DEVICE float pixel(const AugmentFprop& a, const Row& row, int w, int c) {
  if (!row.inside) return __int_as_float(0x7fc00000);  // NaN
  const int source = (row.flip ? a.dims.W - 1 - w : w) * a.dims.C + c;
  const float mean = a.dims.mean_at_centre ? row.centre_mean[w * a.dims.C + c] : row.own_mean[source];
  return __fmul_rn(__fadd_rn(__fsub_rn(float(row.image[source]), mean), row.noise[c]), a.scale);
}

// Where word i of an output picture, of `wide` numbers, begins.  A picture that is not in cells is one row of cells of 1 x W pixels.
template <class Int> struct Place {
  Int h, w, c;
  MINIALEX_DEVICE Place(const AugmentDims& d, Int i, int wide) {
    const Int columns = d.cell > 1 ? d.cell : d.W, across = d.W / columns, run = columns * d.C / wide;
    const Int line = i / run, position = line / d.cell, p = position / across, k = (i - line * run) * wide;
    h = p * d.cell + line % d.cell, w = (position - p * across) * columns + k / d.C, c = k % d.C;
  }
};

__global__ void __launch_bounds__(THREADS) augment_direct(const AugmentFprop a) {
  const AugmentDims& d = a.dims;
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x, picture = int64_t(d.H) * d.W * d.C, n = i / picture;
  if (n >= d.N) return;
  const Place<int64_t> at(d, i - n * picture, 1);
  a.y[i] = pixel(a, row_of(a, int(n), int(at.h)), int(at.w), int(at.c));
}

// A block stays in one picture, so that a thread divides ints alone.
__global__ void __launch_bounds__(THREADS) augment_vector(const AugmentFprop a, int blocks) {
  const AugmentDims& d = a.dims;
  const int n = blockIdx.x / blocks, quads = d.W * d.C / 4, quad = (blockIdx.x - n * blocks) * THREADS + threadIdx.x;
  if (quad >= d.H * quads) return;
  const Place<int> at(d, quad, 4);
  const Row row = row_of(a, n, at.h);
  int w = at.w, c = at.c;
  float out[4];
  MINIALEX_UNROLL
  for (int j = 0; j < 4; ++j) {
    out[j] = pixel(a, row, w, c);
    if (++c == d.C) c = 0, ++w;
  }
  store4(a.y + (int64_t(n) * d.H * quads + quad) * 4, make_float4(out[0], out[1], out[2], out[3]));
}

const char* whole_quads(const AugmentDims& dims) {
  if (int64_t(dims.cell > 1 ? dims.cell : dims.W) * dims.C % 4) return "a row of numbers, of a cell or of W pixels, is no multiple of 4";
  return int64_t(dims.H) * dims.W * dims.C > std::numeric_limits<int>::max() ? "a crop is larger than an int counts" : nullptr;
}

int blocks(int64_t threads) { return narrow(ceil_div(threads, THREADS), "the number of blocks"); }

void launch_direct(const AugmentFprop& c, Stream stream) {
  MINIALEX_LAUNCH(augment_direct, dim3(blocks(int64_t(c.dims.N) * c.dims.H * c.dims.W * c.dims.C)), dim3(THREADS), 0, stream, c);
}
void launch_vector(const AugmentFprop& c, Stream stream) {
  const int per_image = blocks(int64_t(c.dims.H) * c.dims.W * c.dims.C / 4);
  const int grid = narrow(int64_t(per_image) * c.dims.N, "the number of blocks");
  MINIALEX_LAUNCH(augment_vector, dim3(grid), dim3(THREADS), 0, stream, c, per_image);
}

}  // namespace

const Op<AugmentFprop>& augment_fprop() {
  static const Op<AugmentFprop> op{"augment_fprop",
                                   {{"vector", "float32", whole_quads, nullptr, nullptr, launch_vector},
                                    {"direct", "float32", nullptr, nullptr, nullptr, launch_direct}}};
  return op;
}

}  // namespace minialex
