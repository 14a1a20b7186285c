"""Fusion: a table of neighbours that one op can do in one trip through memory.

A rule rewrites the declared list of layers; results are the same bits (tests compare with `fuse=False`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from .layers import Conv, ConvReLU, Layer, ReLU


def _conv_relu(conv: Conv, relu: ReLU) -> ConvReLU:
    return ConvReLU(**{f.name: getattr(conv, f.name) for f in fields(conv)})


RULES: tuple[tuple[tuple[type, ...], Callable[..., Layer]], ...] = (
    ((Conv, ReLU), _conv_relu),
)


def fuse(layers: list[Layer]) -> list[Layer]:
    """The same network with each match of RULES replaced, left to right; exact types only (Local is no Conv here)."""
    result, i = [], 0
    while i < len(layers):
        for pattern, make in RULES:
            window = layers[i:i + len(pattern)]
            if tuple(type(layer) for layer in window) == pattern:
                result.append(make(*window))
                i += len(pattern)
                break
        else:
            result.append(layers[i])
            i += 1
    return result
