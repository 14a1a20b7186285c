// The geometry of a call, as minialex/backends/checks.py has checked it.  Extents are int, products int64_t.
#pragma once
#include "check.h"
#if defined(__CUDACC__)
#define MINIALEX_BOTH __host__ __device__              // kernels read dims too
#else
#define MINIALEX_BOTH
#endif

namespace minialex {

// A convolution, shared or local.  x is (Gx, N, H, W, C / Gx), y is (Gy, N, P, Q, K / Gy), w is (K, R, S, C / groups).
struct ConvDims {
  int N, Gx, Gy, H, W, C, K, R, S, P, Q, stride, before, after, groups;
  MINIALEX_BOTH int Cx() const { return C / Gx; }                    // channels of one column of x
  MINIALEX_BOTH int Ky() const { return K / Gy; }                    // maps of one column of y
  MINIALEX_BOTH int Cg() const { return C / groups; }                // channels a filter reads
  MINIALEX_BOTH int Kg() const { return K / groups; }                // maps of one group
  // A filter's channels lie in `parts` columns of x, `part` channels in each: the product over each part is summed on its own.
  MINIALEX_BOTH int parts() const { return Cg() > Cx() ? Cg() / Cx() : 1; }
  MINIALEX_BOTH int part() const { return Cg() / parts(); }
  MINIALEX_BOTH int64_t x_size() const { return int64_t(N) * H * W * C; }
  MINIALEX_BOTH int64_t y_size() const { return int64_t(N) * P * Q * K; }
  MINIALEX_BOTH int64_t w_size() const { return int64_t(K) * R * S * Cg(); }
  std::string text() const {
    return minialex::text("N", N, " x ", Gx, "x", H, "x", W, "x", Cx(), " y ", Gy, "x", P, "x", Q, "x", Ky(), " w ", R, "x", S, "x", Cg(), " stride ",
                          stride, " pad ", before, ",", after, " groups ", groups);
  }
};

// x is (Gx, N, F), y is (Gy, N, K / Gy), w is (K, F * Gx / groups): groups is 1, or the number of columns of both.
struct LinearDims {
  int N, Gx, Gy, F, K, groups;
  MINIALEX_BOTH int Ky() const { return K / Gy; }
  MINIALEX_BOTH int parts() const { return groups == 1 ? Gx : 1; }   // columns a row of w reads; the product over each is summed on its own
  MINIALEX_BOTH int row() const { return parts() * F; }              // length of a row of w
  MINIALEX_BOTH int64_t x_size() const { return int64_t(Gx) * N * F; }
  MINIALEX_BOTH int64_t y_size() const { return int64_t(N) * K; }
  MINIALEX_BOTH int64_t w_size() const { return int64_t(K) * row(); }
  std::string text() const { return minialex::text("N", N, " x ", Gx, "x", F, " y ", Gy, "x", Ky(), " groups ", groups); }
};

struct CellsDims {                                     // x (images, H, W, C), y (images, P, Q, cell * cell * C), images = columns * N
  int images, H, W, C, cell;
  MINIALEX_BOTH int P() const { return (H - 1) / cell + 1; }
  MINIALEX_BOTH int Q() const { return (W - 1) / cell + 1; }
  MINIALEX_BOTH int64_t x_size() const { return int64_t(images) * H * W * C; }
  MINIALEX_BOTH int64_t y_size() const { return int64_t(images) * P() * Q() * cell * cell * C; }
  std::string text() const { return minialex::text(images, "x", H, "x", W, "x", C, " in cells of ", cell); }
};

struct MapDims {                                       // elementwise ops
  int64_t size;
  std::string text() const { return minialex::text(size, " elements"); }
};

struct NormDims {                                      // (images, H, W, C), images = columns * N: windows never cross columns
  int images, H, W, C, n;
  MINIALEX_BOTH int64_t size() const { return int64_t(images) * H * W * C; }
  std::string text() const { return minialex::text(images, "x", H, "x", W, "x", C, " n ", n); }
};

struct PoolDims {                                      // x (images, H, W, C), y (images, P, Q, C), images = columns * N
  int images, H, W, C, P, Q, window, stride;
  bool all_ties;                                       // the gradient goes to every maximum, not to the first
  MINIALEX_BOTH int64_t x_size() const { return int64_t(images) * H * W * C; }
  MINIALEX_BOTH int64_t y_size() const { return int64_t(images) * P * Q * C; }
  std::string text() const { return minialex::text(images, "x", H, "x", W, "x", C, " window ", window, " stride ", stride, all_ties ? " all ties" : ""); }
};

struct NormPoolDims {                                  // a norm across channels and the max-pool behind it, in one trip
  NormDims norm;
  PoolDims pool;
  std::string text() const { return minialex::text(norm.text(), " pooled ", pool.text()); }
};

struct DropoutDims {                                   // (G, N, H, W, C)
  int G, N, H, W, C;
  MINIALEX_BOTH int64_t size() const { return int64_t(G) * N * H * W * C; }
  std::string text() const { return minialex::text(G, "x", N, "x", H, "x", W, "x", C); }
};

struct LossDims {                                      // N rows of K logits
  int N, K;
  std::string text() const { return minialex::text(N, "x", K); }
};

struct SGDDims {                                       // a flat arena
  int64_t size;
  int segments;
  std::string text() const { return minialex::text(size, " parameters in ", segments, " segments"); }
};

struct AugmentDims {                                   // images (N, H0, W0, C) uint8 -> y (N, H / cell, W / cell, cell * cell * C)
  int N, H0, W0, H, W, C, cell;
  bool mean_at_centre;
  std::string text() const {
    return minialex::text(N, "x", H0, "x", W0, "x", C, " to ", H, "x", W, cell > 1 ? minialex::text(" in cells of ", cell) : "",
                          mean_at_centre ? " mean at centre" : "");
  }
};

}  // namespace minialex
