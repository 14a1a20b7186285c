"""The cpu backend's convolutions evaluated at points: which shapes take which form, and how exact they are beside the direct one."""

import importlib
import threading

import numpy as np
import pytest

from minialex.backends import cpu
from minialex.backends.checks import ConvDims
from minialex.testing import assert_within, op_bounds

tiles = importlib.import_module("minialex.backends.cpu.tiles")
winograd = importlib.import_module("minialex.backends.cpu.winograd")
workers = importlib.import_module("minialex.backends.cpu.workers")

# name: columns in and out, channels and maps of a column, groups, extent, window, stride, pad, images
CASES = {
    "conv1": (1, 2, 3, 48, 1, 224, 11, 4, (0, 3), 1), "conv2": (2, 2, 48, 128, 2, 27, 5, 1, 2, 3),
    "conv3": (2, 2, 128, 192, 1, 13, 3, 1, 1, 3), "conv4": (2, 2, 192, 192, 2, 13, 3, 1, 1, 3),
    "one column, two groups": (1, 1, 128, 128, 2, 13, 3, 1, 1, 4), "even extent, pad 0": (1, 2, 96, 80, 1, 14, 3, 1, 0, 4),
    "pad (0, 2)": (2, 1, 64, 70, 1, 11, 3, 1, (0, 2), 5), "pad (2, 0)": (1, 1, 65, 64, 1, 9, 3, 1, (2, 0), 7),
    "channels 47 to 49": (1, 1, 47, 49, 1, 5, 3, 1, 1, 1), "cifar_conv1": (1, 1, 3, 32, 1, 32, 5, 1, 2, 2),
    "cifar_conv2": (1, 1, 32, 32, 1, 12, 5, 1, 2, 1),
    "window of 4": (1, 1, 64, 64, 1, 17, 4, 1, (1, 2), 2), "window of 2, one tile": (1, 1, 150, 150, 1, 6, 2, 1, 0, 2),
    "cells of 2, rows left over": (1, 1, 40, 64, 1, 30, 5, 2, (2, 1), 2),
}
ONLY_SQUARE = ("conv1", "window of 2, one tile", "cells of 2, rows left over")          # a stride, too few taps


def dims(Gx, Gy, C, K, groups, H, R, stride, pad, n):
    before, after = (pad, pad) if isinstance(pad, int) else pad
    P = (H + before + after - R) // stride + 1
    return ConvDims(n, Gx, Gy, H, H, Gx * C, Gy * K, R, R, P, P, stride, before, after, groups)


FORMS = {"square": lambda R, S, P, Q, stride, C, K: tiles.Square.of(R, P, Q, stride),
         "rows": lambda R, S, P, Q, stride, C, K: tiles.Rows.of(R, S, P, Q) if stride == 1 else None}


@pytest.fixture(params=[(name, kind) for name in CASES for kind in FORMS if kind == "square" or name not in ONLY_SQUARE],
                ids=lambda param: "-".join(param))
