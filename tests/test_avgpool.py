"""Average pooling: why we trust it (the CIFAR-10 networks)."""

from __future__ import annotations

import numpy as np
import pytest

from minialex.layers import AvgPool
from minialex.spec import Shape
from minialex.testing import assert_within, cases, mutants, refused, unweighted, zero_mean_bound
from minialex.testing.mutants_pool import BASES

SMALL = cases.small(cases.AVGPOOL)
MUTANTS = mutants.of("avgpool")
ROWS = {case.name: case for case in cases.AVGPOOL}
BAD_CALLS = list(unweighted.bad_calls("avgpool", ROWS["two_columns"]))


def test_literal_example(ops):
    """4 x 4 under 3/2: windows of 9, 6, 6 and 4 values, each divided by its own count."""
    x = np.arange(16, dtype=np.float64).reshape(1, 1, 4, 4, 1)
    y = ops.empty((1, 1, 2, 2, 1), "float64")
    ops.avgpool_fprop(x, y, window=3, stride=2)
    # mean of 0..2, 4..6, 8..10; of 2 3 6 7 10 11; of 8 9 10 12 13 14; of 10 11 14 15
    np.testing.assert_allclose(y.ravel(), [5, 39 / 6, 66 / 6, 50 / 4], rtol=1e-14)
    dx = ops.empty(x.shape, "float64")
    ops.avgpool_bprop(np.array([9, 60, 600, 4000.0]).reshape(y.shape), dx, window=3, stride=2)
    want = [[1, 1, 11, 10], [1, 1, 11, 10], [101, 101, 1111, 1010], [100, 100, 1100, 1000]]
    np.testing.assert_allclose(dx[0, 0, :, :, 0], want, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_within_bounds(ops, oracle, case, dtype, seed):
    unweighted.prove("avgpool", ops, oracle, case, seed, dtype)


@pytest.mark.parametrize("case", cases.tiny(cases.AVGPOOL), ids=str)
def test_gradient(ops, case, seed):
    unweighted.check_gradient("avgpool", ops, case, seed)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_same_bits_repeated_and_in_blocks(ops, case, seed):
    unweighted.check_bits("avgpool", ops, case, seed)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_mean_of_ones_is_one_and_gradients_are_kept(ops, case, rng):
    """The mean of a constant is that constant, clipped or not, and bprop hands back as much as it got."""
    ones = np.ones(case.x_shape, np.float32)
    want = np.ones(case.y_shape)
    assert_within(unweighted.fprop(ops, "avgpool", case, ones), want, zero_mean_bound(want), "y", cases.repro(case))
    dy = rng.standard_normal(case.y_shape)
    dx = unweighted.bprop(ops, "avgpool", case, ones, ones, dy)
    assert_within(dx.sum(axis=(2, 3)), dy.sum(axis=(2, 3)), 1e-13 * np.abs(dy).sum(axis=(2, 3)), "sum of dx", cases.repro(case))


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_mutants_die(oracle, mutant):
    assert unweighted.killed_by(mutant, oracle, [ROWS["clipped"]]), f"{mutant} survives"


@pytest.mark.parametrize("base", [base for base in BASES if base.stem == "avgpool"], ids=str)
def test_controls_live(oracle, base):
    assert unweighted.killed_by(base, oracle, SMALL) is None


def test_extents_round_up():
    assert AvgPool("pool", 3, 2).out_shape(Shape(2, 16, 8, 32)) == Shape(2, 8, 4, 32)


@pytest.mark.parametrize("bad", BAD_CALLS, ids=lambda bad: f"{bad.op}-{bad.label}")
def test_bad_calls(ops, bad):
    refused(ops, bad.op, bad.error, ("y", "dx"), **bad.arguments)
