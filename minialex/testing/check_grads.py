"""`minialex check-grads`: every layer of a recipe on a backend, op by op, against the float64 oracle, and its gradients against
central differences of the oracle's forward pass.  Two witnesses: the first sees any wrong element, the second also an oracle
whose forward and backward passes disagree.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..backends import reference
from ..bf16 import narrow, widen
from ..fuse import fuse
from ..layers import ConvReLU, Dropout, Layer, LinearReLU, LRNMaxPool, MaxPool, ReLU, Run, Sigmoid, SoftmaxLoss, Tanh
from ..nets import Recipe
from ..nets.table import grid
from ..nets.table import rows as table_rows
from ..spec import BF16, MiniAlexError, Shape, ShapeError
from . import op_bounds
from .gradcheck import away_from, distinct

BUDGET = 50_000_000         # multiply-adds of one image up to which a network is checked as it is
DIRECTIONS = 3


FUSED = (ConvReLU, LinearReLU, LRNMaxPool)


class Row(NamedTuple):
    """One call of one op.  `error` and `difference` are in units of what is allowed: above 1 is wrong."""

    layer: str
    op: str
    variant: str
    error: float = 0.0
    difference: float | None = None         # None: no gradient, or its differences are another row's
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.error <= 1 and (self.difference is None or self.difference <= 1)

    @property
    def verdict(self) -> str:
        return self.note or ("ok" if self.ok else "WRONG")


class Refused(Exception):
    """A forced variant does not run a shape."""


def at_size(recipe: Recipe) -> tuple[list[Layer], Shape, str]:
    """(layers, input, note): the recipe's network, or, where that would take minutes, an eighth of its width."""
    layers = recipe.build(recipe.classes)
    macs = sum(row.macs for row in table_rows(layers, recipe.input))
    if macs <= BUDGET or "width" not in inspect.signature(recipe.build).parameters:
        return layers, recipe.input, ""
    note = f"{recipe.name} at 1/8 of its width; at full width an image costs {macs / 1e6:,.0f} million multiply-adds"
    return recipe.build(recipe.classes, width=1 / 8), recipe.input, f"{note}.  Windows, strides and columns are as they are."


class Watched:
    """`ops` that judge each call against the oracle while a layer makes it; `rows` collects the verdicts."""

    def __init__(self, ops: ModuleType, layer: str, variant: str | None, precision: str):
        self._ops, self._layer, self._variant, self._precision = ops, layer, variant, precision
        self._kernels = getattr(ops, "kernels", ops)
        self.rows: list[Row] = []
        self.bounds: dict[str, np.ndarray] = {}             # of every output, by its argument's name

    def __getattr__(self, name: str) -> Callable:
        function = getattr(self._ops, name)
        if not op_bounds.outputs(name):
            return function
        names = inspect.signature(getattr(reference, name))
        return lambda *arguments, **options: self._judged(name, function, names.bind(*arguments, **options).arguments)

    def _judged(self, op: str, function: Callable, given: dict[str, Any]) -> None:
        given = {name: value for name, value in given.items() if name != "accumulate"}      # False, as in a whole batch
        arrays = {name: value for name, value in given.items() if hasattr(value, "shape")}
        options = {name: value for name, value in given.items() if name not in arrays}
        before = {name: widen(np.array(self._ops.to_host(a))) for name, a in arrays.items()}
        composed = _one_after_the_other(self._ops, op, arrays, options) if op.startswith("lrn_maxpool") else None
        ran = self._run(op, function, given)
        want = composed or op_bounds.run(reference, op, before, options)
        precision = (self._kernels.precision_of(op, ran) if ran else
                     op_bounds.precision_without_variants(self._ops, op, arrays, options))
        bound = dict.fromkeys(want, 0.0) if composed else op_bounds.allowed(reference, op, before, options, want, "float32", precision)
        if not composed:                                    # what is stored as bfloat16 is rounded once more
            bound |= {name: bound[name] + op_bounds.ROUNDED["bf16"] * (abs(want[name]) + bound[name])
                      for name in want if arrays[name].dtype == BF16}
        error = max(worst(widen(self._ops.to_host(arrays[name])), want[name], bound[name]) for name in want)
        self.bounds |= {name: np.broadcast_to(bound[name], want[name].shape) for name in want}
        self.rows.append(Row(self._layer, op, ran or "-", error))

    def _run(self, op: str, function: Callable, given: dict[str, Any]) -> str:
        """Runs the op; returns the variant that did, "" where there are none."""
        if not hasattr(self._kernels, "extension"):
            function(**given)
            return ""
        forced = {"variant": self._variant} if self._variant in self._kernels.variants(op) else {}
        with _chosen(self._kernels, self._precision) as chosen:
            try:
                function(**given, **forced)
            except ShapeError as error:
                if forced and f"variant {self._variant} does not run" in str(error):
                    self.rows.append(Row(self._layer, op, self._variant, note="refused"))
                    raise Refused from error
                raise
        return chosen[-1] if chosen else ""


