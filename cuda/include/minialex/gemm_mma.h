// The tensor-core product of a block of threads, shared by conv and linear: C (M x N) = A (M x depth) B (depth x N), operands
// rounded to tf32 or bf16, or split into several bf16, on their way to the unit, sums in float32.
//
// A block computes a tile of M x N numbers, each warp WM x WN of them in registers, DEPTH deep in each step.  An operand is any
// type with the members named at `Copier`: it says where its numbers lie, so a convolution needs no copy of its windows.
//
//   tf32   cp.async carries float32 through 3 shared buffers; rounded when a fragment is read
//   bf16   activations are stored so: 8 at once by cp.async, through 3 shared buffers where both operands are.  Weights are float32: to
//          registers while the step before is multiplied, rounded, then to the other of 2 shared buffers
//   bf16x3, bf16x6   as tf32; a fragment is split when it is read (split_bf16.h), and 3 or 6 products of the parts are made
//
// Operands whose numbers lie one after another along the depth (DEPTH_MAJOR) stand in shared memory as [M or N][DEPTH], others
// as [DEPTH][M or N].  The padding makes 8 rows begin in 8 different groups of banks, for ldmatrix and for plain reads alike.
//
// Each number of C is one chain over the depth, upwards, 8 (tf32) or 16 (others) products a link, whatever the tile: tiles of
// both shapes give the same bits, and zeros that fill a step up change none.  So the tile may be chosen for speed alone.
// The unit adds a link to the chain itself, and may cut off what float32 would round.  Of split numbers it makes the link alone,
// smallest terms first, which the warp then adds: a chain of a thousand such cuts would undo the terms below the largest.
#pragma once
#include <cfloat>
#include "dims.h"
#include "gemm_tile.h"
#include "split_bf16.h"
#include "stored.h"

namespace minialex {
namespace mma {

constexpr int DEPTH = 32;                               // of a step
constexpr int64_t LONGEST_SUM = 4096 * 8;               // products of one chain: at most 4,096 links of 8

template <int M_, int N_, int WM_, int WN_, int BLOCKS_> struct Tile {
  static constexpr int M = M_, N = N_, WM = WM_, WN = WN_, BLOCKS = BLOCKS_;        // BLOCKS of them on a multiprocessor
  static constexpr int THREADS = 32 * (M / WM) * (N / WN);
  static constexpr int MI = WM / 16, NI = WN / 8;       // products of a warp in each direction
  static_assert(MI * 16 == WM && NI * 8 == WN && NI % 2 == 0 && M % WM == 0 && N % WN == 0, "a warp takes whole fragments, those of B in pairs");
};
using Large = Tile<128, 128, 64, 32, 1>;
using Small = Tile<64, 64, 32, 32, 3>;

// Division of 0 <= n < 2^31 by a number known beforehand: a multiplication and a shift (Granlund and Montgomery, 1994).
struct Divider {
  uint32_t divisor = 1, factor = 1, shift = 0;
  Divider() = default;
  MINIALEX_BOTH explicit Divider(int by) : divisor(uint32_t(by)) {
    while ((int64_t(1) << shift) < by) ++shift;
    factor = uint32_t((((uint64_t(1) << shift) - divisor) << 32) / divisor + 1);
  }
  MINIALEX_DEVICE int divide(int n) const { return int((__umulhi(factor, uint32_t(n)) + uint32_t(n)) >> shift); }
  MINIALEX_DEVICE int divide(int n, int& rest) const {
    const int quotient = divide(n);
    rest = n - quotient * int(divisor);
    return quotient;
  }
};

// ---- the precisions: how a number lies in shared memory, and how a warp takes fragments out of it
// A fragment of a tile with rows [M or N][DEPTH] is 16 bytes of 8 rows in all precisions, which is what ldmatrix reads: the first
// and second half of A's 16 rows, then both again 16 bytes on; for B two fragments, each as its two halves of the depth.
template <class Row> MINIALEX_DEVICE void depth_major_a(uint32_t (&a)[4], const Row* tile, int m, int k, int lane) {
  constexpr int HALF = 16 / sizeof(tile[0][0]);
  ldmatrix_x4(a, &tile[m + lane % 16][k + lane / 16 * HALF]);
}
template <class Row> MINIALEX_DEVICE void depth_major_b(uint32_t (&b)[4], const Row* tile, int n, int k, int lane) {
  constexpr int HALF = 16 / sizeof(tile[0][0]);
  ldmatrix_x4(b, &tile[n + lane % 8 + lane / 16 * 8][k + lane / 8 % 2 * HALF]);
}

// float32 in shared memory, 8 deep: the layout of a tf32 fragment, not yet rounded.
struct Float32 {
  using Number = float;                                 // in shared memory
  using Activation = float;                             // in global memory
  static constexpr int DEPTH_PADDING = 4, OTHER_PADDING = 8;

