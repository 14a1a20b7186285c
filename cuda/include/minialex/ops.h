// Every op of the kernels: what a call carries, and the table of its variants, in the order of minialex/backends/signatures.py.
// Pointers are device memory, contiguous, 16-byte aligned and separate unless a comment says otherwise.  Activations and their gradients
// are InArray and OutArray: float32 or bfloat16, all of a call alike unless a comment says otherwise; whatever else is a number is float32.
#pragma once
#include "bf16.h"
#include "dims.h"
#include "variants.h"

namespace minialex {

// What decides dropout's mask, besides the place of an element.  columns is 0 where nothing is dropped.
struct DropoutMask {
  uint64_t threshold;                                  // a value is kept when its Philox word is below: keep * 2^32
  float scale;
  uint64_t seed;
  uint32_t step, layer, first;
  int column, columns;                                 // the array's first column, of how many in the whole network
  const int32_t* dial;                                 // nullptr, or device memory: the step stands here instead
};

// ---- layers with weights.  `b` may be nullptr (no bias); wgrad adds to dw and db when `accumulate`.  dgrad's `gate`, nullptr or of dx's
// shape, is the output of a ReLU below: dx * scale where it is above 0, else 0.
struct ConvFprop {
  using Dims = ConvDims;
  ConvDims dims;
  InArray x;
  const float *w, *b;
  OutArray y;                                          // float32 where x is, else either
  bool relu;                                           // y = max(y, 0) on the way out,
  DropoutMask dropout;                                 // and what dropout makes of that: of linear layers alone
  void* workspace;
};
struct ConvDgrad {
  using Dims = ConvDims;
  ConvDims dims;
  InArray dy;
  const float* w;
  OutArray dx;                                         // float32 where dy is, else either
  InArray gate;                                        // as dx
  float scale;
  void* workspace;
};
struct ConvWgrad {
  using Dims = ConvDims;
  ConvDims dims;
  InArray x, dy;
  float *dw, *db;
  bool accumulate;
  void* workspace;
};
const Op<ConvFprop>& conv_fprop();                     // also conv_relu_fprop
const Op<ConvDgrad>& conv_dgrad();
const Op<ConvWgrad>& conv_wgrad();

// Locally connected: w (P, Q, K, R, S, Cg), b (P, Q, K).  The same calls under names of their own.
struct LocalFprop : ConvFprop {};
struct LocalDgrad : ConvDgrad {};
struct LocalWgrad : ConvWgrad {};
const Op<LocalFprop>& local_fprop();
const Op<LocalDgrad>& local_dgrad();
const Op<LocalWgrad>& local_wgrad();

struct LinearFprop {
  using Dims = LinearDims;
  LinearDims dims;
  InArray x;
  const float *w, *b;
  OutArray y;                                          // float32 where x is, else either
  bool relu;                                           // as ConvFprop's
  DropoutMask dropout;
  void* workspace;
};
struct LinearDgrad {
  using Dims = LinearDims;
  LinearDims dims;
  InArray dy;
  const float* w;
  OutArray dx;                                         // float32 where dy is, else either
  InArray gate;                                        // as dx
  float scale;
  void* workspace;
};
struct LinearWgrad {
  using Dims = LinearDims;
  LinearDims dims;
  InArray x, dy;
  float *dw, *db;
  bool accumulate;
  void* workspace;
};
const Op<LinearFprop>& linear_fprop();                 // also linear_relu_fprop
const Op<LinearDgrad>& linear_dgrad();
const Op<LinearWgrad>& linear_wgrad();

// y = (p + q) + b, the sum of a joint layer whose two products were made apart; b (channels,) or nullptr.
struct JointSum {
  struct Dims {
    int64_t size;
    int G, per_column, C;                              // p, q, y are (G, per_column / C positions, C); channel g * C + c has bias b[g * C + c]
    std::string text() const { return minialex::text(G, " columns of ", per_column, ", ", C, " channels"); }
  } dims;
  InArray p, q;
  const float* b;
  OutArray y;                                          // either; may be p or q
  void* workspace;
};
const Op<JointSum>& joint_sum();

// Pictures, or filters, as cells (layers/cells.py), and back.
struct CellsFprop {
  using Dims = CellsDims;
  CellsDims dims;
  const float* x;
  OutArray y;                                          // either
  void* workspace;
};
struct CellsBprop {
  using Dims = CellsDims;
  CellsDims dims;
  const float* dy;
  float* dx;
  void* workspace;
};
const Op<CellsFprop>& cells_fprop();
const Op<CellsBprop>& cells_bprop();

// ---- elementwise: y may be x, dx may be dy
struct MapFprop {
  using Dims = MapDims;
  MapDims dims;
  InArray x;
  OutArray y;
  void* workspace;
};
struct MapBprop {
  using Dims = MapDims;
  MapDims dims;
  InArray y, dy;
  OutArray dx;
  void* workspace;
};
const Op<MapFprop>& relu_fprop();
const Op<MapBprop>& relu_bprop();
const Op<MapFprop>& tanh_fprop();
const Op<MapBprop>& tanh_bprop();
const Op<MapFprop>& sigmoid_fprop();
const Op<MapBprop>& sigmoid_bprop();

// ---- norms and pools
struct NormFprop {
  using Dims = NormDims;
  NormDims dims;
  InArray x;
  OutArray y;
  float k, alpha, beta;
  void* workspace;
};
struct NormBprop {
  using Dims = NormDims;
  NormDims dims;
  InArray x, dy;
  OutArray dx;
  float k, alpha, beta;
  void* workspace;
};
const Op<NormFprop>& lrn_fprop();
const Op<NormBprop>& lrn_bprop();
const Op<NormFprop>& spatial_norm_fprop();
const Op<NormBprop>& spatial_norm_bprop();

struct PoolFprop {
  using Dims = PoolDims;
  PoolDims dims;
  InArray x;
  OutArray y;
  void* workspace;
};
struct PoolBprop {
  using Dims = PoolDims;
  PoolDims dims;
  InArray x, y, dy;                                    // x and y are nullptr for average pooling
  OutArray dx;
  bool relu;                                           // of max-pooling: also multiplies dx by (x > 0), the gradient of a ReLU below
  void* workspace;
};
const Op<PoolFprop>& maxpool_fprop();
const Op<PoolBprop>& maxpool_bprop();
const Op<PoolFprop>& avgpool_fprop();
const Op<PoolBprop>& avgpool_bprop();

// y = maxpool(lrn(x)) and its gradient in one trip; `relu` also multiplies dx by (x > 0), the gradient of a ReLU below.
struct NormPoolFprop {
  using Dims = NormPoolDims;
  NormPoolDims dims;
  InArray x;
  OutArray y;
  float k, alpha, beta;
  void* workspace;
};
struct NormPoolBprop {
  using Dims = NormPoolDims;
  NormPoolDims dims;
  InArray x, y, dy;
  OutArray dx;
  float k, alpha, beta;
  bool relu;
  void* workspace;
};
const Op<NormPoolFprop>& lrn_maxpool_fprop();
const Op<NormPoolBprop>& lrn_maxpool_bprop();

// ---- dropout: y may be x.  fprop and bprop are the same multiplication by the mask.
struct Dropout {
  using Dims = DropoutDims;
  DropoutDims dims;
  InArray x;
  OutArray y;
  DropoutMask mask;
  void* workspace;
};
struct DropoutTest {
  using Dims = MapDims;
  MapDims dims;
  InArray x;
  OutArray y;
  float factor;
  void* workspace;
};
const Op<Dropout>& dropout_fprop();                    // also dropout_bprop
const Op<DropoutTest>& dropout_test();

// ---- loss
struct LossFprop {
  using Dims = LossDims;
  LossDims dims;
  InArray x;
  const int32_t* labels;
  float *p, *loss;
  OutArray dx;                                         // nullptr, or loss_bprop's output, written, too; either
  float scale;
  void* workspace;
};
struct LossBprop {
  using Dims = LossDims;
  LossDims dims;
  const float* p;
  const int32_t* labels;
  OutArray dx;                                         // either
  float scale;
  void* workspace;
};
const Op<LossFprop>& loss_fprop();
const Op<LossBprop>& loss_bprop();

// ---- learning and input
struct Segment {
  int64_t start, stop;
  double rate, decay;                                  // as Python's; decay * rate is rounded to float32 once
};
struct SGDUpdate {
  using Dims = SGDDims;
  SGDDims dims;
  float *w, *v;
  const float* dw;
  const Segment* segments;                             // host memory: dims.segments rows, ascending
  float momentum;
  const float* rates;                                  // nullptr, or device memory: rate and decay * rate of each row stand here instead
  void* workspace;
};
const Op<SGDUpdate>& sgd_update();

struct AugmentFprop {
  using Dims = AugmentDims;
  AugmentDims dims;
  const uint8_t* images;
  const float* mean;                                   // (H0, W0, C)
  const int32_t* offsets;                              // (N, 2): top, left
  const uint8_t* flips;                                // (N,) 0 or 1
  const float* noise;                                  // (N, C)
  OutArray y;                                          // either
  float scale;
  void* workspace;
};
const Op<AugmentFprop>& augment_fprop();

}  // namespace minialex
