"""Pictures as cells, and the convolution on them that stands for a strided one: why we trust both on every backend."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import compiled_backends, load_or_skip

from minialex.backends.cpu import winograd
from minialex.layers import CellConv, CellConvReLU, Conv, ConvReLU, Local, Run
from minialex.layers.cells import in_cells, shape_of
from minialex.net import Net
from minialex.nets import RECIPES, recipe
from minialex.spec import DTypeError, LayoutError, Shape, ShapeError
from minialex.testing import assert_bits_equal, assert_within, call, cases, refused
from minialex.testing.compare import zero_mean_bound

SMALL = [case for case in cases.CELLS if np.prod(case.x_shape) < 4000]


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """Of the cpu backend's forms of a convolution the direct one, whose sums of whole numbers are exact."""
    monkeypatch.setattr(winograd, "enabled", False)


def draw(case, seed, dtype=np.float32):
    """x and dy without two equal numbers; dy is not 0 where cells reach beyond x."""
    rng = np.random.default_rng(seed)
    return (rng.permutation(np.prod(shape)).reshape(shape).astype(dtype) + 1 for shape in (case.x_shape, case.y_shape))


def formula(case, x, wrong=""):
    """y, number by number; of a wrong version `wrong`."""
    cell, y = case.cell, np.zeros(case.y_shape, x.dtype)
    H, W, C = x.shape[2:]
    for g, n, p, q, channel in np.ndindex(y.shape):
        pixel, c = divmod(channel, C)
        r, s = divmod(pixel, cell)
        if wrong == "columns_first":
            s, r = r, s
        if wrong == "colours_first":
            c, pixel = divmod(channel, cell**2)
            r, s = divmod(pixel, cell)
        h, w = (p + r * case.y_shape[2], q + s * case.y_shape[3]) if wrong == "every_nth" else (p * cell + r, q * cell + s)
        if wrong == "last_pixel_again":
            h, w = min(h, H - 1), min(w, W - 1)
        if wrong == "from_the_end":
            h, w = h - (-H % cell), w - (-W % cell)
        if 0 <= h < H and 0 <= w < W:
            y[g, n, p, q, channel] = x[g, n, h, w, c]
    return y


def prove(ops, case, seed, wrong=""):
    """fprop is the formula; bprop takes each number from where fprop puts it."""
    x, dy = draw(case, seed)
    assert_bits_equal(call(ops, "cells_fprop", {"y": case.y_shape}, x=x, cell=case.cell)["y"], formula(case, x), f"y of {case}", seed=seed)
    dx = call(ops, "cells_bprop", {"dx": case.x_shape}, dy=dy, cell=case.cell)["dx"]
    places = formula(case, np.arange(1, dx.size + 1).reshape(dx.shape)).ravel()
    want = np.empty(dx.size, dy.dtype)
    want[places[places > 0] - 1] = dy.ravel()[places > 0]
    assert_bits_equal(dx, want.reshape(dx.shape), f"dx of {case}", seed=seed)


def test_literal_example(ops):
    """A picture of 2 x 3 pixels of two colours in cells of 2."""
    x = np.arange(1, 13, dtype=np.float32).reshape(1, 1, 2, 3, 2)
    y = call(ops, "cells_fprop", {"y": (1, 1, 1, 2, 8)}, x=x, cell=2)["y"]
    assert y.tolist() == [[[[[1, 2, 3, 4, 7, 8, 9, 10], [5, 6, 0, 0, 11, 12, 0, 0]]]]]
    dx = call(ops, "cells_bprop", {"dx": x.shape}, dy=y + np.float32(100), cell=2)["dx"]
    assert_bits_equal(dx, x + 100, "what lies beyond is dropped")


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_the_bits_of_the_formula(ops, case, seed):
    prove(ops, case, seed)


