"""Comparisons with derived element-wise bounds, never one number for a whole array.

A sum of products computed in another order differs from the exact one by a few units in the last place of the sum of
*absolute* products.  So the bound of each element is that sum, times

    zero-mean data        4 eps                 partial sums stay near zero
    positive data         2 eps sqrt(L)         they grow with the chain; L additions one after another

and eps is the spacing of the type under test at 1.  A single missing tap exceeds the first bound in 998 of 1,000
cases, where rtol=1e-2 sees one in two.
"""

from __future__ import annotations

import math
import os

import numpy as np

LONGEST_CHAIN = 4096        # no backend adds more numbers one after another; longer sums go through a fixed tree


def eps(dtype: np.dtype | type | str) -> float:
    """Spacing of `dtype` at 1."""
    return float(np.finfo(dtype).eps)


def zero_mean_bound(absolute: np.ndarray, dtype: np.dtype | type | str = np.float32) -> np.ndarray:
    """4 eps op(|x|, |w|), for data drawn around zero; `absolute` is op(|x|, |w|) in float64."""
    return 4 * eps(dtype) * absolute


def positive_bound(absolute: np.ndarray, chain: int, dtype: np.dtype | type | str = np.float32) -> np.ndarray:
    """2 eps sqrt(L) op(|x|, |w|), for data of one sign; `chain` = L, the terms of one sum (at most LONGEST_CHAIN counts).

    Below four terms the rounding of each product and of the result weighs more than the chain, hence the floor."""
    return 2 * eps(dtype) * math.sqrt(max(4, min(chain, LONGEST_CHAIN))) * absolute


def running_test() -> str:
    """A command that repeats the test now running, or an empty string outside pytest."""
    current = os.environ.get("PYTEST_CURRENT_TEST", "").rsplit(" (", 1)[0]
    return f"python -m pytest '{current}'" if current else ""


def _report(what: str, where: tuple[int, ...], lines: list[str], seed: int | None, repro: str) -> AssertionError:
    tail = [] if seed is None else [f"seed  {seed}"]
    repro = "\n         ".join(part for part in (repro, running_test()) if part)
    tail += [f"repro {repro}"] if repro else []
    return AssertionError("\n  ".join([f"{what}: {lines[0]} at {tuple(int(i) for i in where)}", *lines[1:], *tail]))


def assert_within(got, want, bound, what: str, repro: str = "", seed: int | None = None) -> None:
    """|got - want| <= bound, element by element.

    NaN and infinity in `got` fail before anything is measured, and so does a NaN in `want` or `bound`.  The message
    names the element that exceeds its bound most.  `bound` broadcasts over `want`.
    """
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        raise AssertionError(f"{what}: shape {got.shape} instead of {want.shape}")
    if got.size == 0:
        raise AssertionError(f"{what}: nothing to compare (shape {got.shape})")
    bound = np.broadcast_to(np.asarray(bound, dtype=np.float64), want.shape)
    for name, array in (("want", want), ("bound", bound)):
        if not np.isfinite(array).all():
            raise _report(what, np.argwhere(~np.isfinite(array))[0], [f"{name} itself is not finite"], seed, repro)
    bad = ~np.isfinite(got)
    if bad.any():
        where = tuple(np.argwhere(bad)[0])
        raise _report(what, where, [f"got {got[where]}", f"want  {want[where]!r}", f"{int(bad.sum())} of {bad.size} not finite"],
                      seed, repro)
    difference = np.abs(got.astype(np.float64) - want.astype(np.float64))
    excess = difference - bound
    if not (excess <= 0).all():
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(excess > 0, difference / bound, 0.0)
        where = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
        lines = [f"off by {difference[where]:.3g}, bound {bound[where]:.3g}", f"got   {got[where]!r}", f"want  {want[where]!r}",
                 f"{int((excess > 0).sum())} of {got.size} elements beyond their bound"]
        raise _report(what, where, lines, seed, repro)


def assert_bits_equal(got, want, what: str, repro: str = "", seed: int | None = None) -> None:
    """The same bits everywhere: -0.0 differs from 0.0, and a NaN equals the same NaN.  Shape and type must agree too."""
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape or got.dtype != want.dtype:
        raise AssertionError(f"{what}: {got.dtype} {got.shape} instead of {want.dtype} {want.shape}")
    integer = np.dtype(f"u{got.dtype.itemsize}")
    different = np.ascontiguousarray(got).view(integer) != np.ascontiguousarray(want).view(integer)
    if different.any():
        where = tuple(np.argwhere(different)[0])
        raise _report(what, where, ["first different bits", f"got   {got[where]!r}", f"want  {want[where]!r}",
                                    f"{int(different.sum())} of {got.size} elements differ"], seed, repro)


def assert_exact(got, want, what: str, repro: str = "", seed: int | None = None) -> None:
    """Equal values across types, for small-integer inputs, whose sums are exact in any order.  NaN fails; -0.0 is 0.0."""
    assert_within(got, want, 0.0, what, repro, seed)
