"""The frozen list of ops: every backend is a module with exactly these functions (tests/test_house.py compares).

Shapes.  Activations x, y, dx, dy are (G, N, H, W, C) float arrays, G columns of C channels (spec.py); x and y may
differ in G.  Filters w are (K, R, S, C_group), `local` filters (P, Q, K, R, S, C_group); biases (K,) or (P, Q, K).
Linear ops see (G, N, F) and w (K, F_group).  Logits and probabilities are (N, K), labels (N,) int32.

Rules.  Every op writes all of its outputs into arrays given by the caller and nothing else; inputs stay unchanged.
An output may not overlap an input, but for elementwise ops (relu, tanh, sigmoid, dropout), where y may *be* x and dx may
*be* dy.  Arrays may be slices of axis 1 (a block of images): (H, W, C) of one image must be contiguous.  w, b, dw, db
are contiguous.  Wrong arguments raise ShapeError, DTypeError or LayoutError before anything is written (checks.py).

Sums.  Where a layer reads several columns (groups=1 on G > 1), y = (P_0 + P_1 + ...) + b with P_c the product over
column c's channels, and dx of a column is D_0 + D_1 + ... over the output columns: the same on every placement.
`accumulate=True` adds dw and db to what is there.  joint_sum is that sum for products made apart: y = (p + q) + b, all
of y's shape, b (G * C,) or None; y may be p or q.  `b` of the fprops may be None too (no bias is added).

Numbers.  `conv` pad is an int or (before, after), both axes alike; reads beyond the border are zeros.  LRN's and
spatial_norm's alpha multiply the plain sum of squares, windows clipped.  maxpool ties: "first" in row order or "all".
avgpool divides by the clipped count.

Dropout.  Kept values are x * scale, others 0.  Word e % 4 of Philox4x32-10 with counter (e // 4, first + n, step, layer)
and key (seed low 32 bits, seed high 32 bits) decides element e = (h * W + w) * (columns * C) + (column + g) * C + c
of image n of the array, whose first column is number `column` of the network's `columns` (None: column + G):
kept when word < keep * 2^32.  dropout_test is y = x * factor.  On compiled backends `step` may be an int32 array of one number.

Gates.  dgrad's `gate` (dx's shape, or None) is the output of a ReLU below, or of a dropout behind one that scaled what it kept by
`scale` >= 1: dx becomes dx * scale where gate > 0, else 0, as dropout_bprop and relu_bprop would make it.  So does the relu=True of
the max-pools, with their x as the gate.

Fusion.  fused() names the neighbours ("conv_relu", "linear_relu", "lrn_maxpool") that one op of this backend does in one trip through
memory, and "cells" where a strided first convolution is better done with stride 1 on cells; the other backends have these ops too, as
compositions.  linear_relu_fprop: `dropout` is what dropout_fprop takes, for a y
(G, N, 1, 1, K / G), or None.  lrn_maxpool: y = maxpool(lrn(x)); bprop recomputes the norm from x, and
with relu=True gates dx by x.  The bits are those of the ops one after the other.

Precision.  set_precision("float32" | "tf32" | "bf16" | "bf16x3" | "bf16x6"): operands of products are rounded to it, or split into
two or three bf16 numbers, of whose products 3 or 6 are added; sums stay float32; backends without tensor cores take "float32" alone.
Compiled backends take one more keyword, variant=None: a row of the op's table.

Storage.  storage(dtype) is what a net of this dtype keeps activations and their gradients in: itself, or in precision "bf16" of a
compiled backend "uint16", device arrays of bfloat16 (minialex/bf16.py).  Ops compute in float32 and round once, to nearest even, when
they store; an op that does what two would rounds between them, too: the same bits.  Such arrays run in bf16 whatever is set, float32
ones never.  Activations of a call are stored alike, but: what the fprops and dgrads of layers with weights, joint_sum, cells_fprop,
augment_fprop and the loss (dx) write may be stored either way; weights, their gradients, probabilities and losses are never bfloat16.

Cells.  x (G, N, H, W, C) -> y (G, N, ceil(H / cell), ceil(W / cell), cell * cell * C): the pixels of a cell, row by row, are the
channels of one position, zeros where it reaches beyond x.  cells_bprop is the way back, which drops what lies beyond.

Loss.  loss[n] = -log p[n, labels[n]], computed from the logits (no underflow); dx = (p - onehot) * scale, which
loss_fprop writes, too, where it is given one: the bits of loss_bprop.

SGD.  w, v, dw are flat and equally long; segments is a tuple of (start, stop, rate, decay):
v = momentum * v - decay * rate * w - rate * dw;  w = w + v   (the rate inside the velocity; paper, section 5).
Compiled backends take rates=None: an array (segments, 2) of rate and decay * rate that replaces those in `segments`.

Augment.  images (N, H0, W0, 3) uint8, mean (H0, W0, 3) float, offsets (N, 2) int32 (top, left), flips (N,) bool,
noise (N, 3) float; y (1, N, H, W, 3), or cells of that: its channels say which.  mean_at="crop":
y = flip(crop(image - mean)); mean_at="centre": y = flip(crop(image)) - centre(mean), centre at
((H0 - H) // 2, (W0 - W) // 2).  Then y = (y + noise[n]) * scale.

Arrays.  empty(shape, dtype) is the only allocator.  from_host copies a NumPy array to a new backend array, or into `out`
of the same shape; to_host gives a NumPy copy.  Slices of axis 0, slices of axis 1 (backends with several blocks), reshape.

Images in blocks.  image_ranges(N, size) is a tuple of ranges, each a tuple of blocks (start, stop), a function of N and of
the numbers of an image's largest activation alone;
parallel(function, items) calls function(slot, item) for each, slot < workers() distinct among calls that run at
once; sum_partials(partials, out) adds the rows of (ranges, size) in a fixed tree.  So no result depends on the
number of workers.  set_workers(n) changes it.
"""