@pytest.mark.parametrize("case", [case for case in cases.CELLS if case not in SMALL], ids=str)
def test_the_bits_of_the_oracle(ops, oracle, case, seed):
    x, dy = draw(case, seed)
    for op, given, out, shape in (("cells_fprop", {"x": x}, "y", case.y_shape), ("cells_bprop", {"dy": dy}, "dx", case.x_shape)):
        got, want = (call(which, op, {out: shape}, **given, cell=case.cell)[out] for which in (ops, oracle))
        assert_bits_equal(got, want, op, seed=seed)


def as_ops(wrong):
    """The oracle's way back, and a wrong version of the way there; bprop is its transpose."""
    def case_of(x, y, cell):
        return SimpleNamespace(cell=cell, x_shape=x.shape, y_shape=y.shape)

    def cells_fprop(x, y, *, cell):
        y[...] = formula(case_of(x, y, cell), x, wrong)

    def cells_bprop(dy, dx, *, cell):
        places = formula(case_of(dx, dy, cell), np.arange(1, dx.size + 1).reshape(dx.shape), wrong).ravel()
        dx.reshape(-1)[places[places > 0] - 1] = dy.ravel()[places > 0]
    return SimpleNamespace(cells_fprop=cells_fprop, cells_bprop=cells_bprop)


def test_the_right_version_of_each_mutant_lives():
    for case in SMALL:
        prove(as_ops(""), case, 1)


@pytest.mark.parametrize("wrong", ["columns_first", "colours_first", "every_nth", "last_pixel_again", "from_the_end"])
@pytest.mark.parametrize("direction", ["fprop", "bprop"])
def test_mutants_die(oracle, wrong, direction):
    op = f"cells_{direction}"
    ops = SimpleNamespace(**vars(oracle) | {op: getattr(as_ops(wrong), op)})
    with pytest.raises(AssertionError, match=r"different bits|left unwritten"):
        for case in SMALL:
            prove(ops, case, 1)


@pytest.mark.parametrize("bad", [
    ("no_images", ShapeError, lambda a: {n: a[n][:, :0] for n in "xy"}),
    ("cells_of_nothing", ShapeError, lambda a: {"cell": 0}),
    ("other_cells", ShapeError, lambda a: {"cell": 3}),
    ("other_batch", ShapeError, lambda a: {"y": a["y"][:, :1]}),
    ("extents_rounded_down", ShapeError, lambda a: {"y": a["y"][:, :, :2]}),
    ("no_columns", ShapeError, lambda a: {"x": a["x"][0]}),
    ("one_float64", DTypeError, lambda a: {"x": a["x"].astype(np.float64)}),
    ("integers", DTypeError, lambda a: {n: np.ones(a[n].shape, np.int32) for n in "xy"}),
    ("channels_apart", LayoutError, lambda a: {"x": np.repeat(a["x"], 2, axis=-1)[..., ::2]}),
], ids=lambda bad: bad[0])
def test_bad_calls_raise_and_write_nothing(ops, bad):
    _, error, change = bad
    arguments = dict(x=np.ones((2, 3, 5, 7, 3), np.float32), y=np.full((2, 3, 3, 4, 12), np.nan, np.float32), cell=2)
    arguments.update(change(arguments))
    refused(ops, "cells_fprop", error, ("y",), **arguments)
    back = dict(dy=arguments["y"], dx=arguments["x"], cell=arguments["cell"])
    refused(ops, "cells_bprop", error, ("dx",), **back)


