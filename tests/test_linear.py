"""Fully connected layer: why we trust it on every backend."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from proofs import Weights, killed_by, prove, prove_adjoint, prove_gradients

from minialex.layers import Linear, Run
from minialex.spec import DTypeError, LayoutError, Shape, ShapeError
from minialex.testing import assert_bits_equal, assert_within, call, cases, mutants, refused, zero_mean_bound
from minialex.testing.mutants_weights import BASES
from minialex.testing.onhost import OnHost

LINEAR = Weights("linear")
OPS = ("linear_fprop", "linear_dgrad", "linear_wgrad")
SMALL, TINY, BIG = cases.small(cases.LINEAR), cases.tiny(cases.LINEAR), [case for case in cases.LINEAR if case.big]


def test_literal_example(ops):
    """Two columns of two inputs, two output columns of one, reading both columns and reading their own."""
    x = np.array([[[1, 10]], [[100, 1000]]], np.float32)                # (2 columns, 1 image, 2 inputs)
    w, b = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32), np.array([0.5, 0.25], np.float32)
    y = call(ops, "linear_fprop", {"y": (2, 1, 1)}, x=x, w=w, b=b, groups=1)["y"]
    assert y.ravel().tolist() == [4321.5, 8765.25]
    dy = np.array([1, 10], np.float32).reshape(2, 1, 1)
    dx = call(ops, "linear_dgrad", {"dx": x.shape}, dy=dy, w=w, groups=1)["dx"]
    assert dx.ravel().tolist() == [51, 62, 73, 84]
    out = call(ops, "linear_wgrad", {"dw": w.shape, "db": b.shape}, x=x, dy=dy, groups=1)
    assert out["dw"].tolist() == [[1, 10, 100, 1000], [10, 100, 1000, 10000]] and out["db"].tolist() == [1, 10]
    own = np.array([[1, 2], [3, 4]], np.float32)
    y = call(ops, "linear_fprop", {"y": (2, 1, 1)}, x=x, w=own, b=b, groups=2)["y"]
    assert y.ravel().tolist() == [21.5, 4300.25]
    assert call(ops, "linear_dgrad", {"dx": x.shape}, dy=dy, w=own, groups=2)["dx"].ravel().tolist() == [1, 2, 30, 40]
    assert call(ops, "linear_wgrad", {"dw": own.shape, "db": b.shape}, x=x, dy=dy, groups=2)["dw"].tolist() == [[1, 10], [1000, 10000]]


def definition(x, w, b, case):
    """The formula with a Python loop for every letter, integers only."""
    y = np.zeros(case.y_shape, np.int64)
    per_column, per_group, inputs = case.K // case.out_columns, case.K // case.groups, w.shape[1]
    for n, k in itertools.product(range(case.N), range(case.K)):
        total = int(b[k])
        for f in range(inputs):
            place = k // per_group * inputs + f
            total += int(x[place // case.F, n, place % case.F]) * int(w[k, f])
        y[k // per_column, n, k % per_column] = total
    return y


@pytest.mark.parametrize("case", TINY, ids=str)
def test_the_oracle_is_the_formula(oracle, case, seed):
    data = LINEAR.draw(case, "integers", seed, np.float64)
    y = LINEAR.fprop(oracle, case, data["x"], data["w"], data["b"])
    assert (y == definition(data["x"], data["w"], data["b"], case)).all()


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_against_the_oracle(ops, oracle, case, op, seed):
    prove(ops, oracle, LINEAR, op, case, seed)


@pytest.mark.parametrize("case", BIG, ids=str)
def test_layers_of_the_paper_at_full_size(ops, oracle, case, seed):
    """fprop and dgrad by the bound for zero-mean data; wgrad's sums have two terms, so small cases say all about it."""
    for op in ("linear_fprop", "linear_dgrad"):
        prove(ops, oracle, LINEAR, op, case, seed, kinds=("zero_mean",))


@pytest.mark.parametrize("case", TINY, ids=str)
def test_gradients_by_finite_differences(ops, case, seed):
    prove_gradients(ops, LINEAR, case, seed)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_the_three_ops_are_one_trilinear_form(ops, case, seed):
    prove_adjoint(ops, LINEAR, case, seed)


@pytest.mark.parametrize("base", [base for base in BASES if base.stem == "linear"], ids=str)
def test_the_right_version_of_each_mutant_lives(oracle, base):
    assert killed_by(base, oracle, LINEAR, SMALL) is None


