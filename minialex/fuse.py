"""Fusion: a table of neighbours that one op can do in one trip through memory.

A rule rewrites the declared list of layers; which rules pay, a backend says (`ops.fused()`).  Results are the same bits (tests compare
with `fuse=False`), but for "cells" (layers/cells.py), which adds the products of a strided first convolution in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from itertools import pairwise

from .layers import LRN, Conv, ConvReLU, Layer, LRNMaxPool, MaxPool, ReLU, cells
from .spec import MiniAlexError, Shape


def _conv_relu(conv: Conv, relu: ReLU) -> ConvReLU:
    return ConvReLU(**{f.name: getattr(conv, f.name) for f in fields(conv)})


def _lrn_maxpool(norm: LRN, pool: MaxPool) -> LRNMaxPool:
    return LRNMaxPool(pool.name, norm, pool)


RULES: dict[str, tuple[tuple[type, ...], Callable[..., Layer]]] = {
    "conv_relu": ((Conv, ReLU), _conv_relu),
    "lrn_maxpool": ((LRN, MaxPool), _lrn_maxpool),
}


def fuse(layers: list[Layer], fused: Iterable[str]) -> list[Layer]:
    """The same network with each match of the rules named in `fused` replaced, left to right; exact types only (Local is no Conv here).

    Where both rules meet, the norm's backward pass does the ReLU's, too: it has its input at hand.
    """
    unknown = set(fused) - {*RULES, "cells"}
    if unknown:
        raise MiniAlexError(f"fuse: there is no rule {', '.join(sorted(unknown))}; there are {', '.join(RULES)}, cells")
    rules = [RULES[name] for name in fused if name in RULES]
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
    for j, (below, above) in enumerate(pairwise(list(result))):
        if type(below) is ConvReLU and type(above) is LRNMaxPool:
            result[j:j + 2] = [replace(below, masked=True), replace(above, relu=True)]
    return result


def in_cells(layers: list[Layer], input: Shape, fused: Iterable[str]) -> tuple[list[Layer], Shape]:
    """The network that `fuse` made and the shape of its input as arrays have it: in cells where the rule is named in `fused` and the first
    layer is a convolution that it fits."""
    first = cells.in_cells(layers[0], input) if layers and "cells" in fused else None
    if first is None:
        return layers, input
    return [first, *layers[1:]], cells.shape_of(input, first.cell)
