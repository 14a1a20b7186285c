"""Every op and pass at a recipe's shapes, each variant: first compared with the float64 oracle, then timed beside its peer.

A row that the oracle does not confirm is not timed.  Columns: median and extremes, GB/s (each array once), TFLOP/s, the share of
the machine's measured ceilings, and how many times the peer takes as long.  The floor of a row is the longer of its bytes at the
copy bandwidth and its products at the matrix ceiling.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

from ..backends import load
from ..spec import ShapeError
from .ceilings import ceilings
from .clocks import CudaClock, HostClock, clock_of
from .rows import Row, rows


def variants_of(ops, row: Row) -> tuple[tuple[str | None, str], ...]:
    """(variant, precision) of each row of an op's table; backends without tables have one nameless way."""
    kernels = getattr(ops, "kernels", None)
    if kernels is None:
        return ((None, row.precision(ops)),)
    return tuple((name, kernels.precision_of(row.op, name)) for name in kernels.variants(row.op))


class Line:
    """One variant of one row, as it is printed and kept."""

    def __init__(self, row: Row, variant: str | None, precision: str):
        self.row, self.variant, self.precision = row, variant, precision
        self.facts: dict = {"layer": row.layer, "op": row.op, "variant": variant, "precision": precision}

    def measure(self, ops, clock: HostClock | CudaClock, rounds: int, batch: int, limits: dict[str, float], peer: Callable | None) -> None:
        """Own calls and the peer's take turns, warm and cold."""
        own = clock.prepare(self.row.prepared(ops, self.variant))
        hot, cold, other = [], [], []
        for _ in range(clock.rounds(rounds)):
            hot.append(clock.milliseconds(own, cold=False))
            cold.append(clock.milliseconds(own, cold=True))
            if peer is not None:
                other.append(clock.milliseconds(peer, cold=True))
        median = statistics.median(cold)
        moved = self.row.bytes(self.precision)
        floor = 1e-6 * moved / limits["copy"]
        if self.row.macs:
            floor = max(floor, 2e-9 * self.row.macs / limits.get(self.precision, limits["float32"]))
        bandwidth = 1e-6 * moved / median
        self.facts |= {
            "ms": round(median, 5), "ms_min": round(min(cold), 5), "ms_max": round(max(cold), 5),
            "ms_warm": round(statistics.median(hot), 5), "ms_per_image": round(median / batch, 5),
            "gigabytes_per_second": round(bandwidth, 2), "share_of_copy": round(bandwidth / limits["copy"], 4),
            "share_of_floor": round(floor / median, 4)}
        if self.row.macs:
            self.facts["gigaflops"] = round(2e-6 * self.row.macs / median, 1)
        if other:
            self.facts["peer_ms"] = round(statistics.median(other), 5)
            self.facts["peer_ratio"] = round(statistics.median(b / a for a, b in zip(cold, other, strict=True)), 3)

    def text(self) -> str:
        facts = self.facts
        head = f"{facts['layer']:<15}{facts['op']:<20}{(self.variant or '-'):<16}"
        if "error" in facts:
            return f"{head} NOT VERIFIED: {facts['error']}"
        if "refused" in facts:
            return f"{head} does not run this shape: {facts['refused']}"
        if "ms" not in facts:
            return f"{head} verified"
        spread = f"{facts['ms_min']:.3g}..{facts['ms_max']:.3g}"
        peer = f"{facts['peer_ratio']:>7.2f}" if "peer_ratio" in facts else ""
        return (f"{head}{facts['ms']:>10.4g}{facts['ms_warm']:>10.4g}{spread:>18}{facts.get('gigaflops', ''):>11}"
                f"{facts['gigabytes_per_second']:>9.1f}{facts['share_of_copy']:>7.0%}{facts['share_of_floor']:>7.0%}{peer}")


HEAD = (f"{'layer':<15}{'op':<20}{'variant':<16}{'cold ms':>10}{'warm ms':>10}{'min..max':>18}{'GFLOP/s':>11}{'GB/s':>9}{'copy':>7}"
        f"{'floor':>7}{'peer x':>7}")


def _lines(ops, name: str, batch: int, only: str) -> Iterator[Line]:
    for row in rows(name, batch, only, "cells" in ops.fused()):
        for variant, precision in variants_of(ops, row):
            yield Line(row, variant, precision)


def bench_ops(name: str, ops, batches: list[int], rounds: int, *, backend: str = "cpu", peer: bool = False,
              verify_only: bool = False, only: str = "") -> tuple[list[dict], int]:
    """Prints and returns one table for each batch size, and how many rows the oracle did not confirm; those are not timed."""
    oracle, tables, failed = load("reference"), [], 0
    clock = None if verify_only else clock_of(backend)
    limits = ceilings(clock) if clock else {}
    if limits:
        print("ceilings measured here: " + ", ".join(
            f"{what} {value:,.0f} GB/s" if what == "copy" else f"{what} {value:,.2f} TFLOP/s" for what, value in limits.items()))
    for batch in batches:
        done, peers = [], {}
        print(f"\nops of {name}, batch {batch}, " + ("verified against the float64 oracle" if verify_only else
              f"medians of {rounds} rounds, each row compared with the float64 oracle first") + f"\n{HEAD}")
        for line in _lines(ops, name, batch, only):
            try:
                error = line.row.error(ops, oracle, line.variant, line.precision)
            except ShapeError as refusal:
                if line.variant is None or f"variant {line.variant} does not run" not in str(refusal):
                    raise
                line.facts["refused"] = str(refusal).rpartition(": ")[2]
                error = None
            if error:
                failed += 1
                line.facts["error"] = error
            elif clock and "refused" not in line.facts:
                line.measure(ops, clock, rounds, batch, limits, _peer_of(line, backend, clock, peers) if peer else None)
            done.append(line.facts)
            print(line.text(), flush=True)
        verified = sum("error" not in facts and "refused" not in facts for facts in done)
        print(f"{verified} rows verified, {sum('refused' in facts for facts in done)} refused by rule, "
              f"{sum('error' in facts for facts in done)} wrong")
        tables.append({"what": "ops", "recipe": name, "batch": batch, "rounds": rounds, "ceilings": limits, "rows": done})
    return tables, failed


def _peer_of(line: Line, backend: str, clock, made: dict) -> Callable | None:
    """PyTorch's call for the same row and precision, made once; None where PyTorch has no such op."""
    from .torch_ops import peer_call
    key = (id(line.row), line.precision)
    if key not in made:
        made.clear()                                # arrays of earlier rows
        made[key] = line.row, peer_call(line.row, line.precision, "cuda" if backend == "cuda" else "cpu")     # the row keeps its id
    return made[key][1]
