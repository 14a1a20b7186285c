// Response normalisation over a square of the same map (the 2012 program, the CIFAR-10 networks).  A square's sum is made afresh of its
// rows' sums, which both variants add in the same order.
//
//   tiled    a block has 8 x 8 positions of 32 channels with their borders in shared memory, and sums rows before columns
//   direct   1 element a thread, which sums every square it needs; any shape
#include <minialex/kernel.h>
#include <minialex/norm.h>
#include <minialex/ops.h>

namespace minialex {
namespace {

constexpr int THREADS = 256, TILE = 8, CHANNELS = 32, WARPS = THREADS / CHANNELS;
constexpr int MOST_SHARED = 96 * 1024;                 // two blocks share an SM
constexpr int MOST_SIDE = 99;                          // of a square: any more is too large anyhow, and its bytes may be beyond int64_t

// ---- direct.  `map` points to a channel of an image.
MINIALEX_DEVICE float square_scale(const InArray& map, int h, int w, const NormDims& d, const NormConstants& n) {
  const int radius = d.n / 2;
  float squares = 0;
  for (int r = max(h - radius, 0); r <= min(h + radius, d.H - 1); ++r) {
    float row = 0;
    for (int s = max(w - radius, 0); s <= min(w + radius, d.W - 1); ++s) {
      const float x = map[(int64_t(r) * d.W + s) * d.C];
      row = fmaf(x, x, row);
    }
    squares = __fadd_rn(squares, row);
  }
  return norm_scale(squares, n);
}

struct Position {
  int64_t map;                                         // where the image's channel starts
  int h, w;
  MINIALEX_DEVICE Position(int64_t i, const NormDims& d) {
    const int64_t pixel = i / d.C, image = pixel / (int64_t(d.H) * d.W);
    const int place = int(pixel - image * d.H * d.W);
    map = image * d.H * d.W * d.C + i % d.C;
    h = place / d.W;
    w = place % d.W;
  }
};

template <bool PAPER>
__global__ void __launch_bounds__(THREADS)
    spatial_norm_fprop_direct(InArray x, OutArray y, NormDims d, NormConstants n) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= d.size()) return;
  const Position at(i, d);
  y[i] = __fmul_rn(x[i], norm_power<PAPER>(square_scale(x + at.map, at.h, at.w, d, n), n));
}

template <bool PAPER>
__global__ void __launch_bounds__(THREADS, 4)
    spatial_norm_bprop_direct(InArray x, InArray dy, OutArray dx, NormDims d,
                              NormConstants n) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= d.size()) return;
  const Position at(i, d);
  const int radius = d.n / 2;
  float through = 0, power_here = 0;
  for (int r = max(at.h - radius, 0); r <= min(at.h + radius, d.H - 1); ++r) {        // the squares that hold this position
    float row = 0;
    for (int s = max(at.w - radius, 0); s <= min(at.w + radius, d.W - 1); ++s) {
      const int64_t j = at.map + (int64_t(r) * d.W + s) * d.C;
      const float scale = square_scale(x + at.map, r, s, d, n), power = norm_power<PAPER>(scale, n);
      row = __fadd_rn(row, norm_through(x[j], dy[j], scale, power));
      if (j == i) power_here = power;
    }
    through = __fadd_rn(through, row);
  }
  dx[i] = norm_gradient(x[i], dy[i], power_here, through, n);
}

// ---- tiled.  A lane is a channel, the warps share the positions.  Tiles in shared memory are (rows, width, CHANNELS) with zeros
// beyond the image, which change no sum.
struct Place {
  int lane, warp, top, left, c;
  int64_t image;                                       // where the image's channel starts
  bool active;
  MINIALEX_DEVICE explicit Place(const NormDims& d) : lane(int(threadIdx.x) % CHANNELS), warp(int(threadIdx.x) / CHANNELS) {
    const int chunks = (d.C + CHANNELS - 1) / CHANNELS, across = (d.W + TILE - 1) / TILE, down = (d.H + TILE - 1) / TILE;
    int block = blockIdx.x;
    c = block % chunks * CHANNELS + lane;
    block /= chunks;
    left = block % across * TILE;
    block /= across;
    top = block % down * TILE;
    active = c < d.C;
    image = int64_t(block / down) * d.H * d.W * d.C + c;
  }
  MINIALEX_DEVICE bool inside(int h, int w, const NormDims& d) const { return active && h >= 0 && h < d.H && w >= 0 && w < d.W; }
  MINIALEX_DEVICE int64_t at(int h, int w, const NormDims& d) const { return image + (int64_t(h) * d.W + w) * d.C; }
};

