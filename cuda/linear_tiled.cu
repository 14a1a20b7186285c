// Linear layers by tiles in shared memory (gemm_tile.h): a block computes one chain of one tile of one column's output.
//
// Where a sum has several chains, their blocks run side by side, each writes to the workspace, and add_*_chains adds them in
// order: at batch 128 the outputs alone would give fc7 only 32 blocks of 128 x 128.  The price is 8 bytes a number and chain.
#include <minialex/gemm_tile.h>
#include <minialex/linear_variants.h>
#include <minialex/ops.h>

namespace minialex {
namespace {

using Tile32x64 = GemmTile<32, 64, 16, 4, 4>;           // 128 threads
static_assert(kLinearChain % 16 == 0 && kChain % 16 == 0, "chains are whole slices");

// The thread's part of a slice of a factor: number (extent e, depth d) lies at from[e * stride + d], or where the neighbours in
// memory lie along the extent, at from[d * stride + e].  Beyond `extents` and beyond `end` are zeros.
template <class Layout, bool ALONG_DEPTH>
MINIALEX_DEVICE void read_slice(const float* from, int64_t stride, int first, int extents, int depth, int end, bool vectors,
                                float4 (&held)[Layout::VECTORS]) {
  MINIALEX_UNROLL
  for (int v = 0; v < Layout::VECTORS; ++v) {
    const int e = first + Layout::extent(v), d = depth + Layout::depth(v);
    held[v] = make_float4(0.f, 0.f, 0.f, 0.f);
    if (ALONG_DEPTH) {
      if (e < extents) held[v] = read4(from + e * stride + d, d, 0, end, vectors);
    } else {
      if (d < end) held[v] = read4(from + d * stride + e, e, 0, extents, vectors);
    }
  }
}

// What the three ops multiply: out[g] (rows x columns) = sum over parts of left (rows x depth) right (depth x columns).
struct Factors {
  const float *left, *right;
  int64_t left_stride, right_stride;
  bool left_vectors, right_vectors;
};

struct FpropTask {                                      // rows are images, columns a column's outputs, the depth its features
  static constexpr bool LEFT_ALONG_DEPTH = true, RIGHT_ALONG_DEPTH = true;
  static constexpr int CHAIN = kLinearChain;
  LinearDims d;
  const float *x, *w, *b;
  MINIALEX_BOTH int rows() const { return d.N; }
  MINIALEX_BOTH int columns() const { return d.Ky(); }
  MINIALEX_BOTH int depth() const { return d.F; }
  MINIALEX_BOTH int outputs() const { return d.Gy; }
  MINIALEX_BOTH int64_t size() const { return d.y_size(); }
  MINIALEX_BOTH int64_t place(int g) const { return int64_t(g) * d.N * d.Ky(); }
  MINIALEX_BOTH int64_t stride() const { return d.Ky(); }
  MINIALEX_BOTH const float* bias(int g) const { return b ? b + int64_t(g) * d.Ky() : nullptr; }
  MINIALEX_BOTH Factors factors(int g, int part) const {
    const int gx = d.groups == 1 ? part : g;
    const bool vectors = d.F % 4 == 0;
    return {x + int64_t(gx) * d.N * d.F, w + int64_t(g) * d.Ky() * d.row() + int64_t(part) * d.F, d.F, d.row(), vectors, vectors};
  }
};

struct DgradTask {                                      // rows are images, columns a column's features, the depth outputs of one column
  static constexpr bool LEFT_ALONG_DEPTH = true, RIGHT_ALONG_DEPTH = false;
  static constexpr int CHAIN = kLinearChain;
  LinearDims d;
  const float *dy, *w;
  MINIALEX_BOTH int rows() const { return d.N; }
  MINIALEX_BOTH int columns() const { return d.F; }
  MINIALEX_BOTH int depth() const { return d.Ky(); }
  MINIALEX_BOTH int outputs() const { return d.Gx; }
  MINIALEX_BOTH int64_t size() const { return d.x_size(); }
  MINIALEX_BOTH int64_t place(int g) const { return int64_t(g) * d.N * d.F; }
  MINIALEX_BOTH int64_t stride() const { return d.F; }
  MINIALEX_BOTH const float* bias(int) const { return nullptr; }
  MINIALEX_BOTH Factors factors(int g, int part) const {
    const int gy = d.groups == 1 ? part : g;
    const int64_t first = d.groups == 1 ? int64_t(g) * d.F : 0;
    return {dy + int64_t(gy) * d.N * d.Ky(), w + int64_t(gy) * d.Ky() * d.row() + first, d.Ky(), d.row(), d.Ky() % 4 == 0, d.F % 4 == 0};
  }
};

struct WgradTask {                                      // rows are a column's outputs, columns one part's features, the depth images
  static constexpr bool LEFT_ALONG_DEPTH = false, RIGHT_ALONG_DEPTH = false;
  static constexpr int CHAIN = kChain;
  LinearDims d;
  const float *x, *dy;
  MINIALEX_BOTH int rows() const { return d.Ky(); }
  MINIALEX_BOTH int columns() const { return d.F; }
  MINIALEX_BOTH int depth() const { return d.N; }
  MINIALEX_BOTH int outputs() const { return d.Gy * d.parts(); }        // g is output column * parts + part
  MINIALEX_BOTH int64_t place(int g) const { return int64_t(g / d.parts()) * d.Ky() * d.row() + int64_t(g % d.parts()) * d.F; }
  MINIALEX_BOTH int64_t stride() const { return d.row(); }
  MINIALEX_BOTH Factors factors(int g) const {
    const int gy = g / d.parts(), gx = d.groups == 1 ? g % d.parts() : gy;
    return {dy + int64_t(gy) * d.N * d.Ky(), x + int64_t(gx) * d.N * d.F, d.Ky(), d.F, d.Ky() % 4 == 0, d.F % 4 == 0};
  }
};

// The block's tile: neighbours in the grid share their columns, which are those of w, so its numbers come from memory once.
template <class Tile> struct Corner {
  int row, column;
  MINIALEX_DEVICE explicit Corner(int rows) {
    const int down = (rows + Tile::M - 1) / Tile::M;
    row = int(blockIdx.x) % down * Tile::M;
    column = int(blockIdx.x) / down * Tile::N;
  }
};

// The two factors of a tile, slice after slice of the terms [depth, end).
template <class Tile, class Task> struct Source {
  static constexpr int THREADS = Tile::THREADS;
  using A = std::conditional_t<Task::LEFT_ALONG_DEPTH, AlongDepth<Tile::M, Tile::K, THREADS>, AlongExtent<Tile::M, Tile::K, THREADS>>;
  using B = std::conditional_t<Task::RIGHT_ALONG_DEPTH, AlongDepth<Tile::N, Tile::K, THREADS>, AlongExtent<Tile::N, Tile::K, THREADS>>;
  const Factors& f;
  const Corner<Tile>& corner;
  int rows, columns, depth, end;
  MINIALEX_DEVICE void next(float4 (&a)[A::VECTORS], float4 (&b)[B::VECTORS]) {
    read_slice<A, Task::LEFT_ALONG_DEPTH>(f.left, f.left_stride, corner.row, rows, depth, end, f.left_vectors, a);
    read_slice<B, Task::RIGHT_ALONG_DEPTH>(f.right, f.right_stride, corner.column, columns, depth, end, f.right_vectors, b);
    depth += Tile::K;
  }
};

// sum = the chain of terms [start, end) of the tile.
template <class Tile, class Task>
MINIALEX_DEVICE void one_chain(typename Tile::Shared& shared, const Task& task, const Factors& f, const Corner<Tile>& corner, int start, int end,
                               float (&sum)[Tile::TM][Tile::TN]) {
  Source<Tile, Task> source{f, corner, task.rows(), task.columns(), start, end};
  clear<Tile>(sum);
  multiply<Tile>(shared, source, (end - start + Tile::K - 1) / Tile::K, sum);
}

// out[row][column] = sum, or out + sum when `add`; then the bias of the column, unless nullptr.
template <class Tile>
MINIALEX_DEVICE void store(typename Tile::Shared& shared, float* out, int64_t stride, int rows, int columns, const float* bias, bool add,
                           const Corner<Tile>& corner, const float (&sum)[Tile::TM][Tile::TN]) {
  const bool vectors = stride % 4 == 0 && columns % 4 == 0;
  hand_over<Tile>(shared, sum, vectors, [&](int i, int j, const float* from) {
    const int row = corner.row + i, column = corner.column + j;
    if (row >= rows || column >= columns) return;
    float* to = out + row * stride + column;
    if (vectors) {
      float4 value = load4(from);
      if (add) value = add4(load4(to), value);
      if (bias) value = add4(value, load4(bias + column));
      store4(to, value);
    } else {
      const float value = add ? __fadd_rn(*to, *from) : *from;
      *to = bias ? __fadd_rn(value, bias[column]) : value;
    }
  });
}

// Blocks that share an SM: 512 threads of 128 registers.  Left to itself, nvcc saves registers for more blocks and spills a few.
template <class Tile> constexpr int kBlocks = 512 / Tile::THREADS;

// blockIdx: x the tile, y the column of the output, z part * chains + chain.  With one chain in all, out is the op's output;
// else the chains lie one after the other.
template <class Tile, class Task>
__global__ void __launch_bounds__(Tile::THREADS, kBlocks<Tile>) linear_chains(Task task, float* __restrict__ out, int chains) {
  MINIALEX_SHARED(typename Tile::Shared, shared, );
  const int g = int(blockIdx.y), part = int(blockIdx.z) / chains, start = int(blockIdx.z) % chains * Task::CHAIN;
  const Corner<Tile> corner(task.rows());
  float sum[Tile::TM][Tile::TN];
  one_chain<Tile>(shared, task, task.factors(g, part), corner, start, min(start + Task::CHAIN, task.depth()), sum);
  store<Tile>(shared, out + int64_t(blockIdx.z) * task.size() + task.place(g), task.stride(), task.rows(), task.columns(),
              gridDim.z == 1 ? task.bias(g) : nullptr, false, corner, sum);
}

// The chain of images from `start` on; `add` to what dw and db hold.
template <class Tile>
__global__ void __launch_bounds__(Tile::THREADS, kBlocks<Tile>)
    linear_wgrad_chain(WgradTask task, float* __restrict__ dw, float* __restrict__ db, int start, bool add) {
  MINIALEX_SHARED(typename Tile::Shared, shared, );
  const int g = int(blockIdx.y);
  const Corner<Tile> corner(task.rows());
  float sum[Tile::TM][Tile::TN];
  one_chain<Tile>(shared, task, task.factors(g), corner, start, min(start + WgradTask::CHAIN, task.depth()), sum);
  store<Tile>(shared, dw + task.place(g), task.stride(), task.rows(), task.columns(), nullptr, add, corner, sum);
  const int k = corner.row + int(threadIdx.x);          // the first tile of an output has its bias
  if (corner.column == 0 && g % task.d.parts() == 0 && int(threadIdx.x) < Tile::M && k < task.rows())
    linear_bias_gradient(task.d, task.dy, db, g / task.d.parts() * task.rows() + k, start, add);
}

template <class Tile, class Task> dim3 grid(const Task& task, int sums) {
  const int64_t tiles = ceil_div(task.rows(), Tile::M) * ceil_div(task.columns(), Tile::N);
  MINIALEX_CHECK(ShapeError, task.outputs() <= 65535 && sums <= 65535, "linear: ", task.d.text(), " needs a grid of ", task.outputs(), " x ", sums,
                 ", but CUDA allows 65,535 each; use variant direct");
  return dim3(narrow(tiles, "the number of blocks"), static_cast<unsigned>(task.outputs()), static_cast<unsigned>(sums));
}

template <class Tile> void fprop(const LinearFprop& c, Stream stream) {
  const FpropTask task{c.dims, c.x, c.w, c.b};
  const int sums = fprop_sums(c.dims);
  MINIALEX_LAUNCH((linear_chains<Tile, FpropTask>), (grid<Tile>(task, sums)), dim3(Tile::THREADS), 0, stream, task,
                  sums > 1 ? static_cast<float*>(c.workspace) : static_cast<float*>(c.y), chains_of(c.dims.F));
  add_fprop_chains(c, stream);
}

template <class Tile> void dgrad(const LinearDgrad& c, Stream stream) {
  const DgradTask task{c.dims, c.dy, c.w};
  const int sums = dgrad_sums(c.dims);
  MINIALEX_LAUNCH((linear_chains<Tile, DgradTask>), (grid<Tile>(task, sums)), dim3(Tile::THREADS), 0, stream, task,
                  sums > 1 ? static_cast<float*>(c.workspace) : static_cast<float*>(c.dx), chains_of(c.dims.Ky()));
  add_dgrad_chains(c, stream);
}

template <class Tile> void wgrad(const LinearWgrad& c, Stream stream) {
  const WgradTask task{c.dims, c.x, c.dy};
  for (int start = 0; start < c.dims.N; start += WgradTask::CHAIN)      // a batch beyond one chain is rare: one launch each
    MINIALEX_LAUNCH(linear_wgrad_chain<Tile>, (grid<Tile>(task, 1)), dim3(Tile::THREADS), 0, stream, task, c.dw, c.db, start,
                    c.accumulate || start > 0);
}

}  // namespace

void linear_fprop_narrow(const LinearFprop& c, Stream stream) { fprop<Tile32x64>(c, stream); }
void linear_fprop_tiled(const LinearFprop& c, Stream stream) { fprop<Tile64x64>(c, stream); }
void linear_fprop_wide(const LinearFprop& c, Stream stream) { fprop<Tile128x128>(c, stream); }
void linear_dgrad_narrow(const LinearDgrad& c, Stream stream) { dgrad<Tile32x64>(c, stream); }
void linear_dgrad_tiled(const LinearDgrad& c, Stream stream) { dgrad<Tile64x64>(c, stream); }
void linear_dgrad_wide(const LinearDgrad& c, Stream stream) { dgrad<Tile128x128>(c, stream); }
void linear_wgrad_tiled(const LinearWgrad& c, Stream stream) { wgrad<Tile64x64>(c, stream); }
void linear_wgrad_wide(const LinearWgrad& c, Stream stream) { wgrad<Tile128x128>(c, stream); }

}  // namespace minialex
