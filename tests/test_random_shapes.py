"""Shapes nobody thought of: a few hundred drawn by hypothesis, the same ones every time, through every variant that takes them."""

from __future__ import annotations

import unittest
from functools import partial

import pytest
from conftest import compiled_backends, load_or_skip
from hypothesis import given, settings
from hypothesis import strategies as st
from proofs import Weights, prove
from test_dropout import OPS as DROPOUT_OPS
from test_dropout import prove as prove_dropout

from minialex.spec import PRECISIONS, ShapeError
from minialex.testing import cases, unweighted
from minialex.testing.onhost import OnHost

every_backend = pytest.mark.parametrize("backend", compiled_backends())
drawn = settings(derandomize=True, deadline=None, max_examples=60, database=None)


def ways(backend: str, *ops: str) -> list[OnHost]:
    """The ops as `choose` decides, then with each float32 variant."""
    module = load_or_skip(backend)
    kernels = module.kernels
    rows = dict.fromkeys(row for op in ops for row in kernels.variants(op) if kernels.precision_of(op, row) == "float32")
    return [OnHost(module), *(OnHost(module, row) for row in rows)]


def through(ops: list[OnHost], proof, *arguments, **options) -> None:
    """The proof of each variant.  Unforced and "direct", every shape must run; others may refuse one."""
    for way in ops:
        try:
            proof(way, *arguments, **options)
        except unittest.SkipTest:
            assert way.variant not in (None, "direct")


def numbers(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


channels = st.one_of(numbers(1, 9), st.sampled_from((4, 8, 12, 16)))       # half of them what vectors of four divide


@st.composite
def convolutions(draw) -> cases.ConvCase:
    """Any geometry that fits: columns joint, apart, or groups in one column."""
    columns, joint = draw(numbers(1, 3)), draw(st.booleans())
    out_columns = draw(numbers(1, 3)) if joint else columns
    groups = 1 if joint else columns * draw(numbers(1, 2))
    C = draw(channels) * (groups // columns or 1)
    K = out_columns * max(1, groups // out_columns) * draw(numbers(1, 9))
    R, S, stride = draw(numbers(1, 5)), draw(numbers(1, 5)), draw(numbers(1, 4))
    before, after = draw(numbers(0, 3)), draw(numbers(0, 3))
    H, W = (draw(numbers(max(1, window - before - after), 10)) for window in (R, S))
    return cases.ConvCase("drawn", draw(numbers(1, 3)), H, W, C, K, R, S, stride=stride, pad=(before, after), groups=groups,
                          columns=columns, out_columns=out_columns)


@every_backend
def test_convolutions(backend):
    oracle, ops = load_or_skip("reference"), ways(backend, "conv_fprop", "conv_dgrad", "conv_wgrad")

    @drawn
    @given(convolutions(), numbers(0, 2**32 - 1))
    def check(case, seed):
        for op in ("conv_fprop", "conv_relu_fprop", "conv_dgrad", "conv_wgrad"):
            through(ops, prove, oracle, Weights("conv"), op, case, seed, kinds=("zero_mean", "integers"))

    check()


@st.composite
def linears(draw) -> cases.LinearCase:
    columns, joint = draw(numbers(1, 3)), draw(st.booleans())
    out_columns = draw(numbers(1, 3)) if joint else columns
    inputs = draw(st.one_of(numbers(1, 70), st.sampled_from((4, 32, 64, 128))))
    return cases.LinearCase("drawn", draw(numbers(1, 70)), inputs, out_columns * draw(numbers(1, 70)), groups=1 if joint else columns,
                            columns=columns, out_columns=out_columns)


@every_backend
def test_linear_layers(backend):
    oracle, ops = load_or_skip("reference"), ways(backend, "linear_fprop", "linear_dgrad", "linear_wgrad")

    @drawn
    @given(linears(), numbers(0, 2**32 - 1))
    def check(case, seed):
        for op in ("linear_fprop", "linear_dgrad", "linear_wgrad"):
            through(ops, prove, oracle, Weights("linear"), op, case, seed, kinds=("zero_mean", "integers"))

    check()


@st.composite
def pools(draw) -> cases.PoolCase:
    window, stride = draw(numbers(1, 5)), draw(numbers(1, 5))
    H, W = draw(numbers(window, 13)), draw(numbers(window, 13))
    return cases.PoolCase("drawn", draw(numbers(1, 4)), H, W, draw(channels), columns=draw(numbers(1, 2)), window=window, stride=stride)


@st.composite
def norms(draw) -> cases.NormCase:
    maps = [draw(numbers(1, 7)) for _ in range(2)]
    C = draw(st.one_of(channels, st.sampled_from((31, 32, 33, 48, 64, 65))))
    return cases.NormCase("drawn", draw(numbers(1, 4)), *maps, C, columns=draw(numbers(1, 2)), n=draw(st.sampled_from((1, 3, 5, 7, 9))),
                          k=draw(st.sampled_from((1.0, 2.0))), alpha=draw(st.sampled_from((1.0, 0.3, 1e-4))),
                          beta=draw(st.sampled_from((0.5, 0.75, 1.0))))


@every_backend
@pytest.mark.parametrize("stem, shapes", [("maxpool", pools()), ("avgpool", pools()), ("lrn", norms()), ("spatial_norm", norms())],
                         ids=("maxpool", "avgpool", "lrn", "spatial_norm"))
def test_pools_and_norms(backend, stem, shapes):
    oracle, ops = load_or_skip("reference"), ways(backend, f"{stem}_fprop", f"{stem}_bprop")

    @drawn
    @given(shapes, numbers(0, 2**32 - 1))
    def check(case, seed):
        through(ops, partial(unweighted.prove, stem), oracle, case, seed)

    check()


@st.composite
def masks(draw) -> cases.DropoutCase:
    word = numbers(0, 2**32 - 1)
    return cases.DropoutCase("drawn", draw(numbers(1, 5)), draw(numbers(1, 4)), draw(numbers(1, 4)), draw(channels),
                             columns=draw(numbers(1, 3)), keep=draw(st.floats(0.01, 1.0)), scale=draw(st.sampled_from((1.0, 2.0, 1.25))),
                             seed=draw(numbers(0, 2**64 - 1)), step=draw(word), layer=draw(word), first=draw(word))


@every_backend
def test_dropout(backend):
    oracle, ops = load_or_skip("reference"), ways(backend, "dropout_fprop", "dropout_test")

    @drawn
    @given(masks(), numbers(0, 2**32 - 1))
    def check(case, seed):
        for op in DROPOUT_OPS:
            through(ops, prove_dropout, oracle, op, case, seed)

    check()


@every_backend
@drawn
@given(op=st.sampled_from(("conv_fprop", "conv_dgrad", "conv_wgrad")), case=convolutions(), precision=st.sampled_from(PRECISIONS))
def test_the_choice_is_a_variant_that_takes_the_shape(backend, op, case, precision):
    """Whatever the dims, choose names a row that does not refuse them, and the same one when asked again."""
    kernels = load_or_skip(backend).kernels
    dims = (case.N, case.columns, case.out_columns, case.H, case.W, case.columns * case.C, case.K, case.R, case.S, case.P, case.Q,
            case.stride, *case.pad, case.groups)
    chosen = kernels.choose(op, dims, precision)
    assert kernels.extension.refusals[op](dims, chosen) is None and kernels.choose(op, dims, precision) == chosen
    assert kernels.precision_of(op, chosen) in (precision, "float32")
    with pytest.raises(ShapeError, match="there is no variant fastest"):
        kernels.extension.refusals[op](dims, "fastest")
