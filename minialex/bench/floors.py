"""The least time of a training step: bytes and operations of every pass of every layer against a machine's ceilings (a roofline).

Three ways to do the step.  "unfused": every layer a kernel of its own.  "fused": bias, ReLU and dropout on the way out of a product, norm
and pool in one trip, masks in dgrad, bias gradient and update inside wgrad, numbers stored in the precision of the products.  Both are
arithmetic on the recipe's layers.  "launched": the calls of this program as they are (bench/dry.py), with its arrays.

A kernel's floor is the longer of its bytes (each array once; caches count for nothing) at the copy bandwidth and its operations at the
rate of its unit; kernels follow each other without a gap.  Nothing here was measured: no program can be faster, every one is slower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from ..layers import LRN, Conv, Dropout, Layer, Linear, MaxPool, ReLU, SoftmaxLoss
from ..nets import recipe as recipe_of
from ..spec import MiniAlexError, Shape
from . import dry

WAYS = ("unfused", "launched", "fused")


@dataclass(frozen=True)
class Machine:
    """What a GPU does in a second, at best, and who says so."""

    name: str
    multiprocessors: int
    copy: float                         # bytes, read and written ones both counted
    products: dict[str, float]          # operations of a unit; a multiply-add is two
    sources: dict[str, str]

    def rate(self, precision: str) -> float:
        """Operations a second of products in a precision; bf16x3 and bf16x6 are three and six products in bf16."""
        unit, _, terms = precision.partition("x")
        return self.products[unit] / int(terms or 1)


H200 = Machine(
    "H200", 132, 4.3e12, {"float32": 67e12, "tf32": 395e12, "bf16": 788e12},
    {"copy": "measured on an H200 in October 2026, device to device, not by this program",
     "bf16": "measured there, product of 8192 x 8192 random matrices (data sheet: 990)",
     "tf32": "scaled: 495 of the data sheet times the same 0.80",
     "float32": "data sheet: 132 multiprocessors x 128 multiply-adds at 1.98 GHz"})


@dataclass(frozen=True)
class Kernel:
    """One kernel of a step: operations of products run at the rate of their unit, others hide behind the bytes."""

    layer: str
    what: str
    bytes: float
    flop: float = 0.0
    product: bool = False

    def seconds(self, machine: Machine, precision: str) -> float:
        """Its floor."""
        moved = self.bytes / machine.copy
        return max(moved, self.flop / machine.rate(precision)) if self.product else moved

    def bound(self, machine: Machine, precision: str) -> str:
        """What it waits for at that floor: "products" or "bytes"."""
        return "products" if self.seconds(machine, precision) > self.bytes / machine.copy else "bytes"

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.flop / self.bytes


# Operations of the passes that only move numbers: for each number of the larger side, at windows of the paper.
LIGHT = {"relu": (1, 1), "lrn": (15, 25), "pool": (9 / 4, 9 / 4), "dropout": (3, 3)}


def _placed(name: str) -> list[tuple[Layer, Shape, Shape]]:
    """(layer, its input, its output) of a recipe, the loss last.  Raises MiniAlexError for one that is not counted."""
    recipe, placed = recipe_of(name), []
    x = recipe.input
    for layer in recipe.build(recipe.classes):
        if not isinstance(layer, LRN | Conv | Dropout | Linear | MaxPool | ReLU | SoftmaxLoss):
            raise MiniAlexError(f"floors: {layer.name} ({type(layer).__name__}) is not counted; take a recipe like paper")
        placed.append((layer, x, layer.out_shape(x)))
        x = placed[-1][2]
    return placed


def _unfused(name: str, batch: int, size: int) -> Iterator[Kernel]:
    placed = _placed(name)
    for layer, x, y in placed[:-1]:
        ins, outs = batch * x.size * size, batch * y.size * size
        if isinstance(layer, Conv | Linear):
            w, _ = layer.params(x)
            yield Kernel(layer.name, "fprop", ins + w.size * size + outs, 2 * batch * layer.macs(x), True)
        else:
            yield _light(layer, 0, ins + outs + (batch * y.size if isinstance(layer, Dropout) else 0), batch * x.size)
    yield Kernel("loss", "fprop", batch * placed[-1][1].size * (size + 4))
    yield Kernel("loss", "bprop", batch * placed[-1][1].size * (size + 4))
    for i, (layer, x, y) in reversed(list(enumerate(placed[:-1]))):
        ins, outs = batch * x.size * size, batch * y.size * size
        if isinstance(layer, Conv | Linear):
            (w, b), flop = layer.params(x), 2 * batch * layer.macs(x)
            yield Kernel(layer.name, "wgrad", ins + outs + 4 * w.size, flop, True)
            yield Kernel(layer.name, "bias gradient", outs)
            yield Kernel(layer.name, "update", (w.size + b.size) * (20 + (2 if size == 2 else 0)), 6 * w.size)
            if i:
                yield Kernel(layer.name, "dgrad", ins + w.size * size + outs, flop, True)
        elif isinstance(layer, MaxPool):
            yield _light(layer, 1, 2 * ins + outs, batch * x.size)
        else:
            extra = batch * y.size if isinstance(layer, Dropout) else ins
            yield _light(layer, 1, ins + outs + extra, batch * x.size)


def _light(layer: Layer, back: int, bytes: float, numbers: float) -> Kernel:
    stem = {ReLU: "relu", LRN: "lrn", MaxPool: "pool", Dropout: "dropout"}[type(layer)]
    return Kernel(layer.name, ("fprop", "bprop")[back], bytes, LIGHT[stem][back] * numbers)


def _fused(name: str, batch: int, size: int) -> Iterator[Kernel]:
    placed = _placed(name)
    heavy = [i for i, (layer, *_) in enumerate(placed) if isinstance(layer, Conv | Linear)]
    behind = {a: placed[a + 1:b] for a, b in pairwise([*heavy, len(placed) - 1])}       # the light layers after each
    for i in heavy:
        layer, x, y = placed[i]
        w, _ = layer.params(x)
        yield Kernel(layer.name, "fprop", batch * (x.size + y.size) * size + w.size * size, 2 * batch * layer.macs(x), True)
        yield from _trip(behind[i], batch, size, 0)
    yield Kernel("loss", "both", batch * placed[-1][1].size * 2 * size)
    for i in reversed(heavy):
        layer, x, y = placed[i]
        (w, b), flop = layer.params(x), 2 * batch * layer.macs(x)
        yield from _trip(behind[i], batch, size, 1)
        below = [type(light) for light, *_ in behind[max(j for j in heavy if j < i)]] if i else []
        masks = batch * x.size * size if below and MaxPool not in below else 0          # what the ReLU below let through
        if i:
            yield Kernel(layer.name, "dgrad", batch * (x.size + y.size) * size + w.size * size + masks, flop, True)
        update = (w.size + b.size) * (16 + (2 if size == 2 else 0))
        yield Kernel(layer.name, "wgrad and update", batch * (x.size + y.size) * size + update, flop + 6 * w.size, True)


def _trip(lights: list[tuple[Layer, Shape, Shape]], batch: int, size: int, back: int) -> Iterator[Kernel]:
    """Norm, pool and, on the way back, ReLU in one trip.  What is left of the light layers rides on a product."""
    if pools := [entry for entry in lights if isinstance(entry[0], MaxPool)]:
        norms = [entry for entry in lights if isinstance(entry[0], LRN)]
        (pool, _, y), numbers = pools[0], batch * lights[0][1].size
        flop = (LIGHT["pool"][back] + (LIGHT["lrn"][back] if norms else 0) + (LIGHT["relu"][1] if back else 0)) * numbers
        yield Kernel(pool.name, ("fprop", "bprop")[back], ((1 + back) * numbers + batch * y.size) * size, flop)


def _launched(name: str, batch: int, precision: str) -> Iterator[Kernel]:
    for call in dry.step(name, batch, precision):
        yield kernel_of(call)


def kernel_of(call: dry.Called) -> Kernel:
    """Bytes and operations of one call of the program."""
    stem, _, what = call.op.rpartition("_")
    nbytes = sum(array.nbytes for array in call.arrays)
    if call.op == "sgd_update":
        w, v = call.arrays[:2]
        return Kernel(call.layer, "update", nbytes + w.nbytes + v.nbytes, 6 * w.size)
    if macs := products(call):
        return Kernel(call.layer, what, nbytes, 2 * macs, True)
    numbers, back = max(array.size for array in call.arrays), what == "bprop"
    light = sum(LIGHT[word][back] for word in LIGHT if word in stem.replace("maxpool", "pool"))
    return Kernel(call.layer, call.op, nbytes, light * numbers)


def products(call: dry.Called) -> int:
    """Multiply-adds of a call."""
    if call.op.startswith(("conv_", "local_")):
        N, _, _, _, _, C, K, R, S, P, Q, *_, groups = call.dims
        return N * P * Q * K * R * S * C // groups
    if call.op.startswith("linear_"):
        N, inputs, _, F, K, groups = call.dims
        return N * K * F * (inputs if groups == 1 else 1)
    return 0


def kernels(name: str, batch: int, precision: str, way: str) -> list[Kernel]:
    """The kernels of one step in their order."""
    size = 2 if precision == "bf16" else 4
    made: dict[str, Callable[[], Iterator[Kernel]]] = {
        "unfused": lambda: _unfused(name, batch, size), "fused": lambda: _fused(name, batch, size),
        "launched": lambda: _launched(name, batch, precision)}
    return list(made[way]())


def total(step: list[Kernel], precision: str, machine: Machine = H200) -> float:
    """Seconds of a step at its floor."""
    return sum(kernel.seconds(machine, precision) for kernel in step)
