// Pictures as cells: the cell x cell pixels of a cell are the channels of one position, so that a convolution of stride `cell` has
// stride 1 over whole vectors (cuda/README.md).  Numbers are copied, never computed with.
//
//   x (images, H, W, C)  <->  y (images, P, Q, cell * cell * C), P = ceil(H / cell): zeros where a cell reaches beyond x
//
//   vector   4 numbers a thread, where rows of x and rows of a cell are whole vectors: 8 bytes moved a number; memory-bound
//   direct   1 number a thread, any shape: filters of 11 x 11, which are no whole cells
#include <minialex/kernel.h>
#include <minialex/ops.h>
#include <minialex/stored.h>

namespace minialex {
namespace {

constexpr int THREADS = 256;

// Rows in words of `wide` numbers; a thread moves one word.
struct Words {
  int64_t H, P, Q, cell, row, run;                     // row: of x; run: of one row of a cell
  MINIALEX_DEVICE Words(const CellsDims& d, int wide)
      : H(d.H), P(d.P()), Q(d.Q()), cell(d.cell), row(int64_t(d.W) * d.C / wide), run(int64_t(d.cell) * d.C / wide) {}
};

// Which word of x the word i of y holds; -1 for none.
MINIALEX_DEVICE int64_t word_of_x(const Words& g, int64_t i) {
  const int64_t line = i / g.run, position = line / g.cell, rows = position / g.Q, image = rows / g.P;
  const int64_t h = (rows - image * g.P) * g.cell + line % g.cell, k = (position - rows * g.Q) * g.run + i % g.run;
  return h < g.H && k < g.row ? (image * g.H + h) * g.row + k : -1;
}

// Which word of y holds the word i of x.
MINIALEX_DEVICE int64_t word_of_y(const Words& g, int64_t i) {
  const int64_t rows = i / g.row, k = i - rows * g.row, image = rows / g.H, h = rows - image * g.H;
  return (((image * g.P + h / g.cell) * g.Q + k / g.run) * g.cell + h % g.cell) * g.run + k % g.run;
}

__global__ void __launch_bounds__(THREADS) cells_fprop_direct(CellsDims d, const float* __restrict__ x, OutArray y) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= d.y_size()) return;
  const int64_t from = word_of_x(Words(d, 1), i);
  y[i] = from < 0 ? 0.f : x[from];
}
__global__ void __launch_bounds__(THREADS) cells_fprop_vector(CellsDims d, const float* __restrict__ x, OutArray y) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i * 4 >= d.y_size()) return;
  const int64_t from = word_of_x(Words(d, 4), i);
  store4(y + i * 4, from < 0 ? make_float4(0.f, 0.f, 0.f, 0.f) : load4(x + from * 4));
}
__global__ void __launch_bounds__(THREADS) cells_bprop_direct(CellsDims d, const float* __restrict__ dy, float* __restrict__ dx) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i < d.x_size()) dx[i] = dy[word_of_y(Words(d, 1), i)];
}
__global__ void __launch_bounds__(THREADS) cells_bprop_vector(CellsDims d, const float* __restrict__ dy, float* __restrict__ dx) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i * 4 < d.x_size()) store4(dx + i * 4, load4(dy + word_of_y(Words(d, 4), i) * 4));
}

const char* needs_whole_vectors(const CellsDims& d) {
  if (int64_t(d.W) * d.C % 4) return "a row of W * C numbers is no multiple of 4";
  return int64_t(d.cell) * d.C % 4 ? "a row of a cell is no multiple of 4 numbers" : nullptr;
}
dim3 blocks(int64_t words) { return dim3(narrow(ceil_div(words, THREADS), "the number of blocks")); }

void fprop_vector(const CellsFprop& c, Stream stream) {
  MINIALEX_LAUNCH(cells_fprop_vector, blocks(c.dims.y_size() / 4), dim3(THREADS), 0, stream, c.dims, c.x, c.y);
}
void fprop_direct(const CellsFprop& c, Stream stream) {
  MINIALEX_LAUNCH(cells_fprop_direct, blocks(c.dims.y_size()), dim3(THREADS), 0, stream, c.dims, c.x, c.y);
}
void bprop_vector(const CellsBprop& c, Stream stream) {
  MINIALEX_LAUNCH(cells_bprop_vector, blocks(c.dims.x_size() / 4), dim3(THREADS), 0, stream, c.dims, c.dy, c.dx);
}
void bprop_direct(const CellsBprop& c, Stream stream) {
  MINIALEX_LAUNCH(cells_bprop_direct, blocks(c.dims.x_size()), dim3(THREADS), 0, stream, c.dims, c.dy, c.dx);
}

}  // namespace

const Op<CellsFprop>& cells_fprop() {
  static const Op<CellsFprop> op{"cells_fprop",
                                 {{"vector", "float32", needs_whole_vectors, nullptr, nullptr, fprop_vector},
                                  {"direct", "float32", nullptr, nullptr, nullptr, fprop_direct}}};
  return op;
}
const Op<CellsBprop>& cells_bprop() {
  static const Op<CellsBprop> op{"cells_bprop",
                                 {{"vector", "float32", needs_whole_vectors, nullptr, nullptr, bprop_vector},
                                  {"direct", "float32", nullptr, nullptr, nullptr, bprop_direct}}};
  return op;
}

}  // namespace minialex
