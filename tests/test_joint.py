"""The sum of a joint layer made of two products: why we trust it on every backend."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from minialex.spec import DTypeError, LayoutError, MiniAlexError, ShapeError
from minialex.testing import assert_bits_equal, call, refused

SHAPES = {                                              # (G, N, F) or (G, N, H, W, C)
    "one_number": (1, 1, 1),
    "odd": (1, 3, 7),
    "two_columns": (2, 3, 5),
    "three_columns": (3, 2, 4),
    "vectors": (2, 3, 12),
    "maps": (2, 3, 4, 5, 6),
    "maps_of_vectors": (2, 2, 3, 3, 8),
    "fc7_half": (2, 16, 2048),
    "many_images": (2, 33, 13, 12, 48),
}


def draw(shape, seed, dtype=np.float32):
    """p, q and b whose sum depends on the order of its two additions."""
    rng = np.random.default_rng(seed)
    p, q = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    return p, q, (10 * rng.standard_normal(shape[0] * shape[-1])).astype(dtype)


def joint(ops, p, q, b):
    return call(ops, "joint_sum", {"y": p.shape}, p=p, q=q, b=b)["y"]


def formula(p, q, b, wrong=""):
    """One number after the other, in NumPy's scalars, which round once an operation."""
    y = np.empty_like(p)
    G, C = p.shape[0], p.shape[-1]
    for place in np.ndindex(p.shape):
        g, c = place[0], place[-1]
        left, right = p[place], q[place]
        index = {"bias_of_the_first_column": c, "bias_of_the_wrong_column": (G - 1 - g) * C + c, "biases_by_channel_first": c * G + g,
                 "bias_of_the_neighbour": (g * C + c + 1) % (G * C)}.get(wrong, g * C + c)
        left = {"q_twice": right, "p_dropped": 0 * left}.get(wrong, left)
        right = {"p_twice": left, "subtracted": -right, "q_dropped": 0 * right}.get(wrong, right)
        bias = 0 * left if b is None or wrong == "no_bias" else b[index]
        y[place] = {"bias_before_the_sum": (left + bias) + right, "bias_with_q": left + (right + bias),
                    "bias_twice": ((left + right) + bias) + bias}.get(wrong, (left + right) + bias)
    return y


MUTANTS = ("q_twice", "p_twice", "p_dropped", "q_dropped", "subtracted", "bias_of_the_first_column", "bias_of_the_wrong_column",
           "biases_by_channel_first", "bias_of_the_neighbour", "no_bias", "bias_twice", "bias_before_the_sum", "bias_with_q")


def prove(ops, shape, seed):
    """The bits of the formula, with biases and without."""
    p, q, b = draw(shape, seed)
    assert_bits_equal(joint(ops, p, q, b), formula(p, q, b), f"y of {shape}", seed=seed)
    assert_bits_equal(joint(ops, p, q, None), formula(p, q, None), f"y of {shape} without biases", seed=seed)


def test_literal_example(ops):
    """Two columns of two numbers, two images."""
    p = np.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], np.float32)
    b = np.array([0.5, 0.25, 100, 200], np.float32)
    assert joint(ops, p, 10 * p, b).tolist() == [[[11.5, 22.25], [33.5, 44.25]], [[155, 266], [177, 288]]]
    assert joint(ops, p, 10 * p, None).tolist() == [[[11, 22], [33, 44]], [[55, 66], [77, 88]]]


def test_columns_first_bias_last(ops):
    """2^24 swallows a 1, so the order of the two additions shows in the result."""
    big, one = np.full((1, 1, 4), 2.0**24, np.float32), np.ones(4, np.float32)
    assert joint(ops, big, -big, one).tolist() == [[[1, 1, 1, 1]]]           # (p + b) + q would be 0
    assert joint(ops, big, np.ones((1, 1, 4), np.float32), -big.ravel()).tolist() == [[[0, 0, 0, 0]]]


def test_a_negative_zero_without_bias_stays(ops):
    zero = np.full((1, 1, 4), -0.0, np.float32)
    assert np.signbit(joint(ops, zero, zero, None)).all()


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if np.prod(shape) < 10_000])
def test_the_bits_of_the_formula(ops, name, seed):
    prove(ops, SHAPES[name], seed)


@pytest.mark.parametrize("name", SHAPES)
def test_the_bits_of_the_oracle(ops, oracle, name, seed):
    p, q, b = draw(SHAPES[name], seed)
    assert_bits_equal(joint(ops, p, q, b), joint(oracle, p, q, b), name, seed=seed)
    assert_bits_equal(joint(ops, p, q, None), joint(oracle, p, q, None), f"{name} without biases", seed=seed)


