"""Dropout and its random words: why we trust them on every backend."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from minialex import philox as shared
from minialex.backends.reference import dropout as reference_dropout
from minialex.layers import Dropout, Run
from minialex.spec import DTypeError, LayoutError, ShapeError
from minialex.testing import assert_bits_equal, assert_gradients, assert_within, call, cases, mutants, refused
from minialex.testing.compare import eps
from minialex.testing.mutants_learning import BASES

OPS = ("dropout_fprop", "dropout_bprop", "dropout_test")
NAMES = {"dropout_fprop": ("x", "y"), "dropout_bprop": ("dy", "dx"), "dropout_test": ("x", "y")}

# counter, key -> words: the known answers published with the generator (Random123, philox4x32-10)
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


def philox(counter, key):
    """A third Philox, on Python integers, for the definition below."""
    a, b, c, d = counter
    left, right = key
    for _ in range(10):
        first, second = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = second >> 32 ^ b ^ left, second & 0xFFFFFFFF, first >> 32 ^ d ^ right, first & 0xFFFFFFFF
        left, right = (left + 0x9E3779B9) & 0xFFFFFFFF, (right + 0xBB67AE85) & 0xFFFFFFFF
    return a, b, c, d


@pytest.mark.parametrize("counter, key, words", KNOWN, ids=("zeros", "ones", "digits of pi"))
def test_philox_known_answers(counter, key, words):
    assert philox(counter, key) == words
    assert tuple(int(w) for w in shared.philox(*counter, key[0] | key[1] << 32)) == words
    assert tuple(int(w) for w in reference_dropout.philox(counter, key)) == words


def test_philox_of_arrays_is_philox_of_each_counter():
    counters = np.arange(7, dtype=np.uint64)[:, None] * 0x1234567, np.arange(3, dtype=np.uint64), 5, 0xFFFFFFFF
    words = shared.philox(*counters, 0xFEDCBA9876543210)
    assert all(w.shape == (7, 3) and w.dtype == np.uint32 for w in words)
    for i, j in np.ndindex(7, 3):
        assert tuple(int(w[i, j]) for w in words) == philox((i * 0x1234567 & 0xFFFFFFFF, j, 5, 0xFFFFFFFF), (0x76543210, 0xFEDCBA98))


def test_uniform_and_normal_words():
    assert shared.uniform(np.array([0, 0xFFFFFFFF], np.uint32)).tolist() == [2.0**-33, 1 - 2.0**-33]
    words = shared.philox(np.arange(50_000), 0, 0, 0, 1)
    pair = shared.normal(words[0], words[1])
    for values in pair:
        assert abs(values.mean()) < 4 / 50_000**0.5 and abs(values.std() - 1) < 4 / (2 * 50_000)**0.5
    assert abs((pair[0] * pair[1]).mean()) < 4 / 50_000**0.5


def apply(ops, op, case, x, **changes):
    """The op's output for one case, whatever its arguments are called."""
    source, out = NAMES[op]
    keywords = dict(factor=case.keep) if op == "dropout_test" else {**case.mask, **changes}
    return call(ops, op, {out: x.shape}, **{source: x}, **keywords)[out]


def prove(ops, oracle, op, case, seed):
    """Zeros in the same places, values within two roundings."""
    x = np.random.default_rng(seed).standard_normal(case.x_shape).astype(np.float32)
    want = apply(oracle, op, case, x.astype(np.float64))
    assert_within(apply(ops, op, case, x), want, 2 * eps(np.float32) * abs(want), f"{op} [{case}]", cases.repro(case), seed)


def test_literal_example(ops):
    """Counter 0, key 0: the first words are 66.., e1.., bc.., 9b..; half of 2^32 is 80..: only the first is below it."""
    x = np.array([3, 5, 7, 9], np.float32).reshape(1, 1, 1, 1, 4)
    mask = dict(keep=0.5, scale=1.0, seed=0, step=0, layer=0, first=0)
    assert call(ops, "dropout_fprop", {"y": x.shape}, x=x, **mask)["y"].ravel().tolist() == [3, 0, 0, 0]
    assert call(ops, "dropout_bprop", {"dx": x.shape}, dy=x, **{**mask, "scale": 2.0})["dx"].ravel().tolist() == [6, 0, 0, 0]
    # 0.75 of 2^32 is c0..: all but e1.. are below it.
    assert call(ops, "dropout_fprop", {"y": x.shape}, x=x, **{**mask, "keep": 0.75})["y"].ravel().tolist() == [3, 0, 7, 9]
    assert call(ops, "dropout_test", {"y": x.shape}, x=x, factor=0.5)["y"].ravel().tolist() == [1.5, 2.5, 3.5, 4.5]