// x of the tile and `border` positions around it.
MINIALEX_DEVICE void load_tile(InArray x, float* tile, int border, const Place& place, const NormDims& d) {
  const int width = TILE + 2 * border;
  for (int i = place.warp; i < width * width; i += WARPS) {
    const int h = place.top - border + i / width, w = place.left - border + i % width;
    tile[i * CHANNELS + place.lane] = place.inside(h, w, d) ? x[place.at(h, w, d)] : 0.f;
  }
}

// to (width, width - n + 1): sums of n neighbours in each row of `from` (width, width), or of their squares.
template <bool SQUARES> MINIALEX_DEVICE void sum_rows(const float* from, float* to, int width, int n, const Place& place) {
  const int sums = width - n + 1;
  for (int i = place.warp; i < width * sums; i += WARPS) {
    const float* first = from + (i / sums * width + i % sums) * CHANNELS + place.lane;
    float sum = 0;
    for (int s = 0; s < n; ++s) {
      const float x = first[s * CHANNELS];
      sum = SQUARES ? fmaf(x, x, sum) : __fadd_rn(sum, x);
    }
    to[i * CHANNELS + place.lane] = sum;
  }
}

MINIALEX_DEVICE float sum_column(const float* rows, int width, int i, int j, int n, int lane) {
  float sum = 0;
  for (int r = 0; r < n; ++r) sum = __fadd_rn(sum, rows[((i + r) * width + j) * CHANNELS + lane]);
  return sum;
}

template <bool PAPER>
__global__ void __launch_bounds__(THREADS)
    spatial_norm_fprop_tiled(InArray x, OutArray y, NormDims d, NormConstants n) {
  MINIALEX_DYNAMIC_SHARED(float, shared);
  const Place place(d);
  const int radius = d.n / 2, width = TILE + 2 * radius;
  float *tile = &shared, *rows = tile + width * width * CHANNELS;
  load_tile(x, tile, radius, place, d);
  __syncthreads();
  sum_rows<true>(tile, rows, width, d.n, place);
  __syncthreads();
  for (int k = place.warp; k < TILE * TILE; k += WARPS) {
    const int i = k / TILE, j = k % TILE, h = place.top + i, w = place.left + j;
    if (!place.inside(h, w, d)) continue;
    const float power = norm_power<PAPER>(norm_scale(sum_column(rows, TILE, i, j, d.n, place.lane), n), n);
    y[place.at(h, w, d)] = __fmul_rn(tile[((i + radius) * width + j + radius) * CHANNELS + place.lane], power);
  }
}

template <bool PAPER>
__global__ void __launch_bounds__(THREADS)
    spatial_norm_bprop_tiled(InArray x, InArray dy, OutArray dx, NormDims d,
                             NormConstants n) {
  MINIALEX_DYNAMIC_SHARED(float, shared);
  const Place place(d);
  const int radius = d.n / 2, middle = TILE + 2 * radius, width = middle + 2 * radius, lane = place.lane;
  float *tile = &shared, *rows = tile + width * width * CHANNELS, *throughs = rows + width * middle * CHANNELS;
  load_tile(x, tile, 2 * radius, place, d);
  __syncthreads();
  sum_rows<true>(tile, rows, width, d.n, place);
  __syncthreads();
  for (int k = place.warp; k < middle * middle; k += WARPS) {
    const int i = k / middle, j = k % middle, h = place.top - radius + i, w = place.left - radius + j;
    float through = 0;
    if (place.inside(h, w, d)) {
      const float scale = norm_scale(sum_column(rows, middle, i, j, d.n, lane), n);
      through = norm_through(tile[((i + radius) * width + j + radius) * CHANNELS + lane], dy[place.at(h, w, d)], scale,
                             norm_power<PAPER>(scale, n));
    }
    throughs[k * CHANNELS + lane] = through;
  }
  __syncthreads();
  sum_rows<false>(throughs, tile, middle, d.n, place); // over x, which the last step reads from the cache
  __syncthreads();
  for (int k = place.warp; k < TILE * TILE; k += WARPS) {
    const int i = k / TILE, j = k % TILE, h = place.top + i, w = place.left + j;
    if (!place.inside(h, w, d)) continue;
    const float power = norm_power<PAPER>(norm_scale(sum_column(rows, middle, i + radius, j + radius, d.n, lane), n), n);
    const int64_t at = place.at(h, w, d);
    dx[at] = norm_gradient(x[at], dy[at], power, sum_column(tile, TILE, i, j, d.n, lane), n);
  }
}

