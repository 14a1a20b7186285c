"""Sigmoid, the other saturating unit of section 3.1: why we trust it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minialex.testing import cases, mutants, refused, unweighted

SMALL, BIG = cases.small(cases.ACTIVATION), [case for case in cases.ACTIVATION if case.big]
ROWS = {case.name: case for case in cases.ACTIVATION}
BAD_CALLS = list(unweighted.bad_calls("sigmoid", ROWS["two_columns"]))


def vector(*values):
    return np.array(values, np.float64).reshape(1, 1, 1, 1, -1)


def test_literal_example(ops):
    # 1 / (1 + exp(log 3)) = 1/4, and the slope there is 1/4 * 3/4 = 3/16
    y, dx = ops.empty((1, 1, 1, 1, 3), "float64"), ops.empty((1, 1, 1, 1, 3), "float64")
    ops.sigmoid_fprop(vector(-math.log(3), 0, math.log(3)), y)
    np.testing.assert_allclose(y.ravel(), [1 / 4, 1 / 2, 3 / 4], rtol=1e-14)
    ops.sigmoid_bprop(vector(1 / 4, 1 / 2, 3 / 4), vector(16, 4, -32), dx)
    np.testing.assert_allclose(dx.ravel(), [3, 1, -6], rtol=1e-14)


def test_saturates_without_overflow_and_keeps_small_values(ops):
    """exp(-x) overflows from x = -710 on; exp(-50) is far below the digits of 1 but not 0."""
    y, dx = ops.empty((1, 1, 1, 1, 4), "float64"), ops.empty((1, 1, 1, 1, 4), "float64")
    ops.sigmoid_fprop(vector(-1e4, -50, 1e4, np.inf), y)
    assert y.ravel()[[0, 2, 3]].tolist() == [0, 1, 1]
    np.testing.assert_allclose(y.ravel()[1], math.exp(-50), rtol=1e-14)
    ops.sigmoid_bprop(y, vector(1, 1, 1, 1), dx)
    np.testing.assert_allclose(dx.ravel(), [0, math.exp(-50), 0, 0], rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_within_bounds(ops, oracle, case, dtype, seed):
    unweighted.prove("sigmoid", ops, oracle, case, seed, dtype)


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