def test_in_float64(ops, seed):
    p, q, b = draw(SHAPES["maps"], seed, np.float64)
    assert_bits_equal(joint(ops, p, q, b), formula(p, q, b), "y", seed=seed)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("over", ["p", "q"])
def test_in_place_and_with_any_number_of_workers(ops, name, over, seed):
    """y may be p or q; the bits are those of a y of its own, and the other input stays."""
    p, q, b = draw(SHAPES[name], seed)
    want = joint(ops, p, q, b)
    for workers in (1, 3):
        ops.set_workers(workers)
        arrays = {"p": p.copy(), "q": q.copy()}
        ops.joint_sum(arrays["p"], arrays["q"], b, arrays[over])
        other = "q" if over == "p" else "p"
        assert_bits_equal(arrays[over], want, f"y in place of {over} with {workers} workers", seed=seed)
        assert_bits_equal(arrays[other], {"p": p, "q": q}[other], other, seed=seed)


def test_a_block_of_images(oracle, seed):
    """Slices of axis 1, as the backends that work in blocks pass them."""
    p, q, b = draw(SHAPES["maps"], seed)
    want, y = joint(oracle, p, q, b), np.full_like(p, np.nan)
    for start, stop in ((0, 2), (2, 3)):
        oracle.joint_sum(p[:, start:stop], q[:, start:stop], b, y[:, start:stop])
    assert_bits_equal(y, want, "y", seed=seed)


def as_op(wrong):
    def joint_sum(p, q, b, y):
        y[...] = formula(p, q, b, wrong)
    return SimpleNamespace(joint_sum=joint_sum)


def test_the_right_version_of_each_mutant_lives():
    prove(as_op(""), SHAPES["two_columns"], 1)


@pytest.mark.parametrize("wrong", MUTANTS)
def test_mutants_die(wrong):
    with pytest.raises(AssertionError, match="different bits"):
        prove(as_op(wrong), SHAPES["two_columns"], 1)


def good_call():
    p, q, b = draw((2, 3, 4), 1)
    return dict(p=p, q=q, b=b, y=np.full_like(p, np.nan))


@pytest.mark.parametrize("bad", [
    ("other_batch", ShapeError, lambda a: {"q": a["q"][:, :2]}),
    ("other_y", ShapeError, lambda a: {"y": np.zeros((2, 3, 5), np.float32)}),
    ("columns_side_by_side", ShapeError, lambda a: {"q": a["q"].reshape(1, 3, 8)}),
    ("rows_without_columns", ShapeError, lambda a: {n: a[n].reshape(6, 4) for n in "pqy"}),
    ("biases_of_one_column", ShapeError, lambda a: {"b": a["b"][:4]}),
    ("biases_by_column", ShapeError, lambda a: {"b": a["b"].reshape(2, 4)}),
    ("one_float64", DTypeError, lambda a: {"q": a["q"].astype(np.float64)}),
    ("biases_of_float64", DTypeError, lambda a: {"b": a["b"].astype(np.float64)}),
    ("integers", DTypeError, lambda a: {n: np.ones(a[n].shape, np.int32) for n in "pqby"}),
    ("channels_apart", LayoutError, lambda a: {"p": np.repeat(a["p"], 2, axis=-1)[..., ::2]}),
    ("biases_apart", LayoutError, lambda a: {"b": np.repeat(a["b"], 2)[::2]}),
    ("biases_in_y", LayoutError, lambda a: {"b": a["y"].reshape(-1)[:8]}),
], ids=lambda bad: bad[0])
def test_bad_calls_raise_and_write_nothing(ops, bad):
    _, error, change = bad
    arguments = good_call()
    arguments.update(change(arguments))
    refused(ops, "joint_sum", error, ("y",), **arguments)


def test_a_shifted_overlap_is_refused(ops):
    memory = np.zeros(25, np.float32)
    arguments = good_call() | {"p": memory[:24].reshape(2, 3, 4), "y": memory[1:].reshape(2, 3, 4)}
    assert "overlap" in refused(ops, "joint_sum", LayoutError, ("y",), **arguments)


def test_precisions_of_the_numpy_backends(ops):
    """float32 is what every backend multiplies in; an unknown name is refused in one sentence, whatever the backend."""
    ops.set_precision("float32")
    with pytest.raises(MiniAlexError, match=r"^set_precision: .*'float8'") as raised:
        ops.set_precision("float8")
    assert "\n" not in str(raised.value)
    assert set(ops.fused()) <= {"conv_relu", "linear_relu", "lrn_maxpool", "cells"}
