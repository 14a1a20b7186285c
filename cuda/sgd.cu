// The update of the paper's section 5, on one flat arena:  v = momentum v - decay rate w - rate dw;  w = w + v.
//
//   vector   runs of 1,024 numbers to a block, 4 floats a thread: 20 bytes moved a number; memory-bound
//   direct   runs of 256, 1 float a thread
//
// One launch for up to 64 segments, which travel in the kernel's parameters; more take further launches.  A block works in one
// segment alone.  Runs begin at multiples of their length, so every whole vector is aligned; where a run crosses the border of
// its segment, its threads take their numbers one by one.  Both kernels do the same arithmetic: any cut gives the same bits.
// Rates are arguments, or stand in device memory, so that a graph of the launch may be replayed at others.
#include <minialex/kernel.h>
#include <minialex/ops.h>

namespace minialex {
namespace {

constexpr int THREADS = 256;
constexpr int SEGMENTS = 64;                            // of 32 bytes: half of the 4 KiB that a kernel's parameters may take

// Numbers [start, stop), in runs of which the first has the number `first` in the grid and `run` in the arena.
struct Piece {
  int64_t start, stop;
  int first;
  float rate, shrink;                                   // shrink = decay * rate
  int row;                                              // which segment it is
};
struct Pieces {
  Piece piece[SEGMENTS];
  int count;
};

// The very order of the reference, each operation rounded: contracted sums would differ with the compiler.
MINIALEX_DEVICE float velocity(float w, float v, float dw, float momentum, float rate, float shrink) {
  return __fsub_rn(__fsub_rn(__fmul_rn(momentum, v), __fmul_rn(shrink, w)), __fmul_rn(rate, dw));
}

// w, v and dw are separate.  PER: numbers a thread.
template <int PER>
__global__ void __launch_bounds__(THREADS) sgd_update_kernel(const Pieces pieces, float* __restrict__ w, float* __restrict__ v,
                                                             const float* __restrict__ dw, float momentum,
                                                             const float* __restrict__ rates) {
  int s = 0;
  while (s + 1 < pieces.count && int(blockIdx.x) >= pieces.piece[s + 1].first) ++s;
  const Piece& piece = pieces.piece[s];
  const float rate = rates ? rates[2 * piece.row] : piece.rate, shrink = rates ? rates[2 * piece.row + 1] : piece.shrink;
  const int64_t run = piece.start / (THREADS * PER) + (int(blockIdx.x) - piece.first);
  const int64_t i = (run * THREADS + threadIdx.x) * PER;
  if (PER == 4 && i >= piece.start && i + 4 <= piece.stop) {
    float4 weight = load4(w + i);
    const float4 old = load4(v + i), slope = load4(dw + i);
    const float4 fresh = make_float4(velocity(weight.x, old.x, slope.x, momentum, rate, shrink),
                                     velocity(weight.y, old.y, slope.y, momentum, rate, shrink),
                                     velocity(weight.z, old.z, slope.z, momentum, rate, shrink),
                                     velocity(weight.w, old.w, slope.w, momentum, rate, shrink));
    store4(v + i, fresh);
    store4(w + i, make_float4(__fadd_rn(weight.x, fresh.x), __fadd_rn(weight.y, fresh.y), __fadd_rn(weight.z, fresh.z),
                              __fadd_rn(weight.w, fresh.w)));
  } else {
    for (int64_t j = i; j < i + PER; ++j) {
      if (j < piece.start || j >= piece.stop) continue;
      const float fresh = velocity(w[j], v[j], dw[j], momentum, rate, shrink);
      v[j] = fresh;
      w[j] = __fadd_rn(w[j], fresh);
    }
  }
}

template <int PER> void launch(const SGDUpdate& c, Stream stream) {
  constexpr int64_t RUN = THREADS * PER;
  for (int done = 0; done < c.dims.segments; done += SEGMENTS) {
    Pieces pieces{};
    int64_t blocks = 0;
    for (int s = done; s < c.dims.segments && s < done + SEGMENTS; ++s) {
      const Segment& segment = c.segments[s];
      if (segment.stop <= segment.start) continue;
      const float rate = c.rates ? 0.f : float(segment.rate), shrink = c.rates ? 0.f : float(segment.decay * segment.rate);
      pieces.piece[pieces.count++] = {segment.start, segment.stop, narrow(blocks, "the number of blocks"), rate, shrink, s};
      blocks += ceil_div(segment.stop, RUN) - segment.start / RUN;
    }
    if (blocks > 0)
      MINIALEX_LAUNCH(sgd_update_kernel<PER>, dim3(narrow(blocks, "the number of blocks")), dim3(THREADS), 0, stream, pieces, c.w, c.v, c.dw,
                      c.momentum, c.rates);
  }
}

}  // namespace

const Op<SGDUpdate>& sgd_update() {
  static const Op<SGDUpdate> op{"sgd_update",
                                {{"vector", "float32", nullptr, nullptr, nullptr, launch<4>},
                                 {"direct", "float32", nullptr, nullptr, nullptr, launch<1>}}};
  return op;
}

}  // namespace minialex
