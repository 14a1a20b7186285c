// Local response normalisation across channels (paper, section 3.3).  Window sums are added afresh for each channel; the scale is computed
// again in the backward pass, not saved.
//
//   vector   4 channels a thread, windows of 5 (the paper's) and 9 (the CIFAR-10 networks'); x is read once from memory, the neighbours of
//            a thread's channels come from the first-level cache, those of the backward sum from shared memory
//   direct   1 element a thread, any shape
#include <minialex/kernel.h>
#include <minialex/norm.h>
#include <minialex/ops.h>

namespace minialex {
namespace {

constexpr int THREADS = 256;

template <bool PAPER>
__global__ void __launch_bounds__(THREADS)
    lrn_fprop_direct(InArray x, OutArray y, NormDims d, NormConstants n) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= d.size()) return;
  const int c = int(i % d.C);
  y[i] = channel_norm<PAPER>(x + (i - c), c, d.C, d.n / 2, n);
}

template <bool PAPER>
__global__ void __launch_bounds__(THREADS)
    lrn_bprop_direct(InArray x, InArray dy, OutArray dx, NormDims d, NormConstants n) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= d.size()) return;
  const int here = int(i % d.C), radius = d.n / 2;
  const InArray pixel = x + (i - here);
  float through = 0, power_here = 0;
  for (int c = max(here - radius, 0); c <= min(here + radius, d.C - 1); ++c) {        // the windows that hold this channel
    const float scale = channel_scale(pixel, c, d.C, radius, n), power = norm_power<PAPER>(scale, n);
    through = __fadd_rn(through, norm_through(pixel[c], dy[i - here + c], scale, power));
    if (c == here) power_here = power;
  }
  dx[i] = norm_gradient(pixel[here], dy[i], power_here, through, n);
}

// A block has as many whole pixels as its threads can hold, 4 channels each.
struct Place {
  int quads, row, c;
  int64_t pixel;
  bool active;
  MINIALEX_DEVICE explicit Place(const NormDims& d) : quads(d.C / 4), row(int(threadIdx.x) / quads) {
    c = (int(threadIdx.x) - row * quads) * 4;
    const int rows = THREADS / quads;
    pixel = int64_t(blockIdx.x) * rows + row;
    active = row < rows && pixel < int64_t(d.images) * d.H * d.W;
  }
};

template <int RADIUS, bool PAPER>
__global__ void __launch_bounds__(THREADS)
    lrn_fprop_vector(InArray x, OutArray y, NormDims d, NormConstants n) {
  const Place at(d);
  if (at.active) store_quad(y + at.pixel * d.C + at.c, NormQuad<RADIUS, PAPER>(x + at.pixel * d.C, at.c, d.C, n).y());
}

template <int RADIUS, bool PAPER>
__global__ void __launch_bounds__(THREADS)
    lrn_bprop_vector(InArray x, InArray dy, OutArray dx, NormDims d, NormConstants n) {
  MINIALEX_SHARED(float, throughs, [THREADS * 4]);
  const Place at(d);
  const int64_t pixel = at.active ? at.pixel * d.C : 0;  // threads without a pixel work on the first, for nothing
  const Quad gradient = load_quad(dy + pixel + at.c);
  const NormQuad<RADIUS, PAPER> norm(x + pixel, at.c, d.C, n);
  store_quad(throughs + threadIdx.x * 4, norm.through(gradient));
  __syncthreads();
  if (at.active) store_quad(dx + pixel + at.c, norm.dx(gradient, throughs + at.row * d.C, at.c, d.C, n));
}

const char* refuses_vector(const NormDims& d) {
  if (d.C % 4) return "the channels are no multiple of 4";
  if (d.C > THREADS * 4) return "a pixel has more channels than a block's threads hold";
  return d.n == 5 || d.n == 9 ? nullptr : "the window is neither 5 nor 9";
}

bool paper(float beta) { return beta == 0.75f; }

dim3 blocks_direct(const NormDims& d) { return dim3(narrow(ceil_div(d.size(), THREADS), "the number of blocks")); }
dim3 blocks_vector(const NormDims& d) {
  return dim3(narrow(ceil_div(int64_t(d.images) * d.H * d.W, THREADS / (d.C / 4)), "the number of blocks"));
}

void launch_fprop_direct(const NormFprop& c, Stream stream) {
  MINIALEX_LAUNCH((paper(c.beta) ? lrn_fprop_direct<true> : lrn_fprop_direct<false>), blocks_direct(c.dims), dim3(THREADS), 0, stream,
                  c.x, c.y, c.dims, NormConstants(c));
}
void launch_bprop_direct(const NormBprop& c, Stream stream) {
  MINIALEX_LAUNCH((paper(c.beta) ? lrn_bprop_direct<true> : lrn_bprop_direct<false>), blocks_direct(c.dims), dim3(THREADS), 0, stream,
                  c.x, c.dy, c.dx, c.dims, NormConstants(c));
}

template <int RADIUS> void fprop_vector(const NormFprop& c, Stream stream) {
  MINIALEX_LAUNCH((paper(c.beta) ? lrn_fprop_vector<RADIUS, true> : lrn_fprop_vector<RADIUS, false>), blocks_vector(c.dims),
                  dim3(THREADS), 0, stream, c.x, c.y, c.dims, NormConstants(c));
}
template <int RADIUS> void bprop_vector(const NormBprop& c, Stream stream) {
  MINIALEX_LAUNCH((paper(c.beta) ? lrn_bprop_vector<RADIUS, true> : lrn_bprop_vector<RADIUS, false>), blocks_vector(c.dims),
                  dim3(THREADS), 0, stream, c.x, c.dy, c.dx, c.dims, NormConstants(c));
}
void launch_fprop_vector(const NormFprop& c, Stream stream) { c.dims.n == 5 ? fprop_vector<2>(c, stream) : fprop_vector<4>(c, stream); }
void launch_bprop_vector(const NormBprop& c, Stream stream) { c.dims.n == 5 ? bprop_vector<2>(c, stream) : bprop_vector<4>(c, stream); }

}  // namespace

const Op<NormFprop>& lrn_fprop() {
  static const Op<NormFprop> op{"lrn_fprop",
                                {{"vector", "float32", refuses_vector, nullptr, nullptr, launch_fprop_vector},
                                 {"direct", "float32", nullptr, nullptr, nullptr, launch_fprop_direct}}};
  return op;
}

const Op<NormBprop>& lrn_bprop() {
  static const Op<NormBprop> op{"lrn_bprop",
                                {{"vector", "float32", refuses_vector, nullptr, nullptr, launch_bprop_vector},
                                 {"direct", "float32", nullptr, nullptr, nullptr, launch_bprop_direct}}};
  return op;
}

}  // namespace minialex
