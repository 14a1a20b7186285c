"""The cpu backend's Winograd form of 3x3 convolutions: exact where it must be, and how much less exact than the direct form elsewhere."""

import importlib

import numpy as np
import pytest

from minialex.backends import cpu
from minialex.backends.checks import ConvDims

winograd = importlib.import_module("minialex.backends.cpu.winograd")

# name: columns in and out, channels and maps of a column, groups, extent, pad, images
CASES = {
    "conv3": (2, 2, 128, 192, 1, 13, 1, 3), "conv4": (2, 2, 192, 192, 2, 13, 1, 3),
    "one column, two groups": (1, 1, 128, 128, 2, 13, 1, 4), "even extent, pad 0": (1, 2, 64, 64, 1, 14, 0, 4),
    "pad (0, 2)": (2, 1, 64, 70, 1, 11, (0, 2), 5), "pad (2, 0)": (1, 1, 65, 64, 1, 9, (2, 0), 7),
}


@pytest.fixture(params=CASES, ids=CASES)
def case(request):
    """A function that draws the arrays of a case, and the geometry."""
    Gx, Gy, C, K, groups, H, pad, n = CASES[request.param]
    before, after = (pad, pad) if isinstance(pad, int) else pad
    P = H + before + after - 2
    geometry = dict(stride=1, pad=pad, groups=groups)
    assert winograd.suits(ConvDims(n, Gx, Gy, H, H, Gx * C, Gy * K, 3, 3, P, P, 1, before, after, groups)), "this case tests nothing"

    def draw(draws):
        x, w, b, dy = (draws(shape).astype(np.float32) for shape in
                       ((Gx, n, H, H, C), (Gy * K, 3, 3, Gx * C // groups), (Gy * K,), (Gy, n, P, P, K)))
        return x, w, b, dy
    return draw, geometry


def small_integers(seed):
    rng = np.random.default_rng(seed)
    return lambda shape: rng.integers(-3, 4, shape)


def passes(x, w, b, dy, geometry, dtype=np.float32):
    """y, dx, dw and db."""
    x, w, b, dy = (a.astype(dtype) for a in (x, w, b, dy))
    y, dx, dw, db = (np.full_like(a, np.nan) for a in (dy, x, w, b))
    cpu.conv_fprop(x, w, b, y, **geometry)
    cpu.conv_dgrad(dy, w, dx, **geometry)
    cpu.conv_wgrad(x, dy, dw, db, **geometry)
    return y, dx, dw, db


def test_small_integers_are_exact(case, monkeypatch):
    """Its constants are 0, 1 and halves: sums of small integers have the same bits as the direct form's."""
    draw, geometry = case
    arrays = draw(small_integers(1))
    got = passes(*arrays, geometry)
    monkeypatch.setattr(winograd, "enabled", False)
    for name, a, b in zip(("y", "dx", "dw", "db"), got, passes(*arrays, geometry), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_error_is_at_most_four_times_the_direct_forms(case, monkeypatch):
    """Root mean square error in float32 against float64 of the direct form, normal inputs; and never bit-equal, or it did not run."""
    draw, geometry = case
    arrays = draw(np.random.default_rng(2).standard_normal)
    got = passes(*arrays, geometry)
    monkeypatch.setattr(winograd, "enabled", False)
    direct, exact = passes(*arrays, geometry), passes(*arrays, geometry, np.float64)
    for name, a, b, c in zip(("y", "dx", "dw"), got, direct, exact, strict=False):
        error, usual = (np.sqrt(np.mean((value - c) ** 2)) for value in (a, b))
        assert 0 < error < 4 * usual and not np.array_equal(a, b), f"{name}: {error / usual:.2f} times the direct form's error"


def test_the_rule_looks_at_shapes_alone():
    """The paper's conv3, conv4 and conv5 in blocks of 4 or 2; not conv1, conv2, few channels, few tiles, strides, wide padding."""
    d = ConvDims(4, 2, 2, 13, 13, 384, 384, 3, 3, 13, 13, 1, 1, 1, 2)
    assert winograd.suits(d) and winograd.suits(d._replace(K=256)) and winograd.suits(d._replace(C=256, groups=1))
    for change in (dict(R=5, S=5), dict(stride=2), dict(C=64), dict(K=64), dict(N=1), dict(before=3)):
        assert not winograd.suits(d._replace(**change)), change


def test_accumulated_gradients_add(case):
    draw, geometry = case
    x, w, b, dy = draw(small_integers(3))
    dw, db = np.full_like(w, 5), np.full_like(b, 7)
    cpu.conv_wgrad(x, dy, dw, db, accumulate=True, **geometry)
    _, _, once, bias = passes(x, w, b, dy, geometry)
    np.testing.assert_array_equal(dw, once + 5)
    np.testing.assert_array_equal(db, bias + 7)
