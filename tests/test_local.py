"""Locally connected convolution: why we trust it on every backend."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from proofs import Weights, killed_by, prove, prove_adjoint, prove_gradients

from minialex.layers import Local, Run
from minialex.spec import DTypeError, LayoutError, Shape, ShapeError
from minialex.testing import assert_bits_equal, assert_exact, call, cases, mutants, refused
from minialex.testing.mutants_weights import BASES

LOCAL, CONV = Weights("local"), Weights("conv")
OPS = ("local_fprop", "local_dgrad", "local_wgrad")
SMALL, TINY, BIG = cases.small(cases.LOCAL), cases.tiny(cases.LOCAL), [case for case in cases.LOCAL if case.big]


def test_literal_example(ops):
    """Three pixels, a window of two with one zero after the end, other filters and biases at each of the three positions."""
    x = np.array([1, 2, 3], np.float32).reshape(1, 1, 1, 3, 1)
    w = np.array([[1, 10], [100, 1000], [5, 7]], np.float32).reshape(1, 3, 1, 1, 2, 1)
    b = np.array([0.5, 0.25, 0.125], np.float32).reshape(1, 3, 1)
    geometry = dict(stride=1, pad=0, groups=1)
    wide = np.concatenate([x, np.zeros_like(x[:, :, :, :1])], axis=3)
    y = call(ops, "local_fprop", {"y": (1, 1, 1, 3, 1)}, x=wide, w=w, b=b, **geometry)["y"]
    #       1*1 + 10*2 + .5   100*2 + 1000*3 + .25   5*3 + 7*0 + .125
    assert y.ravel().tolist() == [21.5, 3200.25, 15.125]
    dy = np.array([1, 2, 3], np.float32).reshape(y.shape)
    dx = call(ops, "local_dgrad", {"dx": wide.shape}, dy=dy, w=w, **geometry)["dx"]
    #       1*1   1*10 + 2*100   2*1000 + 3*5   3*7
    assert dx.ravel().tolist() == [1, 210, 2015, 21]
    out = call(ops, "local_wgrad", {"dw": w.shape, "db": b.shape}, x=wide, dy=dy, **geometry)
    assert out["dw"].ravel().tolist() == [1, 2, 4, 6, 9, 0] and out["db"].ravel().tolist() == [1, 2, 3]


def definition(x, w, b, case):
    """The formula with a Python loop for every letter, integers only."""
    y = np.zeros(case.y_shape, np.int64)
    before = case.pad if isinstance(case.pad, int) else case.pad[0]
    per_column, per_group = case.K // case.out_columns, case.K // case.groups
    for n, p, q, k in itertools.product(range(case.N), range(case.P), range(case.Q), range(case.K)):
        total = int(b[p, q, k])
        for r, s, c in itertools.product(range(case.R), range(case.S), range(case.C_group)):
            h, v, channel = p * case.stride - before + r, q * case.stride - before + s, k // per_group * case.C_group + c
            if 0 <= h < case.H and 0 <= v < case.W:
                total += int(x[channel // case.C, n, h, v, channel % case.C]) * int(w[p, q, k, r, s, c])
        y[k // per_column, n, p, q, k % per_column] = total
    return y


@pytest.mark.parametrize("case", TINY, ids=str)
def test_the_oracle_is_the_formula(oracle, case, seed):
    data = LOCAL.draw(case, "integers", seed, np.float64)
    y = LOCAL.fprop(oracle, case, data["x"], data["w"], data["b"])
    assert (y == definition(data["x"], data["w"], data["b"], case)).all()


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_against_the_oracle(ops, oracle, case, op, seed):
    prove(ops, oracle, LOCAL, op, case, seed)


@pytest.mark.parametrize("case", BIG, ids=str)
def test_layers_of_the_cifar_networks_at_full_size(ops, oracle, case, seed):
    for op in OPS:
        prove(ops, oracle, LOCAL, op, case, seed, kinds=("zero_mean",))


@pytest.mark.parametrize("case", TINY, ids=str)
def test_gradients_by_finite_differences(ops, case, seed):
    prove_gradients(ops, LOCAL, case, seed)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_the_three_ops_are_one_trilinear_form(ops, case, seed):
    prove_adjoint(ops, LOCAL, case, seed)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_with_one_filter_everywhere_it_is_a_convolution(ops, case, seed):
    """The same filters and biases at every position: y and dx are the convolution's, dw and db sum up to its."""
    data = CONV.draw(case, "integers", seed)
    x, w, b, dy = (data[name] for name in ("x", "w", "b", "dy"))
    spread_w, spread_b = np.broadcast_to(w, case.local_w_shape).copy(), np.broadcast_to(b, case.local_b_shape).copy()
    assert (LOCAL.fprop(ops, case, x, spread_w, spread_b) == CONV.fprop(ops, case, x, w, b)).all()
    assert (LOCAL.dgrad(ops, case, dy, spread_w) == CONV.dgrad(ops, case, dy, w)).all()
    for spread, shared in zip(LOCAL.wgrad(ops, case, x, dy), CONV.wgrad(ops, case, x, dy), strict=True):
        assert (spread.sum(axis=(0, 1)) == shared).all()