  template <bool DEPTH_MAJOR, class Row> MINIALEX_DEVICE static void numbers_a(uint32_t (&a)[4], const Row* tile, int m, int k, int lane) {
    if constexpr (DEPTH_MAJOR) {
      depth_major_a(a, tile, m, k, lane);
    } else {
      MINIALEX_UNROLL for (int r = 0; r < 4; ++r) a[r] = __float_as_uint(tile[k + lane % 4 + r / 2 * 4][m + lane / 4 + r % 2 * 8]);
    }
  }
  template <bool DEPTH_MAJOR, class Row> MINIALEX_DEVICE static void numbers_b(uint32_t (&b)[4], const Row* tile, int n, int k, int lane) {
    if constexpr (DEPTH_MAJOR) {
      depth_major_b(b, tile, n, k, lane);
    } else {
      MINIALEX_UNROLL for (int r = 0; r < 4; ++r) b[r] = __float_as_uint(tile[k + lane % 4 + r % 2 * 4][n + lane / 4 + r / 2 * 8]);
    }
  }
};

struct TF32 : Float32 {
  static constexpr int STEP = 8, PARTS = 1;

  template <bool DEPTH_MAJOR, class Row> MINIALEX_DEVICE static void fragment_a(uint32_t (&a)[4], const Row* tile, int m, int k, int lane) {
    numbers_a<DEPTH_MAJOR>(a, tile, m, k, lane);
    MINIALEX_UNROLL for (int r = 0; r < 4; ++r) a[r] = to_tf32(__uint_as_float(a[r]));
  }
  template <bool DEPTH_MAJOR, class Row> MINIALEX_DEVICE static void fragments_b(uint32_t (&b)[4], const Row* tile, int n, int k, int lane) {
    numbers_b<DEPTH_MAJOR>(b, tile, n, k, lane);
    MINIALEX_UNROLL for (int r = 0; r < 4; ++r) b[r] = to_tf32(__uint_as_float(b[r]));
  }
  MINIALEX_DEVICE static void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma_m16n8k8_tf32(d, a, b); }
};

struct BF16 {
  using Number = bf16;
  using Activation = bf16;
  static constexpr int STEP = 16, PARTS = 1, DEPTH_PADDING = 8, OTHER_PADDING = 8;

  // Rows of [DEPTH][M or N] are transposed by ldmatrix, which then yields pairs along the depth.
  template <bool DEPTH_MAJOR, class Row> MINIALEX_DEVICE static void fragment_a(uint32_t (&a)[4], const Row* tile, int m, int k, int lane) {
    if constexpr (DEPTH_MAJOR) depth_major_a(a, tile, m, k, lane);
    else ldmatrix_x4_trans(a, &tile[k + lane % 8 + lane / 16 * 8][m + lane / 8 % 2 * 8]);
  }
  template <bool DEPTH_MAJOR, class Row> MINIALEX_DEVICE static void fragments_b(uint32_t (&b)[4], const Row* tile, int n, int k, int lane) {
    if constexpr (DEPTH_MAJOR) depth_major_b(b, tile, n, k, lane);
    else ldmatrix_x4_trans(b, &tile[k + lane % 16][n + lane / 16 * 8]);
  }
  MINIALEX_DEVICE static void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma_m16n8k16_bf16(d, a, b); }
};

