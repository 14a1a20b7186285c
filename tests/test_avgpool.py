"""Average pooling: why we trust it (the CIFAR-10 networks)."""

from __future__ import annotations

from dataclasses import replace

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
FOURS = [replace(case, name=f"{case.name}_by_4", C=4) for case in SMALL if case.C < 4]      # for kernels that take four channels at a time


@pytest.mark.parametrize("dtype, rtol", [("float32", 1e-6), ("float64", 1e-14)])
def test_literal_example(ops, dtype, rtol):
    """4 x 4 under 3/2: windows of 9, 6, 6 and 4 values, each divided by its own count."""
    x = np.arange(16, dtype=dtype).reshape(1, 1, 4, 4, 1)
    y = ops.empty((1, 1, 2, 2, 1), dtype)
    ops.avgpool_fprop(x, y, window=3, stride=2)
    # mean of 0..2, 4..6, 8..10; of 2 3 6 7 10 11; of 8 9 10 12 13 14; of 10 11 14 15
    np.testing.assert_allclose(y.ravel(), [5, 39 / 6, 66 / 6, 50 / 4], rtol=rtol)
    dx = ops.empty(x.shape, dtype)
    ops.avgpool_bprop(np.array([9, 60, 600, 4000], dtype).reshape(y.shape), dx, window=3, stride=2)
    want = [[1, 1, 11, 10], [1, 1, 11, 10], [101, 101, 1111, 1010], [100, 100, 1100, 1000]]
    np.testing.assert_allclose(dx[0, 0, :, :, 0], want, rtol=rtol)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_within_bounds(ops, oracle, case, dtype, seed):
    unweighted.prove("avgpool", ops, oracle, case, seed, dtype)


@pytest.mark.parametrize("case", FOURS, ids=str)
def test_four_channels_at_a_time(ops, oracle, case, seed):
    unweighted.prove("avgpool", ops, oracle, case, seed)


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
    dy = rng.standard_normal(case.y_shape).astype(np.float32)
    dx = unweighted.bprop(ops, "avgpool", case, ones, ones, dy).astype(np.float64)
    got, total = dx.sum(axis=(2, 3)), dy.astype(np.float64).sum(axis=(2, 3))
    assert_within(got, total, zero_mean_bound(np.abs(dy).sum(axis=(2, 3))), "sum of dx", cases.repro(case))


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
