"""What a backend's ops with weights (conv, local, linear) must satisfy for a case.

Every comparison is against the oracle in float64, element by element, by the bounds of minialex.testing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from minialex.testing import (
    Mutant,
    assert_bits_equal,
    assert_exact,
    assert_gradients,
    assert_within,
    call,
    cases,
    positive_bound,
    zero_mean_bound,
)

KINDS = ("zero_mean", "positive", "integers")


def draw(kind: str, rng: np.random.Generator, shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """Normal, uniform in (0, 1), or integers of -3 .. 3, whose float32 sums are exact in any order."""
    if kind == "zero_mean":
        return rng.standard_normal(shape).astype(dtype)
    if kind == "positive":
        return rng.uniform(0.01, 1.0, shape).astype(dtype)
    return rng.integers(-3, 4, shape).astype(dtype)


@dataclass(frozen=True)
class Weights:
    """How the three ops of a stem are called for a case of its list."""

    stem: str

    def shapes(self, case) -> dict[str, tuple[int, ...]]:
        if self.stem == "local":
            return dict(x=case.x_shape, w=case.local_w_shape, b=case.local_b_shape, dy=case.y_shape)
        return dict(x=case.x_shape, w=case.w_shape, b=(case.K,), dy=case.y_shape)

    def keywords(self, case) -> dict:
        return dict(groups=case.groups) if self.stem == "linear" else case.geometry

    def draw(self, case, kind: str, seed: int, dtype: type = np.float32) -> dict[str, np.ndarray]:
        """x, w, b and dy."""
        rng = np.random.default_rng(seed)
        return {name: draw(kind, rng, shape, dtype) for name, shape in self.shapes(case).items()}

    def chain(self, case, op: str) -> int:
        """Terms of one sum: the declared longest chain of a plain implementation."""
        w, dy = self.shapes(case)["w"], case.y_shape
        if op.endswith("wgrad"):
            return dy[1] if self.stem in ("local", "linear") else dy[1] * dy[2] * dy[3]
        window = 1 if self.stem == "linear" else case.R * case.S
        return window * (w[-1] if op.endswith("fprop") else case.K // case.groups)

    def fprop(self, ops, case, x, w, b, op: str = "") -> np.ndarray:
        return call(ops, op or f"{self.stem}_fprop", {"y": case.y_shape}, x=x, w=w, b=b, **self.keywords(case))["y"]

    def dgrad(self, ops, case, dy, w, **gate) -> np.ndarray:
        return call(ops, f"{self.stem}_dgrad", {"dx": case.x_shape}, dy=dy, w=w, **gate, **self.keywords(case))["dx"]

    def wgrad(self, ops, case, x, dy, start: tuple[np.ndarray, np.ndarray] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(dw, db); with `start` they are accumulated onto copies of it."""
        shapes = self.shapes(case)
        outputs = {"dw": shapes["w"], "db": shapes["b"]} if start is None else dict(zip(("dw", "db"), start, strict=True))
        options = {} if start is None else {"accumulate": True}
        out = call(ops, f"{self.stem}_wgrad", outputs, x=x, dy=dy, **self.keywords(case), **options)
        return out["dw"], out["db"]


def _wide(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: a.astype(np.float64) for name, a in arrays.items()}


def _magnitudes(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.abs(a.astype(np.float64)) for name, a in arrays.items()}


def _judge(kind: str, got, want, absolute, chain: int, what: str, case, seed: int) -> None:
    what, repro = f"{what} [{case}] on {kind} data", cases.repro(case)
    if kind == "integers":
        assert_exact(got, want, what, repro, seed)
    else:
        bound = zero_mean_bound(absolute, got.dtype) if kind == "zero_mean" else positive_bound(absolute, chain, got.dtype)
        assert_within(got, want, bound, what, repro, seed)