// Two fragments of float32, 16 deep, become PARTS fragments of bf16.  Number t of four and number t + 4 meet in a register, where
// the unit expects neighbours of the depth: A and B are permuted alike, so the sum has the same products.
template <int PARTS_> struct Split : Float32 {
  static constexpr int STEP = 16, PARTS = PARTS_;

  template <bool DEPTH_MAJOR, class Row>
  MINIALEX_DEVICE static void fragment_a(uint32_t (&a)[PARTS][4], const Row* tile, int m, int k, int lane) {
    MINIALEX_UNROLL for (int half = 0; half < 2; ++half) {
      uint32_t four[4], pairs[PARTS];
      numbers_a<DEPTH_MAJOR>(four, tile, m, k + half * 8, lane);
      MINIALEX_UNROLL for (int row = 0; row < 2; ++row) {
        split_bf16(pairs, __uint_as_float(four[row]), __uint_as_float(four[row + 2]));
        MINIALEX_UNROLL for (int p = 0; p < PARTS; ++p) a[p][half * 2 + row] = pairs[p];
      }
    }
  }
  template <bool DEPTH_MAJOR, class Row>
  MINIALEX_DEVICE static void fragments_b(uint32_t (*b)[PARTS][2], const Row* tile, int n, int k, int lane) {
    MINIALEX_UNROLL for (int half = 0; half < 2; ++half) {
      uint32_t four[4], pairs[PARTS];
      numbers_b<DEPTH_MAJOR>(four, tile, n, k + half * 8, lane);
      MINIALEX_UNROLL for (int which = 0; which < 2; ++which) {
        split_bf16(pairs, __uint_as_float(four[2 * which]), __uint_as_float(four[2 * which + 1]));
        MINIALEX_UNROLL for (int p = 0; p < PARTS; ++p) b[which][p][half] = pairs[p];
      }
    }
  }
};
struct BF16X3 : Split<2> {};
struct BF16X6 : Split<3> {};

// ---- from global to shared memory
// An operand of EXTENT rows (of A) or columns (of B), as
//   using Number                 float, or bf16
//   static constexpr bool DEPTH_MAJOR; static constexpr int VECTOR;    numbers side by side in memory that are copied at once: 16 bytes, or 1
//   Place place(int i)           where row or column i begins, or that there is none
//   Tap tap(int k)               what to add for the k-th number of the depth, or that there is none
//   const Number* at(Place, Tap, bool& valid)     a legal address in any case
// with two of them decoded once (the places of a tile, kept in shared memory) or once a step (the tap of a thread).
template <class Number> constexpr int whole_vector = 16 / sizeof(Number);
// Whether cp.async carries an operand: the numbers are those of shared memory already, and at least 4 bytes lie side by side.
template <class Precision, class Operand, class From = typename Operand::Number>
constexpr bool is_async = sizeof(From) == sizeof(typename Precision::Number) && Operand::VECTOR * sizeof(From) >= 4;