_GEOMETRY = "*, stride, pad, groups"
_GATE = "gate=None, scale=1.0"
_DROPOUT = "*, keep, scale, seed, step, layer, first, column=0, columns=None"
_NORM = "*, n, k, alpha, beta"
_POOL = "*, window, stride"

OPS: dict[str, str] = {
    # arrays
    "empty": "(shape, dtype='float32')",
    "from_host": "(array, out=None)",
    "to_host": "(array)",
    # images in blocks
    "image_ranges": "(N, size=0)",
    "parallel": "(function, items)",
    "workers": "()",
    "set_workers": "(n)",
    "sum_partials": "(partials, out)",
    # what this backend does faster in one trip, and in which precision it multiplies
    "fused": "()",
    "set_precision": "(name)",
    "storage": "(dtype)",
    # layers with weights
    "conv_fprop": f"(x, w, b, y, {_GEOMETRY})",
    "conv_relu_fprop": f"(x, w, b, y, {_GEOMETRY})",
    "conv_dgrad": f"(dy, w, dx, {_GEOMETRY}, {_GATE})",
    "conv_wgrad": f"(x, dy, dw, db, {_GEOMETRY}, accumulate=False)",
    "local_fprop": f"(x, w, b, y, {_GEOMETRY})",
    "local_dgrad": f"(dy, w, dx, {_GEOMETRY}, {_GATE})",
    "local_wgrad": f"(x, dy, dw, db, {_GEOMETRY}, accumulate=False)",
    "linear_fprop": "(x, w, b, y, *, groups)",
    "linear_relu_fprop": "(x, w, b, y, *, groups, dropout=None)",
    "linear_dgrad": f"(dy, w, dx, *, groups, {_GATE})",
    "linear_wgrad": "(x, dy, dw, db, *, groups, accumulate=False)",
    "joint_sum": "(p, q, b, y)",
    "cells_fprop": "(x, y, *, cell)",
    "cells_bprop": "(dy, dx, *, cell)",
    # layers without weights
    "relu_fprop": "(x, y)",
    "relu_bprop": "(y, dy, dx)",
    "tanh_fprop": "(x, y)",
    "tanh_bprop": "(y, dy, dx)",
    "sigmoid_fprop": "(x, y)",
    "sigmoid_bprop": "(y, dy, dx)",
    "lrn_fprop": f"(x, y, {_NORM})",
    "lrn_bprop": f"(x, dy, dx, {_NORM})",
    "spatial_norm_fprop": f"(x, y, {_NORM})",
    "spatial_norm_bprop": f"(x, dy, dx, {_NORM})",
    "maxpool_fprop": f"(x, y, {_POOL})",
    "maxpool_bprop": f"(x, y, dy, dx, {_POOL}, ties, relu=False)",
    "avgpool_fprop": f"(x, y, {_POOL})",
    "avgpool_bprop": f"(dy, dx, {_POOL})",
    "lrn_maxpool_fprop": f"(x, y, {_NORM}, window, stride)",
    "lrn_maxpool_bprop": f"(x, y, dy, dx, {_NORM}, window, stride, ties, relu)",
    "dropout_fprop": f"(x, y, {_DROPOUT})",
    "dropout_bprop": f"(dy, dx, {_DROPOUT})",
    "dropout_test": "(x, y, *, factor)",
    "loss_fprop": "(x, labels, p, loss, *, dx=None, scale=1.0)",
    "loss_bprop": "(p, labels, dx, *, scale)",
    # learning and input
    "sgd_update": "(w, v, dw, *, segments, momentum)",
    "augment_fprop": "(images, mean, offsets, flips, noise, y, *, mean_at, scale)",
}

# op stem -> the file of that stem on every floor (layers, reference, cpu, cuda and bindings)
STEMS = ("conv", "local", "linear", "joint", "cells", "relu", "tanh", "sigmoid", "lrn", "spatial_norm", "maxpool", "avgpool",
         "lrn_maxpool", "dropout", "loss", "sgd", "augment")
