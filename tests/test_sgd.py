"""The paper's update (section 5): why we trust it on every backend."""

from __future__ import annotations

import numpy as np
import pytest

from minialex.spec import DTypeError, LayoutError, ShapeError
from minialex.testing import assert_bits_equal, assert_within, call, cases, mutants, refused
from minialex.testing.compare import eps
from minialex.testing.mutants_learning import BASES
from minialex.testing.onhost import OnHost

FACTORS = (1.0, 1.0, 0.1, 0.1, 0.01, 1.0)       # the rate changes between steps, down and up again


def draw(case, seed):
    """w, v and one gradient for each step."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(case.size), 0.01 * rng.standard_normal(case.size), rng.standard_normal((len(FACTORS), case.size))


def step(ops, w, v, dw, segments, momentum):
    out = call(ops, "sgd_update", {"w": w, "v": v}, dw=dw, segments=segments, momentum=momentum)
    return out["w"], out["v"]


def at_rate(segments, factor):
    return tuple((start, stop, rate * factor, decay) for start, stop, rate, decay in segments)


def steps(ops, case, w, v, gradients, factors=FACTORS):
    for dw, factor in zip(gradients, factors, strict=True):
        w, v = step(ops, w, v, dw, at_rate(case.segments, factor), case.momentum)
        yield w, v


def prove(ops, oracle, case, seed):
    """Six steps in float32, each compared with float64.  A step adds at most three roundings of each term to v and one of
    w to w, and hands on momentum times the error of v."""
    w, v, gradients = (a.astype(np.float32) for a in draw(case, seed))
    wide_w, wide_v = w.astype(np.float64), v.astype(np.float64)
    error_w, error_v = np.zeros(case.size), np.zeros(case.size)
    for number, (dw, factor) in enumerate(zip(gradients, FACTORS, strict=True)):
        segments = at_rate(case.segments, factor)
        rate, decay = np.zeros(case.size), np.zeros(case.size)
        for start, stop, r, d in segments:
            rate[start:stop], decay[start:stop] = r, d
        touched = np.zeros(case.size)
        touched[np.concatenate([np.arange(start, stop) for start, stop, *_ in segments])] = 1
        terms = case.momentum * abs(wide_v) + decay * rate * abs(wide_w) + rate * abs(dw.astype(np.float64))
        error_v = np.where(touched, case.momentum * error_v + decay * rate * error_w + 3 * eps(np.float32) * terms, error_v)
        wide_w, wide_v = step(oracle, wide_w, wide_v, dw.astype(np.float64), segments, case.momentum)
        error_w = error_w + touched * (error_v + eps(np.float32) * abs(wide_w))
        w, v = step(ops, w, v, dw, segments, case.momentum)
        what = f"sgd_update [{case}] step {number}"
        assert_within(v, wide_v, error_v, f"{what} v", cases.repro(case), seed)
        assert_within(w, wide_w, error_w, f"{what} w", cases.repro(case), seed)


def test_literal_example(ops):
    """Two steps by hand, the rate halved between them; powers of two, so every number is exact."""
    w, v = np.array([8.0], np.float32), np.array([4.0], np.float32)
    dw = np.array([2.0], np.float32)
    w, v = step(ops, w, v, dw, ((0, 1, 0.5, 0.25),), 0.5)
    # v = .5*4 - .25*.5*8 - .5*2 = 0      w = 8 + 0
    assert (w[0], v[0]) == (8, 0)
    w, v = step(ops, w, v, dw, ((0, 1, 0.25, 0.25),), 0.5)
    # v = .5*0 - .25*.25*8 - .25*2 = -1   w = 8 - 1
    assert (w[0], v[0]) == (7, -1)


@pytest.mark.parametrize("case", cases.SGD, ids=str)
def test_against_the_oracle(ops, oracle, case, seed):
    prove(ops, oracle, case, seed)


def many_segments(count, seed):
    """Segments of 0 to 40 numbers, each with a rate of its own, some with gaps between them: borders at every alignment, more
    than one launch of a kernel can carry."""
    rng = np.random.default_rng(seed)
    borders = np.cumsum(rng.integers(0, 41, 2 * count)).tolist()
    rows = [(borders[2 * i], borders[2 * i + 1] if i % 3 else borders[min(2 * i + 2, 2 * count - 1)], 0.01 * (1 + i), 0.001 * (i % 5))
            for i in range(count)]
    return cases.SGDCase(f"{count}_segments", borders[-1] + 3, tuple(rows))


@pytest.mark.parametrize("count", [5, 64, 65, 150])
def test_many_segments(ops, oracle, count, seed):
    prove(ops, oracle, many_segments(count, seed), seed)


@pytest.mark.parametrize("case", cases.SGD, ids=str)
def test_bits_of_the_formula(ops, oracle, case, seed):
    """momentum v, decay rate w and rate dw are rounded once each, then the differences in order: float32 on all backends alike."""
    w, v, gradients = (a.astype(np.float32) for a in draw(case, seed))
    for got, want, name in zip(step(ops, w, v, gradients[0], case.segments, case.momentum),
                               step(oracle, w, v, gradients[0], case.segments, case.momentum), ("w", "v"), strict=True):
        assert_bits_equal(got, want, f"{name} [{case}]", cases.repro(case), seed)


@pytest.mark.parametrize("count", [1, 5, 65, 150])
def test_rates_on_the_device_have_the_bits_of_numbers(ops, count, seed):
    """Two steps with other rates, which stand in one array; empty segments keep their row, and what `segments` says of rates is unread."""
    if not hasattr(ops, "kernels"):
        pytest.skip("for kernels, whose launches a graph repeats")
    case = many_segments(count, seed)
    w, v, gradients = (a.astype(np.float32) for a in draw(case, seed))
    for dw, factor in zip(gradients[:2], (1.0, 0.1), strict=True):
        segments = at_rate(case.segments, factor)
        rates = np.array([(rate, decay * rate) for _, _, rate, decay in segments]).astype(np.float32)
        arguments = dict(dw=dw, segments=at_rate(segments, 7.0), momentum=case.momentum, rates=rates)
        got = call(ops, "sgd_update", {"w": w, "v": v}, **arguments)
        w, v = step(ops, w, v, dw, segments, case.momentum)
        assert_bits_equal(got["w"], w, "w", seed=seed)
        assert_bits_equal(got["v"], v, "v", seed=seed)
    with pytest.raises(ShapeError, match="rates holds"):
        call(ops, "sgd_update", {"w": w, "v": v}, **{**arguments, "rates": np.zeros((count + 1, 2), np.float32)})


@pytest.mark.parametrize("case", [case for case in cases.SGD if case.size <= 50], ids=str)
def test_the_oracle_is_the_formula(oracle, case, seed):
    """v <- m v - decay rate w - rate dw; w <- w + v, one number after the other; what no segment covers stays."""
    w, v, gradients = draw(case, seed)
    for dw, (new_w, new_v) in zip(gradients, steps(oracle, case, w, v, gradients, (1.0,) * 6), strict=True):
        for start, stop, rate, decay in case.segments:
            for i in range(start, stop):
                v[i] = case.momentum * v[i] - decay * rate * w[i] - rate * dw[i]
                w[i] = w[i] + v[i]
        assert_within(new_v, v, 1e-15, "v")
        assert_within(new_w, w, 1e-14, "w")


@pytest.mark.parametrize("base", [base for base in BASES if base.stem == "sgd"], ids=str)
def test_the_right_version_of_each_mutant_lives(oracle, base):
    for case in cases.SGD:
        prove(base.ops(oracle), oracle, case, 1)


@pytest.mark.parametrize("mutant", mutants.of("sgd"), ids=str)
def test_mutants_die(oracle, mutant):
    for case in cases.SGD:
        try:
            prove(mutant.ops(oracle), oracle, case, 1)
        except AssertionError:
            return
    pytest.fail(f"{mutant} survives every case")


def test_rate_inside_the_velocity(ops, oracle, rng):
    """The golden trap of section 5: with one rate from start to end the library form, w <- w - rate v, moves the weights
    alike; after the rate falls it coasts at the new rate, while the paper's velocity still carries the old one."""
    library = next(m for m in mutants.of("sgd") if m.name == "rate_outside_the_velocity").ops(oracle)
    case = cases.SGDCase("golden", 20, ((0, 20, 0.01, 0.0005),))
    dtype = np.float32 if isinstance(ops, OnHost) else np.float64
    start, still, gradients = (a.astype(dtype) for a in (rng.standard_normal(20), np.zeros(20), rng.standard_normal((6, 20))))
    near = 200 * eps(dtype)                             # six steps of numbers below 4

    def weights(backend, factors):
        return np.array([w for w, _ in steps(backend, case, start, still, gradients, factors)])

    constant = (1.0,) * 6
    assert_within(weights(library, constant), weights(ops, constant), near, "one rate")
    falling = (1.0, 1.0, 1.0, 0.1, 0.1, 0.1)
    ours, theirs = weights(ops, falling), weights(library, falling)
    assert_within(theirs[:3], ours[:3], near, "before the rate falls")
    first = ours[3] - ours[2], theirs[3] - theirs[2]
    assert (abs(first[0] - first[1]) > 0.1 * abs(first[0])).mean() > 0.9        # the first step after it is another one
    v, w = np.zeros(20), start.astype(np.float64)
    for dw, factor in zip(gradients, falling, strict=True):
        v = 0.9 * v - 0.0005 * 0.01 * factor * w - 0.01 * factor * dw
        w = w + v
    assert_within(ours[-1], w, near, "the paper's formula")


