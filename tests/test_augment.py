"""Crops, flips, mean and colour noise as an op: why we trust it on every backend."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from minialex.spec import DTypeError, LayoutError, ShapeError
from minialex.testing import assert_bits_equal, assert_within, call, cases, mutants, refused
from minialex.testing.compare import eps
from minialex.testing.mutants_learning import BASES


def draw(case, seed, dtype=np.float32):
    """Pictures without any symmetry; crops at both corners and between; both kinds of flips; a noise for each picture."""
    rng = np.random.default_rng(seed)
    room = case.H0 - case.H, case.W0 - case.W
    offsets = np.stack([rng.integers(0, r + 1, case.N) for r in room], axis=1).astype(np.int32)
    offsets[0] = (0, room[1]) if case.N > 1 else offsets[0]
    offsets[-1] = (room[0], 0) if case.N > 2 else offsets[-1]
    flips = np.arange(case.N) % 2 == 0
    return dict(images=rng.integers(0, 256, (case.N, case.H0, case.W0, 3)).astype(np.uint8), offsets=offsets, flips=flips,
                mean=rng.uniform(90, 140, (case.H0, case.W0, 3)).astype(dtype), noise=(20 * rng.standard_normal((case.N, 3))).astype(dtype))


def augment(ops, case, data):
    return plain(case, call(ops, "augment_fprop", {"y": case.y_shape}, **data, mean_at=case.mean_at, scale=case.scale)["y"])


def plain(case, y):
    """The pictures that y holds in cells: each row of a cell behind the cell to its left."""
    rows = y.reshape(*y.shape[:4], case.cell, case.cell * 3).swapaxes(3, 4)
    return rows.reshape(1, -1, case.H, case.W, 3)


def prove(ops, oracle, case, seed):
    """Each of the three operations rounds a number of at most |image| + |mean| + |noise|."""
    data = draw(case, seed)
    wide = {**data, "mean": data["mean"].astype(np.float64), "noise": data["noise"].astype(np.float64)}
    bound = 2 * eps(np.float32) * case.scale * (255 + 140 + abs(wide["noise"]))[None, :, None, None, :]
    assert_within(augment(ops, case, data), augment(oracle, case, wide), bound, f"augment_fprop [{case}]", cases.repro(case), seed)


@pytest.mark.parametrize("case", cases.AUGMENT, ids=str)
def test_the_oracle_in_float32_has_the_same_bits(ops, oracle, case, seed):
    """Three operations in the order of the formula, each rounded: nothing is left to a backend's choice."""
    data = draw(case, seed)
    assert_bits_equal(augment(ops, case, data), augment(oracle, case, data), f"augment_fprop [{case}]", cases.repro(case), seed)


def small_example():
    """A 2 x 3 picture of colours 10 h + w, +100 in green, +200 in blue; its mean is 1, 2, 3, 4, 5, 6 by pixel."""
    image = np.array([[0, 1, 2], [10, 11, 12]])[:, :, None] + np.array([0, 100, 200])
    mean = np.array([[1, 2, 3], [4, 5, 6]])[:, :, None] + np.zeros(3)
    return dict(images=image[None].astype(np.uint8), mean=mean.astype(np.float32), offsets=np.array([[1, 1]], np.int32),
                flips=np.array([True]), noise=np.array([[0.5, 0.25, -0.5]], np.float32))


def test_literal_example(ops):
    """The crop of 1 x 2 at row 1, column 1 is 11, 12; flipped 12, 11."""
    out = {"y": (1, 1, 1, 2, 3)}
    y = call(ops, "augment_fprop", out, **small_example(), mean_at="crop", scale=2.0)["y"]
    # red (12 - 6 + .5) * 2, (11 - 5 + .5) * 2: each pixel loses the mean of its own place
    assert y[0, 0, 0].tolist() == [[13, 212.5, 411], [13, 212.5, 411]]
    y = call(ops, "augment_fprop", out, **small_example(), mean_at="centre", scale=1.0)["y"]
    # the middle 1 x 2 of 2 x 3 begins at row 0, column 0 (rounded down): red 12 - 1 + .5, 11 - 2 + .5
    assert y[0, 0, 0].tolist() == [[11.5, 111.25, 210.5], [9.5, 109.25, 208.5]]


@pytest.mark.parametrize("case", cases.AUGMENT, ids=str)
def test_against_the_oracle(ops, oracle, case, seed):
    prove(ops, oracle, case, seed)


