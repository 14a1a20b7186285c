"""Search beside its floors: exact search beside the matrix product in it, Hamming search of codes beside exact search."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from ..retrieval import hamming_nearest, nearest
from ..spec import MiniAlexError

SIZES = (200_000, 1000, 4096)               # rows, queries, width: the issue of a feature file of 200,000 pictures
NEIGHBOURS, BITS = 6, 128


def bench_retrieval(sizes: tuple[int, int, int] = SIZES, rounds: int = 3) -> list[dict]:
    """Times search of random features and codes; every contender takes its turn in each round.  Verified on a few queries first."""
    rows, queries, width = sizes
    rng = np.random.default_rng(0)
    index = np.empty((rows, width), np.float32)
    for start in range(0, rows, 4096):
        index[start:start + 4096] = rng.standard_normal(index[start:start + 4096].shape, np.float32)
    asked = rng.standard_normal((queries, width), np.float32)
    codes, own = (rng.integers(0, 2**63, (n, BITS // 64), dtype=np.uint64) for n in (rows, queries))
    _verify(asked[:3], index, own[:3], codes)
    product = np.empty((queries, rows), np.float32)
    contenders: dict[str, Callable[[], object]] = {
        "matrix product": lambda: np.matmul(asked, index.T, out=product),
        "exact search": lambda: nearest(asked, index, NEIGHBOURS),
        f"Hamming search, {BITS} bits": lambda: hamming_nearest(own, codes, NEIGHBOURS)}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):                            # the first touches the memory
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - began)
    exact, hamming = list(contenders)[1:]
    ratio = {"exact search over the matrix product": _ratio(seconds[exact], seconds["matrix product"]),
             "exact search over Hamming search": _ratio(seconds[exact], seconds[hamming])}
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    read = {exact: index.nbytes, hamming: queries * codes.nbytes}
    print(f"{rows:,} rows of {width:,}, {queries:,} queries, {NEIGHBOURS} neighbours; medians of {rounds} rounds in turn")
    for name, taken in median.items():
        extra = f", {2e-9 * rows * queries * width / taken:.1f} GFLOP/s" if name != hamming else \
            f", {1e-9 * read[hamming] / taken:.1f} GB/s of codes compared, {1e-9 * rows * queries / taken:.2f} billion pairs a second"
        print(f"  {name:<28}{taken:9.3f} s{extra}")
    for name, value in ratio.items():
        print(f"  {name:<42}{value:8.2f}")
    return [{"what": "retrieval", "rows": rows, "queries": queries, "width": width, "bits": BITS, "seconds": seconds, "ratios": ratio}]


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _verify(asked: np.ndarray, index: np.ndarray, own: np.ndarray, codes: np.ndarray) -> None:
    """Raises MiniAlexError where a search differs from a sort of all distances."""
    found, differing = nearest(asked, index, NEIGHBOURS)[0], hamming_nearest(own, codes, NEIGHBOURS)[0]
    for i in range(len(asked)):
        far = np.concatenate([((index[k:k + 4096].astype(np.float64) - asked[i]) ** 2).sum(1) for k in range(0, len(index), 4096)])
        bits = np.bitwise_count(codes ^ own[i]).sum(1)
        if not (np.array_equal(found[i], np.argsort(far, kind="stable")[:NEIGHBOURS])
                and np.array_equal(differing[i], np.argsort(bits, kind="stable")[:NEIGHBOURS])):
            raise MiniAlexError("retrieval: search found other rows than a sort of all distances; nothing was timed")
