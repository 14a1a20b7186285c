// The float32 product of a block of threads, shared by conv, local and linear: C (M x N) += A (M x depth) B (depth x N).
//
// A block computes a tile of M x N numbers, each thread TM x TN of them in registers.  Slices of K of the depth travel from
// global memory through registers into one of two shared buffers while the other is multiplied: one barrier a slice.
// Each number of C is one chain of fused multiply-adds in ascending order of the depth, whatever the tile: tiles of any two
// shapes give the same bits, and zeros that fill a slice up change none.  So the tile may be chosen for speed alone.
//
//   tile        depth  threads  a thread  shared bytes  reads of shared memory a multiply-add
//   128 x 128   8      256      8 x 8     16,896        1/4 float
//   64 x 64     16     256      4 x 4     17,408        1/2 float
#pragma once
#include "kernel.h"

namespace minialex {

constexpr int kChain = 4096;                           // additions one after another, at most (cuda/README.md)

// The term of every sum of products.  nvcc would contract a * b + c on its own, but it does not promise to.  In the emulator it
// rounds twice: fmaf is a call into the C library there, and the whole emulator would wait for it.
MINIALEX_DEVICE float multiply_add(float a, float b, float c) {
#if defined(MINIALEX_EMULATED)
  return a * b + c;
#else
  return __fmaf_rn(a, b, c);
#endif
}

// As NumPy's maximum(x, 0): a NaN stays a NaN.  The very expression of relu.cu, so fused and unfused agree.
MINIALEX_DEVICE float rectified(float x) { return x > 0.f || x != x ? x : 0.f; }

// The gradient of a ReLU whose output is `gate`, or of dropout behind it, which scaled what it kept: the bits of dropout.cu and relu.cu.
MINIALEX_DEVICE float gated(float gate, float scale, float dy) { return gate > 0.f ? __fmul_rn(dy, scale) : 0.f; }

// A sum of any length that one thread adds up, in chains of at most kChain terms.
struct ChainedSum {
  float total = 0.f, chain = 0.f;
  int terms = 0;
  MINIALEX_DEVICE void add(float a, float b) {
    if (terms == kChain) {
      total = total + chain;
      chain = 0.f;
      terms = 0;
    }
    chain = multiply_add(a, b, chain);
    ++terms;
  }
  MINIALEX_DEVICE float value() const { return total + chain; }
};

template <int M_, int N_, int K_, int TM_, int TN_> struct GemmTile {
  static constexpr int M = M_, N = N_, K = K_, TM = TM_, TN = TN_;
  static constexpr int ACROSS = N / TN, DOWN = M / TM, THREADS = ACROSS * DOWN;      // threads along N and along M
  static constexpr int A_VECTORS = M * K / 4 / THREADS, B_VECTORS = N * K / 4 / THREADS;   // float4s a thread carries of each slice
  static_assert(M * K == 4 * THREADS * A_VECTORS && N * K == 4 * THREADS * B_VECTORS, "each thread carries whole vectors");
  static_assert(TM % 4 == 0 && TN % 4 == 0 && ACROSS % 8 == 0 && DOWN % 4 == 0, "a warp is 4 threads high and 8 wide");

  // 4 floats of padding: transposing stores of a warp meet at most 2 to a bank.
  union Shared {
    struct {
      float a[2][K][M + 4], b[2][K][N + 4];
    } slices;
    float rows[DOWN][N + 4];                           // of the result, on its way out
  };

  // A warp covers 4 x 8 threads, so its reads of both operands hit few different words.
  MINIALEX_DEVICE static int across() { return int(threadIdx.x) / 32 % (ACROSS / 8) * 8 + int(threadIdx.x) % 8; }
  MINIALEX_DEVICE static int down() { return int(threadIdx.x) / 32 / (ACROSS / 8) * 4 + int(threadIdx.x) % 32 / 8; }
  // Row and column within the tile of the thread's number (i, j): runs of four, spread over the tile, for 16-byte reads.
  MINIALEX_DEVICE static int row(int i, int down) { return i / 4 * (M / (TM / 4)) + down * 4 + i % 4; }
  MINIALEX_DEVICE static int column(int j) { return j / 4 * (N / (TN / 4)) + across() * 4 + j % 4; }
};

// How the threads share out a slice of EXTENT (rows of A or columns of B) x DEPTH, by where its 4 neighbours in memory lie.
// A source asks `extent(v)` and `depth(v)` for the place of the thread's vector v; its 4 floats go on along the depth ...
template <int EXTENT, int DEPTH, int THREADS> struct AlongDepth {
  static constexpr int VECTORS = EXTENT * DEPTH / 4 / THREADS, LANES = DEPTH / 4;
  MINIALEX_DEVICE static int extent(int v) { return int(threadIdx.x) / LANES + v * (THREADS / LANES); }
  MINIALEX_DEVICE static int depth(int) { return int(threadIdx.x) % LANES * 4; }
  MINIALEX_DEVICE static void keep(float (&slice)[DEPTH][EXTENT + 4], int v, float4 value) {
    slice[depth(v) + 0][extent(v)] = value.x;
    slice[depth(v) + 1][extent(v)] = value.y;
    slice[depth(v) + 2][extent(v)] = value.z;
    slice[depth(v) + 3][extent(v)] = value.w;
  }
};
// ... or along the extent.
template <int EXTENT, int DEPTH, int THREADS> struct AlongExtent {
  static constexpr int VECTORS = EXTENT * DEPTH / 4 / THREADS, LANES = EXTENT / 4;
  MINIALEX_DEVICE static int extent(int) { return int(threadIdx.x) % LANES * 4; }
  MINIALEX_DEVICE static int depth(int v) { return int(threadIdx.x) / LANES + v * (THREADS / LANES); }
  MINIALEX_DEVICE static void keep(float (&slice)[DEPTH][EXTENT + 4], int v, float4 value) { store4(&slice[depth(v)][extent(v)], value); }
};

// 4 floats at `from`, which are numbers j .. j + 3 of a row; those outside [low, high) count as 0 and are not read.
// `vectors` promises that `from` is 16-byte aligned.
MINIALEX_DEVICE float4 read4(const float* from, int j, int low, int high, bool vectors) {
  if (vectors && j >= low && j + 4 <= high) return load4(from);
  return make_float4(j >= low && j < high ? from[0] : 0.f, j + 1 >= low && j + 1 < high ? from[1] : 0.f,
                     j + 2 >= low && j + 2 < high ? from[2] : 0.f, j + 3 >= low && j + 3 < high ? from[3] : 0.f);
}

template <class Tile, class Source>
MINIALEX_DEVICE void keep(typename Tile::Shared& shared, int buffer, const float4 (&a)[Tile::A_VECTORS],
                          const float4 (&b)[Tile::B_VECTORS]) {
  MINIALEX_UNROLL
  for (int v = 0; v < Tile::A_VECTORS; ++v) Source::A::keep(shared.slices.a[buffer], v, a[v]);
  MINIALEX_UNROLL
  for (int v = 0; v < Tile::B_VECTORS; ++v) Source::B::keep(shared.slices.b[buffer], v, b[v]);
}

// One slice, out of shared memory.
template <class Tile>
MINIALEX_DEVICE void multiply_slice(const float (&a)[Tile::K][Tile::M + 4], const float (&b)[Tile::K][Tile::N + 4],
                                    float (&sum)[Tile::TM][Tile::TN]) {
#pragma unroll(Tile::TM* Tile::TN >= 64 ? 2 : Tile::K)      // more of a large tile at once would hold too many fragments
  for (int k = 0; k < Tile::K; ++k) {
    float left[Tile::TM], right[Tile::TN];
    MINIALEX_UNROLL
    for (int i = 0; i < Tile::TM; i += 4) {
      const float4 four = load4(&a[k][Tile::row(i, Tile::down())]);
      left[i] = four.x, left[i + 1] = four.y, left[i + 2] = four.z, left[i + 3] = four.w;
    }
    MINIALEX_UNROLL
    for (int j = 0; j < Tile::TN; j += 4) {
      const float4 four = load4(&b[k][Tile::column(j)]);
      right[j] = four.x, right[j + 1] = four.y, right[j + 2] = four.z, right[j + 3] = four.w;
    }
    MINIALEX_UNROLL
    for (int i = 0; i < Tile::TM; ++i) {
      MINIALEX_UNROLL
      for (int j = 0; j < Tile::TN; ++j) sum[i][j] = multiply_add(left[i], right[j], sum[i][j]);
    }
  }
}

// sum += the product over the next `slices` slices of `source`, which has two Layouts of the above, A and B, and
// next(float4 (&a)[A::VECTORS], float4 (&b)[B::VECTORS]), which reads the thread's part of the next slice.  Beyond the end of the
// depth both are zeros; rows and columns beyond the end may be anything, as they are not written.
// All threads of the block call it, with the same number of slices.
template <class Tile, class Source>
MINIALEX_DEVICE void multiply(typename Tile::Shared& shared, Source& source, int slices, float (&sum)[Tile::TM][Tile::TN]) {
  float4 a[Tile::A_VECTORS], b[Tile::B_VECTORS];
  source.next(a, b);
  __syncthreads();                                     // slower threads may still read what was here before
  keep<Tile, Source>(shared, 0, a, b);
  __syncthreads();
#pragma unroll 1
  for (int slice = 0;; ++slice) {
    const bool more = slice + 1 < slices;
    if (more) source.next(a, b);                       // in flight during the product
    multiply_slice<Tile>(shared.slices.a[slice & 1], shared.slices.b[slice & 1], sum);
    if (!more) break;
    keep<Tile, Source>(shared, (slice + 1) & 1, a, b);
    __syncthreads();
  }
}

template <class Tile> MINIALEX_DEVICE void clear(float (&sum)[Tile::TM][Tile::TN]) {
  MINIALEX_UNROLL
  for (int i = 0; i < Tile::TM; ++i) {
    MINIALEX_UNROLL
    for (int j = 0; j < Tile::TN; ++j) sum[i][j] = 0.f;
  }
}

// sum = the product over `slices` slices in chains of kChain terms at most, each chain on its own.  The second set of sums takes
// TM x TN more registers: for small tiles.
template <class Tile, class Source>
MINIALEX_DEVICE void multiply_in_chains(typename Tile::Shared& shared, Source& source, int slices, float (&sum)[Tile::TM][Tile::TN]) {
  constexpr int SLICES = kChain / Tile::K;
#pragma unroll 1
  for (int done = 0; done < slices; done += SLICES) {
    float chain[Tile::TM][Tile::TN];
    clear<Tile>(chain);
    multiply<Tile>(shared, source, min(slices - done, SLICES), chain);
    MINIALEX_UNROLL
    for (int i = 0; i < Tile::TM; ++i) {
      MINIALEX_UNROLL
      for (int j = 0; j < Tile::TN; ++j) sum[i][j] = done ? sum[i][j] + chain[i][j] : chain[i][j];
    }
  }
}

// At the end: the sums go through shared memory, so that neighbouring threads write neighbouring numbers and few registers are
// needed.  write(row, column, from) takes 4 numbers (`vectors`) or one, at `from`, to their place, which is in the tile.
template <class Tile, class Write>
MINIALEX_DEVICE void hand_over(typename Tile::Shared& shared, const float (&sum)[Tile::TM][Tile::TN], bool vectors, const Write& write) {
  const int width = vectors ? 4 : 1;
  MINIALEX_UNROLL
  for (int i = 0; i < Tile::TM; ++i) {
    __syncthreads();
    MINIALEX_UNROLL
    for (int j = 0; j < Tile::TN; j += 4)
      store4(&shared.rows[Tile::down()][Tile::column(j)], make_float4(sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]));
    __syncthreads();
#pragma unroll 1
    for (int e = int(threadIdx.x) * width; e < Tile::DOWN * Tile::N; e += Tile::THREADS * width)
      write(Tile::row(i, e / Tile::N), e % Tile::N, &shared.rows[e / Tile::N][e % Tile::N]);
  }
}

MINIALEX_DEVICE float4 gated4(float4 gate, float scale, float4 dy) {
  return make_float4(gated(gate.x, scale, dy.x), gated(gate.y, scale, dy.y), gated(gate.z, scale, dy.z), gated(gate.w, scale, dy.w));
}
MINIALEX_DEVICE float4 add4(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }

using Tile128x128 = GemmTile<128, 128, 8, 8, 8>;
using Tile64x64 = GemmTile<64, 64, 16, 4, 4>;

}  // namespace minialex
