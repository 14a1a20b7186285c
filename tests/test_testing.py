"""The helpers that judge the ops are judged here: each must reject what it exists to reject."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import load_or_skip

from minialex import backends
from minialex.spec import BackendUnavailable, ShapeError
from minialex.testing import cases, compare, gradcheck, guard


def test_a_missing_backend_skips_with_its_reason_unless_it_is_required(monkeypatch):
    def unavailable(name):
        raise BackendUnavailable(f"{name}: no such device")

    monkeypatch.setattr(backends, "load", unavailable)
    monkeypatch.delenv("MINIALEX_REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="cuda: no such device"):
        load_or_skip("cuda")
    with pytest.raises(pytest.fail.Exception, match="cpu is required"):
        load_or_skip("cpu")
    monkeypatch.setenv("MINIALEX_REQUIRE", "emulated,cuda")
    with pytest.raises(pytest.fail.Exception, match="no such device"):
        load_or_skip("cuda")


def test_assert_within_rejects_nan_inf_and_shape():
    want = np.ones((2, 3))
    for bad in (np.nan, np.inf):
        got = want.copy()
        got[1, 2] = bad
        with pytest.raises(AssertionError, match=r"at \(1, 2\)"):
            compare.assert_within(got, want, 1e300, "y")
    with pytest.raises(AssertionError, match="shape"):
        compare.assert_within(want[0], want, 1.0, "y")
    with pytest.raises(AssertionError, match="want itself"):
        compare.assert_within(want, np.full((2, 3), np.nan), 1.0, "y")
    with pytest.raises(AssertionError, match="bound itself"):
        compare.assert_within(want, want, np.nan, "y")
    with pytest.raises(AssertionError, match="nothing to compare"):
        compare.assert_within(want[:0], want[:0], 1.0, "y")
    compare.assert_within(want, want, 0.0, "y")


def test_assert_within_names_the_worst_element_values_seed_and_repro():
    want = np.zeros((4, 4))
    got = want.copy()
    got[1, 1], got[3, 2] = 0.5, 0.25
    bound = np.full((4, 4), 0.4)
    bound[3, 2] = 0.01                      # 25 times its bound; (1, 1) only 1.25 times
    with pytest.raises(AssertionError) as caught:
        compare.assert_within(got, want, bound, "conv_fprop y", "Case(...)", seed=17)
    message = str(caught.value)
    for part in ("conv_fprop y", "(3, 2)", "0.25", "0.01", "17", "Case(...)", "test_assert_within_names", "2 of 16"):
        assert part in message


def test_assert_bits_equal_sees_one_bit_the_sign_of_zero_and_the_type():
    want = np.array([[0.0, 1.0], [np.nan, 3.0]], np.float32)
    compare.assert_bits_equal(want.copy(), want, "y")
    for index, value in (((0, 0), -0.0), ((1, 1), np.nextafter(np.float32(3), np.float32(4)))):
        got = want.copy()
        got[index] = value
        with pytest.raises(AssertionError, match=rf"at \({index[0]}, {index[1]}\)"):
            compare.assert_bits_equal(got, want, "y")
    with pytest.raises(AssertionError, match="float64"):
        compare.assert_bits_equal(want.astype(np.float64), want, "y")


def test_bounds_hold_for_float32_sums_and_reject_a_missing_term():
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((200, 300)), rng.standard_normal((300, 200))
    x32, w32 = x.astype(np.float32), w.astype(np.float32)
    want = x32.astype(np.float64) @ w32.astype(np.float64)
    bound = compare.zero_mean_bound(np.abs(x32.astype(np.float64)) @ np.abs(w32.astype(np.float64)))
    compare.assert_within(x32 @ w32, want, bound, "product")
    with pytest.raises(AssertionError):
        compare.assert_within(x32[:, 1:] @ w32[1:], want, bound, "product")
    chain = np.cumsum(np.abs(x32), axis=1, dtype=np.float32)[:, -1]
    exact = np.abs(x32).sum(axis=1, dtype=np.float64)
    compare.assert_within(chain, exact, compare.positive_bound(exact, 300), "sum")


def test_guard_sees_writes_outside_and_leftover_nan():
    def overrun(x, y):
        y[...] = x
        np.lib.stride_tricks.as_strided(y, (y.size + 1,), (y.itemsize,))[y.size] = 0.0

    def underrun(x, y):
        y[...] = x
        start = y.__array_interface__["data"][0] - y.itemsize
        np.ctypeslib.as_array((ctypes.c_float * 1).from_address(start))[0] = 0.0

    def incomplete(x, y):
        y.flat[1:] = x.flat[1:]

    def writes_input(x, y):
        y[...] = x
        x.flat[0] += 1

    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for wrong, match in ((overrun, "1 after the end"), (underrun, "1 before the start"), (incomplete, r"unwritten at \(0, 0\)"),
                         (writes_input, "wrote its input x")):
        with pytest.raises(AssertionError, match=match):
            guard.call(SimpleNamespace(op=wrong), "op", {"y": x.shape}, x=x)


def test_refused_sees_acceptance_early_writes_and_other_errors():
    def accepts(y):
        y[...] = 0

    def writes_first(y):
        y[0] = 0
        raise ShapeError("op: late")

    def other(y):
        raise TypeError("not ours")

    def nameless(y):
        raise ShapeError("a window does not fit")

    for wrong, error in ((accepts, AssertionError), (writes_first, AssertionError), (nameless, AssertionError), (other, TypeError)):
        with pytest.raises(error):
            guard.refused(SimpleNamespace(op=wrong), "op", ShapeError, ("y",), y=np.ones(3))


@pytest.mark.parametrize("size", [12, 1000])
def test_gradcheck_accepts_the_right_gradient_and_rejects_one_wrong_element(size):
    rng = np.random.default_rng(2)
    x, dy = rng.standard_normal(size), rng.standard_normal(size)
    right = np.cos(x) * dy
    assert gradcheck.assert_gradients(lambda x: np.sin(x), {"x": x}, dy, {"x": right}, "sin") <= 1
    for wrong in (right * (1 + 1e-3), np.where(np.arange(size) == 3, 0, right), np.where(np.arange(size) == 3, np.nan, right)):
        assert gradcheck.worst_ratio(lambda x: np.sin(x), {"x": x}, dy, {"x": wrong})["x"][0] > 1
    with pytest.raises(AssertionError, match="float64"):
        gradcheck.worst_ratio(lambda x: x, {"x": x.astype(np.float32)}, dy, {"x": right})


def test_a_gradient_check_that_sees_nothing_fails_itself():
    x = np.ones(4)
    with pytest.raises(AssertionError, match="does not see"):
        gradcheck.assert_gradients(lambda x: x, {"x": x}, np.ones(4), {"x": np.ones(4)}, "blind", atol=10.0)


def test_away_from_and_distinct_keep_their_distance():
    rng = np.random.default_rng(3)
    x = gradcheck.away_from(rng.standard_normal(10_000), (0.0, 1.0), 1e-2)
    assert np.abs(x).min() >= 0.0099 and np.abs(x - 1).min() >= 0.0099
    values = np.sort(gradcheck.distinct(rng, (7, 11)).ravel())
    assert np.diff(values).min() > 0.9e-3 and values[0] < 0 < values[-1]


def test_case_names_are_unique_within_a_list():
    lists = {name: value for name, value in vars(cases).items() if name[0] != "_" and isinstance(value, list)}
    assert set(lists) == {"CONV", "LOCAL", "LINEAR", "LRN", "SPATIAL_NORM", "MAXPOOL", "AVGPOOL", "ACTIVATION", "DROPOUT", "LOSS", "SGD",
                          "AUGMENT", "CELLS"}
    for name, rows in lists.items():
        assert len({row.name for row in rows}) == len(rows), name


def test_alexnet_cases_have_the_papers_extents():
    extents = {case.name: (case.P, case.Q, case.K) for case in cases.CONV if case.name.startswith("alexnet") and case.big}
    assert extents == {"alexnet_conv1": (55, 55, 96), "alexnet_conv2": (27, 27, 256), "alexnet_conv3": (13, 13, 384),
                       "alexnet_conv4": (13, 13, 384), "alexnet_conv5": (13, 13, 256)}
    pools = {case.name: case.y_shape[2:4] for case in cases.MAXPOOL if case.name.startswith("alexnet")}
    assert pools == {"alexnet_pool1": (27, 27), "alexnet_pool2": (13, 13), "alexnet_pool5": (6, 6)}
    assert {case.name: case.y_shape[2:4] for case in cases.MAXPOOL}["last_window_outside"] == (2, 1)
