"""A right call of every op that computes, small, as host arrays: what the tests of wrong calls spoil in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minialex.backends.signatures import OPS
from minialex.spec import pool_extent

OUTPUTS = {"fprop": ("y",), "bprop": ("dx",), "dgrad": ("dx",), "wgrad": ("dw", "db"), "test": ("y",), "sum": ("y",), "update": ("w", "v")}
COMPUTING = tuple(op for op in OPS if op == "joint_sum" or op.endswith(("_fprop", "_bprop", "_dgrad", "_wgrad", "_update", "_test")))
PER_IMAGE = tuple(op for op in COMPUTING if op != "sgd_update")


@dataclass
class Call:
    """Arrays by the op's own argument names; `outputs` are those it writes, full of 7 or 0."""

    op: str
    outputs: tuple[str, ...]
    arrays: dict[str, np.ndarray]
    options: dict[str, Any] = field(default_factory=dict)


def right(op: str, N: int = 3, C: int = 4, H: int = 6, W: int = 5) -> Call:
    """`op` on two columns of N images of H x W x C (of 2 C maps in all)."""
    rng = np.random.default_rng(len(op))
    out = ("p", "loss") if op == "loss_fprop" else OUTPUTS[op.rsplit("_", 1)[1]]
    shapes, options = _arguments(op, N, C, H, W)
    arrays = {}
    for name, shape in shapes.items():
        value = rng.standard_normal(shape)
        arrays[name] = np.full(shape, 7, np.float32) if name in out and op != "sgd_update" else value.astype(np.float32)
    for name, dtype in (("labels", np.int32), ("images", np.uint8), ("offsets", np.int32), ("flips", np.bool_)):
        if name in arrays:
            arrays[name] = np.zeros(shapes[name], dtype)
    return Call(op, out, arrays, options)


def _arguments(op: str, N: int, C: int, H: int, W: int) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    stem, kind = op.rsplit("_", 1)
    x, K = (2, N, H, W, C), 2 * C
    pooled = (2, N, pool_extent(H, 3, 2), pool_extent(W, 3, 2), C)
    if stem in ("conv", "conv_relu", "local"):
        lead = (H, W) if stem == "local" else ()
        return _weights(kind, x, (*lead, K, 3, 3, K), (*lead, K), x), dict(stride=1, pad=1, groups=1)
    if stem in ("linear", "linear_relu"):
        return _weights(kind, (2, N, H), (K, 2 * H), (K,), (2, N, C)), dict(groups=1)
    if stem == "joint":
        return dict(p=x, q=x, b=(K,), y=x), {}
    if stem == "cells":
        cells = (2, N, -(-H // 2), -(-W // 2), 4 * C)
        return (dict(x=x, y=cells) if kind == "fprop" else dict(dy=cells, dx=x)), dict(cell=2)
    if stem in ("relu", "tanh", "sigmoid"):
        return (dict(x=x, y=x) if kind == "fprop" else dict(y=x, dy=x, dx=x)), {}
    norm, pool = dict(n=3, k=2.0, alpha=0.5, beta=0.75), dict(window=3, stride=2)
    if stem in ("lrn", "spatial_norm"):
        return (dict(x=x, y=x) if kind == "fprop" else dict(x=x, dy=x, dx=x)), norm
    if stem in ("maxpool", "avgpool", "lrn_maxpool"):
        options = {**(norm if stem == "lrn_maxpool" else {}), **pool}
        if kind == "fprop":
            return dict(x=x, y=pooled), options
        reads = {} if stem == "avgpool" else dict(x=x, y=pooled)
        options |= {} if stem == "avgpool" else dict(ties="first") | (dict(relu=True) if stem == "lrn_maxpool" else {})
        return {**reads, "dy": pooled, "dx": x}, options
    if stem == "dropout":
        mask = dict(factor=0.5) if kind == "test" else dict(keep=0.5, scale=2.0, seed=1, step=2, layer=3, first=4)
        return (dict(dy=x, dx=x) if kind == "bprop" else dict(x=x, y=x)), mask
    if stem == "loss":
        logits, labels = (N, 7), (N,)
        if kind == "fprop":
            return dict(x=logits, labels=labels, p=logits, loss=labels), {}
        return dict(p=logits, labels=labels, dx=logits), dict(scale=0.5)
    if stem == "sgd":
        return dict(w=(40,), v=(40,), dw=(40,)), dict(segments=((0, 30, 0.1, 0.01), (30, 40, 0.2, 0.0)), momentum=0.9)
    return dict(images=(N, H + 2, W + 2, 3), mean=(H + 2, W + 2, 3), offsets=(N, 2), flips=(N,), noise=(N, 3), y=(1, N, H, W, 3)), \
        dict(mean_at="crop", scale=2.0)


def _weights(kind: str, x, w, b, y) -> dict[str, tuple[int, ...]]:
    if kind == "fprop":
        return dict(x=x, w=w, b=b, y=y)
    return dict(dy=y, w=w, dx=x) if kind == "dgrad" else dict(x=x, dy=y, dw=w, db=b)
