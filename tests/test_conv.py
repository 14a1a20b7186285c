"""Convolution: why we trust it on every backend."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from proofs import Weights, killed_by, prove, prove_adjoint, prove_gradients

from minialex.backends.cpu import winograd
from minialex.layers import Conv
from minialex.spec import DTypeError, LayoutError, Shape, ShapeError
from minialex.testing import assert_bits_equal, assert_exact, assert_within, call, cases, mutants, refused, zero_mean_bound
from minialex.testing.mutants_weights import BASES
from minialex.testing.onhost import OnHost

CONV = Weights("conv")


@pytest.fixture(autouse=True)
def direct_form(monkeypatch):
    """Of the cpu backend's two forms the direct one, for every shape; tests/test_winograd.py proves the other, whose bound is another."""
    monkeypatch.setattr(winograd, "enabled", False)


OPS = ("conv_fprop", "conv_relu_fprop", "conv_dgrad", "conv_wgrad")
SMALL, TINY, BIG = cases.small(cases.CONV), cases.tiny(cases.CONV), [case for case in cases.CONV if case.big]


def test_literal_example(ops):
    """A 3 x 3 picture, a 2 x 2 filter, one zero after the end, by hand."""
    x = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.float32).reshape(1, 1, 3, 3, 1)
    w = np.array([[1, 0], [10, 100]], np.float32).reshape(1, 2, 2, 1)
    b = np.array([1000], np.float32)
    geometry = dict(stride=2, pad=(0, 1), groups=1)
    y = call(ops, "conv_fprop", {"y": (1, 1, 2, 2, 1)}, x=x, w=w, b=b, **geometry)["y"]
    #       1 + 10*4 + 100*5   3 + 10*6 + 0    7 + 0 + 0   9 + 0 + 0
    assert y.ravel().tolist() == [1541, 1063, 1007, 1009]
    dy = np.array([[1, 2], [3, 4]], np.float32).reshape(y.shape)
    dx = call(ops, "conv_dgrad", {"dx": x.shape}, dy=dy, w=w, **geometry)["dx"]
    assert dx.ravel().tolist() == [1, 0, 2, 10, 100, 20, 3, 0, 4]
    out = call(ops, "conv_wgrad", {"dw": w.shape, "db": b.shape}, x=x, dy=dy, **geometry)
    #       1*1 + 2*3 + 3*7 + 4*9   1*2 + 3*8   1*4 + 2*6   1*5
    assert out["dw"].ravel().tolist() == [64, 26, 16, 5] and out["db"].tolist() == [10]


def test_literal_columns(ops):
    """Channel c of column g is global channel g * C + c; groups cut the global channels; column 0's maps come first."""
    x = np.array([1, 10, 100, 1000], np.float32).reshape(2, 1, 1, 1, 2)
    w, b = np.array([[1, 2], [3, 4]], np.float32).reshape(2, 1, 1, 2), np.array([0.5, 0.25], np.float32)
    y = call(ops, "conv_fprop", {"y": (2, 1, 1, 1, 1)}, x=x, w=w, b=b, stride=1, pad=0, groups=2)["y"]
    assert y.ravel().tolist() == [21.5, 4300.25]
    w = np.arange(1, 9, dtype=np.float32).reshape(2, 1, 1, 4)
    y = call(ops, "conv_fprop", {"y": (2, 1, 1, 1, 1)}, x=x, w=w, b=b, stride=1, pad=0, groups=1)["y"]
    assert y.ravel().tolist() == [4321.5, 8765.25]


