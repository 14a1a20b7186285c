"""How far one call of an op may be from the oracle, element by element, from the arrays of the call alone.

The bounds are those of the ops' own tests (compare.py, unweighted.py), for data drawn around zero.  `allowed` knows every op
that a layer calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from ..backends import checks, cpu
from ..backends.cpu import winograd
from . import cases, unweighted
from .compare import eps

OUTPUTS = {"fprop": ("y",), "bprop": ("dx",), "dgrad": ("dx",), "wgrad": ("dw", "db"), "test": ("y",)}
WEIGHTED = ("conv", "conv_relu", "local", "linear", "linear_relu")
AT_POINTS = "points"                                         # what the cpu backend's form of some convolutions is called here
# Relative error of an operand of a product.  Of split operands: half of what their products leave out.  With the parts
# |x1| <= 2^-8 |x| and |x2| <= 2^-17 |x| that is x1 y1 + x2 y + x y2 for bf16x3, at most (1 + 1/2 + 1/2) / 2^16 of |x y|, and
# x1 y2 + x2 y1 + x2 y2 for bf16x6, at most (1 + 2^-10) / 2^24.
# Evaluation at points is as exact as if operands were rounded so (tests/test_winograd.py).
ROUNDED = {"float32": 0.0, AT_POINTS: 2.0**-17, "tf32": 2.0**-11, "bf16": 2.0**-8, "bf16x3": 2.0**-16, "bf16x6": 1.001 * 2.0**-25}

Arrays = Mapping[str, np.ndarray]


def outputs(op: str) -> tuple[str, ...]:
    """The arguments that an op writes; () for what is no op of a layer."""
    if op == "loss_fprop":
        return ("p", "loss")
    stem, _, kind = op.rpartition("_")
    return OUTPUTS.get(kind, ()) if stem else ()


def is_gradient(op: str) -> bool:
    return op.endswith(("_bprop", "_dgrad", "_wgrad"))


def inputs(op: str, arrays: Arrays) -> Arrays:
    """Without what the op writes, which before the call may be anything."""
    return {name: a for name, a in arrays.items() if name not in outputs(op)}


def run(oracle: ModuleType, op: str, arrays: Arrays, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The outputs of the oracle's op on float64 copies of `arrays`, of which the outputs give the shapes."""
    given = {name: a.astype(np.float64) if a.dtype.kind == "f" else a for name, a in inputs(op, arrays).items()}
    out = {name: np.full(arrays[name].shape, np.nan) for name in outputs(op)}
    getattr(oracle, op)(**{**given, **out}, **options)
    return out


def precision_without_variants(ops: ModuleType, op: str, arrays: Arrays, options: Mapping[str, Any]) -> str:
    """Of a call to a backend that has no tables: the cpu backend chooses a form of convolution by its shapes."""
    if not op.startswith("conv") or getattr(ops, op, None) is not getattr(cpu, op):            # `ops` may stand before the backend
        return "float32"
    names = {"x": ("x", "dx"), "y": ("y", "dy"), "w": ("w", "dw"), "b": ("b", "db")}
    given = {name: next((arrays[key] for key in keys if key in arrays), None) for name, keys in names.items()}
    if given["b"] is None:
        given["b"] = np.empty(len(given["w"]), given["w"].dtype)
    geometry = {name: options[name] for name in ("stride", "pad", "groups")}
    d = checks.conv(op, **given, **geometry, outputs=())
    return AT_POINTS if (winograd.dgrad_form if op.endswith("dgrad") else winograd.form)(d) else "float32"