@pytest.mark.parametrize("mutant", mutants.of("linear"), ids=str)
def test_mutants_die(oracle, mutant):
    assert killed_by(mutant, oracle, LINEAR, SMALL), f"{mutant} survives every case"


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_repeated_runs_and_any_number_of_workers_give_the_same_bits(ops, case, seed):
    data = LINEAR.draw(case, "zero_mean", seed)
    x, w, b, dy = (data[name] for name in ("x", "w", "b", "dy"))
    first = None
    for workers in (1, 1, 2, 3):
        ops.set_workers(workers)
        results = (LINEAR.fprop(ops, case, x, w, b), LINEAR.dgrad(ops, case, dy, w), *LINEAR.wgrad(ops, case, x, dy))
        first = first or results
        for name, array, want in zip(("y", "dx", "dw", "db"), results, first, strict=True):
            assert_bits_equal(array, want, f"{name} with {workers} workers", cases.repro(case), seed)


def test_joint_sum_is_columns_first_bias_last(ops, seed):
    """y = (P_0 + P_1) + b to the bit, P_c the product of column c alone: what one device and two devices compute alike.

    The products are exact (one input a column), so the order of the two additions is all that is seen."""
    rng = np.random.default_rng(seed)
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((2, 64, 1), (8, 2), (8,)))
    x, w = np.exp2(np.round(x)), np.exp2(np.round(w)) * (1 + np.float32(2) ** -23)      # a product of these has no rounding
    y = call(ops, "linear_fprop", {"y": (1, 64, 8)}, x=x, w=w, b=b, groups=1)["y"][0]
    p0, p1 = x[0] * w[:, 0], x[1] * w[:, 1]
    assert_bits_equal(y, (p0 + p1) + b, "y")
    assert ((p0 + (p1 + b)) != y).any()                                                 # another order would show


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_without_biases(ops, oracle, case, seed):
    """b=None adds nothing: the bits of a layer whose biases are 0."""
    data = LINEAR.draw(case, "zero_mean", seed)
    x, w = data["x"], data["w"]
    y = LINEAR.fprop(ops, case, x, w, None)
    assert_bits_equal(y, LINEAR.fprop(ops, case, x, w, np.zeros_like(data["b"])), "y", cases.repro(case), seed)
    x, w = x.astype(np.float64), w.astype(np.float64)
    bound = zero_mean_bound(LINEAR.fprop(oracle, case, abs(x), abs(w), None))
    assert_within(y, LINEAR.fprop(oracle, case, x, w, None), bound, "y", cases.repro(case), seed)


# Sums of several chains in every op, ends of tiles in each direction, with and without whole vectors.
PLACED = [
    cases.LinearCase("three_chains", 7, 1300, 1180, columns=2, out_columns=2),
    cases.LinearCase("odd_chains", 5, 581, 1165, columns=2, out_columns=1),
    cases.LinearCase("own_chains", 3, 1154, 1204, groups=2, columns=2, out_columns=2),
]


def kernels_only(ops):
    if not isinstance(ops, OnHost) or ops.variant == "cublas":
        pytest.skip("a library's products may order their sums by the shape")