def test_a_word_equal_to_the_threshold_is_dropped(ops):
    """The first word of counter 0, key 0 is 6627e8d5; all of these probabilities are exact in float64."""
    x = np.ones((1, 1, 1, 1, 4), np.float32)
    for keep, first in ((0x6627E8D5, 0), (0x6627E8D5 + 0.5, 1), (0x6627E8D6, 1)):
        y = call(ops, "dropout_fprop", {"y": x.shape}, x=x, keep=keep * 2.0**-32, scale=1.0, seed=0, step=0, layer=0, first=0)["y"]
        assert y.ravel().tolist() == [first, 0, 0, 0]


@pytest.mark.parametrize("case", [case for case in cases.DROPOUT if case.tiny], ids=str)
def test_the_oracle_is_the_formula(oracle, case):
    ones = np.ones(case.x_shape)
    y = apply(oracle, "dropout_fprop", case, ones)
    for g, n, h, w, c in np.ndindex(case.x_shape):
        e = (h * case.W + w) * ((case.of or case.columns) * case.C) + (case.column + g) * case.C + c
        word = philox((e // 4, case.first + n & 0xFFFFFFFF, case.step, case.layer), (case.seed & 0xFFFFFFFF, case.seed >> 32))[e % 4]
        assert y[g, n, h, w, c] == (case.scale if word < case.keep * 2**32 else 0)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("case", cases.DROPOUT, ids=str)
def test_against_the_oracle(ops, oracle, case, op, seed):
    prove(ops, oracle, op, case, seed)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("case", cases.DROPOUT, ids=str)
def test_the_oracle_in_float32_has_the_same_bits(ops, oracle, case, op, rng):
    """A mask and one product: nothing is left to a backend's choice, not even the sign of a dropped zero."""
    x = rng.standard_normal(case.x_shape).astype(np.float32)
    assert_bits_equal(apply(ops, op, case, x), apply(oracle, op, case, x), f"{op} [{case}]", cases.repro(case))


@pytest.mark.parametrize("size", range(1, 10))
def test_every_length_of_the_last_vector(ops, oracle, size, rng):
    """Kernels take four numbers at once; what is left at the end is theirs too."""
    case, x = cases.DropoutCase(f"{size} numbers", 1, 1, 1, size), rng.standard_normal((1, 1, 1, 1, size)).astype(np.float32)
    for op in OPS:
        assert_bits_equal(apply(ops, op, case, x), apply(oracle, op, case, x), f"{op} of {size}")


@pytest.mark.parametrize("case", [case for case in cases.DROPOUT if case.tiny], ids=str)
def test_gradients_by_finite_differences(ops, case, rng):
    x, dy = rng.standard_normal(case.x_shape), rng.standard_normal(case.x_shape)
    gradients = {"x": apply(ops, "dropout_bprop", case, dy)}
    assert_gradients(lambda x: apply(ops, "dropout_fprop", case, x), {"x": x}, dy, gradients, f"dropout [{case}]")


def killed_by(mutant, oracle):
    for case in cases.DROPOUT:
        try:
            prove(mutant.ops(oracle), oracle, mutant.replaces, case, 1)
        except AssertionError:
            return case.name
    return None


@pytest.mark.parametrize("base", [base for base in BASES if base.stem == "dropout"], ids=str)
def test_the_right_version_of_each_mutant_lives(oracle, base):
    assert killed_by(base, oracle) is None


@pytest.mark.parametrize("mutant", mutants.of("dropout"), ids=str)
def test_mutants_die(oracle, mutant):
    assert killed_by(mutant, oracle), f"{mutant} survives every case"


MASKS = cases.DropoutCase("rates", 40, 1, 1, 500, columns=2, seed=3, step=5, layer=2)     # 40,000 values


@pytest.mark.parametrize("keep", [0.5, 0.75, 0.1])
def test_keep_rate_and_independence_within_four_sigma(ops, keep):
    """The share of kept values; and for two masks that differ in one thing, the share of values both keep."""
    ones = np.ones(MASKS.x_shape, np.float32)

    def mask(**changes):
        return apply(ops, "dropout_fprop", MASKS, ones, keep=keep, **changes) != 0

    def within_four_sigma(values, probability):
        sigma = (probability * (1 - probability) / values.size)**0.5
        assert abs(values.mean() - probability) < 4 * sigma

    kept = mask()
    within_four_sigma(kept, keep)
    within_four_sigma(kept[0] & kept[1], keep**2)                                       # columns
    within_four_sigma(kept[:, 1:] & kept[:, :-1], keep**2)                              # images
    within_four_sigma(kept[..., 1:] & kept[..., :-1], keep**2)                          # channels
    for other in (dict(step=6), dict(layer=3), dict(seed=4), dict(seed=3 + (1 << 32)), dict(first=40)):
        within_four_sigma(kept & mask(**other), keep**2)


def test_mask_does_not_depend_on_how_the_batch_is_cut(ops, seed):
    """Blocks of images with their place in the batch make the bits of the whole batch, in fprop and bprop."""
    case = next(case for case in cases.DROPOUT if case.name == "block_of_a_batch")
    x = np.random.default_rng(seed).standard_normal((2, 24, 1, 1, 10)).astype(np.float32)
    for op in ("dropout_fprop", "dropout_bprop"):
        source, out = NAMES[op]
        whole = apply(ops, op, case, x)
        for cuts in ((0, 1, 24), (0, 7, 8, 19, 24)):
            pieces = np.full_like(x, np.nan)
            for start, stop in itertools.pairwise(cuts):
                getattr(ops, op)(**{source: x[:, start:stop], out: pieces[:, start:stop]}, **{**case.mask, "first": case.first + start})
                assert np.isnan(pieces[:, stop:]).all()
            assert_bits_equal(pieces, whole, f"{op} cut at {cuts}")


def test_mask_does_not_depend_on_the_number_of_columns(ops, seed):
    """One column of 12 channels and two of 6 are the same network on other places: the same channels are kept."""
    x = np.random.default_rng(seed).standard_normal((1, 5, 2, 3, 12)).astype(np.float32)
    mask = dict(keep=0.5, scale=1.0, seed=9, step=2, layer=1, first=4)
    one = call(ops, "dropout_fprop", {"y": x.shape}, x=x, **mask)["y"]
    halves = np.ascontiguousarray(np.concatenate(np.split(x, 2, axis=4)))
    two = call(ops, "dropout_fprop", {"y": halves.shape}, x=halves, **mask)["y"]
    assert_bits_equal(np.concatenate([two[:1], two[1:]], axis=4), one, "two columns")


@pytest.mark.parametrize("op", OPS[:2])
@pytest.mark.parametrize("C", [4, 5, 12])
def test_a_column_alone_has_the_mask_it_has_among_all(ops, op, C, seed):
    """On a device of its own, or two of three on one."""
    x = np.random.default_rng(seed).standard_normal((3, 2, 2, 3, C)).astype(np.float32)
    mask, (source, out) = dict(keep=0.5, scale=1.0, seed=9, step=2, layer=1, first=4), NAMES[op]
    whole = call(ops, op, {out: x.shape}, **{source: x}, **mask)[out]
    for start, stop in ((0, 1), (1, 2), (2, 3), (1, 3), (0, 2)):
        part = call(ops, op, {out: x[start:stop].shape}, **{source: x[start:stop]}, **mask, column=start, columns=3)[out]
        assert_bits_equal(part, whole[start:stop], f"columns {start} to {stop}")


@pytest.mark.parametrize("op", OPS[:2])
@pytest.mark.parametrize("place", [dict(column=-1), dict(column=1, columns=2), dict(columns=1), dict(column=3, columns=3)], ids=str)
def test_columns_that_are_not_there_are_refused(ops, op, place):
    assert "columns" in refused(ops, op, ShapeError, (NAMES[op][1],), **good_call(op), **place)


@pytest.mark.parametrize("op", OPS)
def test_in_place_and_repeated_runs_give_the_same_bits(ops, op, seed):
    case = cases.DropoutCase("in_place", 3, 2, 1, 5, columns=2, keep=0.6, scale=1 / 0.6, step=1)
    x = np.random.default_rng(seed).standard_normal(case.x_shape).astype(np.float32)
    y = apply(ops, op, case, x)
    assert_bits_equal(apply(ops, op, case, x), y, f"{op} repeated")
    source, out = NAMES[op]
    same = x.copy()
    getattr(ops, op)(**{source: same, out: same}, **(dict(factor=case.keep) if op == "dropout_test" else case.mask))
    assert_bits_equal(same, y, f"{op} in place")


@pytest.mark.parametrize("op", OPS[:2])
@pytest.mark.parametrize("C", [4, 5])
def test_a_step_on_the_device_has_the_bits_of_the_number(ops, op, C, seed):
    if not hasattr(ops, "kernels"):
        pytest.skip("for kernels, whose launches a graph repeats")
    case = cases.DropoutCase("dial", 3, 2, 2, C, columns=2, seed=5, layer=1)
    x = np.random.default_rng(seed).standard_normal(case.x_shape).astype(np.float32)
    for number in (0, 1, 2**31, 2**32 - 1):
        dial = np.array([number, 99], np.uint32).view(np.int32)[:1]
        assert_bits_equal(apply(ops, op, case, x, step=dial), apply(ops, op, case, x, step=number), f"{op} at step {number}")
    for dial, error in ((np.zeros(1, np.float32), DTypeError), (np.zeros(2, np.int32), ShapeError)):
        with pytest.raises(error, match="step"):
            apply(ops, op, case, x, step=dial)


def good_call(op):
    source, out = NAMES[op]
    mask = dict(factor=0.5) if op == "dropout_test" else dict(keep=0.5, scale=1.0, seed=0, step=0, layer=0, first=0)
    return {source: np.ones((2, 3, 1, 1, 4), np.float32), out: np.full((2, 3, 1, 1, 4), np.nan, np.float32), **mask}


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("bad", [
    ("other_shape", ShapeError, lambda a: a[:, :2]),
    ("float64", DTypeError, lambda a: a.astype(np.float64)),
    ("integers", DTypeError, lambda a: a.astype(np.int32)),
    ("channels_apart", LayoutError, lambda a: np.repeat(a, 2, axis=-1)[..., ::2]),
], ids=lambda bad: bad[0])
def test_bad_calls_raise_and_write_nothing(ops, op, bad):
    _, error, change = bad
    arguments = good_call(op)
    arguments[NAMES[op][0]] = change(arguments[NAMES[op][0]])
    refused(ops, op, error, (NAMES[op][1],), **arguments)


@pytest.mark.parametrize("op", OPS)
def test_partial_overlap_is_refused(ops, op):
    source, out = NAMES[op]
    memory = np.ones(2 * 24 - 1, np.float32)
    arguments = {**good_call(op), source: memory[:24].reshape(2, 3, 1, 1, 4), out: memory[23:].reshape(2, 3, 1, 1, 4)}
    assert "overlap" in refused(ops, op, LayoutError, (out,), **arguments)


@pytest.mark.parametrize("op", OPS[:2])
@pytest.mark.parametrize("keep", [0.0, -0.5, 1.5, float("nan")])
def test_a_probability_outside_0_to_1_is_refused(ops, op, keep):
    refused(ops, op, ShapeError, (NAMES[op][1],), **{**good_call(op), "keep": keep})


@pytest.mark.parametrize("op", OPS[:2])
def test_rows_instead_of_maps_are_refused(ops, op):
    """A mask needs to know where images and columns are."""
    arguments = {name: a.reshape(6, 4) if isinstance(a, np.ndarray) else a for name, a in good_call(op).items()}
    refused(ops, op, ShapeError, (NAMES[op][1],), **arguments)


@pytest.mark.parametrize("inverted", [False, True])
def test_layer_scaling_at_training_and_test(oracle, inverted):
    """The paper's form keeps values as they are and halves them at test time; the inverted form doubles and leaves."""
    layer = Dropout("drop", keep=0.25, inverted=inverted)
    x = np.ones((1, 4000, 1, 1, 5))
    y, dx = np.full_like(x, np.nan), np.full_like(x, np.nan)
    run = Run(seed=1, step=2, first=3, ordinal=4)
    layer.fprop(oracle, x, y, run)
    layer.bprop(oracle, x, y, x, dx, run)
    assert set(np.unique(y)) == {0.0, 4.0 if inverted else 1.0} and (dx == y).all()
    test = np.full_like(x, np.nan)
    layer.fprop(oracle, x, test, Run(training=False))
    assert (test == (1.0 if inverted else 0.25)).all()
    assert abs(y.mean() - test.mean()) < 4 * (0.25 * 0.75 / x.size)**0.5 * (4.0 if inverted else 1.0)


@pytest.mark.parametrize("change", [dict(seed=2), dict(step=3), dict(first=4), dict(ordinal=5),
                                    dict(column=1, columns=2)], ids=lambda change: next(iter(change)))
def test_the_layer_passes_on_what_its_mask_depends_on(oracle, change):
    layer, x = Dropout("drop"), np.ones((1, 8, 1, 1, 64))
    a, b = np.empty_like(x), np.empty_like(x)
    known = dict(seed=1, step=2, first=3, ordinal=4)
    layer.fprop(oracle, x, a, Run(**known))
    layer.fprop(oracle, x, b, Run(**{**known, **change}))
    assert (a != b).mean() > 0.3
