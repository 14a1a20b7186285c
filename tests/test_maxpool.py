"""Overlapping max-pooling: why we trust it (paper, section 3.4)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from minialex.layers import MaxPool
from minialex.spec import Shape, ShapeError
from minialex.testing import assert_bits_equal, cases, mutants, refused, unweighted
from minialex.testing.mutants_pool import BASES

SMALL, BIG = cases.small(cases.MAXPOOL), [case for case in cases.MAXPOOL if case.big]
MUTANTS = mutants.of("maxpool")
ROWS = {case.name: case for case in cases.MAXPOOL}
BAD_CALLS = list(unweighted.bad_calls("maxpool", ROWS["two_columns"]))
FOURS = [replace(case, name=f"{case.name}_by_4", C=4) for case in SMALL if case.C < 4]      # for kernels that take four channels at a time


def one_map(rows):
    """A picture of one channel."""
    x = np.array(rows, np.float32)
    return x.reshape(1, 1, *x.shape, 1)


def pool(ops, x, P, Q, window, stride):
    y = ops.empty((*x.shape[:2], P, Q, x.shape[4]), x.dtype)
    ops.maxpool_fprop(x, y, window=window, stride=stride)
    return y


def unpool(ops, x, y, dy, window, stride, ties):
    dx = ops.empty(x.shape, x.dtype)
    ops.maxpool_bprop(x, y, one_map(dy), dx, window=window, stride=stride, ties=ties)
    return dx[0, 0, :, :, 0].tolist()


def test_literal_example(ops):
    """4 x 4 under 3/2 makes 2 x 2: the last windows hang over, and beyond the border there is nothing, not a zero."""
    x = one_map([[-1, -2, -3, -4],
                 [-5, -6, -7, -8],
                 [-9, -10, -11, -12],
                 [-13, -14, -15, -16]])
    y = pool(ops, x, 2, 2, window=3, stride=2)
    assert y[0, 0, :, :, 0].tolist() == [[-1, -3], [-9, -11]]
    assert unpool(ops, x, y, [[1, 2], [3, 4]], 3, 2, "first") == [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]


def test_literal_overlap(ops):
    """One input that wins two windows gets both gradients."""
    x = one_map([[0, 0, 5, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    y = pool(ops, x, 1, 2, window=3, stride=2)
    assert y.ravel().tolist() == [5, 5]
    assert unpool(ops, x, y, [[10, 1]], 3, 2, "first")[0] == [0, 0, 11, 0, 0]


def test_literal_ties(ops):
    """Of equal maxima the first in row order gets the gradient, or every one of them gets all of it (2012)."""
    x = one_map([[1, 2, 7],
                 [7, 3, 7],
                 [7, 7, 0]])
    y = pool(ops, x, 1, 1, window=3, stride=1)
    assert unpool(ops, x, y, [[4]], 3, 1, "first") == [[0, 0, 4], [0, 0, 0], [0, 0, 0]]
    assert unpool(ops, x, y, [[4]], 3, 1, "all") == [[0, 0, 4], [4, 0, 4], [4, 4, 0]]


def test_ties_of_the_relu_before_the_pool(ops):
    """Windows of zeros are common behind a ReLU: there the two rules differ most."""
    x = one_map(np.zeros((5, 5)))
    y = pool(ops, x, 2, 2, window=3, stride=2)
    first = unpool(ops, x, y, [[1, 2], [3, 4]], 3, 2, "first")
    assert first[0] == [1, 0, 2, 0, 0] and first[2] == [3, 0, 4, 0, 0] and sum(map(sum, first)) == 10
    everyone = unpool(ops, x, y, [[1, 2], [3, 4]], 3, 2, "all")
    assert everyone[0] == [1, 1, 3, 2, 2] and everyone[2] == [4, 4, 10, 6, 6] and sum(map(sum, everyone)) == 90


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_within_bounds(ops, oracle, case, dtype, seed):
    unweighted.prove("maxpool", ops, oracle, case, seed, dtype)


@pytest.mark.parametrize("case", FOURS, ids=str)
def test_four_channels_at_a_time(ops, oracle, case, seed):
    unweighted.prove("maxpool", ops, oracle, case, seed)


@pytest.mark.parametrize("case", BIG, ids=str)
def test_within_bounds_at_full_size(ops, oracle, case, seed):
    unweighted.prove("maxpool", ops, oracle, case, seed)


@pytest.mark.parametrize("case", cases.tiny(cases.MAXPOOL), ids=str)
def test_gradient(ops, case, seed):
    unweighted.check_gradient("maxpool", ops, case, seed)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_same_bits_repeated_and_in_blocks(ops, case, seed):
    unweighted.check_bits("maxpool", ops, case, seed)


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_mutants_die(oracle, mutant):
    assert unweighted.killed_by(mutant, oracle, [ROWS["clipped"]]), f"{mutant} survives"


@pytest.mark.parametrize("base", [base for base in BASES if base.stem == "maxpool"], ids=str)
def test_controls_live(oracle, base):
    assert unweighted.killed_by(base, oracle, SMALL) is None


def test_without_ties_both_rules_agree(ops, seed):
    case = ROWS["clipped"]
    x, dy, _ = next(iter(unweighted.draws("maxpool", case, np.random.default_rng(seed))))[1:]
    y = unweighted.fprop(ops, "maxpool", case, x)
    first, everyone = (unweighted.bprop(ops, "maxpool", case, x, y, dy, ties=ties) for ties in ("first", "all"))
    assert_bits_equal(first, everyone, "dx")


def test_infinities_are_values(ops):
    """Minus infinity everywhere is a maximum like any other; plus infinity wins, and not what lies beyond the border."""
    x = one_map([[-np.inf, -np.inf, -np.inf], [-np.inf, -np.inf, np.inf], [-np.inf, -np.inf, 3]])
    y = pool(ops, x, 2, 2, window=2, stride=2)
    assert y.ravel().tolist() == [-np.inf, np.inf, -np.inf, 3]
    assert unpool(ops, x, y, [[1, 2], [4, 8]], 2, 2, "first") == [[1, 0, 0], [0, 0, 2], [4, 0, 8]]


@pytest.mark.parametrize("row, column", [(0, 0), (1, 1), (2, 1), (3, 3)])
@pytest.mark.parametrize("channels", [1, 4])
def test_nan_does_not_hide(ops, row, column, channels):
    """A maximum that skips NaN would let a diverged run look healthy."""
    x = np.ones((1, 1, 4, 4, channels), np.float32)
    x[0, 0, row, column, -1] = np.nan
    assert np.isnan(pool(ops, x, 2, 2, window=3, stride=2)).any()


def test_extents_round_up_and_no_window_is_empty():
    pooled = MaxPool("pool", 3, 2).out_shape
    assert [pooled(Shape(1, n, n, 1)).H for n in (3, 4, 5, 6, 13, 24, 27, 55)] == [1, 2, 2, 3, 6, 12, 13, 27]
    assert MaxPool("pool", 2, 3).out_shape(Shape(1, 6, 7, 1)) == Shape(1, 2, 3, 1)
    with pytest.raises(ShapeError, match="ties='last'"):
        MaxPool("pool", ties="last").out_shape(Shape(1, 5, 5, 1))
    with pytest.raises(ShapeError, match="window of 3"):
        MaxPool("pool").out_shape(Shape(1, 2, 5, 1))


@pytest.mark.parametrize("bad", BAD_CALLS, ids=lambda bad: f"{bad.op}-{bad.label}")
def test_bad_calls(ops, bad):
    refused(ops, bad.op, bad.error, ("y", "dx"), **bad.arguments)


def test_an_unknown_tie_rule_is_refused(ops):
    arguments = next(bad for bad in BAD_CALLS if bad.op == "maxpool_bprop").arguments
    case = ROWS["two_columns"]
    arguments = arguments | dict(dx=np.ones(case.x_shape, np.float32), ties="last")
    assert "'last'" in refused(ops, "maxpool_bprop", ShapeError, ("dx",), **arguments)