def prove_fprop(ops: ModuleType, oracle: ModuleType, layer: Weights, case, seed: int, kinds: Iterable[str] = KINDS, op: str = "") -> None:
    """y within the bounds, for each kind of data.  `op` names a fused form, whose reference is the composition."""
    op = op or f"{layer.stem}_fprop"
    for kind in kinds:
        data = layer.draw(case, kind, seed)
        del data["dy"]
        if "relu" in op:                                        # positive data would never reach the kink
            data["b"] = data["b"] - np.float32(layer.chain(case, op) // 3) if kind == "positive" else data["b"]
        got = layer.fprop(ops, case, **data, op=op)
        want = layer.fprop(oracle, case, **_wide(data), op=op)
        _judge(kind, got, want, layer.fprop(oracle, case, **_magnitudes(data)), layer.chain(case, op), f"{op} y", case, seed)


def prove_dgrad(ops: ModuleType, oracle: ModuleType, layer: Weights, case, seed: int, kinds: Iterable[str] = KINDS) -> None:
    """dx within the bounds."""
    for kind in kinds:
        data = layer.draw(case, kind, seed)
        data = {"dy": data["dy"], "w": data["w"]}
        got, want, absolute = (layer.dgrad(o, case, **d) for o, d in ((ops, data), (oracle, _wide(data)), (oracle, _magnitudes(data))))
        _judge(kind, got, want, absolute, layer.chain(case, "dgrad"), f"{layer.stem}_dgrad dx", case, seed)


def prove_wgrad(ops: ModuleType, oracle: ModuleType, layer: Weights, case, seed: int, kinds: Iterable[str] = KINDS) -> None:
    """dw and db within the bounds, overwriting and accumulating."""
    for kind in kinds:
        data = layer.draw(case, kind, seed)
        data = {"x": data["x"], "dy": data["dy"]}
        shapes = layer.shapes(case)
        rng = np.random.default_rng(seed + 1)
        start = (draw(kind, rng, shapes["w"]), draw(kind, rng, shapes["b"]))
        want, absolute = (layer.wgrad(oracle, case, **d) for d in (_wide(data), _magnitudes(data)))
        for name, begin in (("", None), (" accumulated", start)):
            got = layer.wgrad(ops, case, **data, start=begin)
            for i, output in enumerate(("dw", "db")):
                before = 0.0 if begin is None else begin[i].astype(np.float64)
                _judge(kind, got[i], want[i] + before, absolute[i] + np.abs(before), layer.chain(case, "wgrad"),
                       f"{layer.stem}_wgrad {output}{name}", case, seed)


def prove_gate(ops: ModuleType, layer: Weights, case, seed: int) -> None:
    """dgrad behind a gate has the bits of dgrad, then dropout_bprop's scale, then relu_bprop."""
    data = layer.draw(case, "zero_mean", seed)
    dy, w, gate = data["dy"], data["w"], np.maximum(data["x"], 0)
    gate.ravel()[::7] = np.nan                                  # lets nothing through, as relu_bprop's y
    for scale in (1.0, 1.7):
        want = np.where(gate > 0, layer.dgrad(ops, case, dy, w) * np.float32(scale), np.float32(0))
        got = layer.dgrad(ops, case, dy, w, gate=gate, scale=scale)
        assert_bits_equal(got, want, f"{layer.stem}_dgrad dx behind a gate, scale {scale}", cases.repro(case), seed)


PROOFS: dict[str, Callable] = {"fprop": prove_fprop, "dgrad": prove_dgrad, "wgrad": prove_wgrad}


def prove(ops: ModuleType, oracle: ModuleType, layer: Weights, op: str, case, seed: int, kinds: Iterable[str] = KINDS) -> None:
    """The proof of one op by its full name."""
    if op == "conv_relu_fprop":
        prove_fprop(ops, oracle, layer, case, seed, kinds, op)
    else:
        PROOFS[op.rsplit("_", 1)[1]](ops, oracle, layer, case, seed, kinds)


def killed_by(mutant: Mutant, oracle: ModuleType, layer: Weights, rows: Iterable, seed: int = 1) -> str | None:
    """The first case whose proof rejects the mutant; None if it survives them all."""
    ops = mutant.ops(oracle)
    for case in rows:
        try:
            prove(ops, oracle, layer, mutant.replaces, case, seed)
        except AssertionError:
            return case.name
    return None


def prove_gradients(ops: ModuleType, layer: Weights, case, seed: int) -> float:
    """dgrad and wgrad against central differences of fprop, all in float64 on the same backend; returns the worst ratio."""
    data = layer.draw(case, "zero_mean", seed, np.float64)
    dy = data.pop("dy")
    dw, db = layer.wgrad(ops, case, data["x"], dy)
    gradients = {"x": layer.dgrad(ops, case, dy, data["w"]), "w": dw, "b": db}
    return assert_gradients(lambda x, w, b: layer.fprop(ops, case, x, w, b), data, dy, gradients, f"{layer.stem} [{case}]", seed=seed)


def prove_adjoint(ops: ModuleType, layer: Weights, case, seed: int) -> None:
    """<fprop(x), dy> = <x, dgrad(dy)> = <w, wgrad(x, dy)> without bias, and <b, db> = <b spread over y, dy>: the three ops
    are one trilinear form.  Integers, so the four sums are equal and not merely close."""
    data = layer.draw(case, "integers", seed)
    x, w, b, dy = (data[name] for name in ("x", "w", "b", "dy"))
    dw, db = layer.wgrad(ops, case, x, dy)

    def dot(left, right):
        return int(np.vdot(left.astype(np.int64), right.astype(np.int64)))

    form = dot(layer.fprop(ops, case, x, w, np.zeros_like(b)), dy)
    spread = dot(layer.fprop(ops, case, np.zeros_like(x), w, b), dy)
    for name, value, want in (("<x, dgrad(dy)>", dot(x, layer.dgrad(ops, case, dy, w)), form), ("<w, dw>", dot(w, dw), form),
                              ("<b, db>", dot(b, db), spread)):
        if value != want:
            raise AssertionError(f"{layer.stem} [{case}]: {name} is {value}, but <fprop, dy> is {want} (seed {seed}; {cases.repro(case)})")
