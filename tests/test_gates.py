"""What is done behind a product in the same trip: the same bits as the ops one after the other.  Backward passes that end with the gate
of a ReLU below, and ReLU and dropout behind a linear layer."""

from __future__ import annotations

import contextlib
import unittest

import numpy as np
import pytest
from conftest import BACKENDS, compiled_backends, load_or_skip
from proofs import Weights, prove_gate

from minialex.spec import DTypeError, LayoutError, ShapeError
from minialex.testing import assert_bits_equal, call, cases, refused
from minialex.testing.onhost import OnHost

# Odd shapes, vectors, several parts of a sum, several chains, and one product of each kind that no gate may enter before its end.
CASES = {
    "conv": ["odd", "channels_47_to_49", "two_columns_own", "two_columns_four_groups", "two_columns_joint",
             "three_columns_joint", "stride_over_window"],
    "local": ["odd", "two_columns_joint", "many_images"],
    "linear": ["odd", "two_columns_own", "three_columns_joint", "many_images"],
}
def ways(op: str) -> list[tuple[str, str | None]]:
    """Each backend, the compiled ones by each row of the op's table, in every precision."""
    compiled = [(name, row) for name in compiled_backends() for row in load_or_skip(name).kernels.variants(op)]
    return [*((name, None) for name in BACKENDS), *compiled]


def ops_of(backend: str, variant: str | None):
    return load_or_skip(backend) if variant is None else OnHost(load_or_skip(backend), variant)


ROWS = [(stem, case) for stem, names in CASES.items() for case in getattr(cases, stem.upper()) if case.name in names]
LONG = cases.LinearCase("long_sums_back", 2, 12, 2400, columns=2, out_columns=2)        # chains in two parts, in every precision


@pytest.mark.parametrize("stem, way", [(stem, way) for stem in CASES for way in ways(f"{stem}_dgrad")], ids=str)
def test_dgrad(stem, way, seed):
    ops, ran = ops_of(*way), 0
    for _, case in (row for row in (*ROWS, ("linear", LONG)) if row[0] == stem):
        with contextlib.suppress(unittest.SkipTest):            # the row refuses this shape
            prove_gate(ops, Weights(stem), case, seed)
            ran += 1
    assert ran


MASK = dict(keep=0.6, scale=1.7, seed=5, step=6, layer=7, first=8, column=1, columns=4)


@pytest.mark.parametrize("way", ways("linear_relu_fprop"), ids=str)
def test_relu_and_dropout_behind_a_linear_layer(way, seed):
    ops, layer, ran = ops_of(*way), Weights("linear"), 0
    for case in (case for case in cases.small(cases.LINEAR) if case.name in CASES["linear"]):
        data = layer.draw(case, "zero_mean", seed)
        given = dict(x=data["x"], w=data["w"], b=data["b"], groups=case.groups)
        with contextlib.suppress(unittest.SkipTest):
            want = call(ops, "linear_fprop", {"y": case.y_shape}, **given)["y"]
            want = call(ops, "relu_fprop", {"y": case.y_shape}, x=want)["y"]
            for dropout in (None, MASK):
                if dropout:
                    maps = want[:, :, None, None]
                    want = call(ops, "dropout_fprop", {"y": maps.shape}, x=maps, **dropout)["y"][:, :, 0, 0]
                got = call(ops, "linear_relu_fprop", {"y": case.y_shape}, **given, dropout=dropout)["y"]
                assert_bits_equal(got, want, f"y, dropout {dropout}", cases.repro(case), seed)
            ran += 1
    assert ran


@pytest.mark.parametrize("way", ways("maxpool_bprop"), ids=str)
@pytest.mark.parametrize("case", [case for case in cases.MAXPOOL if case.name in ("clipped", "two_columns", "many_images")], ids=str)
def test_maxpool(way, case, seed):
    ops = ops_of(*way)
    rng = np.random.default_rng(seed)
    x, dy = np.maximum(rng.integers(-30, 4, case.x_shape), 0).astype(np.float32), rng.standard_normal(case.y_shape).astype(np.float32)
    options = dict(window=case.window, stride=case.stride)
    y = call(ops, "maxpool_fprop", {"y": case.y_shape}, x=x, **options)["y"]
    for ties in ("first", "all"):
        dx, gated = (call(ops, "maxpool_bprop", {"dx": x.shape}, x=x, y=y, dy=dy, ties=ties, relu=relu, **options)["dx"]
                     for relu in (False, True))
        assert (dx[x == 0] != 0).any(), "a window of zeros has a winner, whose gradient stops at the gate"
        assert_bits_equal(gated, np.where(x > 0, dx, np.float32(0)), f"dx, ties {ties}", cases.repro(case), seed)


@pytest.mark.parametrize("stem", CASES)
def test_a_gate_of_another_shape_or_in_the_place_of_dx_is_refused(ops, stem):
    case, layer = next(row[1] for row in ROWS if row[0] == stem), Weights(stem)
    shapes = layer.shapes(case)
    given = {name: np.ones(shapes[of], np.float32) for name, of in (("dy", "dy"), ("w", "w"), ("dx", "x"))}
    for error, gate in ((ShapeError, given["dy"].copy()[..., :-1]), (LayoutError, given["dx"]), (DTypeError, np.ones(shapes["x"]))):
        refused(ops, f"{stem}_dgrad", error, ("dx",), **given, gate=gate, **layer.keywords(case))
