"""Local response normalisation across channels: why we trust it (paper, section 3.3)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from minialex.layers import LRN, Run
from minialex.spec import Shape, ShapeError
from minialex.testing import assert_bits_equal, cases, mutants, refused, unweighted
from minialex.testing.mutants_norm import BASES

SMALL, BIG = cases.small(cases.LRN), [case for case in cases.LRN if case.big]
MUTANTS = mutants.of("lrn")
TWO_COLUMNS = next(case for case in cases.LRN if case.name == "two_columns")
BAD_CALLS = list(unweighted.bad_calls("lrn", TWO_COLUMNS))
# Kernels that take four channels at a time: the fewest, windows that reach over both neighbours, an odd number of pixels, other powers.
FOURS = [cases.NormCase("four_channels", 2, 3, 3, 4), cases.NormCase("four_channels_n_9", 1, 3, 3, 4, n=9),
         cases.NormCase("twelve_channels_n_9", 1, 5, 7, 12, n=9, columns=2, beta=0.5),
         cases.NormCase("beta_1", 1, 3, 5, 20, k=1.0, beta=1.0), cases.NormCase("a_block_a_pixel", 1, 1, 3, 1024),
         cases.NormCase("more_than_a_block", 1, 1, 2, 1028)]
DTYPES = {"float32": 1e-6, "float64": 1e-14}        # type -> tolerance of worked examples: 17 or 90 roundings


def across(*columns, dtype="float64"):
    """Columns of channel values of one pixel."""
    return np.array(columns, dtype).reshape(len(columns), 1, 1, 1, -1)


def lrn(ops, x, **constants):
    y = ops.empty(x.shape, x.dtype)
    ops.lrn_fprop(x, y, **constants)
    return y


@pytest.mark.parametrize("dtype", DTYPES)
def test_literal_fprop(ops, dtype):
    # n=3, k=1, alpha=1, beta=1: 1 + 1 + 4 = 6, 1 + 1 + 4 + 9 = 15, 1 + 4 + 9 + 16 = 30, 1 + 9 + 16 = 26
    y = lrn(ops, across([1, 2, 3, 4], dtype=dtype), n=3, k=1.0, alpha=1.0, beta=1.0)
    np.testing.assert_allclose(y.ravel(), [1 / 6, 2 / 15, 3 / 30, 4 / 26], rtol=DTYPES[dtype])
    # The paper's k=2 and beta=.75: 2 + 1 + 4 + 9 = 16, and 16^.75 = 8
    y = lrn(ops, across([1, 2, 3], dtype=dtype), n=3, k=2.0, alpha=1.0, beta=0.75)
    np.testing.assert_allclose(y.ravel(), [7 ** -0.75, 2 / 8, 3 * 15 ** -0.75], rtol=DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_literal_column_border(ops, dtype):
    # Window 5 over two columns of two channels: 1 + 1 + 4 = 6 and 1 + 9 + 16 = 26, never a sum over all four
    y = lrn(ops, across([1, 2], [3, 4], dtype=dtype), n=5, k=1.0, alpha=1.0, beta=1.0)
    np.testing.assert_allclose(y.ravel(), [1 / 6, 2 / 6, 3 / 26, 4 / 26], rtol=DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_literal_bprop(ops, dtype):
    # y0 = x0 / (1 + x0^2 + x1^2) at (1, 2): dy0/dx0 = 1/6 - 2/36 = 1/9, dy0/dx1 = -2*1*2/36 = -1/9
    x, dx = across([1, 2], dtype=dtype), ops.empty((1, 1, 1, 1, 2), dtype)
    ops.lrn_bprop(x, across([9, 0], dtype=dtype), dx, n=3, k=1.0, alpha=1.0, beta=1.0)
    np.testing.assert_allclose(dx.ravel(), [1, -1], rtol=DTYPES[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_within_bounds(ops, oracle, case, dtype, seed):
    unweighted.prove("lrn", ops, oracle, case, seed, dtype)


@pytest.mark.parametrize("case", FOURS, ids=str)
def test_four_channels_at_a_time(ops, oracle, case, seed):
    unweighted.prove("lrn", ops, oracle, case, seed)


@pytest.mark.parametrize("case", BIG, ids=str)
def test_within_bounds_at_full_size(ops, oracle, case, seed):
    unweighted.prove("lrn", ops, oracle, case, seed)


@pytest.mark.parametrize("case", cases.tiny(cases.LRN), ids=str)
def test_gradient(ops, case, seed):
    unweighted.check_gradient("lrn", ops, case, seed)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_same_bits_repeated_and_in_blocks(ops, case, seed):
    unweighted.check_bits("lrn", ops, case, seed)


@pytest.mark.parametrize("alpha", [0.8, 1e-4])
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_mutants_die(oracle, mutant, alpha):
    assert unweighted.killed_by(mutant, oracle, [replace(TWO_COLUMNS, alpha=alpha)]), f"{mutant} survives at alpha={alpha}"


@pytest.mark.parametrize("base", [base for base in BASES if base.stem == "lrn"], ids=str)
def test_controls_live(oracle, base):
    assert unweighted.killed_by(base, oracle, SMALL) is None


def test_usual_tolerances_at_the_papers_alpha_see_nothing(oracle):
    """Why `prove` draws x so that alpha x^2 is about 1: on x in (-1, 1) the common test accepts these wrong windows."""
    constants = dict(n=5, k=2.0, alpha=1e-4, beta=0.75)
    x = np.random.default_rng(0).uniform(-1, 1, TWO_COLUMNS.x_shape)
    blind = []
    for mutant in MUTANTS:
        if mutant.replaces == "lrn_fprop":
            y = lrn(mutant.ops(oracle), x, **constants)
            if np.allclose(y, lrn(oracle, x, **constants), rtol=1e-3):
                blind.append(mutant.name)
    assert {"window_ends_one_early", "radius_one_smaller", "alpha_divided_by_n", "absolute_values_for_squares", "window_crosses_columns",
            "sum_deleted"} <= set(blind)


def test_a_column_alone_is_the_column_in_the_whole(ops, rng):
    x = rng.standard_normal(TWO_COLUMNS.x_shape).astype(np.float32)
    whole = lrn(ops, x, **TWO_COLUMNS.constants)
    for g in (0, 1):
        assert_bits_equal(lrn(ops, x[g:g + 1], **TWO_COLUMNS.constants), whole[g:g + 1], f"column {g}")


def test_another_window_before_leaves_nothing_behind(ops, oracle):
    """Channels and borders of the two add up to the same 11: memory kept from one call must not speak in the next."""
    for case in (replace(TWO_COLUMNS, C=7, n=5), replace(TWO_COLUMNS, C=3, n=9), replace(TWO_COLUMNS, C=7, n=5)):
        unweighted.prove("lrn", ops, oracle, case, seed=5)


def test_the_flag_divides_alpha_by_n(ops, rng):
    x = rng.standard_normal((1, 2, 3, 2, 8)).astype(np.float32)
    y, want, dx, dwant = (ops.empty(x.shape) for _ in range(4))
    LRN("norm", alpha=0.5, divide_by_n=True).fprop(ops, x, y, Run())
    LRN("norm", alpha=0.1).fprop(ops, x, want, Run())
    LRN("norm", alpha=0.5, divide_by_n=True).bprop(ops, x, y, x, dx, Run())
    LRN("norm", alpha=0.1).bprop(ops, x, y, x, dwant, Run())
    assert_bits_equal(y, want, "y")
    assert_bits_equal(dx, dwant, "dx")


def test_an_even_window_is_refused_where_the_net_is_built():
    with pytest.raises(ShapeError, match=r"norm1: .*4 channels.*odd"):
        LRN("norm1", n=4).out_shape(Shape(1, 5, 5, 8))
    assert LRN("norm1").out_shape(Shape(2, 55, 55, 48)) == Shape(2, 55, 55, 48)


@pytest.mark.parametrize("bad", BAD_CALLS, ids=lambda bad: f"{bad.op}-{bad.label}")
def test_bad_calls(ops, bad):
    message = refused(ops, bad.op, bad.error, ("y", "dx"), **bad.arguments)
    assert message.startswith(bad.op)