@pytest.mark.parametrize("case", [case for case in cases.AUGMENT if case.N * case.H * case.W < 300], ids=str)
def test_the_oracle_is_the_formula(oracle, case, seed):
    """Pixel by pixel, in whole numbers and with scale 1."""
    data = draw(case, seed, np.float64)
    data["mean"], data["noise"] = np.round(data["mean"]), np.round(data["noise"])
    y = augment(oracle, replace(case, scale=1.0), data)[0]
    for n, h, w, c in np.ndindex(y.shape):
        top, left = data["offsets"][n]
        source = top + h, left + (case.W - 1 - w if data["flips"][n] else w)
        mean_at = source if case.mean_at == "crop" else ((case.H0 - case.H) // 2 + h, (case.W0 - case.W) // 2 + w)
        assert y[n, h, w, c] == int(data["images"][n][source][c]) - data["mean"][mean_at][c] + data["noise"][n, c]


def killed_by(mutant, oracle):
    for case in cases.AUGMENT[:-2]:
        try:
            prove(mutant.ops(oracle), oracle, case, 1)
        except AssertionError:
            return case.name
    return None


@pytest.mark.parametrize("base", [base for base in BASES if base.stem == "augment"], ids=str)
def test_the_right_version_of_each_mutant_lives(oracle, base):
    assert killed_by(base, oracle) is None


@pytest.mark.parametrize("mutant", mutants.of("augment"), ids=str)
def test_mutants_die(oracle, mutant):
    assert killed_by(mutant, oracle), f"{mutant} survives every case"


@pytest.mark.parametrize("case", cases.AUGMENT, ids=str)
def test_bits_do_not_depend_on_the_batch_or_on_workers(ops, case, seed):
    data = draw(case, seed)
    whole = augment(ops, case, data)
    ops.set_workers(3)
    assert_bits_equal(augment(ops, case, data), whole, "repeated with 3 workers")
    cuts = sorted({0, 1, case.N // 2, case.N})
    pieces = np.full(case.y_shape, np.nan, np.float32)
    for start, stop in itertools.pairwise(cuts):
        block = {name: data[name][start:stop] for name in ("images", "offsets", "flips", "noise")}
        ops.augment_fprop(**block, mean=data["mean"], y=pieces[:, start:stop], mean_at=case.mean_at, scale=case.scale)
        assert np.isnan(pieces[:, stop:]).all()
    assert_bits_equal(plain(case, pieces), whole, f"blocks {cuts}", cases.repro(case), seed)


def good_call():
    case = next(case for case in cases.AUGMENT if case.name == "odd")
    return {**draw(case, 1), "y": np.full((1, case.N, case.H, case.W, 3), np.nan, np.float32), "mean_at": "crop", "scale": 1.0}


@pytest.mark.parametrize("bad", [
    ("no_images", ShapeError, lambda a: {"y": a["y"][:, :0], **{n: a[n][:0] for n in ("images", "offsets", "flips", "noise")}}),
    ("crop_larger_than_the_image", ShapeError, lambda a: {"y": np.zeros((1, 3, 10, 4, 3), np.float32)}),
    ("crop_wider_than_the_image", ShapeError, lambda a: {"y": np.zeros((1, 3, 5, 8, 3), np.float32)}),
    ("two_columns", ShapeError, lambda a: {"y": np.zeros((2, 3, 5, 4, 3), np.float32)}),
    ("other_batch", ShapeError, lambda a: {"y": np.zeros((1, 2, 5, 4, 3), np.float32)}),
    ("no_square_of_pixels", ShapeError, lambda a: {"y": np.zeros((1, 3, 2, 2, 6), np.float32)}),
    ("cells_beyond_the_image", ShapeError, lambda a: {"y": np.zeros((1, 3, 3, 3, 27), np.float32)}),
    ("grey_images", ShapeError, lambda a: {"images": a["images"][..., :1]}),
    ("one_image_without_batch", ShapeError, lambda a: {"images": a["images"][0]}),
    ("mean_of_the_crop", ShapeError, lambda a: {"mean": a["mean"][:5, :4]}),
    ("offsets_of_another_batch", ShapeError, lambda a: {"offsets": a["offsets"][:2]}),
    ("one_flip", ShapeError, lambda a: {"flips": a["flips"][:1]}),
    ("noise_of_one_colour", ShapeError, lambda a: {"noise": a["noise"][:, :1]}),
    ("mean_at_nowhere", ShapeError, lambda a: {"mean_at": "center"}),
    ("images_of_float", DTypeError, lambda a: {"images": a["images"].astype(np.float32)}),
    ("offsets_of_int64", DTypeError, lambda a: {"offsets": a["offsets"].astype(np.int64)}),
    ("flips_of_uint8", DTypeError, lambda a: {"flips": a["flips"].astype(np.uint8)}),
    ("mean_of_float64", DTypeError, lambda a: {"mean": a["mean"].astype(np.float64)}),
], ids=lambda bad: bad[0])
def test_bad_calls_raise_and_write_nothing(ops, bad):
    _, error, change = bad
    arguments = good_call()
    arguments.update(change(arguments))
    refused(ops, "augment_fprop", error, ("y",), **arguments)


@pytest.mark.parametrize("offset", [(5, 0), (0, 4), (-1, 0), (0, -1), (2**31 - 1, 0), (0, -2**31)], ids=str)
def test_a_crop_that_leaves_its_picture(ops, offset):
    """Refused where the offsets can be looked at; on a device, where looking would stop the stream, that picture is NaN."""
    arguments = good_call()
    arguments["offsets"] = np.array([[0, 0], offset, [0, 0]], np.int32)
    if not hasattr(ops, "device_ops"):
        refused(ops, "augment_fprop", ShapeError, ("y",), **arguments)
        return
    y = call(ops, "augment_fprop", {"y": arguments.pop("y").shape}, whole=False, **arguments)["y"]
    assert np.isnan(y[:, 1]).all() and np.isfinite(y[:, ::2]).all()


def test_output_over_the_mean_is_refused(ops):
    arguments = good_call()
    memory = np.zeros(9 * 7 * 3 + 3 * 5 * 4 * 3 - 1, np.float32)
    arguments.update(mean=memory[:9 * 7 * 3].reshape(9, 7, 3), y=memory[-3 * 5 * 4 * 3:].reshape(1, 3, 5, 4, 3))
    assert "overlap" in refused(ops, "augment_fprop", LayoutError, ("y",), **arguments)