@pytest.mark.parametrize("case", PLACED, ids=str)
def test_kernels_give_the_same_bits_on_every_placement(ops, case, seed):
    """All variants agree; a row alone gets what it gets in its batch; and a layer cut into its columns, whose products are made
    apart and added by joint_sum, gets what it gets in one piece: what two devices do."""
    kernels_only(ops)
    data = LINEAR.draw(case, "zero_mean", seed)
    x, w, b, dy = (data[name] for name in ("x", "w", "b", "dy"))
    direct = OnHost(ops.device_ops, "direct")
    y, dx, (dw, db) = LINEAR.fprop(direct, case, x, w, b), LINEAR.dgrad(direct, case, dy, w), LINEAR.wgrad(direct, case, x, dy)
    assert_bits_equal(LINEAR.fprop(ops, case, x, w, b), y, "y", seed=seed)
    assert_bits_equal(LINEAR.dgrad(ops, case, dy, w), dx, "dx", seed=seed)
    for got, want, name in zip(LINEAR.wgrad(ops, case, x, dy), (dw, db), ("dw", "db"), strict=True):
        assert_bits_equal(got, want, name, seed=seed)

    alone = cases.LinearCase("alone", 1, case.F, case.K, case.groups, case.columns, case.out_columns)
    assert_bits_equal(LINEAR.fprop(ops, alone, x[:, 2:3], w, b), y[:, 2:3], "y of an image alone", seed=seed)
    assert_bits_equal(LINEAR.dgrad(ops, alone, dy[:, 2:3], w), dx[:, 2:3], "dx of an image alone", seed=seed)

    if case.groups > 1:
        return
    per_y = case.K // case.out_columns
    half = cases.LinearCase("half", case.N, case.F, per_y)
    for g in range(case.out_columns):
        rows = slice(g * per_y, (g + 1) * per_y)
        p, q = (LINEAR.fprop(ops, half, x[c:c + 1], np.ascontiguousarray(w[rows, c * case.F:(c + 1) * case.F]), None) for c in (0, 1))
        ops.joint_sum(p, q, b[rows], p)
        assert_bits_equal(p, y[g:g + 1], f"y of column {g} from two products", seed=seed)
    for c in range(case.columns):
        products = [LINEAR.dgrad(ops, half, dy[g:g + 1], np.ascontiguousarray(w[g * per_y:(g + 1) * per_y, c * case.F:(c + 1) * case.F]))
                    for g in range(case.out_columns)]
        if len(products) == 2:
            ops.joint_sum(*products, None, products[0])
        assert_bits_equal(products[0], dx[c:c + 1], f"dx of column {c} from the output columns", seed=seed)


@pytest.mark.parametrize("op", OPS)
def test_more_images_than_one_chain_adds(ops, oracle, op, seed):
    """wgrad's sums of more than 4,096 images."""
    prove(ops, oracle, LINEAR, op, cases.LinearCase("long_batch", 4100, 3, 5), seed)


def test_the_choice_for_the_layers_of_the_paper(ops):
    """At each batch every pass has a tuned variant, and small batches read w without a tile."""
    kernels_only(ops)
    layers = ((2, 2, 4608, 4096, 1), (2, 2, 2048, 4096, 1), (2, 1, 2048, 1000, 1), (2, 2, 2048, 4096, 2), (1, 1, 9216, 4096, 1))
    for N, layer, op in itertools.product((1, 2, 8, 9, 32, 33, 65, 128, 256), layers, OPS):
        chosen = ops.kernels.choose(op, (N, *layer))
        assert chosen in ops.kernels.variants(op) and chosen != "direct"
        assert (chosen == "rows") == (N <= 8)
        if N >= 128 and layer[3] == 4096:
            assert chosen == "wide", (N, layer, op)


def test_flatten_order_is_rows_columns_channels(oracle, rng):
    """The layer reads (H, W, C) of column 0, then of column 1; the (C, H, W) order of imported weights is another function."""
    shape = Shape(2, 2, 3, 4)
    layer = Linear("fc", K=5)
    x = rng.integers(-3, 4, shape.array(2)).astype(np.float64)
    w, b = rng.integers(-3, 4, layer.params(shape)[0].shape).astype(np.float64), np.arange(5.0)
    y = np.full((1, 2, 1, 1, 5), np.nan)
    layer.fprop(oracle, x, y, Run(params={"w": w, "b": b}))
    places = list(np.ndindex(2, 2, 3, 4))
    by_hand = [[b[k] + sum(x[g, n, h, v, c] * w[k, ((g * 2 + h) * 3 + v) * 4 + c] for g, h, v, c in places) for k in range(5)]
               for n in range(2)]
    assert y.reshape(2, 5).tolist() == by_hand
    channels_first = x.transpose(1, 0, 4, 2, 3).reshape(2, -1) @ w.T + b
    assert (channels_first != y.reshape(2, 5)).any()