def test_every_variant_has_the_bits_of_the_direct_one(ops, seed):
    """Images and channels are shared out otherwise; no number is summed in another order."""
    if not getattr(ops, "variant", None):
        pytest.skip("this backend has no variants, or chooses among them")
    direct = type(ops)(ops.device_ops, "direct")
    for case in (case for case in SMALL if case.N > 1 and case.C % 4 == 0 and case.C_group % 4 == 0):
        data = LOCAL.draw(case, "zero_mean", seed)
        for name, run in (("y", lambda o: LOCAL.fprop(o, case, data["x"], data["w"], data["b"])),              # noqa: B023
                          ("dx", lambda o: LOCAL.dgrad(o, case, data["dy"], data["w"])),                        # noqa: B023
                          ("dw", lambda o: LOCAL.wgrad(o, case, data["x"], data["dy"])[0])):                    # noqa: B023
            assert_bits_equal(run(ops), run(direct), f"{case}: {name}", seed=seed)


@pytest.mark.parametrize("base", [base for base in BASES if base.stem == "local"], ids=str)
def test_the_right_version_of_each_mutant_lives(oracle, base):
    assert killed_by(base, oracle, LOCAL, SMALL) is None


@pytest.mark.parametrize("mutant", mutants.of("local"), ids=str)
def test_mutants_die(oracle, mutant):
    assert killed_by(mutant, oracle, LOCAL, SMALL), f"{mutant} survives every case"


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_blocks_of_images_make_the_whole(ops, case, seed):
    """Slices of axis 1 in and out, nothing beyond them touched; on integers, whose sums have one value."""
    data = LOCAL.draw(case, "integers", seed)
    x, w, b, dy = (data[name] for name in ("x", "w", "b", "dy"))
    cuts = sorted({0, case.N // 3, 2 * case.N // 3, case.N})
    for op, source, name, out in (("local_fprop", "x", "y", case.y_shape), ("local_dgrad", "dy", "dx", case.x_shape)):
        given = dict(x=x, w=w, b=b) if source == "x" else dict(dy=dy, w=w)
        whole = call(ops, op, {name: out}, **given, **case.geometry)[name]
        pieces = np.full(out, np.nan, np.float32)
        for start, stop in itertools.pairwise(cuts):
            getattr(ops, op)(**{**given, source: given[source][:, start:stop], name: pieces[:, start:stop]}, **case.geometry)
            assert np.isnan(pieces[:, stop:]).all()
        assert_exact(pieces, whole, f"{op} in blocks {cuts}", cases.repro(case), seed)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_repeated_runs_and_any_number_of_workers_give_the_same_bits(ops, case, seed):
    data = LOCAL.draw(case, "zero_mean", seed)
    x, w, b, dy = (data[name] for name in ("x", "w", "b", "dy"))
    first = None
    for workers in (1, 1, 2, 3):
        ops.set_workers(workers)
        results = (LOCAL.fprop(ops, case, x, w, b), LOCAL.dgrad(ops, case, dy, w), *LOCAL.wgrad(ops, case, x, dy))
        first = first or results
        for name, array, want in zip(("y", "dx", "dw", "db"), results, first, strict=True):
            assert_bits_equal(array, want, f"{name} with {workers} workers", cases.repro(case), seed)


def good_call(op):
    """Arguments of a small correct call."""
    case = next(case for case in SMALL if case.name == "two_columns_own")
    data = LOCAL.draw(case, "zero_mean", 1)
    x, w, b, dy = (data[name] for name in ("x", "w", "b", "dy"))
    arrays = {"local_dgrad": dict(dy=dy, w=w, dx=np.full_like(x, np.nan)),
              "local_wgrad": dict(x=x, dy=dy, dw=np.full_like(w, np.nan), db=np.full_like(b, np.nan))}
    return {**arrays.get(op, dict(x=x, w=w, b=b, y=np.full_like(dy, np.nan))), **case.geometry}


OUTPUTS = {"local_dgrad": ("dx",), "local_wgrad": ("dw", "db")}
INPUT = {"local_dgrad": "dy"}
FILTERS = {"local_wgrad": "dw"}


def filters(op, arguments, change):
    name = FILTERS.get(op, "w")
    return {name: change(arguments[name])}


BAD_CALLS = [
    ("no_images", ShapeError, lambda op, a: {n: v[:, :0] for n, v in a.items() if n in ("x", "y", "dx", "dy")}),
    ("other_batch", ShapeError, lambda op, a: {INPUT.get(op, "x"): a[INPUT.get(op, "x")][:, :1]}),
    ("window_larger_than_the_padded_input", ShapeError,
     lambda op, a: filters(op, a, lambda w: np.zeros((*w.shape[:3], 9, *w.shape[4:]), np.float32))),
    ("filters_of_a_convolution", ShapeError, lambda op, a: filters(op, a, lambda w: w[0, 0])),
    ("filters_for_other_positions", ShapeError, lambda op, a: filters(op, a, lambda w: w[:-1])),
    ("stride_0", ShapeError, lambda op, a: {"stride": 0}),
    ("groups_do_not_divide", ShapeError, lambda op, a: {"groups": 3}),
    ("one_float64", DTypeError, lambda op, a: {INPUT.get(op, "x"): a[INPUT.get(op, "x")].astype(np.float64)}),
    ("filters_apart", LayoutError, lambda op, a: filters(op, a, lambda w: np.repeat(w, 2, axis=-1)[..., ::2])),
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


def test_the_layer_hands_its_own_geometry_to_the_ops(oracle, seed):
    layer = Local("local", K=4, kernel=3, stride=2, pad=(0, 1), columns=2)
    case = cases.ConvCase("layer", 2, 7, 6, 3, 4, 3, 3, stride=2, pad=(0, 1), out_columns=2)
    data = LOCAL.draw(case, "integers", seed, np.float64)
    assert [p.shape for p in layer.params(Shape(1, 7, 6, 3))] == [case.local_w_shape, case.local_b_shape]
    y, dx = np.full(case.y_shape, np.nan), np.full(case.x_shape, np.nan)
    run = Run(params={"w": data["w"], "b": data["b"]},
              grads={"w": np.full(case.local_w_shape, np.nan), "b": np.full(case.local_b_shape, np.nan)})
    layer.fprop(oracle, data["x"], y, run)
    layer.bprop(oracle, data["x"], y, data["dy"], dx, run)
    assert (y == definition(data["x"], data["w"], data["b"], case)).all()
    dw, db = LOCAL.wgrad(oracle, case, data["x"], data["dy"])
    assert (dx == LOCAL.dgrad(oracle, case, data["dy"], data["w"])).all() and (run.grads["w"] == dw).all() and (run.grads["b"] == db).all()