def test_zero_rate_lets_the_velocity_run_out(ops):
    """source2012 freezes conv1 by rate 0: no decay and no gradient, but the momentum of before still moves it."""
    w, v = step(ops, np.ones(2, np.float32), np.ones(2, np.float32), np.full(2, 100, np.float32), ((0, 2, 0.0, 0.5),), 0.5)
    assert w.tolist() == [1.5, 1.5] and v.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("case", cases.SGD, ids=str)
def test_bits_do_not_depend_on_how_segments_are_cut_or_on_workers(ops, case, seed):
    """Segments cut in two, and each number of workers, give the same bits; what no segment covers keeps its own."""
    w, v, gradients = (a.astype(np.float32) for a in draw(case, seed))
    whole = step(ops, w, v, gradients[0], case.segments, case.momentum)
    halves = tuple(part for a, b, r, d in case.segments for part in ((a, (a + b) // 2, r, d), ((a + b) // 2, b, r, d)))
    for segments, workers in ((case.segments, 1), (case.segments, 3), (halves, 2)):
        ops.set_workers(workers)
        for got, want, name in zip(step(ops, w, v, gradients[0], segments, case.momentum), whole, ("w", "v"), strict=True):
            assert_bits_equal(got, want, f"{name}, {workers} workers, {len(segments)} segments")
    covered = np.zeros(case.size, bool)
    for start, stop, *_ in case.segments:
        covered[start:stop] = True
    assert_bits_equal(whole[0][~covered], w[~covered], "w outside the segments")
    assert_bits_equal(whole[1][~covered], v[~covered], "v outside the segments")


def good_call():
    return dict(w=np.ones(6, np.float32), v=np.ones(6, np.float32), dw=np.ones(6, np.float32), segments=((0, 6, 0.1, 0.1),), momentum=0.9)


@pytest.mark.parametrize("bad", [
    ("velocity_too_short", ShapeError, lambda a: {"v": a["v"][:5]}),
    ("gradient_too_long", ShapeError, lambda a: {"dw": np.ones(7, np.float32)}),
    ("not_flat", ShapeError, lambda a: {n: a[n].reshape(2, 3) for n in ("w", "v", "dw")}),
    ("segment_beyond_the_end", ShapeError, lambda a: {"segments": ((0, 7, 0.1, 0.1),)}),
    ("segment_before_the_start", ShapeError, lambda a: {"segments": ((-2, 3, 0.1, 0.1),)}),
    ("segments_overlap", ShapeError, lambda a: {"segments": ((0, 4, 0.1, 0.1), (3, 6, 0.1, 0.1))}),
    ("segments_out_of_order", ShapeError, lambda a: {"segments": ((3, 6, 0.1, 0.1), (0, 3, 0.1, 0.1))}),
    ("segment_backwards", ShapeError, lambda a: {"segments": ((4, 2, 0.1, 0.1),)}),
    ("gradient_of_float64", DTypeError, lambda a: {"dw": a["dw"].astype(np.float64)}),
    ("integers", DTypeError, lambda a: {n: a[n].astype(np.int32) for n in ("w", "v", "dw")}),
    ("every_second", LayoutError, lambda a: {"w": np.ones(12, np.float32)[::2]}),
    ("velocity_is_the_gradient", LayoutError, lambda a: {"v": a["dw"]}),
    ("velocity_is_the_weights", LayoutError, lambda a: {"v": a["w"]}),
], ids=lambda bad: bad[0])
def test_bad_calls_raise_and_write_nothing(ops, bad):
    _, error, change = bad
    arguments = good_call()
    arguments.update(change(arguments))
    refused(ops, "sgd_update", error, ("w", "v"), **arguments)
