"""Response normalisation over a square of the same map: why we trust it (the 2012 program; the CIFAR-10 networks)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from minialex.layers import Run, SpatialNorm
from minialex.spec import Shape, ShapeError
from minialex.testing import assert_bits_equal, cases, mutants, refused, unweighted
from minialex.testing.mutants_norm import BASES

SMALL, BIG = cases.small(cases.SPATIAL_NORM), [case for case in cases.SPATIAL_NORM if case.big]
MUTANTS = mutants.of("spatial_norm")
TWO_COLUMNS = next(case for case in cases.SPATIAL_NORM if case.name == "two_columns")
BAD_CALLS = list(unweighted.bad_calls("spatial_norm", TWO_COLUMNS))
# For kernels that take tiles of 8 x 8 positions and 32 channels: several in each direction, whole and clipped.
TILES = [replace(TWO_COLUMNS, name="clipped_tiles", N=1, H=17, W=10, C=34),
         replace(TWO_COLUMNS, name="whole_tiles", N=1, H=16, W=24, C=64, n=3),
         replace(TWO_COLUMNS, name="square_over_tile", N=1, H=12, W=19, C=5, n=11, beta=0.5)]
DTYPES = {"float32": 1e-6, "float64": 1e-14}        # type -> tolerance of worked examples: 17 or 90 roundings


def one_map(rows, dtype="float64"):
    """A picture of one channel."""
    x = np.array(rows, dtype)
    return x.reshape(1, 1, *x.shape, 1)


def norm(ops, x, **constants):
    y = ops.empty(x.shape, x.dtype)
    ops.spatial_norm_fprop(x, y, **constants)
    return y


@pytest.mark.parametrize("dtype", DTYPES)
def test_literal_fprop(ops, dtype):
    # Everything lies in every 3 x 3 square: 7 + 1 + 4 + 0 + 4 = 16 and 16^.75 = 8
    y = norm(ops, one_map([[1, 2], [0, -2]], dtype), n=3, k=7.0, alpha=1.0, beta=0.75)
    np.testing.assert_allclose(y.ravel(), [1 / 8, 2 / 8, 0, -2 / 8], rtol=DTYPES[dtype])
    # A row of four, squares clipped and not rescaled: 1 + 1 + 4 = 6, 1 + 1 + 4 + 9 = 15, 30, 26; the same down a column
    for x in (one_map([[1, 2, 3, 4]], dtype), one_map([[1], [2], [3], [4]], dtype)):
        y = norm(ops, x, n=3, k=1.0, alpha=1.0, beta=1.0)
        np.testing.assert_allclose(y.ravel(), [1 / 6, 2 / 15, 3 / 30, 4 / 26], rtol=DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_literal_channels_do_not_meet(ops, dtype):
    # Two channels at one position: each sees itself alone, 1 + 1 = 2 and 1 + 9 = 10
    y = norm(ops, np.array([1, 3], dtype).reshape(1, 1, 1, 1, 2), n=5, k=1.0, alpha=1.0, beta=1.0)
    np.testing.assert_allclose(y.ravel(), [1 / 2, 3 / 10], rtol=DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_literal_bprop(ops, dtype):
    # y0 = x0 / (1 + x0^2 + x1^2) at (1, 2): dy0/dx0 = 1/6 - 2/36 = 1/9, dy0/dx1 = -2*1*2/36 = -1/9
    dx = ops.empty((1, 1, 2, 1, 1), dtype)
    ops.spatial_norm_bprop(one_map([[1], [2]], dtype), one_map([[9], [0]], dtype), dx, n=3, k=1.0, alpha=1.0, beta=1.0)
    np.testing.assert_allclose(dx.ravel(), [1, -1], rtol=DTYPES[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_within_bounds(ops, oracle, case, dtype, seed):
    unweighted.prove("spatial_norm", ops, oracle, case, seed, dtype)


@pytest.mark.parametrize("case", TILES, ids=str)
def test_tiles(ops, oracle, case, seed):
    unweighted.prove("spatial_norm", ops, oracle, case, seed)


@pytest.mark.parametrize("case", BIG, ids=str)
def test_within_bounds_at_full_size(ops, oracle, case, seed):
    unweighted.prove("spatial_norm", ops, oracle, case, seed)


@pytest.mark.parametrize("case", cases.tiny(cases.SPATIAL_NORM), ids=str)
def test_gradient(ops, case, seed):
    unweighted.check_gradient("spatial_norm", ops, case, seed)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_same_bits_repeated_and_in_blocks(ops, case, seed):
    unweighted.check_bits("spatial_norm", ops, case, seed)


@pytest.mark.parametrize("alpha", [0.8, 1e-4])
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_mutants_die(oracle, mutant, alpha):
    assert unweighted.killed_by(mutant, oracle, [replace(TWO_COLUMNS, alpha=alpha)]), f"{mutant} survives at alpha={alpha}"


@pytest.mark.parametrize("base", [base for base in BASES if base.stem == "spatial_norm"], ids=str)
def test_controls_live(oracle, base):
    assert unweighted.killed_by(base, oracle, SMALL) is None


def test_the_layer_of_2012_divides_by_25_once(ops):
    """Its default is the program's .001 over the 25 values of a square; the op takes alpha as it is."""
    x = np.full((1, 1, 5, 5, 1), 100, np.float32)
    y = ops.empty(x.shape)
    SpatialNorm("norm2b").fprop(ops, x, y, Run())
    # In the middle the square is whole: 1 + .001 / 25 * 25 * 100^2 = 11
    assert abs(y[0, 0, 2, 2, 0] - 100 * 11 ** -0.75) < 1e-5


def test_a_column_alone_is_the_column_in_the_whole(ops, rng):
    x = rng.standard_normal(TWO_COLUMNS.x_shape).astype(np.float32)
    whole = norm(ops, x, **TWO_COLUMNS.constants)
    for g in (0, 1):
        assert_bits_equal(norm(ops, x[g:g + 1], **TWO_COLUMNS.constants), whole[g:g + 1], f"column {g}")


def test_another_square_before_leaves_nothing_behind(ops, oracle):
    """Pictures and borders of the two add up to the same 9 x 10: memory kept from one call must not speak in the next."""
    for H, W, n in ((5, 6, 5), (7, 8, 3), (5, 6, 5)):
        unweighted.prove("spatial_norm", ops, oracle, replace(TWO_COLUMNS, H=H, W=W, n=n), seed=5)


def test_an_even_square_is_refused_where_the_net_is_built():
    with pytest.raises(ShapeError, match=r"rnorm: .*4 x 4.*odd"):
        SpatialNorm("rnorm", n=4).out_shape(Shape(1, 5, 5, 8))


@pytest.mark.parametrize("bad", BAD_CALLS, ids=lambda bad: f"{bad.op}-{bad.label}")
def test_bad_calls(ops, bad):
    message = refused(ops, bad.op, bad.error, ("y", "dx"), **bad.arguments)
    assert message.startswith(bad.op)