def _one_after_the_other(ops: ModuleType, op: str, arrays: dict[str, Any], options: dict[str, Any]) -> dict[str, np.ndarray]:
    """What norm and pool make of the same arrays as two ops: the one op must give the same bits, since where rounding makes a tie the
    gradient goes to another maximum than in float64, and both are right."""
    norm, pool = ({name: options[name] for name in names} for names in (("n", "k", "alpha", "beta"), ("window", "stride")))
    x = arrays["x"]
    between, result = ops.empty(x.shape, x.dtype), ops.empty((arrays["y"] if op.endswith("fprop") else x).shape, x.dtype)
    ops.lrn_fprop(x, between, **norm)
    if op.endswith("fprop"):
        ops.maxpool_fprop(between, result, **pool)
        return {"y": widen(ops.to_host(result))}
    d = ops.empty(x.shape, x.dtype)
    ops.maxpool_bprop(between, arrays["y"], arrays["dy"], d, ties=options["ties"], **pool)
    ops.lrn_bprop(x, d, result, **norm)
    if options["relu"]:
        ops.relu_bprop(x, result, result)
    return {"dx": widen(ops.to_host(result))}


@contextmanager
def _chosen(kernels: Any, precision: str) -> Iterator[list[str]]:
    """The names of the variants that run meanwhile, seen where every op rings its doorbell."""
    names, ring = [], kernels._ring

    def listen(op: str, dims: Any, *arguments: Any, variant: str | None) -> None:
        dims = tuple(dims)
        names.append(variant or kernels.choose(op, dims, precision))
        ring(op, dims, *arguments, variant=variant)

    kernels._ring = listen
    try:
        yield names
    finally:
        del kernels._ring


def worst(got: np.ndarray, want: np.ndarray, bound: np.ndarray | float) -> float:
    """The largest |got - want| / bound; where the bound is 0, 0 if equal.  A NaN is infinitely wrong."""
    difference = np.abs(got.astype(np.float64) - want)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(difference == 0, 0.0, difference / bound)
    return float(np.where(np.isnan(ratio), np.inf, ratio).max())