template <class Precision, class Operand, int EXTENT, int THREADS, int STAGES> struct Copier {
  using Number = typename Precision::Number;
  using Global = typename Operand::Number;
  static constexpr bool ASYNC = is_async<Precision, Operand>;
  static constexpr bool DEPTH_MAJOR = Operand::DEPTH_MAJOR;
  static constexpr int VECTOR = Operand::VECTOR;
  static constexpr int ROWS = DEPTH_MAJOR ? EXTENT : DEPTH, COLUMNS = DEPTH_MAJOR ? DEPTH : EXTENT;
  static constexpr int PADDING = DEPTH_MAJOR ? Precision::DEPTH_PADDING : Precision::OTHER_PADDING;
  static constexpr int ACROSS = COLUMNS / VECTOR, DOWN = THREADS / ACROSS, COUNT = ROWS / DOWN;      // vectors: in a row, rows at once, a thread's
  static_assert(DOWN * ACROSS == THREADS && COUNT * DOWN == ROWS, "all threads carry equally much");

  using Row = Number[COLUMNS + PADDING];
  struct Shared {
    alignas(16) Row stage[STAGES][ROWS];                // as ldmatrix and cp.async need it
    typename Operand::Place places[DEPTH_MAJOR ? EXTENT : 1];
  };

  const Operand& operand;
  Shared& shared;
  int row, column;                                      // of the thread's first vector
  typename Operand::Place place;                        // of its column, where not DEPTH_MAJOR
  float carried[ASYNC ? 1 : COUNT][VECTOR];

  MINIALEX_DEVICE Copier(const Operand& operand, Shared& shared, int first)
      : operand(operand), shared(shared), row(int(threadIdx.x) / ACROSS), column(int(threadIdx.x) % ACROSS * VECTOR), place() {
    if constexpr (DEPTH_MAJOR)
      for (int i = threadIdx.x; i < EXTENT; i += THREADS) shared.places[i] = operand.place(first + i);
    else
      place = operand.place(first + column);
  }

  template <class Use> MINIALEX_DEVICE void each(int k, Use use) {
    typename Operand::Tap tap{};
    if constexpr (DEPTH_MAJOR) tap = operand.tap(k + column);
    MINIALEX_UNROLL for (int i = 0; i < COUNT; ++i) {
      bool valid;
      const Global* from = DEPTH_MAJOR ? operand.at(shared.places[row + i * DOWN], tap, valid) : operand.at(place, operand.tap(k + row + i * DOWN), valid);
      use(i, from, valid);
    }
  }

  MINIALEX_DEVICE void start(int stage, int k) {        // ASYNC: the copies of a step are on their way
    each(k, [&](int i, const Global* from, bool valid) {
      if constexpr (VECTOR * sizeof(Global) == 16) cp_async_16(&shared.stage[stage][row + i * DOWN][column], from, valid);
      else cp_async_4(&shared.stage[stage][row + i * DOWN][column], from, valid);
    });
  }

  MINIALEX_DEVICE void fetch(int k) {                   // else: into registers,
    each(k, [&](int i, const Global* from, bool valid) {
      if constexpr (VECTOR == 4) {
        const float4 four = valid ? load4(from) : make_float4(0.f, 0.f, 0.f, 0.f);
        carried[i][0] = four.x, carried[i][1] = four.y, carried[i][2] = four.z, carried[i][3] = four.w;
      } else {
        carried[i][0] = valid ? widened(*from) : 0.f;
      }
    });
  }
  MINIALEX_DEVICE void store(int stage) {               // and rounded into shared memory
    MINIALEX_UNROLL for (int i = 0; i < COUNT; ++i) {
      Number* to = &shared.stage[stage][row + i * DOWN][column];
      if constexpr (VECTOR == 4) store4(to, make_float4(carried[i][0], carried[i][1], carried[i][2], carried[i][3]));
      else store1(to, carried[i][0]);
    }
  }

  // Of both kinds what may go on while another step is multiplied, and what may not.
  MINIALEX_DEVICE void begin(int stage, int k) {
    if constexpr (ASYNC) start(stage, k);
    else fetch(k);
  }
  MINIALEX_DEVICE void end(int stage) { if constexpr (!ASYNC) store(stage); }

  // use(i, v, number) for all that the thread has carried of a step, unrounded: number v of its vector in row `row + i * DOWN`.
  template <class Use> MINIALEX_DEVICE void each_number(int stage, Use use) const {
    MINIALEX_UNROLL for (int i = 0; i < COUNT; ++i)
      MINIALEX_UNROLL for (int v = 0; v < VECTOR; ++v) {
        if constexpr (ASYNC) use(i, v, widened(shared.stage[stage][row + i * DOWN][column + v]));
        else use(i, v, carried[i][v]);
      }
  }
};