int64_t fprop_bytes(const NormDims& d) {
  const int64_t width = TILE + d.n - 1;
  return (width * width + width * TILE) * CHANNELS * 4;
}
int64_t bprop_bytes(const NormDims& d) {
  const int64_t middle = TILE + d.n - 1, width = middle + d.n - 1;
  return (width * width + width * middle + middle * middle) * CHANNELS * 4;
}

const char* refuses_fprop_tiled(const NormDims& d) {
  return d.n > MOST_SIDE || fprop_bytes(d) > MOST_SHARED ? "a tile with its border is larger than shared memory" : nullptr;
}
const char* refuses_bprop_tiled(const NormDims& d) {
  return d.n > MOST_SIDE || bprop_bytes(d) > MOST_SHARED ? "a tile with its borders is larger than shared memory" : nullptr;
}

bool paper(float beta) { return beta == 0.75f; }

dim3 blocks_direct(const NormDims& d) { return dim3(narrow(ceil_div(d.size(), THREADS), "the number of blocks")); }
dim3 blocks_tiled(const NormDims& d) {
  return dim3(narrow(d.images * ceil_div(d.H, TILE) * ceil_div(d.W, TILE) * ceil_div(d.C, CHANNELS), "the number of blocks"));
}

void launch_fprop_direct(const NormFprop& c, Stream stream) {
  MINIALEX_LAUNCH((paper(c.beta) ? spatial_norm_fprop_direct<true> : spatial_norm_fprop_direct<false>), blocks_direct(c.dims),
                  dim3(THREADS), 0, stream, c.x, c.y, c.dims, NormConstants(c));
}
void launch_bprop_direct(const NormBprop& c, Stream stream) {
  MINIALEX_LAUNCH((paper(c.beta) ? spatial_norm_bprop_direct<true> : spatial_norm_bprop_direct<false>), blocks_direct(c.dims),
                  dim3(THREADS), 0, stream, c.x, c.dy, c.dx, c.dims, NormConstants(c));
}
void launch_fprop_tiled(const NormFprop& c, Stream stream) {
  MINIALEX_LAUNCH((paper(c.beta) ? spatial_norm_fprop_tiled<true> : spatial_norm_fprop_tiled<false>), blocks_tiled(c.dims), dim3(THREADS),
                  size_t(fprop_bytes(c.dims)), stream, c.x, c.y, c.dims, NormConstants(c));
}
void launch_bprop_tiled(const NormBprop& c, Stream stream) {
  MINIALEX_LAUNCH((paper(c.beta) ? spatial_norm_bprop_tiled<true> : spatial_norm_bprop_tiled<false>), blocks_tiled(c.dims), dim3(THREADS),
                  size_t(bprop_bytes(c.dims)), stream, c.x, c.dy, c.dx, c.dims, NormConstants(c));
}

}  // namespace

const Op<NormFprop>& spatial_norm_fprop() {
  static const Op<NormFprop> op{"spatial_norm_fprop",
                                {{"tiled", "float32", refuses_fprop_tiled, nullptr, nullptr, launch_fprop_tiled},
                                 {"direct", "float32", nullptr, nullptr, nullptr, launch_fprop_direct}}};
  return op;
}

const Op<NormBprop>& spatial_norm_bprop() {
  static const Op<NormBprop> op{"spatial_norm_bprop",
                                {{"tiled", "float32", refuses_bprop_tiled, nullptr, nullptr, launch_bprop_tiled},
                                 {"direct", "float32", nullptr, nullptr, nullptr, launch_bprop_direct}}};
  return op;
}

}  // namespace minialex