def draw(layer: Layer, x: Shape, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """x, parameters and dy in float32: away from kinks and ties, and of a size at which every term counts."""
    shape = x.array(batch)
    values = rng.standard_normal(shape)
    if isinstance(layer, (ReLU, Tanh, Sigmoid)):
        values = away_from(4 * values)                      # into saturation
    elif isinstance(layer, SoftmaxLoss):
        values = 100 * values                               # where a probability is 0 in float32 and its logarithm is not
    elif isinstance(layer, MaxPool):
        values = distinct(rng, shape)
    elif hasattr(layer, "constants"):
        values = values * layer.constants()["alpha"]**-0.5
    params = {spec.name: rng.standard_normal(spec.shape) for spec in layer.params(x)}
    if "w" in params:
        params["w"] /= math.sqrt(params["w"].size / max(1, params["b"].size))          # y is about 1, as x
    dy = rng.standard_normal(layer.out_shape(x).array(batch))
    return values.astype(np.float32), {name: value.astype(np.float32) for name, value in params.items()}, dy.astype(np.float32)


def check_layer(ops: ModuleType, layer: Layer, x: Shape, batch: int, ordinal: int, *, variant: str | None = None,
                precision: str = "float32", seed: int = 0) -> list[Row]:
    """A row for each op the layer calls in fprop and bprop.  Activations are stored as in a net of the precision that is set, but around
    the loss, and for a pool alone, whose values would tie."""
    rng, watched = np.random.default_rng([seed, ordinal]), Watched(ops, layer.name, variant, precision)
    stored = "float32" if isinstance(layer, (MaxPool, SoftmaxLoss)) else ops.storage("float32")
    keep = narrow if stored == BF16 else np.asarray
    host_x, params, dy = draw(layer, x, batch, rng)
    host_x, dy = widen(keep(host_x)), widen(keep(dy))
    weights = {name: ops.from_host(value) for name, value in params.items()}
    run = Run(seed=(1 << 40) + seed, step=2, first=3, ordinal=ordinal, params=weights,
              grads={name: ops.empty(value.shape) for name, value in params.items()})
    device_x, dx = ops.from_host(keep(host_x)), ops.empty(host_x.shape, stored)
    try:
        if isinstance(layer, SoftmaxLoss):
            labels = rng.integers(0, x.C, batch).astype(np.int32)
            p, device_labels = ops.empty((batch, x.C)), ops.from_host(labels)
            layer.loss(watched, device_x, device_labels, p, ops.empty((batch,)))
            layer.dlogits(watched, p, device_labels, dx, scale=1.0 / batch)
            function, dy = _loss_function(layer, labels, batch), np.ones(1)
            watched.bounds["dx"] = watched.bounds["dx"].reshape(host_x.shape) + watched.bounds["p"].reshape(host_x.shape) / batch
        else:
            y = ops.empty(layer.out_shape(x).array(batch), stored)
            layer.fprop(watched, device_x, y, run)
            layer.bprop(watched, device_x, y, ops.from_host(keep(dy)), dx, run)
            function = _fprop_function(layer, dy.shape, run)
    except Refused:
        return watched.rows
    if isinstance(layer, FUSED):            # the rows of its two layers have everything else
        return [row for row in watched.rows if row.op.startswith(("conv_relu", "linear_relu", "lrn_maxpool"))]
    arrays = {"x": host_x.astype(np.float64), **{name: value.astype(np.float64) for name, value in params.items()}}
    gradients = {"x": dx, **run.grads}
    gradients = {name: widen(ops.to_host(gradient)) for name, gradient in gradients.items()}
    ratios = {name: differences(function, arrays, dy.astype(np.float64), name, gradient, watched.bounds[f"d{name}"], rng)
              for name, gradient in gradients.items()}
    rows = [row._replace(difference=max(ratios[name[1:]] for name in op_bounds.outputs(row.op))) if op_bounds.is_gradient(row.op) else row
            for row in watched.rows]
    return rows + ([_test_row(ops, layer, x, batch, host_x, variant, precision)] if isinstance(layer, Dropout) else [])


def _test_row(ops, layer, x, batch, host_x, variant, precision) -> Row:
    """Dropout at test time is another op."""
    watched = Watched(ops, layer.name, variant, precision)
    layer.fprop(watched, ops.from_host(host_x), ops.empty(host_x.shape), Run(training=False))
    return watched.rows[0]


def _fprop_function(layer: Layer, y_shape: tuple[int, ...], run: Run) -> Callable[..., np.ndarray]:
    def function(x: np.ndarray, **params: np.ndarray) -> np.ndarray:
        y = np.empty(y_shape)
        layer.fprop(reference, x, y, replace(run, params=params))
        return y
    return function


def _loss_function(layer: SoftmaxLoss, labels: np.ndarray, batch: int) -> Callable[..., np.ndarray]:
    def function(x: np.ndarray) -> np.ndarray:
        loss = np.empty(batch)
        layer.loss(reference, x, labels, np.empty((batch, x.shape[-1])), loss)
        return loss.mean(keepdims=True)
    return function


def differences(function: Callable[..., np.ndarray], arrays: dict[str, np.ndarray], dy: np.ndarray, name: str, gradient: np.ndarray,
                bound: np.ndarray, rng: np.random.Generator) -> float:
    """The worst |numeric - <gradient, d>| over random directions d of +1 and -1, in units of what is allowed.

    An element may be off by its bound; along a random direction such errors add like their root of squares, four times which is
    allowed.  The difference itself is good to a millionth of the gradient.
    """
    value = arrays[name]
    step, ratio = 1e-6 * max(1.0, float(np.sqrt(np.mean(value**2)))), 0.0
    tolerance = 4 * float(np.linalg.norm(bound)) + 1e-6 * float(np.linalg.norm(gradient)) + 1e-9
    for _ in range(DIRECTIONS):
        d = rng.choice((-1.0, 1.0), value.shape)
        high, low = (function(**{**arrays, name: value + h * d}) for h in (step, -step))
        numeric = float(((high - low) * dy).sum() / (2 * step))
        found = abs(numeric - float((gradient.astype(np.float64).reshape(d.shape) * d).sum())) / tolerance
        ratio = max(ratio, found if math.isfinite(found) else math.inf)
    return ratio


def check(ops: ModuleType, layers: Sequence[Layer], input: Shape, *, batch: int = 2, variant: str | None = None, precision: str = "float32",
          seed: int = 0) -> list[Row]:
    """All layers in order, then those that this backend fuses out of them."""
    _known(ops, variant)
    found = []
    ops.set_precision(precision)
    fused = [row for row in table_rows(fuse(list(layers), ops.fused()), input) if isinstance(row.layer, FUSED)]
    try:
        for ordinal, (layer, x, *_) in enumerate([*table_rows(layers, input), *fused]):
            found += check_layer(ops, layer, x, batch, ordinal, variant=variant, precision=precision, seed=seed)
    finally:
        ops.set_precision("float32")
    return found


def _known(ops: ModuleType, variant: str | None) -> None:
    if variant is None:
        return
    kernels = getattr(ops, "kernels", ops)
    if not hasattr(kernels, "extension"):
        raise MiniAlexError(f"--variant {variant}: this backend has no variants; leave it out, or give --device emulated:0 or cuda:0")
    names = dict.fromkeys(name for table in kernels.extension.tables.values() for name, _ in table)
    if variant not in names:
        raise MiniAlexError(f"--variant {variant}: no op has such a variant; there are {', '.join(names)}")


def text(found: Sequence[Row]) -> str:
    """The rows as a table, and one sentence that sums them up."""
    head = ("layer", "op", "variant", "error / bound", "differences", "verdict")
    body = [(row.layer, row.op, row.variant, "" if row.note else f"{row.error:.3f}",
             "" if row.difference is None else f"{row.difference:.3f}", row.verdict) for row in found]
    wrong, refused = sum(not row.ok for row in found), sum(row.note == "refused" for row in found)
    end = f"{wrong} of {len(found)} calls are WRONG" if wrong else f"all {len(found) - refused} calls are within their bounds"
    return "\n".join([*grid(head, body, left=(0, 1, 2, 5)), "", end + (f"; {refused} refused by the variant" if refused else "")])
