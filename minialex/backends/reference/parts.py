"""Which channels of which column a layer with weights multiplies with which filters: conv, local and linear alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Part(NamedTuple):
    """One product: column gx's `channels` with filters w[maps, ..., inputs] make column gy's `outputs`."""

    gx: int
    channels: slice
    gy: int
    outputs: slice
    maps: slice             # of all K maps, column 0's first
    inputs: slice           # of the channels that a filter reads


def parts(Gx: int, Cx: int, Gy: int, Ky: int, groups: int) -> Iterator[Part]:
    """All products of a layer that reads Gx columns of Cx channels and writes Gy columns of Ky maps.

    groups=1: every output column reads every input column, one part each, columns of x in order (so sums over columns
    come out as P_0 + P_1 + ...).  groups>1: a group lies within one column of x and one of y, and is one part.
    """
    if groups == 1:
        for gy in range(Gy):
            for gx in range(Gx):
                yield Part(gx, slice(0, Cx), gy, slice(0, Ky), slice(gy * Ky, (gy + 1) * Ky), slice(gx * Cx, (gx + 1) * Cx))
        return
    C, K = Gx * Cx // groups, Gy * Ky // groups         # of one group
    for group in range(groups):
        gx, c = divmod(group * C, Cx)
        gy, k = divmod(group * K, Ky)
        yield Part(gx, slice(c, c + C), gy, slice(k, k + K), slice(group * K, (group + 1) * K), slice(0, C))