// ---- the product
template <class Precision, class T, class A, class B> struct Product {
  static constexpr bool BOTH_ASYNC = is_async<Precision, A> && is_async<Precision, B>;
  static constexpr bool ONE_ASYNC = is_async<Precision, A> != is_async<Precision, B>;
  static constexpr int STAGES = BOTH_ASYNC ? 3 : 2;
  using CopyA = Copier<Precision, A, T::M, T::THREADS, STAGES>;
  using CopyB = Copier<Precision, B, T::N, T::THREADS, STAGES>;
  struct Shared {
    typename CopyA::Shared a;
    typename CopyB::Shared b;
  };

  float sum[T::MI][T::NI][4];
  Shared& shared;
  const int lane = int(threadIdx.x) % 32, warp_m = int(threadIdx.x) / 32 % (T::M / T::WM) * T::WM, warp_n = int(threadIdx.x) / 32 / (T::M / T::WM) * T::WN;

  MINIALEX_DEVICE explicit Product(Shared& shared) : shared(shared) {}

  MINIALEX_DEVICE void multiply(int stage) {
    if constexpr (Precision::PARTS > 1) multiply_parts(stage);
    else multiply_rounded(stage);
  }

  MINIALEX_DEVICE void multiply_rounded(int stage) {
    MINIALEX_UNROLL for (int k = 0; k < DEPTH; k += Precision::STEP) {
      uint32_t a[T::MI][4], b[T::NI][2];
      MINIALEX_UNROLL for (int i = 0; i < T::MI; ++i)
        Precision::template fragment_a<A::DEPTH_MAJOR>(a[i], shared.a.stage[stage], warp_m + i * 16, k, lane);
      MINIALEX_UNROLL for (int j = 0; j < T::NI; j += 2) {
        uint32_t two[4];
        Precision::template fragments_b<B::DEPTH_MAJOR>(two, shared.b.stage[stage], warp_n + j * 8, k, lane);
        b[j][0] = two[0], b[j][1] = two[1], b[j + 1][0] = two[2], b[j + 1][1] = two[3];
      }
      MINIALEX_UNROLL for (int i = 0; i < T::MI; ++i)
        MINIALEX_UNROLL for (int j = 0; j < T::NI; ++j) Precision::multiply(sum[i][j], a[i], b[j]);
    }
  }

  // Products of parts whose places in their numbers add up to the same are of one size: a[2] b[0], a[1] b[1] and a[0] b[2], and so on.
  MINIALEX_DEVICE void multiply_parts(int stage) {
    constexpr int PARTS = Precision::PARTS;
#pragma unroll 1                                      // two at once would spill
    for (int k = 0; k < DEPTH; k += Precision::STEP) {
      uint32_t b[T::NI][PARTS][2];
      MINIALEX_UNROLL for (int j = 0; j < T::NI; j += 2)
        Precision::template fragments_b<B::DEPTH_MAJOR>(&b[j], shared.b.stage[stage], warp_n + j * 8, k, lane);
      MINIALEX_UNROLL for (int i = 0; i < T::MI; ++i) {
        uint32_t a[PARTS][4];
        float link[T::NI][4] = {};
        Precision::template fragment_a<A::DEPTH_MAJOR>(a, shared.a.stage[stage], warp_m + i * 16, k, lane);
        MINIALEX_UNROLL for (int size = PARTS - 1; size >= 0; --size)
          MINIALEX_UNROLL for (int part = size; part >= 0; --part)
            MINIALEX_UNROLL for (int j = 0; j < T::NI; ++j) mma_m16n8k16_bf16(link[j], a[part], b[j][size - part]);
        MINIALEX_UNROLL for (int j = 0; j < T::NI; ++j)
          MINIALEX_UNROLL for (int e = 0; e < 4; ++e) sum[i][j][e] = sum[i][j][e] + link[j][e];
      }
    }
  }

  // Where m and n of a sum lie in the warp's tile; e counts a thread's sums.
  MINIALEX_DEVICE int row_of(int e) const { return warp_m + e / (T::NI * 4) * 16 + e / 2 % 2 * 8 + lane / 4; }
  MINIALEX_DEVICE int column_of(int e) const { return warp_n + e / 4 % T::NI * 8 + lane % 4 * 2 + e % 2; }

  // An infinity has no parts, and those of large numbers may overflow with either sign: sums that are not finite are made again from the
  // numbers themselves, so that infinities and NaNs are where the direct row has them.  A thread for each, slowly, and only then.
  MINIALEX_DEVICE void repair(const A& a, const B& b, int m, int n, int begin, int end) {
    uint64_t lost = 0;
    MINIALEX_UNROLL for (int e = 0; e < T::MI * T::NI * 4; ++e)
      if (!(fabsf(sum[e / (T::NI * 4)][e / 4 % T::NI][e % 4]) <= FLT_MAX)) lost |= uint64_t(1) << e;
#pragma unroll 1
    for (int at = 0; lost; ++at, lost >>= 1) {
      if (!(lost & 1)) continue;
      const auto row = a.place(m + row_of(at));
      const auto column = b.place(n + column_of(at));
      float chain = 0.f;
#pragma unroll 1
      for (int k = begin; k < end; ++k) {
        bool in_a, in_b;
        const float* left = a.at(row, a.tap(k), in_a);
        const float* right = b.at(column, b.tap(k), in_b);
        if (in_a && in_b) chain = multiply_add(*left, *right, chain);
      }
      MINIALEX_UNROLL for (int e = 0; e < T::MI * T::NI * 4; ++e)
        if (e == at) sum[e / (T::NI * 4)][e / 4 % T::NI][e % 4] = chain;
    }
  }

  // sum = A B over the depth from `begin` to `end`, for the tile whose first row and column are m and n.
  // watch(copier, stage) sees each step of A when its numbers are there.
  struct Nobody { MINIALEX_DEVICE void operator()(const CopyA&, int) const {} };
  template <class Watch = Nobody> MINIALEX_DEVICE void run(const A& a, const B& b, int m, int n, int begin, int end, Watch watch = {}) {
    MINIALEX_UNROLL for (int i = 0; i < T::MI; ++i)
      MINIALEX_UNROLL for (int j = 0; j < T::NI; ++j)
        MINIALEX_UNROLL for (int e = 0; e < 4; ++e) sum[i][j][e] = 0.f;
    CopyA copy_a(a, shared.a, m);
    CopyB copy_b(b, shared.b, n);
    __syncthreads();                                    // the places are written, and nobody multiplies the last step of a run before
    const int steps = (end - begin + DEPTH - 1) / DEPTH;
    if constexpr (BOTH_ASYNC) {
      constexpr int AHEAD = STAGES - 1;
#pragma unroll 1                                      // side by side they would cost the products 10 registers
      for (int s = 0; s < AHEAD; ++s) {
        if (s < steps) copy_a.start(s, begin + s * DEPTH), copy_b.start(s, begin + s * DEPTH);
        cp_async_commit();                              // groups are counted, so an empty one stands for a step that is not there
      }
      for (int s = 0; s < steps; ++s) {
        cp_async_wait<AHEAD - 1>();
        __syncthreads();                                // everybody's copies of step s have landed, and step s - 1 has been multiplied
        const int next = s + AHEAD;
        if (next < steps) copy_a.start(next % STAGES, begin + next * DEPTH), copy_b.start(next % STAGES, begin + next * DEPTH);
        cp_async_commit();
        watch(copy_a, s % STAGES);
        multiply(s % STAGES);
      }
      cp_async_wait<0>();
    } else {
      const auto landed = [&](int s) {                  // the thread's part of step s is there
        const int stage = s % 2;
        if constexpr (!CopyA::ASYNC) watch(copy_a, stage);
        copy_a.end(stage), copy_b.end(stage);
        if constexpr (ONE_ASYNC) cp_async_wait<0>();
        if constexpr (CopyA::ASYNC) watch(copy_a, stage);
      };
      const auto coming = [&](int s) {
        copy_a.begin(s % 2, begin + s * DEPTH), copy_b.begin(s % 2, begin + s * DEPTH);
        if constexpr (ONE_ASYNC) cp_async_commit();
      };
      coming(0);
      landed(0);
      __syncthreads();
      for (int s = 0; s < steps; ++s) {
        const bool more = s + 1 < steps;
        if (more) coming(s + 1);
        multiply(s % 2);
        if (more) landed(s + 1);
        __syncthreads();
      }
    }
    if constexpr (Precision::PARTS > 1) repair(a, b, m, n, begin, end);
  }

  // out(m, n, C[m][n], C[m][n + 1]) for every pair of the tile, which may lie partly or wholly outside C.
  template <class Out> MINIALEX_DEVICE void each(int m, int n, Out out) const {
    MINIALEX_UNROLL for (int i = 0; i < T::MI; ++i)
      MINIALEX_UNROLL for (int j = 0; j < T::NI; ++j)
        MINIALEX_UNROLL for (int half = 0; half < 2; ++half)
          out(m + warp_m + i * 16 + half * 8 + lane / 4, n + warp_n + j * 8 + lane % 4 * 2, sum[i][j][2 * half], sum[i][j][2 * half + 1]);
  }
};

}  // namespace mma
}  // namespace minialex
