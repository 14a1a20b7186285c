"""Every op and pass of a recipe's training step, as calls on random arrays that can be checked, timed and repeated elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ..backends import load
from ..bf16 import narrow, widen
from ..layers import LRN, AvgPool, Conv, Dropout, Layer, Linear, Local, MaxPool, ReLU, Sigmoid, SpatialNorm, Tanh
from ..layers.cells import in_cells, shape_of
from ..nets import recipe as recipe_of
from ..nets.recipe import Recipe
from ..spec import Shape
from ..testing.op_bounds import ROUNDED, precision_without_variants

PARAMETERS = ("w", "b", "dw", "db")       # no batch of images, whatever their rank
CHECKED = 3                 # images of the comparison; sums over the batch are compared on as many
ULP = float(np.finfo(np.float32).eps)


@dataclass
class Row:
    """One call: op(**inputs, **outputs, **constants).  Activations are the inputs and outputs of five or three axes."""

    layer: str
    op: str
    inputs: dict[str, np.ndarray]
    outputs: dict[str, tuple[int, ...]]
    constants: dict = field(default_factory=dict)
    macs: int = 0                                   # for the whole batch; 0 where the op is a matter of bandwidth
    linear: bool = False                            # the bound is 4 eps op(|x|, |w|); else 64 eps of the largest value
    changed: dict[str, np.ndarray] = field(default_factory=dict)        # inputs that the op updates in place
    whole: bool = False                             # no array is a batch of activations: compare all of it
    own_y: tuple[int, ...] | None = None            # shape of y, which must come from the backend's own fprop: winners are its maxima
    _known: tuple | None = None

    def run(self, ops, images: int | None = None, convert: Callable = np.asarray, variant: str | None = None) -> dict[str, np.ndarray]:
        """Outputs, on the host, of the op on the first `images` images (default all)."""
        images = None if self.whole else images
        cut = {name: a[:, :images] if images and _is_batch(name, a.shape) else a for name, a in self.inputs.items()}
        inputs = {name: convert(a) if a.dtype == np.float32 else a for name, a in cut.items()}
        kind = convert(np.zeros(0, np.float32)).dtype
        outputs = {name: np.full(_cut_shape(name, shape, images), np.nan, kind) for name, shape in self.outputs.items()}
        outputs |= {name: np.array(convert(a)) for name, a in self.changed.items()}
        outputs = {name: ops.from_host(a) for name, a in self._stored(ops, variant, outputs).items()}
        inputs = {name: ops.from_host(a) for name, a in self._stored(ops, variant, inputs).items()}
        if self.own_y:
            inputs["y"] = ops.from_host(np.full(_cut_shape("y", self.own_y, images), np.nan, kind))
            ops.lrn_maxpool_fprop(inputs["x"], inputs["y"], **{k: v for k, v in self.constants.items() if k not in ("ties", "relu")})
        getattr(ops, self.op)(**inputs, **outputs, **self.constants, **_forced(variant))
        return {name: widen(ops.to_host(a)) for name, a in outputs.items()}

    def _stored(self, ops, variant: str | None, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As a variant in precision "bf16" reads and writes them: activations as bfloat16."""
        if variant is None or ops.kernels.precision_of(self.op, variant) != "bf16":
            return arrays
        return {name: narrow(a) if _is_batch(name, a.shape) else a for name, a in arrays.items()}

    def error(self, ops, oracle, variant: str | None = None, precision: str = "float32") -> str | None:
        """None, or how far `ops` is from the float64 oracle.  Operands rounded to `precision` may each be off by its unit."""
        got = self.run(ops, CHECKED, variant=variant)
        want, absolute = (self._composed(ops), {}) if self.own_y else self._truth(oracle)
        for name, value in got.items():
            bound = (4 * ULP + 2.02 * ROUNDED[precision]) * absolute[name] if self.linear else 64 * ULP * np.abs(want[name]).max()
            if precision == "bf16" and name in ("y", "dx"):
                bound = bound + ROUNDED["bf16"] * (np.abs(want[name]) + bound)         # and what is stored
            excess = np.abs(value - want[name]) - bound
            if not (excess <= 0).all():
                return f"{name} is beyond its bound by up to {np.nanmax(excess):.3g}"
        return None

    def precision(self, ops) -> str:
        """Of the op on a backend that has one nameless way for it."""
        outputs = {name: np.empty(shape, np.float32) for name, shape in self.outputs.items()}
        return precision_without_variants(ops, self.op, {**self.inputs, **outputs}, self.constants)

    def _truth(self, oracle) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Outputs of the float64 oracle, and for linear ops those of the absolute values; the same for all variants."""
        if self._known is None:
            want = self.run(oracle, CHECKED, lambda a: a.astype(np.float64))
            self._known = want, self.run(oracle, CHECKED, lambda a: np.abs(a.astype(np.float64))) if self.linear else {}
        return self._known

    def _composed(self, ops) -> dict[str, np.ndarray]:
        """The gradient through norm and pool by this backend's separate ops, which have rows of their own.  The float64 oracle may
        find another winner where two values of a window agree to float32's last digits."""
        norm = {key: self.constants[key] for key in ("n", "k", "alpha", "beta")}
        pool = {key: self.constants[key] for key in ("window", "stride")}
        x, dy = (ops.from_host(self.inputs[name][:, :CHECKED]) for name in ("x", "dy"))
        middle, dmiddle, dx, y = (ops.from_host(np.full(shape, np.nan, np.float32)) for shape in (x.shape, x.shape, x.shape, dy.shape))
        ops.lrn_fprop(x, middle, **norm)
        ops.maxpool_fprop(middle, y, **pool)
        ops.maxpool_bprop(middle, y, dy, dmiddle, **pool, ties=self.constants["ties"])
        ops.lrn_bprop(x, dmiddle, dx, **norm)
        ops.relu_bprop(x, dx, dx)
        return {"dx": ops.to_host(dx)}

    def prepared(self, ops, variant: str | None = None) -> Callable[[], None]:
        """The call on the whole batch, arrays made beforehand."""
        made = self.inputs | self.changed | {name: np.zeros(shape, np.float32) for name, shape in self.outputs.items()}
        arrays = {name: ops.from_host(a) for name, a in self._stored(ops, variant, made).items()}
        if self.own_y:
            arrays["y"] = ops.from_host(np.zeros(self.own_y, np.float32))
        function = getattr(ops, self.op)
        return lambda: function(**arrays, **self.constants, **_forced(variant))

    def bytes(self, precision: str = "float32") -> int:
        """Each array once, updated ones twice: the least an op must move, in bf16 with two bytes for a number of an activation."""
        arrays = [(name, a.shape, a.itemsize) for name, a in self.inputs.items()]
        arrays += [(name, shape, 4) for name, shape in self.outputs.items()] + ([("y", self.own_y, 4)] if self.own_y else [])
        narrow = precision == "bf16"
        moved = sum(int(np.prod(shape)) * (2 if narrow and _is_batch(name, shape) else size) for name, shape, size in arrays)
        return moved + 2 * sum(a.nbytes for a in self.changed.values())


