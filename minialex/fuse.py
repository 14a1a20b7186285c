"""Fusion: a table of neighbours that one op can do in one trip through memory.

A rule rewrites the declared list of layers; which rules pay, a backend says (`ops.fused()`).  Results are the same bits (tests compare
with `fuse=False`), but for "cells" (layers/cells.py), which adds the products of a strided first convolution in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, replace

from .layers import LRN, Conv, ConvReLU, Dropout, Layer, Linear, LinearReLU, LRNMaxPool, MaxPool, ReLU, cells
from .spec import MiniAlexError, Shape


def _conv_relu(conv: Conv, relu: ReLU) -> ConvReLU:
    return ConvReLU(**{f.name: getattr(conv, f.name) for f in fields(conv)})


def _lrn_maxpool(norm: LRN, pool: MaxPool) -> LRNMaxPool:
    return LRNMaxPool(pool.name, norm, pool)


def _linear_relu(linear: Linear, *above: ReLU | Dropout) -> LinearReLU:
    dropout = next((layer for layer in above if isinstance(layer, Dropout)), None)
    return LinearReLU(**{f.name: getattr(linear, f.name) for f in fields(linear)}, last=above[-1].name, dropout=dropout)


# name -> the neighbours it is about, the longest first, and what they become
RULES: dict[str, tuple[tuple[tuple[type, ...], ...], Callable[..., Layer]]] = {
    "conv_relu": (((Conv, ReLU),), _conv_relu),
    "linear_relu": (((Linear, ReLU, Dropout), (Linear, ReLU)), _linear_relu),
    "lrn_maxpool": (((LRN, MaxPool),), _lrn_maxpool),
}


def fuse(layers: list[Layer], fused: Iterable[str]) -> list[Layer]:
    """The same network with each match of the rules named in `fused` replaced, left to right; exact types only (Local is no Conv here).

    Then each layer that has the output of a ReLU below it at hand takes over that ReLU's gate: its dx passes it on the way to memory.
    """
    unknown = set(fused) - {*RULES, "cells"}
    if unknown:
        raise MiniAlexError(f"fuse: there is no rule {', '.join(sorted(unknown))}; there are {', '.join(RULES)}, cells")
    rules = [(pattern, make) for name in fused if name in RULES for patterns, make in [RULES[name]] for pattern in patterns]
    result, i = [], 0
    while i < len(layers):
        for pattern, make in rules:
            window = layers[i:i + len(pattern)]
            if tuple(type(layer) for layer in window) == pattern:
                result.append(make(*window))
                i += len(pattern)
                break
        else:
            result.append(layers[i])
            i += 1
    for j in range(1, len(result)):
        factor = result[j - 1].gate()
        above = None if factor is None else result[j].gating(factor)
        if above is not None:
            result[j - 1:j + 1] = [replace(result[j - 1], masked=True), above]
    return result


def fuse_apart(layers: list[Layer], shapes: list[Shape], fused: Iterable[str]) -> list[Layer]:
    """As `fuse` for columns on devices of their own: between the joint layers, since these end in a sum, behind which nothing is fused.
    `shapes`: what each layer reads."""
    result, run = [], []
    for layer, x in zip(layers, shapes, strict=False):
        if layer.joint(x):
            result += [*fuse(run, fused), layer]
            run = []
        else:
            run.append(layer)
    return result + fuse(run, fused)


def in_cells(layers: list[Layer], input: Shape, fused: Iterable[str]) -> tuple[list[Layer], Shape]:
    """The network that `fuse` made and the shape of its input as arrays have it: in cells where the rule is named in `fused` and the first
    layer is a convolution that it fits."""
    first = cells.in_cells(layers[0], input) if layers and "cells" in fused else None
    if first is None:
        return layers, input
    return [first, *layers[1:]], cells.shape_of(input, first.cell)
