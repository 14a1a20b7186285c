"""The nearest rows of a table: exactly by Euclidean distance, or by Hamming distance between binary codes (paper, section 6.1).

Both go through the table in blocks, hold little beside them, and find the same rows as a sort of all distances would: nearest first,
equal distances by row number.
"""

from __future__ import annotations

import numpy as np

from ..spec import MiniAlexError

BLOCK_BYTES = 32 << 20              # of the table that meets the queries at a time
QUERIES = 1024                      # that meet a block at a time
PAIRS = 1 << 14                     # distances taken in float64 at a time
CODES = 8192                        # codes that meet a few queries at a time: they stay in the cache
UNIT = 2.0**-24                     # largest relative error of one float32 rounding


def nearest(queries: np.ndarray, index: np.ndarray, k: int, exclude: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of `index` nearest to each query: (rows (q, k) int64, distances (q, k) float64).

    queries : (q, D) float32, index : (n, D) float32, also memory-mapped; exclude : (q,) a row that is not to be found, -1 for none

    |q - x|^2 = |q|^2 + |x|^2 - 2 q x is a matrix product, whose rounding could put rows into a wrong order: it only says which rows
    cannot be among the nearest, by the bound (D + 8) UNIT (|q|^2 + |x|^2); the distances of the others are taken in float64.
    Raises MiniAlexError where there are fewer rows than neighbours, or where the widths differ.
    """
    queries = np.ascontiguousarray(queries, np.float32)
    _check(queries, index, k, exclude)
    kept = [_Best(min(QUERIES, len(queries) - start), k) for start in range(0, len(queries), QUERIES)]
    rows = max(1, BLOCK_BYTES // (4 * queries.shape[1]))
    slack = 2.0 * (queries.shape[1] + 8) * UNIT
    length = np.einsum("ij,ij->i", queries, queries, dtype=np.float64)
    for first in range(0, len(index), rows):
        block = np.ascontiguousarray(index[first:first + rows], np.float32)
        # Everything that does not depend on the query is on one side: -2 q x + |x|^2 (1 - slack) <= T - |q|^2 (1 - slack).
        own = (np.einsum("ij,ij->i", block, block, dtype=np.float64) * (1 - slack)).astype(np.float32)
        for number, best in enumerate(kept):
            part = slice(number * QUERIES, number * QUERIES + best.count)
            low = (-2.0 * queries[part]) @ block.T
            low += own
            if exclude is not None:
                _hide(low, exclude[part], first)
            reach = best.limit - length[part] * (1 - slack)
            if not np.isfinite(reach).all():                    # not k rows yet: those that may be among the k least of this block
                some = min(k, len(block)) - 1
                least = np.partition(low, some, axis=1)[:, some].astype(np.float64)
                reach = least + 2 * slack * (length[part] + float(own.max(initial=0)) / (1 - slack))
            reach = np.nextafter((reach + 4 * UNIT * np.abs(reach)).astype(np.float32), np.float32(np.inf))
            pairs = _places(low <= reach[:, None])
            best.take(*_exact(queries[part], block, pairs), first)
    return tuple(np.concatenate(parts) for parts in zip(*((best.rows, np.sqrt(best.distances)) for best in kept), strict=True))


def _exact(queries: np.ndarray, block: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(query, row of the block, squared distance in float64) of each pair."""
    of, rows = pairs
    distances = np.empty(len(of))
    step = max(1, PAIRS * 64 // queries.shape[1])
    for start in range(0, len(of), step):
        part = slice(start, start + step)
        d = block[rows[part]].astype(np.float64) - queries[of[part]]
        distances[part] = np.einsum("ij,ij->i", d, d)
    return of, rows, distances


class _Best:
    """The k nearest rows so far of each of `count` queries."""

    def __init__(self, count: int, k: int, worst: float = np.inf):
        self.count, self.k = count, k
        self.rows = np.full((count, k), -1, np.int64)
        self.distances = np.full((count, k), worst)

    @property
    def limit(self) -> np.ndarray:
        """(count,): rows further away than this are of no interest."""
        return self.distances[:, -1]

    def take(self, of: np.ndarray, rows: np.ndarray, distances: np.ndarray, first: int) -> None:
        """Adds candidates, those of a query in any order."""
        if not len(of):
            return
        touched, place = np.unique(of, return_inverse=True)
        all_of = np.concatenate([np.repeat(np.arange(len(touched)), self.k), place])
        all_rows = np.concatenate([self.rows[touched].ravel(), rows + first])
        all_distances = np.concatenate([self.distances[touched].ravel(), distances])
        unknown = all_rows < 0                                  # places not taken yet come last
        order = np.lexsort((all_rows, all_distances, unknown, all_of))
        starts = np.searchsorted(all_of[order], np.arange(len(touched)))
        chosen = order[starts[:, None] + np.arange(self.k)]
        self.rows[touched], self.distances[touched] = all_rows[chosen], all_distances[chosen]


def hamming_nearest(queries: np.ndarray, codes: np.ndarray, k: int, exclude: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The k codes that differ in the fewest bits from each query: (rows (q, k) int64, bits (q, k) int64).

    queries : (q, W) uint64, codes : (n, W) uint64; exclude : (q,) a row that is not to be found, -1 for none
    """
    _check(queries, codes, k, exclude)
    words = np.ascontiguousarray(codes.T)                       # a word of all codes lies together
    best = _Best(len(queries), k, worst=64 * codes.shape[1] + 1)
    kind = np.uint8 if codes.shape[1] < 4 else np.uint16        # of a distance
    few = 8
    differ, counts = np.empty((few, CODES), np.uint64), np.empty((few, CODES), np.uint8)
    for first in range(0, len(codes), CODES):
        block = words[:, first:first + CODES]
        width = block.shape[1]
        for start in range(0, len(queries), few):
            own = queries[start:start + few]
            x, c = differ[:len(own), :width], counts[:len(own), :width]
            bits = np.zeros(c.shape, kind)
            for word in range(len(words)):
                np.bitwise_xor(own[:, word, None], block[word], out=x)
                np.bitwise_count(x, out=c)
                bits += c
            if exclude is not None:
                _hide(bits, exclude[start:start + few], first)
            limit = best.limit[start:start + few]
            if first == 0:
                some = min(k, width) - 1
                limit = np.partition(bits, some, axis=1)[:, some] + 1
            of, rows = _places(bits < limit[:, None].astype(np.int64).clip(max=np.iinfo(kind).max).astype(kind))
            best.take(of + start, rows, bits[of, rows].astype(np.float64), first)
    return best.rows, best.distances.astype(np.int64)


def _places(true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each true value; over a flat array this is several times faster."""
    return np.divmod(np.flatnonzero(true), true.shape[1])


def _hide(distances: np.ndarray, exclude: np.ndarray, first: int) -> None:
    """Puts each query's own row out of reach."""
    inside = np.flatnonzero((exclude >= first) & (exclude < first + distances.shape[1]))
    far = np.inf if distances.dtype.kind == "f" else np.iinfo(distances.dtype).max
    distances[inside, exclude[inside] - first] = far


def _check(queries: np.ndarray, index: np.ndarray, k: int, exclude: np.ndarray | None) -> None:
    if queries.ndim != 2 or index.ndim != 2 or queries.shape[1] != index.shape[1]:
        raise MiniAlexError(f"queries of shape {queries.shape} cannot be looked for among rows of shape {index.shape}: both are "
                            "(number, width) of one width; were they made by the same layer of the same network?")
    there = len(index) - (0 if exclude is None else 1)
    if not 1 <= k <= there:
        raise MiniAlexError(f"{k} neighbours were asked for, but there are {there} pictures to choose from; "
                            f"ask for fewer (-k {max(1, there)})")


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    """Share of the true neighbours, (q, k), that are among those found, (q, m)."""
    return float((truth[:, :, None] == found[:, None, :]).any(2).mean())