def test_the_layer_hands_groups_and_gradients_to_the_ops(oracle, rng):
    shape = Shape(2, 1, 2, 3)
    layer = Linear("fc", K=4, groups=2, columns=2)
    case = cases.LinearCase("layer", 3, 6, 4, groups=2, columns=2, out_columns=2)
    assert [p.shape for p in layer.params(shape)] == [case.w_shape, (4,)]
    x, dy = rng.standard_normal(shape.array(3)), rng.standard_normal((2, 3, 1, 1, 2))
    w, b = rng.standard_normal(case.w_shape), rng.standard_normal(4)
    y, dx = np.full_like(dy, np.nan), np.full_like(x, np.nan)
    run = Run(params={"w": w, "b": b}, grads={"w": np.full_like(w, np.nan), "b": np.full_like(b, np.nan)})
    layer.fprop(oracle, x, y, run)
    layer.bprop(oracle, x, y, dy, dx, run)
    flat_x, flat_dy = x.reshape(2, 3, 6), dy.reshape(2, 3, 2)
    dw, db = LINEAR.wgrad(oracle, case, flat_x, flat_dy)
    assert_bits_equal(y.reshape(flat_dy.shape), LINEAR.fprop(oracle, case, flat_x, w, b), "y")
    assert_bits_equal(dx.reshape(flat_x.shape), LINEAR.dgrad(oracle, case, flat_dy, w), "dx")
    assert_bits_equal(run.grads["w"], dw, "dw")
    assert_bits_equal(run.grads["b"], db, "db")


def good_call(op):
    """Arguments of a small correct call."""
    case = next(case for case in SMALL if case.name == "two_columns_own")
    data = LINEAR.draw(case, "zero_mean", 1)
    x, w, b, dy = (data[name] for name in ("x", "w", "b", "dy"))
    arrays = {"linear_dgrad": dict(dy=dy, w=w, dx=np.full_like(x, np.nan)),
              "linear_wgrad": dict(x=x, dy=dy, dw=np.full_like(w, np.nan), db=np.full_like(b, np.nan))}
    return {**arrays.get(op, dict(x=x, w=w, b=b, y=np.full_like(dy, np.nan))), "groups": 2}


OUTPUTS = {"linear_dgrad": ("dx",), "linear_wgrad": ("dw", "db")}
INPUT = {"linear_dgrad": "dy"}
MATRIX = {"linear_wgrad": "dw"}

BAD_CALLS = [
    ("no_images", ShapeError, lambda op, a: {n: v[:, :0] for n, v in a.items() if n in ("x", "y", "dx", "dy")}),
    ("other_batch", ShapeError, lambda op, a: {INPUT.get(op, "x"): a[INPUT.get(op, "x")][:, :1]}),
    ("groups_0", ShapeError, lambda op, a: {"groups": 0}),
    ("groups_that_are_not_the_columns", ShapeError, lambda op, a: {"groups": 3}),
    ("inputs_of_both_columns", ShapeError, lambda op, a: {"groups": 1}),
    ("outputs", ShapeError, lambda op, a: {MATRIX.get(op, "w"): np.zeros((7, 5), np.float32)}),
    ("maps_instead_of_rows", ShapeError, lambda op, a: {INPUT.get(op, "x"): a[INPUT.get(op, "x")][..., None, None]}),
    ("flat_weights", ShapeError, lambda op, a: {MATRIX.get(op, "w"): np.zeros(30, np.float32)}),
    ("one_float64", DTypeError, lambda op, a: {INPUT.get(op, "x"): a[INPUT.get(op, "x")].astype(np.float64)}),
    ("float16", DTypeError, lambda op, a: {MATRIX.get(op, "w"): a[MATRIX.get(op, "w")].astype(np.float16)}),
    ("transposed_weights", LayoutError, lambda op, a: {MATRIX.get(op, "w"): np.asfortranarray(a[MATRIX.get(op, "w")])}),
    ("inputs_apart", LayoutError, lambda op, a: {INPUT.get(op, "x"): np.repeat(a[INPUT.get(op, "x")], 2, axis=-1)[..., ::2]}),
]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("bad", BAD_CALLS, ids=lambda bad: bad[0])
def test_bad_calls_raise_and_write_nothing(ops, op, bad):
    _, error, change = bad
    arguments = good_call(op)
    arguments.update(change(op, arguments))
    assert refused(ops, op, error, OUTPUTS.get(op, ("y",)), **arguments)


@pytest.mark.parametrize("op", OPS)
def test_overlapping_arrays_are_refused(ops, op):
    arguments = good_call(op)
    output, source = OUTPUTS.get(op, ("y",))[-1], INPUT.get(op, "x")
    memory = np.zeros(arguments[output].size + arguments[source].size - 1, np.float32)
    arguments[source] = memory[:arguments[source].size].reshape(arguments[source].shape)
    arguments[output] = memory[-arguments[output].size:].reshape(arguments[output].shape)      # one number shared
    assert "overlap" in refused(ops, op, LayoutError, (output,), **arguments)