# ---------------------------------------------------------------- the layer
PAPER = Conv("conv1", K=96, kernel=11, stride=4, pad=(0, 3), columns=2)
FITS = {
    "paper": (PAPER, Shape(1, 224, 224, 3), (4, 3, (0, 1))),
    "tiny": (ConvReLU("conv1", K=4, kernel=11, stride=4, pad=(0, 3)), Shape(1, 16, 24, 3), (4, 3, (0, 1))),
    "small": (Conv("conv1", K=5, kernel=7, stride=2), Shape(1, 12, 10, 3), (2, 4, (0, 0))),
    "padded": (ConvReLU("conv1", K=4, kernel=5, stride=2, pad=(2, 1), columns=2), Shape(1, 8, 6, 2), (2, 3, (1, 1))),
}
KEPT = {
    "stride 1": (Conv("c", K=4, kernel=3), Shape(1, 8, 8, 4)),
    "no whole cells": (replace(PAPER, pad=(0, 1)), Shape(1, 227, 227, 3)),
    "no whole vectors": (Conv("c", K=4, kernel=3, stride=3), Shape(1, 9, 9, 3)),
    "padding of half a cell": (replace(PAPER, pad=(2, 2)), Shape(1, 224, 224, 3)),
    "half a column of cells": (Conv("c", K=4, kernel=2, stride=2), Shape(1, 8, 9, 4)),
    "one pixel of each cell": (Conv("c", K=4, kernel=1, stride=2), Shape(1, 8, 8, 4)),
    "groups": (Conv("c", K=4, kernel=4, stride=2, groups=2), Shape(1, 8, 8, 4)),
    "two columns": (Conv("c", K=4, kernel=4, stride=2), Shape(2, 8, 8, 4)),
    "filters of their own": (Local("c", K=4, kernel=4, stride=2), Shape(1, 8, 8, 4)),
}


@pytest.mark.parametrize("name", FITS)
def test_which_convolution_it_becomes(name):
    """Name, outputs, columns and parameters as declared."""
    conv, x, (cell, kernel, pad) = FITS[name]
    made = in_cells(conv, x)
    assert (made.cell, made.kernel, made.stride, made.pad) == (cell, kernel, 1, pad)
    assert type(made) is (CellConvReLU if isinstance(conv, ConvReLU) else CellConv) and made.name == conv.name
    there = shape_of(x, cell)
    assert made.out_shape(there) == conv.out_shape(x) and made.params(there) == conv.params(x)
    half = made.column()
    assert half.params(there)[0].shape[0] == conv.K // conv.columns and half.scratch(there)["w"][0] == conv.K // conv.columns


@pytest.mark.parametrize("name", KEPT)
def test_what_is_left_alone(name):
    assert in_cells(*KEPT[name]) is None


def passes(ops, layer, x, w, b, dy):
    """y, dw, db and dx of one layer on plain arrays; `layer` may work in cells."""
    cell = getattr(layer, "cell", 1)
    shape = shape_of(Shape(1, *x.shape[2:]), cell)
    seen = call(ops, "cells_fprop", {"y": shape.array(x.shape[1])}, x=x, cell=cell)["y"]
    scratch = {name: np.full(size, np.nan, x.dtype) for name, size in layer.scratch(shape).items()}
    grads = {"w": np.full_like(w, np.nan), "b": np.full_like(b, np.nan)}
    run = Run(params={"w": w, "b": b}, grads=grads, scratch=scratch)
    y, dx, back = np.full(dy.shape, np.nan, x.dtype), np.full_like(seen, np.nan), np.full_like(x, np.nan)
    layer.fprop(ops, seen, y, run)
    layer.bprop(ops, seen, y, dy.copy(), dx, run)
    ops.cells_bprop(dx, back, cell=cell)
    return {"y": y, "dw": grads["w"], "db": grads["b"], "dx": back}


def as_kind(kind, layer):
    return kind(**{f.name: getattr(layer, f.name) for f in fields(kind)})


def layer_draw(name, seed, whole, dtype=np.float32):
    conv, x, _ = FITS[name]
    x = x if name != "paper" else Shape(1, 24, 24, 3)
    conv = replace(conv, K=min(conv.K, 6))
    rng = np.random.default_rng(seed)
    shapes = x.array(3), conv.params(x)[0].shape, (conv.K,), conv.out_shape(x).array(3)
    made = [rng.integers(-4, 5, shape) if whole else rng.standard_normal(shape) for shape in shapes]
    return conv, in_cells(conv, x), [array.astype(dtype) for array in made]


