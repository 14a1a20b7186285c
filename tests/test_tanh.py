"""Tanh, the unit that figure 1 of the paper compares with: why we trust it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minialex.testing import cases, mutants, refused, unweighted
from minialex.testing.compare import eps

SMALL, BIG = cases.small(cases.ACTIVATION), [case for case in cases.ACTIVATION if case.big]
ROWS = {case.name: case for case in cases.ACTIVATION}
BAD_CALLS = list(unweighted.bad_calls("tanh", ROWS["two_columns"]))


def vector(dtype, *values):
    return np.array(values, dtype).reshape(1, 1, 1, 1, -1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_literal_example(ops, dtype):
    # tanh(log 2) = (2 - 1/2) / (2 + 1/2) = 3/5, and the slope there is 1 - 9/25 = 16/25
    y, dx = ops.empty((1, 1, 1, 1, 3), dtype), ops.empty((1, 1, 1, 1, 3), dtype)
    ops.tanh_fprop(vector(dtype, -math.log(2), 0, math.log(2)), y)
    np.testing.assert_allclose(y.ravel(), [-0.6, 0, 0.6], rtol=4 * eps(dtype), atol=0)
    ops.tanh_bprop(vector(dtype, -0.6, 0, 0.6), vector(dtype, 25, 3, -50), dx)
    np.testing.assert_allclose(dx.ravel(), [16, 3, -32], rtol=4 * eps(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_saturates_without_overflow(ops, dtype):
    """Far out the unit is 1 and its slope 0: the vanishing gradient of section 3.1."""
    y, dx = ops.empty((1, 1, 1, 1, 3), dtype), ops.empty((1, 1, 1, 1, 3), dtype)
    ops.tanh_fprop(vector(dtype, -1e4, 1e4, np.inf), y)
    assert y.ravel().tolist() == [-1, 1, 1]
    ops.tanh_bprop(y, vector(dtype, 1, 1, 1), dx)
    assert dx.ravel().tolist() == [0, 0, 0]


def test_a_nan_stays_a_nan(ops):
    y = np.zeros((1, 1, 1, 1, 5), np.float32)
    ops.tanh_fprop(vector("float32", 0, np.nan, 0, 0, np.nan), y)
    assert np.isnan(y.ravel()).tolist() == [False, True, False, False, True]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_within_bounds(ops, oracle, case, dtype, seed):
    unweighted.prove("tanh", ops, oracle, case, seed, dtype)


@pytest.mark.parametrize("size", range(1, 10))
def test_every_length_of_the_last_vector(ops, oracle, size, seed):
    """Kernels take four numbers at once; what is left at the end is theirs too."""
    unweighted.prove("tanh", ops, oracle, cases.MapCase(f"{size} numbers", 1, 1, 1, size), seed)


@pytest.mark.parametrize("case", BIG, ids=str)
def test_within_bounds_at_full_size(ops, oracle, case, seed):
    unweighted.prove("tanh", ops, oracle, case, seed)


@pytest.mark.parametrize("case", cases.tiny(cases.ACTIVATION), ids=str)
def test_gradient(ops, case, seed):
    unweighted.check_gradient("tanh", ops, case, seed)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_same_bits_repeated_in_blocks_and_in_place(ops, case, seed):
    unweighted.check_bits("tanh", ops, case, seed)


@pytest.mark.parametrize("mutant", mutants.of("tanh"), ids=str)
def test_mutants_die(oracle, mutant):
    assert unweighted.killed_by(mutant, oracle, [ROWS["odd"]]), f"{mutant} survives"


@pytest.mark.parametrize("bad", BAD_CALLS, ids=lambda bad: f"{bad.op}-{bad.label}")
def test_bad_calls(ops, bad):
    refused(ops, bad.op, bad.error, ("y", "dx"), **bad.arguments)
