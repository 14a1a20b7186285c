"""Proofs of the ops without weights: relu, tanh, sigmoid, lrn, spatial_norm, maxpool and avgpool.

`prove` is the comparison that accepts a backend and must reject every mutant.  Each bound follows from the roundings of
the formula, with u = eps / 2 the error of one operation, and is given element by element.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..spec import DTypeError, LayoutError, ShapeError
from . import cases
from .compare import assert_bits_equal, assert_within, eps, zero_mean_bound
from .gradcheck import assert_gradients, away_from, distinct
from .guard import call
from .mutants import Mutant

CASES: dict[str, list] = {
    "relu": cases.ACTIVATION, "tanh": cases.ACTIVATION, "sigmoid": cases.ACTIVATION, "lrn": cases.LRN, "spatial_norm": cases.SPATIAL_NORM,
    "maxpool": cases.MAXPOOL, "avgpool": cases.AVGPOOL,
}
READS = {"relu": ("y",), "tanh": ("y",), "sigmoid": ("y",), "lrn": ("x",), "spatial_norm": ("x",), "maxpool": ("x", "y"), "avgpool": ()}
NORMS = ("lrn", "spatial_norm")
POOLS = ("maxpool", "avgpool")
IN_PLACE = ("relu", "tanh", "sigmoid")
BPROP_OPTIONS = {"maxpool": (dict(ties="first"), dict(ties="all"))}


class Draw(NamedTuple):
    """One input.  `exact`: whole numbers, on which every right implementation agrees to the last bit."""

    label: str
    x: np.ndarray
    dy: np.ndarray
    exact: bool = False


def constants(case: cases.Case) -> dict[str, Any]:
    """The keyword arguments that fprop and bprop share."""
    if isinstance(case, cases.NormCase):
        return case.constants
    return dict(window=case.window, stride=case.stride) if isinstance(case, cases.PoolCase) else {}


def y_shape(case: cases.Case) -> tuple[int, ...]:
    return case.y_shape if isinstance(case, cases.PoolCase) else case.x_shape


def bprop_options(stem: str) -> tuple[dict, ...]:
    """The keyword arguments of bprop alone, each choice once."""
    return BPROP_OPTIONS.get(stem, ({},))


def fprop(ops: ModuleType, stem: str, case: cases.Case, x: np.ndarray) -> np.ndarray:
    """y, under the watch of guard.call."""
    return call(ops, f"{stem}_fprop", {"y": y_shape(case)}, x=x, **constants(case))["y"]


def bprop(ops: ModuleType, stem: str, case: cases.Case, x: np.ndarray, y: np.ndarray, dy: np.ndarray, **options) -> np.ndarray:
    """dx, under the watch of guard.call, handing over what the op reads."""
    read = {name: {"x": x, "y": y}[name] for name in READS[stem]}
    return call(ops, f"{stem}_bprop", {"dx": case.x_shape}, **read, dy=dy, **constants(case), **options)["dx"]


def spread(case: cases.Case) -> float:
    """Standard deviation of inputs at which every term counts: for a norm, alpha x^2 is about 1 whatever alpha is."""
    return case.alpha ** -0.5 if isinstance(case, cases.NormCase) else 2.0


def draws(stem: str, case: cases.Case, rng: np.random.Generator) -> Iterator[Draw]:
    """The inputs of one proof, in float64 but exact in float32."""
    def normal(shape: tuple[int, ...], size: float) -> np.ndarray:
        return (size * rng.standard_normal(shape)).astype(np.float32).astype(np.float64)

    yield Draw("normal", normal(case.x_shape, spread(case)), normal(y_shape(case), 1.0))
    if stem in NORMS:
        # One value in eight is 10,000 times larger: a running sum that adds and subtracts loses what is left of the others.
        spikes = np.where(rng.random(case.x_shape) < 0.125, 1e4, 1.0)
        yield Draw("spiky", normal(case.x_shape, spread(case)) * spikes, normal(y_shape(case), 1.0))
    whole_counts = stem == "avgpool" and case.window <= 2       # every mean divides by 1, 2 or 4
    if stem in ("relu", "maxpool") or whole_counts:
        dy = rng.integers(-8, 9, y_shape(case)).astype(np.float64)
        reach = 9 if stem == "relu" else 3      # few values make many ties
        yield Draw("small integers", rng.integers(-reach, reach + 1, case.x_shape).astype(np.float64), dy, exact=True)
        yield Draw("negative integers", rng.integers(-4, 0, case.x_shape).astype(np.float64), dy, exact=True)


def _terms(stem: str, case: cases.NormCase) -> int:
    return case.n if stem == "lrn" else case.n * case.n


def fprop_bound(oracle: ModuleType, stem: str, case: cases.Case, x: np.ndarray, y: np.ndarray, dtype: str) -> np.ndarray | float:
    """Allowed error of y in `dtype`, from x and the exact y.

    relu, maxpool   0: they choose, they do not compute
    tanh, sigmoid   4 eps |y|: library functions are good to a few units in the last place
    avgpool         4 eps of the mean of |x|
    norms           scale is a sum of positive terms: relative error (terms + 4) u, times beta; the power and the product 6 u
    """
    if stem in ("relu", "maxpool"):
        return 0.0
    if stem == "avgpool":
        return zero_mean_bound(fprop(oracle, stem, case, np.abs(x)), dtype)
    if stem in NORMS:
        return eps(dtype) / 2 * (case.beta * (_terms(stem, case) + 4) + 6) * np.abs(y)
    return 4 * eps(dtype) * np.abs(y)


def bprop_bound(oracle: ModuleType, stem: str, case: cases.Case, x: np.ndarray, y: np.ndarray, dy: np.ndarray, dtype: str,
                options: dict) -> np.ndarray | float:
    """Allowed error of dx in `dtype`.

    pools           4 eps of bprop(|dy|), a sum over the windows
    tanh            |dy| (u y^2 + 2 u (1 - y^2)) is at most eps |dy|
    sigmoid         2 eps |dy| y: 1 - y may lose its leading digits, the product with y may not
    norms           dx = A - B, A = dy scale^-beta, B = 2 alpha beta x sum(dy x scale^(-beta-1)).  A's error is that of y and one
                    product more; B's terms have (beta + 1) (terms + 4) u + 6 u, their sum terms u, its factors and the difference 5 u
    """
    if stem == "relu":
        return 0.0
    if stem in POOLS:
        return zero_mean_bound(bprop(oracle, stem, case, x, y, np.abs(dy), **options), dtype)
    if stem == "tanh":
        return eps(dtype) * np.abs(dy)
    if stem == "sigmoid":
        return 2 * eps(dtype) * np.abs(dy) * y
    terms, u = _terms(stem, case), eps(dtype) / 2
    exact_y = fprop(oracle, stem, case, x)
    A = np.abs(dy * np.divide(exact_y, x, out=np.full_like(x, case.k ** -case.beta), where=x != 0))
    B = np.abs(A - bprop(oracle, stem, case, np.abs(x), exact_y, np.abs(dy)))       # with |x| and |dy| nothing cancels inside the sum
    return u * ((case.beta * (terms + 4) + 8) * A + ((case.beta + 1) * (terms + 4) + 6 + terms + 5) * B)


def prove(stem: str, ops: ModuleType, oracle: ModuleType, case: cases.Case, seed: int, dtype: str = "float32") -> None:
    """Compares fprop and bprop of `ops`, computed in `dtype`, with the oracle in float64.

    Raises AssertionError beyond the derived bounds, and for whatever guard.call sees.  In float64 the oracle rounds as often as
    the accused, so the bounds are doubled.
    """
    both = 2 if dtype == "float64" else 1
    for draw in draws(stem, case, np.random.default_rng(seed)):
        what = f"{stem} of {draw.label} {dtype}"
        x, dy = draw.x.astype(dtype), draw.dy.astype(dtype)
        y, want = fprop(ops, stem, case, x), fprop(oracle, stem, case, draw.x)
        bound = 0.0 if draw.exact else both * fprop_bound(oracle, stem, case, draw.x, want, dtype)
        assert_within(y, want, bound, f"{what}: y", cases.repro(case), seed)
        given = y.astype(np.float64)        # bprop is judged on the y it was given
        for options in bprop_options(stem):
            dx, want = bprop(ops, stem, case, x, y, dy, **options), bprop(oracle, stem, case, draw.x, given, draw.dy, **options)
            bound = 0.0 if draw.exact else both * bprop_bound(oracle, stem, case, draw.x, given, draw.dy, dtype, options)
            assert_within(dx, want, bound, f"{what} {options or ''}: dx", cases.repro(case), seed)


def check_gradient(stem: str, ops: ModuleType, case: cases.Case, seed: int) -> None:
    """bprop against central differences of fprop in float64, away from kinks and ties; a gradient wrong by 1 % must fail."""
    rng = np.random.default_rng(seed)
    x = distinct(rng, case.x_shape) if stem == "maxpool" else spread(case) * rng.standard_normal(case.x_shape)
    if stem == "relu":
        x = away_from(x)
    y, dy = fprop(ops, stem, case, x), rng.standard_normal(y_shape(case))

    def function(x: np.ndarray) -> np.ndarray:
        out = np.empty(y_shape(case))
        getattr(ops, f"{stem}_fprop")(x, out, **constants(case))
        return out

    for options in bprop_options(stem):
        dx = bprop(ops, stem, case, x, y, dy, **options)
        assert_gradients(function, {"x": x}, dy, {"x": dx}, f"{stem}_bprop {cases.repro(case)} seed {seed}")


def check_bits(stem: str, ops: ModuleType, case: cases.Case, seed: int) -> None:
    """The same bits again, with other numbers of workers, in blocks of images, and in place where that is allowed.

    A block is a slice of axis 1 of larger arrays, whose other images must stay untouched.
    """
    draw = next(draws(stem, case, np.random.default_rng(seed)))
    x, dy = draw.x.astype(np.float32), draw.dy.astype(np.float32)
    y = fprop(ops, stem, case, x)
    for workers in (1, 3):
        ops.set_workers(workers)
        assert_bits_equal(fprop(ops, stem, case, x), y, f"{stem}_fprop once more, {workers} workers", cases.repro(case), seed)
    if stem in IN_PLACE:
        here = x.copy()
        getattr(ops, f"{stem}_fprop")(here, here)
        assert_bits_equal(here, y, f"{stem}_fprop in place", cases.repro(case), seed)
    blocks = _blocks(case.N)
    cut = np.full_like(y, np.nan)
    for start, stop in blocks:
        getattr(ops, f"{stem}_fprop")(x[:, start:stop], cut[:, start:stop], **constants(case))
        _untouched(cut, stop, f"{stem}_fprop of images {start} to {stop}")
    assert_bits_equal(cut, y, f"{stem}_fprop in blocks", cases.repro(case), seed)
    for options in bprop_options(stem):
        dx = bprop(ops, stem, case, x, y, dy, **options)
        again = bprop(ops, stem, case, x, y, dy, **options)
        assert_bits_equal(again, dx, f"{stem}_bprop once more", cases.repro(case), seed)
        if stem in IN_PLACE:
            here = dy.copy()
            getattr(ops, f"{stem}_bprop")(y, here, here)
            assert_bits_equal(here, dx, f"{stem}_bprop in place", cases.repro(case), seed)
        cut = np.full_like(dx, np.nan)
        for start, stop in blocks:
            read = {name: {"x": x, "y": y}[name][:, start:stop] for name in READS[stem]}
            getattr(ops, f"{stem}_bprop")(**read, dy=dy[:, start:stop], dx=cut[:, start:stop], **constants(case), **options)
            _untouched(cut, stop, f"{stem}_bprop of images {start} to {stop}")
        assert_bits_equal(cut, dx, f"{stem}_bprop in blocks", cases.repro(case), seed)


def _blocks(N: int) -> list[tuple[int, int]]:
    """One image, then the rest."""
    return [(0, 1), (1, N)] if N > 1 else [(0, 1)]


def _untouched(array: np.ndarray, stop: int, what: str) -> None:
    if not np.isnan(array[:, stop:]).all():
        raise AssertionError(f"{what}: wrote an image behind image {stop - 1}")


class BadCall(NamedTuple):
    """Arguments that `op` must refuse with `error`."""

    label: str
    op: str
    error: type[Exception]
    arguments: dict[str, Any]


def bad_calls(stem: str, case: cases.Case) -> Iterator[BadCall]:
    """Each way to call fprop and bprop wrongly that all these ops share, made from a right call; `case` has two columns and C > 1."""
    for op, out in ((f"{stem}_fprop", "y"), (f"{stem}_bprop", "dx")):
        shapes = {"x": case.x_shape, "y": y_shape(case), "dy": y_shape(case), "dx": case.x_shape}
        names = ("x", "y") if out == "y" else (*READS[stem], "dy", "dx")
        options = bprop_options(stem)[0] if out == "dx" else {}
        good = {**{name: np.ones(shapes[name], np.float32) for name in names}, **constants(case), **options}
        longer, wide = (np.ones(np.multiply(shapes[out], factors), np.float32) for factors in ((1, 2, 1, 1, 1), (1, 1, 1, 1, 2)))
        yield BadCall("twice the images", op, ShapeError, good | {out: longer})
        yield BadCall("a column too few", op, ShapeError, good | {out: good[out][:1].copy()})
        yield BadCall("a channel too few", op, ShapeError, good | {out: good[out][..., :-1].copy()})
        yield BadCall("mixed types", op, DTypeError, good | {out: good[out].astype(np.float64)})
        yield BadCall("integers", op, DTypeError, good | {name: good[name].astype(np.int32) for name in names})
        yield BadCall("half precision", op, DTypeError, good | {name: good[name].astype(np.float16) for name in names})
        yield BadCall("every second channel", op, LayoutError, good | {out: wide[..., ::2]})
        yield BadCall("rows and columns swapped in memory", op, LayoutError, good | {names[0]: _swapped(good[names[0]])})
        yield BadCall("output shifted over an input", op, LayoutError, good | _overlapping(good, names[-2], out))
        if stem not in IN_PLACE:
            yield BadCall("four axes", op, ShapeError, good | {name: good[name][0] for name in names})
        if stem in NORMS:
            for n in (0, 4, -1):
                yield BadCall(f"window n={n}", op, ShapeError, good | dict(n=n))
            yield BadCall("in place", op, LayoutError, good | {out: good[names[-2]]})
        if stem in POOLS:
            for change in (dict(window=0), dict(stride=0), dict(window=case.H + 1), dict(stride=case.stride + 1)):
                yield BadCall(str(change), op, ShapeError, good | change)


def _swapped(array: np.ndarray) -> np.ndarray:
    """Equal values and shape, H and W in the other order in memory."""
    return np.ascontiguousarray(array.swapaxes(2, 3)).swapaxes(2, 3)


def _overlapping(arrays: dict[str, Any], source: str, out: str) -> dict[str, np.ndarray]:
    """The two arrays cut out of one piece of memory, one element apart."""
    a, b = arrays[source], arrays[out]
    memory = np.ones(max(a.size, b.size) + 1, a.dtype)
    return {source: memory[:a.size].reshape(a.shape), out: memory[1:1 + b.size].reshape(b.shape)}


def killed_by(mutant: Mutant, oracle: ModuleType, rows: Iterable[cases.Case], seed: int = 1) -> str | None:
    """The first case whose proof rejects the mutant; None if it survives them all."""
    for case in rows:
        try:
            prove(mutant.stem, mutant.ops(oracle), oracle, case, seed)
        except AssertionError:
            return case.name
    return None