def case(request, monkeypatch):
    """A function that draws the arrays of a case, its geometry, and its dims; in one of the forms, whatever the rule would choose."""
    name, kind = request.param
    Gx, Gy, C, K, groups, H, R, stride, pad, n = CASES[name]
    d = dims(*CASES[name])
    monkeypatch.setattr(winograd, "_cheapest", FORMS[kind])
    assert type(winograd.form(d)).__name__.lower() == kind

    def draw(draws):
        x, w, b, dy = (draws(shape).astype(np.float32) for shape in
                       ((Gx, n, H, H, C), (Gy * K, R, R, Gx * C // groups), (Gy * K,), (Gy, n, d.P, d.Q, K)))
        return x, w, b, dy
    return draw, dict(stride=stride, pad=pad, groups=groups), d


def normal(seed):
    return np.random.default_rng(seed).standard_normal


def passes(x, w, b, dy, geometry, dtype=np.float32):
    """y, dx, dw and db."""
    x, w, b, dy = (a.astype(dtype) for a in (x, w, b, dy))
    y, dx, dw, db = (np.full_like(a, np.nan) for a in (dy, x, w, b))
    cpu.conv_fprop(x, w, b, y, **geometry)
    cpu.conv_dgrad(dy, w, dx, **geometry)
    cpu.conv_wgrad(x, dy, dw, db, **geometry)
    return y, dx, dw, db


def test_it_is_the_convolution(case, monkeypatch):
    """In float64 equal to the direct form within some hundred roundings: a wrong constant, tap or tile has nowhere to hide."""
    draw, geometry, _ = case
    arrays = draw(normal(1))
    got = passes(*arrays, geometry, np.float64)
    monkeypatch.setattr(winograd, "enabled", False)
    for name, a, b in zip(("y", "dx", "dw", "db"), got, passes(*arrays, geometry, np.float64), strict=True):
        assert np.abs(a - b).max() < 1e-13 * np.abs(b).max(), name


def test_error_is_at_most_ten_times_the_direct_forms(case, monkeypatch):
    """Root mean square error in float32 against float64 of the direct form, normal inputs; and never bit-equal, or it did not run.
    Of a sum over fewer than 100 positions, whose direct form hardly errs, at most 20 times."""
    draw, geometry, d = case
    arrays = draw(normal(2))
    got = passes(*arrays, geometry)
    monkeypatch.setattr(winograd, "enabled", False)
    direct, exact = passes(*arrays, geometry), passes(*arrays, geometry, np.float64)
    for name, a, b, c in zip(("y", "dx", "dw"), got, direct, exact, strict=False):
        error, usual = (np.sqrt(np.mean((value - c) ** 2)) for value in (a, b))
        most = 20 if name == "dw" and d.N * d.P * d.Q < 100 else 10
        if name != "dx" or winograd.dgrad_form(d):
            assert 0 < error < most * usual and not np.array_equal(a, b), f"{name}: {error / usual:.2f} times the direct form's error"


def test_every_output_is_within_the_bound_that_sees_a_single_weight(case, oracle):
    """As exact as if operands were rounded to 17 bits, element by element; with a weight, or a number of x, off by one some are not."""
    draw, geometry, d = case
    x, w, b, dy = draw(normal(5))
    got = dict(zip(("y", "dx", "dw", "db"), passes(x, w, b, dy, geometry), strict=True))
    other_w, other_x = w.copy(), x.copy()
    other_w[-1, 0, 0, 0] += 1
    other_x[-1, -1, d.H // 2, d.W // 2, 0] += 1
    for op, given, wrong, written in (("conv_fprop", dict(x=x, w=w, b=b), dict(w=other_w), ("y",)),
                                      ("conv_dgrad", dict(dy=dy, w=w), dict(w=other_w), ("dx",)),
                                      ("conv_wgrad", dict(x=x, dy=dy), dict(x=other_x), ("dw", "db"))):
        arrays = {**given, **{name: got[name] for name in written}}
        precision = op_bounds.precision_without_variants(cpu, op, arrays, geometry)
        assert precision == (op_bounds.AT_POINTS if op != "conv_dgrad" or winograd.dgrad_form(d) else "float32")
        want = op_bounds.run(oracle, op, arrays, geometry)
        bound = op_bounds.allowed(oracle, op, arrays, geometry, want, "float32", precision)
        for name in written:
            assert_within(got[name], want[name], bound[name], f"{op} {name}")
        with pytest.raises(AssertionError):
            other = op_bounds.run(oracle, op, {**arrays, **wrong}, geometry)
            assert_within(got[written[0]], other[written[0]], bound[written[0]], op)


def test_the_rule_looks_at_the_layers_shapes_alone():
    """All layers of the paper and of the CIFAR-10 networks, whatever the batch; few channels by rows; no wide windows, none of 1x1, no
    single channel or map."""
    kinds = {"conv1": "Square", "conv2": "Rows", "conv3": "Square", "conv4": "Square", "cifar_conv1": "Rows", "cifar_conv2": "Rows"}
    for name, kind in kinds.items():
        d = dims(*CASES[name])
        for n in (1, 128):
            assert type(winograd.form(d._replace(N=n))).__name__ == kind, name
            assert type(winograd.dgrad_form(d._replace(N=n))).__name__ == (kind if d.stride == 1 else "NoneType"), name
    conv4 = dims(*CASES["conv4"])
    for change in (dict(R=7, S=7), dict(R=1, S=1), dict(R=3, S=2), dict(C=2), dict(K=2)):
        assert winograd.form(conv4._replace(**change)) is None, change
    assert winograd.dgrad_form(conv4._replace(before=3, after=3)) is None


def test_it_can_be_switched_off(monkeypatch):
    d = dims(*CASES["conv4"])
    monkeypatch.setattr(winograd, "enabled", False)
    assert winograd.form(d) is None and winograd.dgrad_form(d) is None


def test_accumulated_gradients_add(case):
    draw, geometry, _ = case
    x, w, b, dy = draw(normal(3))
    dw, db = np.full_like(w, 5), np.full_like(b, 7)
    cpu.conv_wgrad(x, dy, dw, db, accumulate=True, **geometry)
    _, _, once, bias = passes(x, w, b, dy, geometry)
    np.testing.assert_array_equal(dw, once + 5)
    np.testing.assert_array_equal(db, bias + 7)


@pytest.mark.parametrize("name", ("conv2", "conv3"))
def test_new_weights_are_seen_at_the_next_call(name):
    """Filters are transformed once for all blocks of a call, in memory that later calls use again: never for the call after."""
    Gx, Gy, C, K, groups, H, R, stride, pad, _ = CASES[name]
    geometry = dict(stride=stride, pad=pad, groups=groups)
    x, w = (normal(4)(shape).astype(np.float32) for shape in ((Gx, 40, H, H, C), (Gy * K, R, R, Gx * C // groups)))
    b = np.zeros(Gy * K, np.float32)
    y, doubled = np.empty((Gy, 40, H, H, K), np.float32), np.empty((Gy, 40, H, H, K), np.float32)
    cpu.conv_fprop(x, w, b, y, **geometry)
    w *= 2                                                      # in place: the same address
    cpu.conv_fprop(x, w, b, doubled, **geometry)
    np.testing.assert_array_equal(doubled, 2 * y)


def test_one_job_may_run_both_directions():
    """What it keeps of filters (as many channels as maps) for one is not taken for the other."""
    Gx, Gy, C, K, groups, H, R, stride, pad, n = CASES["conv4"]
    geometry = dict(stride=stride, pad=pad, groups=groups)
    arrays = [normal(7)(shape).astype(np.float32) for shape in
              ((Gx, n, H, H, C), (Gy * K, R, R, Gx * C // groups), (Gy * K,), (Gy, n, H, H, K))]
    want, got = passes(*arrays, geometry), []
    cpu.parallel(lambda slot, item: got.append(passes(*arrays, geometry)), (0, 1))
    for made in got:
        for a, b in zip(made[:2], want, strict=False):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ("conv3", "one column, two groups"))
def test_any_number_of_workers_gives_the_same_bits(name):
    Gx, Gy, C, K, groups, H, R, stride, pad, _ = CASES[name]
    n, geometry = 37, dict(stride=stride, pad=pad, groups=groups)
    shapes = (Gx, n, H, H, C), (Gy * K, R, R, Gx * C // groups), (Gy * K,), (Gy, n, H, H, K)
    arrays = [normal(6)(shape).astype(np.float32) for shape in shapes]
    before, results = cpu.workers(), []
    try:
        for count in (1, 2, 3):
            cpu.set_workers(count)
            results.append(passes(*arrays, geometry))
    finally:
        cpu.set_workers(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_job_keeps_what_one_worker_made():
    """Once for a job, though all workers ask at the same time; its memory serves the next job; nothing is kept outside of one."""
    made, gate = [], threading.Barrier(2, timeout=20)

    def make(array):
        made.append(array)
        array.fill(len(made))

    def both(slot, item):
        gate.wait()                                             # no worker takes both items
        seen.append(workers.per_job("key", (3, 1), np.float32, make))

    before = cpu.workers()
    cpu.set_workers(2)
    try:
        for job in (1, 2):
            seen = []
            cpu.parallel(both, (0, 1))
            assert len(made) == job and seen[0] is seen[1] and (seen[0] == job).all()
    finally:
        cpu.set_workers(before)
    assert made[0] is made[1]
    for call in (3, 4):
        assert (workers.per_job("key", (3, 1), np.float32, make) == call).all()


def test_a_failed_make_is_tried_again():
    def fails(array):
        raise ValueError("no")

    def item(slot, number):
        with pytest.raises(ValueError):
            workers.per_job(number, (2,), np.float32, fails)
        assert (workers.per_job(number, (2,), np.float32, lambda array: array.fill(7)) == 7).all()

    cpu.parallel(item, (0, 1))