def definition(x, w, b, case):
    """The formula with a Python loop for every letter, integers only."""
    y = np.zeros(case.y_shape, np.int64)
    before = case.pad if isinstance(case.pad, int) else case.pad[0]
    per_column, per_group = case.K // case.out_columns, case.K // case.groups
    for n, p, q, k in itertools.product(range(case.N), range(case.P), range(case.Q), range(case.K)):
        total = int(b[k])
        for r, s, c in itertools.product(range(case.R), range(case.S), range(case.C_group)):
            h, v, channel = p * case.stride - before + r, q * case.stride - before + s, k // per_group * case.C_group + c
            if 0 <= h < case.H and 0 <= v < case.W:
                total += int(x[channel // case.C, n, h, v, channel % case.C]) * int(w[k, r, s, c])
        y[k // per_column, n, p, q, k % per_column] = total
    return y


@pytest.mark.parametrize("case", TINY, ids=str)
def test_the_oracle_is_the_formula(oracle, case, seed):
    data = CONV.draw(case, "integers", seed, np.float64)
    y = CONV.fprop(oracle, case, data["x"], data["w"], data["b"])
    assert (y == definition(data["x"], data["w"], data["b"], case)).all()


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_against_the_oracle(ops, oracle, case, op, seed):
    prove(ops, oracle, CONV, op, case, seed)


@pytest.mark.parametrize("case", BIG, ids=str)
def test_layers_of_the_paper_at_full_size(ops, oracle, case, seed):
    for op in ("conv_fprop", "conv_dgrad", "conv_wgrad"):
        if op == "conv_dgrad" and case.stride > 1 and isinstance(ops, OnHost) and (ops.variant or "").startswith("tiled"):
            continue        # no network asks conv1 for it; a minute of multiplying zeros, which alexnet_conv1_crop does in a second
        prove(ops, oracle, CONV, op, case, seed, kinds=("zero_mean",))


@pytest.mark.parametrize("case", TINY, ids=str)
def test_gradients_by_finite_differences(ops, case, seed):
    prove_gradients(ops, CONV, case, seed)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_the_three_ops_are_one_trilinear_form(ops, case, seed):
    prove_adjoint(ops, CONV, case, seed)


@pytest.mark.parametrize("base", [base for base in BASES if base.stem == "conv"], ids=str)
def test_the_right_version_of_each_mutant_lives(oracle, base):
    assert killed_by(base, oracle, CONV, SMALL) is None


@pytest.mark.parametrize("mutant", mutants.of("conv"), ids=str)
def test_mutants_die(oracle, mutant):
    assert killed_by(mutant, oracle, CONV, SMALL), f"{mutant} survives every case"


def test_the_bound_sees_any_single_weight(oracle, seed):
    """Without one of w's 432 numbers some y leaves its bound: the comparison is that sharp."""
    case = next(case for case in SMALL if case.name == "two_columns_own")
    data = CONV.draw(case, "zero_mean", seed, np.float64)
    x, w, b = data["x"], data["w"], data["b"]
    y = CONV.fprop(oracle, case, x, w, b)
    bound = zero_mean_bound(CONV.fprop(oracle, case, abs(x), abs(w), abs(b)))
    for index in np.ndindex(w.shape):
        without = w.copy()
        without[index] = 0
        with pytest.raises(AssertionError):
            assert_within(CONV.fprop(oracle, case, x, without, b), y, bound, f"without w{index}")


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_blocks_of_images_make_the_whole(ops, case, seed):
    """Slices of axis 1 in, slices of axis 1 out, nothing beyond them touched.  On integers, whose sums have one value: a
    library's product may add in another order for another number of rows, so blocks are a function of N alone."""
    data = CONV.draw(case, "integers", seed)
    x, w, b, dy = (data[name] for name in ("x", "w", "b", "dy"))
    cuts = sorted({0, case.N // 3, 2 * case.N // 3, case.N})
    for op, source, name, out in (("conv_fprop", "x", "y", case.y_shape), ("conv_relu_fprop", "x", "y", case.y_shape),
                                  ("conv_dgrad", "dy", "dx", case.x_shape)):
        given = dict(x=x, w=w, b=b) if source == "x" else dict(dy=dy, w=w)
        whole = call(ops, op, {name: out}, **given, **case.geometry)[name]
        pieces = np.full(out, np.nan, np.float32)
        for start, stop in itertools.pairwise(cuts):
            getattr(ops, op)(**{**given, source: given[source][:, start:stop], name: pieces[:, start:stop]}, **case.geometry)
            assert np.isnan(pieces[:, stop:]).all()
        assert_exact(pieces, whole, f"{op} in blocks {cuts}", cases.repro(case), seed)


def all_results(ops, case, data):
    x, w, b, dy = (data[name] for name in ("x", "w", "b", "dy"))
    relu = CONV.fprop(ops, case, x, w, b, op="conv_relu_fprop")
    return dict(zip(("y", "relu y", "dx", "dw", "db"),
                    (CONV.fprop(ops, case, x, w, b), relu, CONV.dgrad(ops, case, dy, w), *CONV.wgrad(ops, case, x, dy)), strict=True))


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_repeated_runs_and_any_number_of_workers_give_the_same_bits(ops, case, seed):
    data = CONV.draw(case, "zero_mean", seed)
    ops.set_workers(1)
    first = all_results(ops, case, data)
    for workers in (1, 2, 3):
        ops.set_workers(workers)
        for name, array in all_results(ops, case, data).items():
            assert_bits_equal(array, first[name], f"{name} with {workers} workers", cases.repro(case), seed)


@pytest.mark.parametrize("case", [c for c in SMALL if c.columns > 1 and c.groups == 1], ids=str)
def test_joint_sums_are_columns_first_bias_last(ops, case, seed):
    """y = (P_0 + P_1 + ...) + b to the bit, P_c the convolution of column c alone; dx of a column is D_0 + D_1 + ... over
    the output columns: what one device and several compute alike."""
    data = CONV.draw(case, "zero_mean", seed)
    x, w, b, dy = (data[name] for name in ("x", "w", "b", "dy"))
    alone = replace(case, columns=1)
    products = [CONV.fprop(ops, alone, x[g:g + 1], np.ascontiguousarray(w[..., g * case.C:(g + 1) * case.C]), np.zeros_like(b))
                for g in range(case.columns)]
    bias = b.reshape(case.out_columns, 1, 1, 1, -1)
    assert_bits_equal(CONV.fprop(ops, case, x, w, b), reduce(np.add, products) + bias, "y", cases.repro(case), seed)
    per_column = case.K // case.out_columns
    own = replace(case, out_columns=1, K=per_column)
    shares = [CONV.dgrad(ops, own, dy[g:g + 1], w[g * per_column:(g + 1) * per_column]) for g in range(case.out_columns)]
    assert_bits_equal(CONV.dgrad(ops, case, dy, w), reduce(np.add, shares), "dx", cases.repro(case), seed)


@pytest.mark.parametrize("case", [case for case in SMALL if case.N > 1], ids=str)
def test_wgrad_of_blocks_adds_up(ops, oracle, case, seed):
    """Blocks of images, the second accumulated onto the first, make the whole gradient: integers, so exactly."""
    data = CONV.draw(case, "integers", seed)
    x, dy = data["x"], data["dy"]
    dw, db = np.full(case.w_shape, np.nan, np.float32), np.full(case.b_shape, np.nan, np.float32)
    ops.conv_wgrad(x[:, :1], dy[:, :1], dw, db, **case.geometry)
    ops.conv_wgrad(x[:, 1:], dy[:, 1:], dw, db, accumulate=True, **case.geometry)
    want = CONV.wgrad(oracle, case, x, dy)
    assert (dw == want[0]).all() and (db == want[1]).all()


def test_any_geometry_after_any_other(ops, oracle):
    """200 random geometries in one run, integers: no op may find in its scratch memory what the one before left there."""
    rng = np.random.default_rng(2012)
    for number in range(200):
        R, S, stride = (int(n) for n in rng.integers(1, 5, 3))
        pad = (int(rng.integers(0, R + 1)), int(rng.integers(0, S + 1)))
        columns, out_columns = ((1, 1), (1, 2), (2, 2), (2, 1), (3, 3))[rng.integers(5)]
        groups = int(rng.choice([1, columns * out_columns // (2 if columns == out_columns == 2 else 3 if columns == 3 else 1)]))
        C, K = int(rng.integers(1, 4)) * (groups // columns or 1), int(rng.integers(1, 4)) * groups * out_columns
        H, W = max(R - sum(pad), 1) + int(rng.integers(0, 5)), max(S - sum(pad), 1) + int(rng.integers(0, 5))
        N = int(rng.integers(1, 7))
        case = cases.ConvCase(f"random_{number}", N, H, W, C, K, R, S, stride, pad, groups, columns, out_columns)
        for op in OPS:
            prove(ops, oracle, CONV, op, case, number, kinds=("integers",))


# More than a chain for each map and each pixel; a picture as wide as its window, so wgrad's ranges are short.
LONG = cases.ConvCase("long_chains", 2, 8, 9, 70, 140, 8, 8, groups=2, columns=2, out_columns=2)
OWN = [case for case in SMALL if case.groups > 1 and case.groups == case.columns == case.out_columns]
BLOCKS = cases.ConvCase("several_tiles", 3, 13, 11, 20, 264, 3, 3, pad=1, groups=2, columns=2, out_columns=2)


def kernels_only(ops):
    if not isinstance(ops, OnHost):
        pytest.skip("a library's products may order their sums by the shape")


@pytest.mark.parametrize("case", [*OWN, BLOCKS, LONG], ids=str)
def test_a_column_alone_gets_the_same_bits(ops, case, seed):
    """What two devices compute, each with its own column, is what one computes with both."""
    kernels_only(ops)
    data = CONV.draw(case, "zero_mean", seed)
    whole, columns = all_results(ops, case, data), case.columns
    alone, per_column = replace(case, groups=1, columns=1, out_columns=1, K=case.K // columns), case.K // columns
    for g in range(columns):
        maps = slice(g * per_column, (g + 1) * per_column)
        own = all_results(ops, alone, dict(x=data["x"][g:g + 1], w=data["w"][maps], b=data["b"][maps], dy=data["dy"][g:g + 1]))
        for name, array in own.items():
            want = whole[name][maps] if name in ("dw", "db") else whole[name][g:g + 1]
            assert_bits_equal(array, want, f"{name} of column {g}", seed=seed)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("case", [BLOCKS, LONG], ids=str)
def test_several_tiles_and_several_chains(ops, oracle, case, op, seed):
    kernels_only(ops)
    prove(ops, oracle, CONV, op, case, seed)


@pytest.mark.parametrize("case", [*SMALL, BLOCKS], ids=str)
def test_the_size_of_a_tile_changes_no_bit(ops, case, seed):
    """So which tile is chosen may look at every extent, also at those that are cut between devices."""
    if not isinstance(ops, OnHost) or ops.variant != "tiled_128x128":
        pytest.skip("the large tile is compared with the others")
    data = CONV.draw(case, "zero_mean", seed)
    x, w, b, dy = (data[name] for name in ("x", "w", "b", "dy"))
    small, direct = OnHost(ops.device_ops, "tiled_64x64"), OnHost(ops.device_ops, "direct")
    for other in (small, direct):
        pairs = [("y", CONV.fprop(ops, case, x, w, b), CONV.fprop(other, case, x, w, b))]
        if case.stride == 1:
            pairs += [("dx", CONV.dgrad(ops, case, dy, w), CONV.dgrad(other, case, dy, w))]
        for name, got, want in pairs:
            assert_bits_equal(got, want, f"{name} beside {other.variant}", cases.repro(case), seed)
    if not (case.C % 4 or case.C_group % 4 or case.K // case.groups % 4 or case.K // case.out_columns % 4):
        for got, want in zip(CONV.wgrad(ops, case, x, dy), CONV.wgrad(small, case, x, dy), strict=True):
            assert_bits_equal(got, want, "dw or db beside tiled_64x64", cases.repro(case), seed)


def test_a_fused_relu_gives_the_bits_of_both_ops_and_keeps_nan(ops, seed):
    kernels_only(ops)
    case = next(case for case in SMALL if case.name == "two_columns_joint")
    data = CONV.draw(case, "zero_mean", seed)
    data["x"][0, 1, 2, 3, 0] = np.nan
    shapes, given = {"y": case.y_shape}, {**{name: data[name] for name in ("x", "w", "b")}, **case.geometry}
    y = call(ops, "conv_fprop", shapes, whole=False, **given)["y"]
    assert np.isnan(y).any() and (y < 0).any()
    want = call(ops, "relu_fprop", shapes, whole=False, x=y)["y"]
    assert_bits_equal(call(ops, "conv_relu_fprop", shapes, whole=False, **given)["y"], want, "y", seed=seed)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_without_biases(ops, case, seed):
    """b=None adds nothing: the bits of a layer whose biases are 0."""
    kernels_only(ops)
    data = CONV.draw(case, "zero_mean", seed)
    for op in ("conv_fprop", "conv_relu_fprop"):
        with_zeros = CONV.fprop(ops, case, data["x"], data["w"], np.zeros_like(data["b"]), op=op)
        assert_bits_equal(CONV.fprop(ops, case, data["x"], data["w"], None, op=op), with_zeros, op, cases.repro(case), seed)


def test_the_choice_for_the_layers_of_the_paper(ops):
    """At batch 128 large tiles where they are filled, a thread for each number where a tile would multiply zeros."""
    kernels_only(ops)
    large, small = "tiled_128x128", "tiled_64x64"
    want = {"alexnet_conv1": (large, "direct", small), "alexnet_conv2": (large, small, large), "alexnet_conv3": (large, large, large),
            "alexnet_conv4": (large, large, small), "alexnet_conv5": (large, large, large)}
    for case in BIG:
        if case.name in want:
            dims = (128, case.columns, case.out_columns, case.H, case.W, case.columns * case.C, case.K, case.R, case.S, case.P, case.Q,
                    case.stride, *((case.pad,) * 2 if isinstance(case.pad, int) else case.pad), case.groups)
            chosen = tuple(ops.kernels.choose(op, dims) for op in ("conv_fprop", "conv_dgrad", "conv_wgrad"))
            assert chosen == want[case.name], case
            assert all(ops.kernels.choose(op, (1, *dims[1:])) in (small, "direct") for op in ("conv_fprop", "conv_dgrad"))


def good_call(op):
    """Arguments of a small correct call."""
    case = next(case for case in SMALL if case.name == "two_columns_own")
    data = CONV.draw(case, "zero_mean", 1)
    x, w, b, dy = (data[name] for name in ("x", "w", "b", "dy"))
    arrays = {"conv_dgrad": dict(dy=dy, w=w, dx=np.full_like(x, np.nan)),
              "conv_wgrad": dict(x=x, dy=dy, dw=np.full_like(w, np.nan), db=np.full_like(b, np.nan))}
    return {**arrays.get(op, dict(x=x, w=w, b=b, y=np.full_like(dy, np.nan))), **case.geometry}


OUTPUTS = {"conv_dgrad": ("dx",), "conv_wgrad": ("dw", "db")}
INPUT = {"conv_dgrad": "dy"}            # an activation that is read ...
ACTIVATION = {"conv_dgrad": "dx"}       # ... and x or its gradient
FILTERS = {"conv_wgrad": "dw"}


def every_second_channel(a):
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def as_integers(op, arguments):
    return {n: np.zeros(v.shape, np.int32) for n, v in arguments.items() if isinstance(v, np.ndarray)}


BAD_CALLS = [
    ("no_images", ShapeError, lambda op, a: {n: v[:, :0] for n, v in a.items() if n in ("x", "y", "dx", "dy")}),
    ("other_batch", ShapeError, lambda op, a: {INPUT.get(op, "x"): a[INPUT.get(op, "x")][:, :1]}),
    ("window_larger_than_the_padded_input", ShapeError,
     lambda op, a: {FILTERS.get(op, "w"): np.zeros((8, 9, 3, 3), np.float32)}),
    ("extent_of_y", ShapeError, lambda op, a: {"pad": 0}),
    ("negative_pad", ShapeError, lambda op, a: {"pad": (-1, 3)}),
    ("stride_0", ShapeError, lambda op, a: {"stride": 0}),
    ("groups_0", ShapeError, lambda op, a: {"groups": 0}),
    ("groups_do_not_divide", ShapeError, lambda op, a: {"groups": 5}),
    ("groups_across_columns", ShapeError, lambda op, a: {"groups": 3}),
    ("channels_of_the_filters", ShapeError, lambda op, a: {"groups": 1}),
    ("maps_of_y", ShapeError, lambda op, a: {FILTERS.get(op, "w"): np.zeros((10, 3, 3, 3), np.float32)}),
    ("rank_of_an_activation", ShapeError, lambda op, a: {INPUT.get(op, "x"): a[INPUT.get(op, "x")][0]}),
    ("rank_of_the_filters", ShapeError, lambda op, a: {FILTERS.get(op, "w"): np.zeros((8, 27), np.float32)}),
    ("one_float64", DTypeError, lambda op, a: {INPUT.get(op, "x"): a[INPUT.get(op, "x")].astype(np.float64)}),
    ("integers", DTypeError, as_integers),
    ("channels_apart", LayoutError, lambda op, a: {ACTIVATION.get(op, "x"): every_second_channel(a[ACTIVATION.get(op, "x")])}),
    ("filters_apart", LayoutError, lambda op, a: {FILTERS.get(op, "w"): every_second_channel(a[FILTERS.get(op, "w")])}),
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


@pytest.mark.parametrize("op", [op for op in OPS if op.endswith("fprop")])
def test_a_bias_of_another_length_is_refused(ops, op):
    assert "b has shape" in refused(ops, op, ShapeError, ("y",), **{**good_call(op), "b": np.zeros(4, np.float32)})


def test_55_and_not_54():
    """The paper's conv1: the last window hangs three pixels over the right and bottom edge (paper, section 3.5)."""
    layer = Conv("conv1", K=96, kernel=11, stride=4, pad=(0, 3))
    assert layer.out_shape(Shape(1, 224, 224, 3))[1:3] == (55, 55)
    assert Conv("conv1", K=96, kernel=11, stride=4).out_shape(Shape(1, 224, 224, 3))[1:3] == (54, 54)


def test_the_layer_hands_its_own_geometry_to_the_ops(oracle, seed):
    """Layer against op, asymmetric in everything a layer could forget or swap."""
    from minialex.layers import Run
    layer = Conv("conv", K=6, kernel=3, stride=2, pad=(0, 1), groups=1, columns=2)
    case = cases.ConvCase("layer", 2, 9, 8, 3, 6, 3, 3, stride=2, pad=(0, 1), out_columns=2)
    data = CONV.draw(case, "integers", seed, np.float64)
    assert layer.out_shape(Shape(1, 9, 8, 3)).array(2) == case.y_shape
    assert [p.shape for p in layer.params(Shape(1, 9, 8, 3))] == [case.w_shape, case.b_shape]
    y, dx = np.full(case.y_shape, np.nan), np.full(case.x_shape, np.nan)
    run = Run(params={"w": data["w"], "b": data["b"]}, grads={"w": np.full(case.w_shape, np.nan), "b": np.full(case.b_shape, np.nan)})
    layer.fprop(oracle, data["x"], y, run)
    layer.bprop(oracle, data["x"], y, data["dy"], dx, run)
    assert (y == definition(data["x"], data["w"], data["b"], case)).all()
    dw, db = CONV.wgrad(oracle, case, data["x"], data["dy"])
    assert (dx == CONV.dgrad(oracle, case, data["dy"], data["w"])).all() and (run.grads["w"] == dw).all() and (run.grads["b"] == db).all()