@pytest.mark.parametrize("name", FITS)
def test_whole_numbers_give_the_same_bits(ops, name, seed):
    """Products and sums of small whole numbers are exact in any order, so nothing hides in a bound."""
    conv, made, arrays = layer_draw(name, seed, whole=True)
    plain, cells = (passes(ops, layer, *arrays) for layer in (conv, made))
    for what, want in plain.items():
        assert_bits_equal(cells[what], want, f"{what} of {name}", seed=seed)


@pytest.mark.parametrize("name", FITS)
def test_numbers_within_the_bound_of_their_sums(ops, oracle, name, seed):
    """The same products added in another order, with zeros between them: the bound of any convolution on data around zero."""
    conv, made, arrays = layer_draw(name, seed, whole=False)
    conv, made = as_kind(Conv, conv), as_kind(CellConv, made)           # without ReLU: a sum near 0 may pass it or not
    cells = passes(ops, made, *arrays)
    want, size = (passes(oracle, conv, *(change(a.astype(np.float64)) for a in arrays)) for change in (np.asarray, np.abs))
    for what in want:
        assert_within(cells[what], want[what], zero_mean_bound(size[what]), f"{what} of {name}", seed=seed)


class KeepsTheTaps(CellConvReLU):
    """What a tired hand could write: the filled-up filters are taken for the parameters, and learn."""

    def _weight_shape(self, x: Shape) -> tuple[int, ...]:
        side = self.kernel * self.cell
        return (self.K, side, side, x.channels // self.cell**2)


def test_the_taps_that_are_filled_up_have_a_gradient_which_is_dropped(oracle):
    """One update of the filters, then another pass: the declared convolution, and not one whose 12th taps have learnt."""
    conv, made, (x, w, b, dy) = layer_draw("tiny", 1, whole=True)
    wrong = as_kind(KeepsTheTaps, made)
    filled = np.pad(w, ((0, 0), (0, 1), (0, 1), (0, 0)))
    results = {}
    for layer, start in ((conv, w), (made, w), (wrong, filled)):
        first = passes(oracle, layer, x, start, b, dy)
        results[layer] = passes(oracle, layer, x, start - first["dw"], b, dy)["y"]
        if layer is wrong:
            assert (first["dw"][:, -1] != 0).any() and (first["dw"][:, :, -1] != 0).any()
    assert_bits_equal(results[made], results[conv], "y behind an update")
    assert (results[wrong] != results[conv]).any()


@pytest.mark.parametrize("backend", compiled_backends())
def test_one_kernel_makes_the_cells(backend, oracle, seed):
    """What training writes into a net's input are the bits of the oracle's plain pictures, which `show` puts there."""
    ops, made = load_or_skip(backend), recipe("tiny")
    net = Net(made.build(3), made.input, 2, ops, seed=1)
    assert type(net.layers[0]) is CellConvReLU and net.input().shape == (1, 2, 28, 28, 48) and net.picture == made.input
    rng = np.random.default_rng(seed)
    given = dict(images=rng.integers(0, 256, (2, 128, 128, 3)).astype(np.uint8), mean=rng.uniform(0, 255, (128, 128, 3)).astype(np.float32),
                 offsets=np.int32([[3, 16], [9, 0]]), flips=np.array([True, False]), noise=rng.standard_normal((2, 3)).astype(np.float32))
    plain = np.empty(made.input.array(2), np.float32)
    oracle.augment_fprop(**given, y=plain, mean_at="crop", scale=0.5)
    ops.augment_fprop(**{name: ops.from_host(array) for name, array in given.items()}, y=net.input(), mean_at="crop", scale=0.5)
    got = ops.to_host(net.input())
    net.show(plain)
    assert_bits_equal(got, ops.to_host(net.input()), "the input", seed=seed)
    with pytest.raises(ShapeError):
        net.show(plain[:, :, :-4])


def test_the_recipes():
    """Which first layers of the recipes change their form."""
    def changed(name):
        made = recipe(name)
        return in_cells(made.build(made.classes)[0], made.input) is not None
    assert [name for name in RECIPES if changed(name)] == ["paper", "source2012", "onegpu", "talkless", "conv6", "small", "tiny"]