def allowed(oracle: ModuleType, op: str, arrays: Arrays, options: Mapping[str, Any], want: Arrays, dtype: str,
            precision: str) -> dict[str, Any]:
    """For each output the largest error of a float32 (`dtype`) op whose products have operands in `precision`."""
    stem = op.rpartition("_")[0]
    if stem in WEIGHTED:
        return _weighted(oracle, op, arrays, options, dtype, precision)
    if stem == "dropout":
        return {name: 2 * eps(dtype) * np.abs(value) for name, value in want.items()}
    if stem == "loss":
        return _loss(op, arrays, options, want, dtype)
    case, wide = _case(stem, arrays, options), {name: a.astype(np.float64) for name, a in inputs(op, arrays).items()}
    if op.endswith("fprop"):
        return {"y": unweighted.fprop_bound(oracle, stem, case, wide["x"], want["y"], dtype)}
    x, y, chosen = wide.get("x"), wide.get("y"), {name: options[name] for name in ("ties",) if name in options}
    return {"dx": unweighted.bprop_bound(oracle, stem, case, x, y, wide["dy"], dtype, chosen)}


def _weighted(oracle, op, arrays, options, dtype, precision) -> dict[str, np.ndarray]:
    """4 eps op(|x|, |w|) for float32.  Operands rounded by at most r add 2 r op(|x|, |w|) in the worst case; as their errors are
    independent, more than 5 r sqrt(op(x^2, w^2)), six standard deviations, does not happen.  The error of a split product, some of
    it a product of two such errors, has at most the same deviation.  Evaluated at points, an output has the errors of its whole tile, so
    the largest sum of its image and map counts."""
    linear, rounded, dropout = op.replace("_relu", ""), ROUNDED[precision], options.get("dropout")
    options = {name: value for name, value in options.items() if name != "dropout"}

    def of(function):
        given = {name: function(a.astype(np.float64)) for name, a in inputs(op, arrays).items()}
        return run(oracle, linear, {**arrays, **given}, options)

    absolute = of(np.abs)
    bound = {name: 4 * eps(dtype) * value for name, value in absolute.items()}
    if rounded:
        squares = of(np.square)
        if precision == AT_POINTS:
            absolute, squares = ({name: a.max((2, 3), keepdims=True) if a.ndim == 5 else a for name, a in sums.items()}
                                 for sums in (absolute, squares))
        for name in bound:
            bound[name] = bound[name] + np.minimum(2.01 * rounded * absolute[name], 5 * rounded * np.sqrt(squares[name]))
    return {name: value * dropout["scale"] for name, value in bound.items()} if dropout else bound


def _loss(op, arrays, options, want, dtype) -> dict[str, np.ndarray]:
    """As tests/test_loss.py: an error in a logit's distance z from the largest is a relative error in exp(z)."""
    u, smallest, labels = eps(dtype), float(np.finfo(dtype).tiny), arrays["labels"]
    if op == "loss_bprop":
        onehot = np.arange(arrays["p"].shape[1]) == labels[:, None]
        return {"dx": 2 * u * (arrays["p"].astype(np.float64) + onehot) * options["scale"] + smallest}
    x, p = arrays["x"].astype(np.float64), want["p"]
    z = x - x.max(axis=1, keepdims=True)
    total = ((p * -z).sum(axis=1) + 2 * math.sqrt(x.shape[1]) + 4) * u
    return {"p": p * (total[:, None] + (4 - z) * u) + smallest, "loss": total + u * (-z[np.arange(len(x)), labels] + want["loss"])}


def _case(stem: str, arrays: Arrays, options: Mapping[str, Any]) -> cases.Case:
    """The row that a call of an op without weights would be in cases.py."""
    G, N, H, W, C = next(arrays[name] for name in ("x", "dx", "y") if name in arrays).shape
    if stem in unweighted.NORMS:
        constants = {name: options[name] for name in ("n", "k", "alpha", "beta")}
        return cases.NormCase(stem, N, H, W, C, columns=G, **constants)
    if stem in unweighted.POOLS:
        return cases.PoolCase(stem, N, H, W, C, columns=G, window=options["window"], stride=options["stride"])
    return cases.MapCase(stem, N, H, W, C, columns=G)