def _forced(variant: str | None) -> dict[str, str]:
    return {} if variant is None else {"variant": variant}


def _is_batch(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) in (3, 5) and name not in PARAMETERS


def _cut_shape(name: str, shape: tuple[int, ...], images: int | None) -> tuple[int, ...]:
    return (shape[0], min(images, shape[1]), *shape[2:]) if images and _is_batch(name, shape) else shape


def rows(name: str, batch: int, only: str = "", cells: bool = False) -> Iterator[Row]:
    """All calls of one training step of a recipe, on random arrays; with `only` those of the layer called so.  `cells`: the first layer
    and the input also in cells, where they fit (layers/cells.py)."""
    recipe = recipe_of(name)
    random = np.random.default_rng(2)

    def draw(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32)

    shape = recipe.input
    layers = recipe.build(recipe.classes)[:-1]
    made = in_cells(layers[0], shape) if cells else None
    if made and only in ("", layers[0].name):
        same, there = Conv(f"{made.name} in cells", made.K, made.kernel, pad=made.pad, columns=made.columns), shape_of(shape, made.cell)
        yield from _of_layer(same, there, same.out_shape(there), batch, draw, first=True)
    for i, layer in enumerate(layers):
        if only in ("", layer.name):
            yield from _of_layer(layer, shape, layer.out_shape(shape), batch, draw, first=i == 0)
        after = layers[i + 1] if i + 1 < len(layers) else None
        shape = layer.out_shape(shape)
        if type(layer) is LRN and type(after) is MaxPool and not only:
            yield from _of_norm_and_pool(layer, after, shape, after.out_shape(shape), batch, draw)

    if only:
        return
    labels = random.integers(0, recipe.classes, batch).astype(np.int32)
    p = np.full((batch, recipe.classes), 1 / recipe.classes, np.float32)
    yield Row("loss", "loss_fprop", dict(x=draw(batch, recipe.classes), labels=labels), dict(p=p.shape, loss=(batch,)), whole=True)
    yield Row("loss", "loss_bprop", dict(p=p, labels=labels), dict(dx=p.shape), dict(scale=1 / batch), whole=True)
    size = parameters(recipe)
    yield Row("update", "sgd_update", dict(dw=draw(size)), {}, dict(segments=((0, size, 1e-4, recipe.decay),), momentum=recipe.momentum),
              changed=dict(w=draw(size), v=draw(size)), whole=True)
    H, W = recipe.record, recipe.record
    given = dict(images=random.integers(0, 256, (batch, H, W, 3)).astype(np.uint8), mean=draw(H, W, 3), flips=random.random(batch) < 0.5,
                 offsets=random.integers(0, H - recipe.crop + 1, (batch, 2)).astype(np.int32), noise=draw(batch, 3))
    for cell in (1, made.cell) if made else (1,):
        yield Row("input" if cell == 1 else "input in cells", "augment_fprop", given, dict(y=shape_of(recipe.input, cell).array(batch)),
                  dict(mean_at=recipe.augmentation.mean_at, scale=1.0), whole=True)


