// Which windows hold which inputs, and who won them: shared by the pools and by the norm with a pool behind it.
#pragma once
#include "dims.h"
#include "quad.h"

namespace minialex {

// Windows first .. last hold input i of one axis; none where stride > window leaves i between two of them.
struct Windows {
  int first, last;
};
MINIALEX_BOTH inline Windows windows_of(int i, int window, int stride, int count) {
  return {i < window ? 0 : (i - window) / stride + 1, i / stride < count ? i / stride : count - 1};
}

// As NumPy's maximum: a NaN stays, so that it is seen.
MINIALEX_DEVICE float larger(float a, float b) { return b > a || b != b ? b : a; }
MINIALEX_DEVICE Quad larger(const Quad& a, const Quad& b) {
  return {{larger(a.v[0], b.v[0]), larger(a.v[1], b.v[1]), larger(a.v[2], b.v[2]), larger(a.v[3], b.v[3])}};
}

// A gradient behind a ReLU below, whose output is x, if there is one.
MINIALEX_DEVICE float masked(bool relu, float x, float dx) { return !relu || x > 0.f ? dx : 0.f; }

// Whether input (h, w), whose value is `here`, gets the gradient of window (p, q), whose maximum is `best`: it equals that and, unless
// all ties do, no input before it in row order does.  value(h, w) is what the pool read there.
template <class Value>
MINIALEX_DEVICE bool wins(const PoolDims& d, int p, int q, int h, int w, float here, float best, const Value& value) {
  if (here != best) return false;
  if (d.all_ties) return true;
  const int left = q * d.stride, right = min(left + d.window, d.W);
  for (int r = p * d.stride; r <= h; ++r)
    for (int s = left; s < (r < h ? right : w); ++s)
      if (value(r, s) == best) return false;
  return true;
}

// The sum of dy over the windows that input (h, w) won, windows in row order.  y and dy point to their image's channel.
template <class Numbers, class Value>
MINIALEX_DEVICE float pool_gradient(const PoolDims& d, int h, int w, float here, const Numbers& y, const Numbers& dy, const Value& value) {
  const Windows rows = windows_of(h, d.window, d.stride, d.P), columns = windows_of(w, d.window, d.stride, d.Q);
  float sum = 0;
  for (int p = rows.first; p <= rows.last; ++p)
    for (int q = columns.first; q <= columns.last; ++q) {
      const int64_t at = (int64_t(p) * d.Q + q) * d.C;
      if (wins(d, p, q, h, w, here, y[at], value)) sum = __fadd_rn(sum, dy[at]);
    }
  return sum;
}

// The same of four channels; value(h, w, i) is that of channel i.
template <class S, class Value>
MINIALEX_DEVICE Quad pool_gradient(const PoolDims& d, int h, int w, const Quad& here, const S* y, const S* dy, const Value& value) {
  const Windows rows = windows_of(h, d.window, d.stride, d.P), columns = windows_of(w, d.window, d.stride, d.Q);
  Quad sum = {{0, 0, 0, 0}};
  for (int p = rows.first; p <= rows.last; ++p)
    for (int q = columns.first; q <= columns.last; ++q) {
      const int64_t at = (int64_t(p) * d.Q + q) * d.C;
      const Quad best = load_quad(y + at), add = load_quad(dy + at);
      MINIALEX_UNROLL for (int i = 0; i < 4; ++i) {
        const auto channel = [&](int r, int s) { return value(r, s, i); };
        if (wins(d, p, q, h, w, here.v[i], best.v[i], channel)) sum.v[i] = __fadd_rn(sum.v[i], add.v[i]);
      }
    }
  return sum;
}

}  // namespace minialex
