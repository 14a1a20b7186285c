"""Sigmoid, the other saturating unit of section 3.1: why we trust it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minialex.testing import cases, mutants, refused, unweighted
from minialex.testing.compare import eps

SMALL, BIG = cases.small(cases.ACTIVATION), [case for case in cases.ACTIVATION if case.big]
ROWS = {case.name: case for case in cases.ACTIVATION}
BAD_CALLS = list(unweighted.bad_calls("sigmoid", ROWS["two_columns"]))


def vector(dtype, *values):
    return np.array(values, dtype).reshape(1, 1, 1, 1, -1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_literal_example(ops, dtype):
    # 1 / (1 + exp(log 3)) = 1/4, and the slope there is 1/4 * 3/4 = 3/16
    y, dx = ops.empty((1, 1, 1, 1, 3), dtype), ops.empty((1, 1, 1, 1, 3), dtype)
    ops.sigmoid_fprop(vector(dtype, -math.log(3), 0, math.log(3)), y)
    np.testing.assert_allclose(y.ravel(), [1 / 4, 1 / 2, 3 / 4], rtol=4 * eps(dtype))
    ops.sigmoid_bprop(vector(dtype, 1 / 4, 1 / 2, 3 / 4), vector(dtype, 16, 4, -32), dx)
    np.testing.assert_allclose(dx.ravel(), [3, 1, -6], rtol=4 * eps(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_saturates_without_overflow_and_keeps_small_values(ops, dtype):
    """exp(-x) overflows from x = -89 on (-710 in float64); exp(-50) is far below the digits of 1 but not 0."""
    y, dx = ops.empty((1, 1, 1, 1, 4), dtype), ops.empty((1, 1, 1, 1, 4), dtype)
    ops.sigmoid_fprop(vector(dtype, -1e4, -50, 1e4, np.inf), y)
    assert y.ravel()[[0, 2, 3]].tolist() == [0, 1, 1]
    np.testing.assert_allclose(y.ravel()[1], math.exp(-50), rtol=4 * eps(dtype))
    ops.sigmoid_bprop(y, vector(dtype, 1, 1, 1, 1), dx)
    np.testing.assert_allclose(dx.ravel(), [0, math.exp(-50), 0, 0], rtol=4 * eps(dtype))


def test_a_nan_stays_a_nan(ops):
    y = np.zeros((1, 1, 1, 1, 5), np.float32)
    ops.sigmoid_fprop(vector("float32", 0, np.nan, 0, 0, np.nan), y)
    assert np.isnan(y.ravel()).tolist() == [False, True, False, False, True]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_within_bounds(ops, oracle, case, dtype, seed):
    unweighted.prove("sigmoid", ops, oracle, case, seed, dtype)


@pytest.mark.parametrize("size", range(1, 10))
def test_every_length_of_the_last_vector(ops, oracle, size, seed):
    """Kernels take four numbers at once; what is left at the end is theirs too."""
    unweighted.prove("sigmoid", ops, oracle, cases.MapCase(f"{size} numbers", 1, 1, 1, size), seed)


@pytest.mark.parametrize("case", BIG, ids=str)
def test_within_bounds_at_full_size(ops, oracle, case, seed):
    unweighted.prove("sigmoid", ops, oracle, case, seed)


@pytest.mark.parametrize("case", cases.tiny(cases.ACTIVATION), ids=str)
def test_gradient(ops, case, seed):
    unweighted.check_gradient("sigmoid", ops, case, seed)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_same_bits_repeated_in_blocks_and_in_place(ops, case, seed):
    unweighted.check_bits("sigmoid", ops, case, seed)


@pytest.mark.parametrize("mutant", mutants.of("sigmoid"), ids=str)
def test_mutants_die(oracle, mutant):
    assert unweighted.killed_by(mutant, oracle, [ROWS["odd"]]), f"{mutant} survives"


@pytest.mark.parametrize("bad", BAD_CALLS, ids=lambda bad: f"{bad.op}-{bad.label}")
def test_bad_calls(ops, bad):
    refused(ops, bad.op, bad.error, ("y", "dx"), **bad.arguments)