def _of_norm_and_pool(norm: LRN, pool: MaxPool, xs: Shape, ys: Shape, batch: int, draw) -> Iterator[Row]:
    """The two as one op.  Non-negative inputs, as a ReLU leaves them."""
    x, dy, name = np.maximum(draw(*xs.array(batch)), 0), draw(*ys.array(batch)), f"{norm.name}+"
    constants = dict(n=norm.n, k=norm.k, alpha=norm.alpha, beta=norm.beta, window=pool.window, stride=pool.stride)
    yield Row(name, "lrn_maxpool_fprop", dict(x=x), dict(y=ys.array(batch)), constants)
    yield Row(name, "lrn_maxpool_bprop", dict(x=x, dy=dy), dict(dx=xs.array(batch)), constants | dict(ties=pool.ties, relu=True),
              own_y=ys.array(batch))


def parameters(recipe: Recipe) -> int:
    """Weights and biases of a recipe's network."""
    shape, total = recipe.input, 0
    for layer in recipe.build(recipe.classes):
        total += sum(spec.size for spec in layer.params(shape))
        shape = layer.out_shape(shape)
    return total


def _of_layer(layer: Layer, xs: Shape, ys: Shape, batch: int, draw, first: bool) -> Iterator[Row]:
    x_shape, y_shape = xs.array(batch), ys.array(batch)
    if isinstance(layer, (Conv, Linear)):
        stem = "local" if isinstance(layer, Local) else "conv" if isinstance(layer, Conv) else "linear"
        if stem == "linear":
            x_shape, y_shape = (xs.columns, batch, xs.features), (ys.columns, batch, ys.features)
            constants = dict(groups=layer.groups)
        else:
            constants = dict(stride=layer.stride, pad=layer.pad, groups=layer.groups)
        w_shape, b_shape = (spec.shape for spec in layer.params(xs))
        x, w, b, dy = draw(*x_shape), draw(*w_shape), draw(*b_shape), draw(*y_shape)
        common = dict(constants=constants, macs=layer.macs(xs) * batch, linear=True)
        yield Row(layer.name, f"{stem}_fprop", dict(x=x, w=w, b=b), dict(y=y_shape), **common)
        if stem in ("conv", "linear"):
            yield Row(layer.name, f"{stem}_relu_fprop", dict(x=x, w=w, b=b), dict(y=y_shape), **common)
        if not first:
            yield Row(layer.name, f"{stem}_dgrad", dict(dy=dy, w=w), dict(dx=x_shape), **common)
        yield Row(layer.name, f"{stem}_wgrad", dict(x=x, dy=dy), dict(dw=w_shape, db=b_shape), **common)
        return
    x, dy = draw(*x_shape), draw(*y_shape)
    stem = {ReLU: "relu", Tanh: "tanh", Sigmoid: "sigmoid", LRN: "lrn", SpatialNorm: "spatial_norm", MaxPool: "maxpool", AvgPool: "avgpool",
            Dropout: "dropout"}[type(layer)]
    if stem in ("lrn", "spatial_norm"):
        constants = dict(n=layer.n, k=layer.k, alpha=layer.alpha, beta=layer.beta)
    elif stem in ("maxpool", "avgpool"):
        constants = dict(window=layer.window, stride=layer.stride)
    elif stem == "dropout":
        constants = dict(keep=layer.keep, scale=1.0, seed=1, step=2, layer=3, first=0)
    else:
        constants = {}
    yield Row(layer.name, f"{stem}_fprop", dict(x=x), dict(y=y_shape), constants)
    if stem in ("relu", "tanh", "sigmoid"):
        y = np.maximum(x, 0) if stem == "relu" else np.tanh(x)
        yield Row(layer.name, f"{stem}_bprop", dict(y=y, dy=dy), dict(dx=x_shape), constants)
    elif stem == "maxpool":
        y = np.empty(y_shape, np.float32)
        load("reference").maxpool_fprop(x, y, **constants)
        yield Row(layer.name, "maxpool_bprop", dict(x=x, y=y, dy=dy), dict(dx=x_shape), {**constants, "ties": layer.ties})
    elif stem in ("avgpool", "dropout"):
        yield Row(layer.name, f"{stem}_bprop", dict(dy=dy), dict(dx=x_shape), constants)
    else:
        yield Row(layer.name, f"{stem}_bprop", dict(x=x, dy=dy), dict(dx=x_shape), constants)
