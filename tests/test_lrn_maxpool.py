"""Response normalisation and max-pooling in one op: the same bits as the two ops one after the other, which have their own proofs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from minialex.layers import LRN, LRNMaxPool, MaxPool, Run
from minialex.spec import LayoutError, Shape, ShapeError, pool_extent
from minialex.testing import assert_bits_equal, refused
from minialex.testing.gradcheck import assert_gradients
from minialex.testing.guard import call
from minialex.testing.onhost import OnHost


class Case(NamedTuple):
    name: str
    x_shape: tuple[int, ...]
    n: int = 5
    k: float = 2.0
    beta: float = 0.75
    window: int = 3
    stride: int = 2

    @property
    def y_shape(self):
        G, N, H, W, C = self.x_shape
        return (G, N, pool_extent(H, self.window, self.stride), pool_extent(W, self.window, self.stride), C)

    @property
    def norm(self):
        return dict(n=self.n, k=self.k, alpha=0.5, beta=self.beta)

    @property
    def pool(self):
        return dict(window=self.window, stride=self.stride)


CASES = [
    Case("one_window", (1, 2, 3, 3, 4)), Case("clipped", (1, 2, 6, 8, 8)), Case("odd", (2, 1, 7, 5, 3)), Case("n_1", (1, 2, 4, 5, 4), n=1),
    Case("n_9", (2, 2, 5, 6, 12), n=9, k=1.0), Case("n_9_four_channels", (1, 1, 4, 5, 4), n=9),
    Case("beta_1", (1, 2, 5, 7, 8), k=1.0, beta=1.0), Case("stride_1", (1, 1, 5, 6, 4), stride=1),
    Case("stride_is_window", (1, 2, 5, 7, 4), window=2), Case("window_5", (1, 2, 9, 10, 4), window=5),
    Case("stride_over_window", (1, 2, 8, 7, 4), window=2, stride=3), Case("last_window_outside", (1, 1, 6, 3, 4), window=2, stride=3),
    Case("window_1", (1, 2, 3, 4, 8), window=1, stride=1),
    Case("many_strips", (2, 3, 37, 6, 4)), Case("a_row_in_pieces", (1, 1, 9, 21, 128)), Case("channels_47", (1, 1, 5, 6, 47)),
    Case("long_strips", (1, 140, 19, 5, 4)),        # so many images that a block has as many rows as in training
]
BIG = [Case("alexnet_norm1", (2, 1, 55, 55, 48)), Case("alexnet_norm2", (2, 1, 27, 27, 128))]


def draws(case, rng):
    """(label, x, dy): few different pixels, so that windows have ties in all channels; and zeros as behind a ReLU."""
    pixels = rng.standard_normal((3, case.x_shape[-1]))
    x = pixels[rng.integers(0, 3, case.x_shape[:4])].astype(np.float32)
    dy = rng.standard_normal(case.y_shape).astype(np.float32)
    yield "ties", x, dy
    yield "positive", np.maximum(rng.standard_normal(case.x_shape) * 2, 0).astype(np.float32), dy


def fused(ops, case, x, dy, ties, relu):
    y = call(ops, "lrn_maxpool_fprop", {"y": case.y_shape}, x=x, **case.norm, **case.pool)["y"]
    options = dict(ties=ties, relu=relu, **case.norm, **case.pool)
    return y, call(ops, "lrn_maxpool_bprop", {"dx": case.x_shape}, x=x, y=y, dy=dy, **options)["dx"]


def composed(ops, case, x, dy, ties, relu):
    between, y = ops.empty(case.x_shape, x.dtype), ops.empty(case.y_shape, x.dtype)
    ops.lrn_fprop(x, between, **case.norm)
    ops.maxpool_fprop(between, y, **case.pool)
    dbetween, dx = ops.empty(case.x_shape, x.dtype), ops.empty(case.x_shape, x.dtype)
    ops.maxpool_bprop(between, y, dy, dbetween, ties=ties, **case.pool)
    ops.lrn_bprop(x, dbetween, dx, **case.norm)
    return y, np.where(x > 0, dx, np.float32(0)) if relu else dx


def separate_ops(ops):
    """The ops one after the other on the same backend: as it chooses them, and by its direct variants."""
    return [OnHost(ops.device_ops), OnHost(ops.device_ops, "direct")] if isinstance(ops, OnHost) else [ops]


def compare(ops, case, seed):
    for label, x, dy in draws(case, np.random.default_rng(seed)):
        for ties, relu in (("first", True), ("all", False), ("first", False)):
            got = fused(ops, case, x, dy, ties, relu)
            for separate in separate_ops(ops):
                for what, one, other in zip(("y", "dx"), got, composed(separate, case, x, dy, ties, relu), strict=True):
                    assert_bits_equal(one, other, f"{what} of {label}, ties {ties}, relu {relu}", str(case), seed)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_literal_example(ops, dtype):
    """n=3, k=1, alpha=1, beta=1 on the pixels (1, 2) and (3, 1): 1/6 and 2/6, 3/11 and 1/11.  The pool takes 3/11 and 2/6."""
    x = np.zeros((1, 1, 2, 2, 2), dtype)
    x[0, 0, 0, 1], x[0, 0, 1, 0] = (1, 2), (3, 1)
    constants = dict(n=3, k=1.0, alpha=1.0, beta=1.0, window=2, stride=2)
    y, dy, dx = ops.empty((1, 1, 1, 1, 2), dtype), np.array([121, 36], dtype).reshape(1, 1, 1, 1, 2), ops.empty(x.shape, dtype)
    ops.lrn_maxpool_fprop(x, y, **constants)
    np.testing.assert_allclose(y.ravel(), [3 / 11, 2 / 6], rtol=1e-6)
    # d(3/11): (11 - 18, -6) / 121; d(2/6): (-4, 6 - 8) / 36
    ops.lrn_maxpool_bprop(x, y, dy, dx, ties="first", relu=False, **constants)
    np.testing.assert_allclose(dx[0, 0], [[[0, 0], [-4, -2]], [[-7, -6], [0, 0]]], rtol=1e-6)
    # The same with the second pixel (3, -1), whose -1 no ReLU lets through: +6 without it
    x[0, 0, 1, 0, 1] = -1
    for relu, want in ((False, 6), (True, 0)):
        ops.lrn_maxpool_bprop(x, y, dy, dx, ties="first", relu=relu, **constants)
        np.testing.assert_allclose(dx[0, 0], [[[0, 0], [-4, -2]], [[-7, want], [0, 0]]], rtol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_bits_as_one_after_the_other(ops, case, seed):
    compare(ops, case, seed)


@pytest.mark.parametrize("case", BIG, ids=lambda case: case.name)
def test_same_bits_at_full_size(ops, case, seed):
    compare(ops, case, seed)


def test_gradient(ops, rng):
    case = Case("gradient", (1, 1, 5, 5, 4))
    x, dy = 2 * rng.standard_normal(case.x_shape), rng.standard_normal(case.y_shape)
    dx = fused(ops, case, x, dy, "first", False)[1]

    def function(x):
        y = np.empty(case.y_shape)
        ops.lrn_maxpool_fprop(x, y, **case.norm, **case.pool)
        return y

    assert_gradients(function, {"x": x}, dy, {"x": dx}, "lrn_maxpool_bprop")


@pytest.mark.parametrize("row, column", [(0, 0), (2, 1), (3, 3)])
def test_nan_does_not_hide(ops, row, column):
    x = np.ones((1, 1, 4, 4, 8), np.float32)
    x[0, 0, row, column, 3] = np.nan
    y = ops.empty((1, 1, 2, 2, 8))
    ops.lrn_maxpool_fprop(x, y, n=5, k=2.0, alpha=0.5, beta=0.75, window=3, stride=2)
    assert np.isnan(y[..., 1:6]).any(axis=(0, 1, 2, 3)).all() and not np.isnan(y[..., [0, 6, 7]]).any()


@pytest.mark.parametrize("case", [CASES[1], Case("many_images", (2, 9, 13, 12, 16))], ids=lambda case: case.name)
def test_same_bits_repeated_and_in_blocks(ops, case, seed):
    x, dy = next(draws(case, np.random.default_rng(seed)))[1:]
    y, dx = fused(ops, case, x, dy, "first", True)
    for workers in (1, 3):
        ops.set_workers(workers)
        for what, one, other in zip(("y", "dx"), fused(ops, case, x, dy, "first", True), (y, dx), strict=True):
            assert_bits_equal(one, other, f"{what} once more, {workers} workers", str(case), seed)
    cut_y, cut_dx = np.full_like(y, np.nan), np.full_like(dx, np.nan)
    for start, stop in ((0, 1), (1, case.x_shape[1])):
        block = np.s_[:, start:stop]
        ops.lrn_maxpool_fprop(x[block], cut_y[block], **case.norm, **case.pool)
        ops.lrn_maxpool_bprop(x[block], y[block], dy[block], cut_dx[block], ties="first", relu=True, **case.norm, **case.pool)
        assert np.isnan(cut_y[:, stop:]).all() and np.isnan(cut_dx[:, stop:]).all()
    assert_bits_equal(cut_y, y, "y in blocks", str(case), seed)
    assert_bits_equal(cut_dx, dx, "dx in blocks", str(case), seed)


def test_the_layer_is_its_two_layers(ops, rng):
    norm, pool = LRN("norm", alpha=0.5, divide_by_n=True), MaxPool("pool", ties="all")
    both = LRNMaxPool("pool", norm, pool, relu=True)
    shape = Shape(1, 7, 6, 8)
    assert both.out_shape(shape) == pool.out_shape(shape)
    x = rng.standard_normal(shape.array(2)).astype(np.float32)
    y, dx, between, dbetween, want = (ops.empty(s.array(2)) for s in (both.out_shape(shape), *[shape] * 4))
    both.fprop(ops, x, y, Run())
    dy = rng.standard_normal(y.shape).astype(np.float32)
    both.bprop(ops, x, y, dy, dx, Run())
    norm.fprop(ops, x, between, Run())
    pool.bprop(ops, between, y, dy, dbetween, Run())
    norm.bprop(ops, x, between, dbetween, want, Run())
    assert_bits_equal(dx, np.where(x > 0, want, np.float32(0)), "dx")


def test_bad_calls(ops):
    case = CASES[0]
    x, y = np.ones(case.x_shape, np.float32), np.ones(case.y_shape, np.float32)
    forward = dict(x=x, y=y, **case.norm, **case.pool)
    backward = forward | dict(dy=y.copy(), dx=x.copy(), ties="first", relu=True)
    for op, arguments, outputs in (("lrn_maxpool_fprop", forward, ("y",)), ("lrn_maxpool_bprop", backward, ("dx",))):
        for change in (dict(n=4), dict(n=-1), dict(window=0), dict(window=4), dict(y=np.ones(case.x_shape, np.float32))):
            refused(ops, op, ShapeError, outputs, **arguments | change)
    refused(ops, "lrn_maxpool_bprop", ShapeError, ("dx",), **backward | dict(ties="last"))
    refused(ops, "lrn_maxpool_bprop", LayoutError, ("dx",), **backward | dict(dx=x))
