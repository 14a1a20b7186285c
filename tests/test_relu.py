"""ReLU: why we trust it (paper, section 3.1)."""

from __future__ import annotations

import numpy as np
import pytest

from minialex.testing import cases, mutants, refused, unweighted

SMALL, BIG = cases.small(cases.ACTIVATION), [case for case in cases.ACTIVATION if case.big]
ROWS = {case.name: case for case in cases.ACTIVATION}
BAD_CALLS = list(unweighted.bad_calls("relu", ROWS["two_columns"]))


def vector(*values):
    return np.array(values, np.float32).reshape(1, 1, 1, 1, -1)


def test_literal_example(ops):
    y, dx = ops.empty((1, 1, 1, 1, 5)), ops.empty((1, 1, 1, 1, 5))
    ops.relu_fprop(vector(-2, -0.5, 0, 0.5, 2), y)
    assert y.ravel().tolist() == [0, 0, 0, 0.5, 2]
    ops.relu_bprop(y, vector(10, 20, 30, -40, 50), dx)      # at the kink, too, nothing passes
    assert dx.ravel().tolist() == [0, 0, 0, -40, 50]


def test_infinities_and_nan(ops):
    """Infinity stays, NaN does not hide, and what a closed unit gets as gradient is gone even if it is infinite."""
    y, dx = ops.empty((1, 1, 1, 1, 4)), ops.empty((1, 1, 1, 1, 4))
    ops.relu_fprop(vector(-np.inf, np.inf, np.nan, -0.0), y)
    assert y.ravel()[[0, 1, 3]].tolist() == [0, np.inf, 0] and np.isnan(y.ravel()[2])
    ops.relu_bprop(vector(0, 1, 0, 2), vector(np.inf, np.inf, np.nan, np.nan), dx)
    assert dx.ravel()[:3].tolist() == [0, np.inf, 0] and np.isnan(dx.ravel()[3])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_exact(ops, oracle, case, dtype, seed):
    unweighted.prove("relu", ops, oracle, case, seed, dtype)


@pytest.mark.parametrize("size", range(1, 10))
def test_every_length_of_the_last_vector(ops, oracle, size, seed):
    """Kernels take four numbers at once; what is left at the end is theirs too."""
    unweighted.prove("relu", ops, oracle, cases.MapCase(f"{size} numbers", 1, 1, 1, size), seed)


@pytest.mark.parametrize("case", BIG, ids=str)
def test_exact_at_full_size(ops, oracle, case, seed):
    unweighted.prove("relu", ops, oracle, case, seed)


@pytest.mark.parametrize("case", cases.tiny(cases.ACTIVATION), ids=str)
def test_gradient(ops, case, seed):
    unweighted.check_gradient("relu", ops, case, seed)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_same_bits_repeated_in_blocks_and_in_place(ops, case, seed):
    unweighted.check_bits("relu", ops, case, seed)


@pytest.mark.parametrize("mutant", mutants.of("relu"), ids=str)
def test_mutants_die(oracle, mutant):
    assert unweighted.killed_by(mutant, oracle, [ROWS["odd"]]), f"{mutant} survives"


@pytest.mark.parametrize("bad", BAD_CALLS, ids=lambda bad: f"{bad.op}-{bad.label}")
def test_bad_calls(ops, bad):
    refused(ops, bad.op, bad.error, ("y", "dx"), **bad.arguments)
