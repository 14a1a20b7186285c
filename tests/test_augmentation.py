"""Crops, flips, colour noise and test views against the paper, with the common mistakes of section 4.1 told apart."""

import math
from dataclasses import replace

import numpy as np
import pytest

from minialex.data.augment import draw, offset_count, views
from minialex.nets.recipe import Augmentation
from minialex.spec import ShapeError

PAPER = Augmentation()
SOURCE2012 = Augmentation(inclusive=True, chunk=32, colour_until=67, noisy_scale=1 / 1.1, mean_at="centre", order="fixed")
IMAGENET_SD = np.array([121.78, 37.09, 19.72])          # of 0..255 pixels along the eigenvectors (section 4.1)
GOLDEN_CROPS = ([[18, 27], [15, 14]], [True, False])
GOLDEN_NOISE = [-3.643503427505493, -0.6963208317756653, -4.098113059997559]


def orthogonal() -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]


def use(augmentation, n, *, seed=0, epoch=0, start=0, record=256, crop=224, directions=None):
    places = np.arange(start, start + n)
    return draw(augmentation, seed, epoch, places, places, record, crop, np.diag(IMAGENET_SD) if directions is None else directions)


def test_32_offsets_in_the_paper_33_in_the_program():
    """Section 4.1 counts 32 x 32 positions (2048 with flips); the program draws 0..32 inclusive."""
    assert offset_count(256, 224, inclusive=False) == 32 and offset_count(256, 224, inclusive=True) == 33
    for augmentation, count in ((PAPER, 32), (replace(SOURCE2012, chunk=1), 33)):
        offsets = use(augmentation, 40_000).offsets
        assert offsets.dtype == np.int32
        for axis in (0, 1):
            seen = np.bincount(offsets[:, axis])
            assert len(seen) == count and seen.min() > 0
            chi2 = float(((seen - 40_000 / count) ** 2 / (40_000 / count)).sum())
            assert chi2 < count - 1 + 5 * math.sqrt(2 * (count - 1))
        assert abs(np.corrcoef(offsets[:, 0], offsets[:, 1])[0, 1]) < 5 / math.sqrt(40_000)


def test_flips_are_fair_and_apart_from_the_crop():
    draws = use(PAPER, 40_000)
    assert draws.flips.dtype == bool and abs(draws.flips.mean() - 0.5) < 5 * 0.5 / 200
    for axis in (0, 1):
        assert abs(np.corrcoef(draws.flips, draws.offsets[:, axis])[0, 1]) < 5 / 200


def test_chunk_of_32_shares_crop_and_flip_but_not_the_noise():
    draws = use(SOURCE2012, 320)
    crops = [{(*offset, flip) for offset, flip in zip(draws.offsets[i:i + 32].tolist(), draws.flips[i:i + 32].tolist(), strict=True)}
             for i in range(0, 320, 32)]
    assert [len(c) for c in crops] == [1] * 10 and len(set.union(*crops)) > 5
    assert len(np.unique(draws.noise, axis=0)) == 320
    single = use(PAPER, 320)
    assert len({tuple(o) for o in single.offsets.tolist()}) > 200
    half = use(SOURCE2012, 20, start=16)                 # a chunk is a run of positions, wherever the batch begins
    assert np.array_equal(half.offsets, draws.offsets[16:36])


def test_colour_noise_has_the_standard_deviations():
    """P diag(s) a: covariance of the noise is P diag(s^2) P^T / 100, so 12.2, 3.7 and 2.0 grey levels along the eigenvectors."""
    P = orthogonal()
    n = 60_000
    noise = use(PAPER, n, directions=P * IMAGENET_SD).noise
    assert noise.dtype == np.float32 and noise.shape == (n, 3)
    along = noise.astype(np.float64) @ P
    assert np.allclose(along.std(axis=0), IMAGENET_SD / 10, rtol=5 / math.sqrt(2 * n))
    assert np.all(np.abs(along.mean(axis=0)) < 5 * IMAGENET_SD / 10 / math.sqrt(n))
    assert np.abs(np.corrcoef(along.T) - np.eye(3)).max() < 5 / math.sqrt(n)
    assert np.abs(np.corrcoef((along**2).T) - np.eye(3)).max() < 5 / math.sqrt(n)      # apart in size too, not only in sign
    kurtosis = (along**4).mean(axis=0) / along.var(axis=0) ** 2
    assert np.all(np.abs(kurtosis - 3) < 5 * math.sqrt(24 / n))      # normal, not uniform (1.8)


def test_eigenvalues_or_the_widespread_constants_are_not_the_standard_deviations():
    """The paper's letter (eigenvalues) would move pixels by 1,483 grey levels; .2175, .0188, .0045 are variances of [0,1] data and
    make the noise 2.2, 7.7 and 17 times too weak when taken for standard deviations."""
    assert 0.1 * IMAGENET_SD[0] ** 2 == pytest.approx(1483, abs=0.5)
    widespread = np.array([0.2175, 0.0188, 0.0045])
    assert np.allclose(np.sqrt(widespread) * 255, IMAGENET_SD, rtol=0.15)        # they are the variances
    ratio = IMAGENET_SD / (widespread * 255)
    assert [f"{r:.2g}" for r in ratio] == ["2.2", "7.7", "17"]
    right, weak = (use(PAPER, 4000, directions=np.diag(s)).noise.std(axis=0) for s in (IMAGENET_SD, widespread * 255))
    assert np.allclose(right / weak, ratio, rtol=1e-5)
    assert np.allclose(right, IMAGENET_SD / 10, rtol=0.1) and not np.any(np.isclose(weak, IMAGENET_SD / 10, rtol=0.5))


def test_noise_ends_at_its_epoch_and_takes_the_scale_with_it():
    on, off = use(SOURCE2012, 8, epoch=66), use(SOURCE2012, 8, epoch=67)
    assert on.scale == 1 / 1.1 and np.abs(on.noise).max() > 0
    assert off.scale == 1.0 and not off.noise.any()
    assert np.abs(use(PAPER, 8, epoch=1000).noise).max() > 0         # the paper's stays on to the end
    silent = use(replace(PAPER, colour_std=0.0, noisy_scale=0.5), 8)
    assert silent.scale == 1.0 and not silent.noise.any()


def test_without_crops_the_centre_and_without_flips_none():
    draws = use(replace(PAPER, crops=False, flips=False), 100)
    assert (draws.offsets == 16).all() and not draws.flips.any()


def test_a_crop_as_large_as_the_record_stays_at_0():
    for augmentation in (PAPER, SOURCE2012):
        assert not use(augmentation, 100, record=32, crop=32).offsets.any()


def test_pure_function_however_the_positions_are_divided():
    rng = np.random.default_rng(0)
    pictures = rng.permutation(10_000)[:515]
    places = np.arange(515)
    for augmentation in (PAPER, SOURCE2012):
        whole = draw(augmentation, 9, 4, places, pictures, 256, 224, orthogonal() * IMAGENET_SD)
        for size in (1, 3, 8, 128):
            for i in range(0, 515, size):
                part = draw(augmentation, 9, 4, places[i:i + size], pictures[i:i + size], 256, 224, orthogonal() * IMAGENET_SD)
                for name in ("offsets", "flips", "noise"):
                    assert np.array_equal(getattr(part, name), getattr(whole, name)[i:i + size]), name


def test_seed_and_epoch_change_everything():
    draws = [use(PAPER, 64, seed=seed, epoch=epoch) for seed in (0, 1, 2**32) for epoch in (0, 1)]
    for name in ("offsets", "flips", "noise"):
        assert len({getattr(d, name).tobytes() for d in draws}) == 6, name


def test_golden_draws():
    """Part of every run's history, like the order."""
    draws = use(PAPER, 2, seed=1, epoch=2)
    assert (draws.offsets.tolist(), draws.flips.tolist()) == GOLDEN_CROPS
    assert np.allclose(draws.noise[0], GOLDEN_NOISE, rtol=1e-6)


def test_ten_views_are_corners_and_centre_with_mirror_images():
    """Corners at 0 and 32, also where training offsets end at 31."""
    assert views(256, 224) == [(16, 16, False)]
    ten = views(256, 224, "ten")
    assert {(t, l) for t, l, _ in ten} == {(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)}
    assert len(set(ten)) == 10 and sum(flip for *_, flip in ten) == 5
    assert {(t, l) for t, l, flip in ten if flip} == {(t, l) for t, l, flip in ten if not flip}
    assert views(32, 32) == [(0, 0, False)] and set(views(32, 32, "ten")) == {(0, 0, False), (0, 0, True)}
    assert views(33, 24) == [(4, 4, False)]


def test_bad_calls():
    with pytest.raises(ShapeError, match="crop of 300 pixels does not fit records of 256"):
        use(PAPER, 4, crop=300)
    with pytest.raises(ShapeError, match="'centre' or 'ten'"):
        views(256, 224, "twenty")
    with pytest.raises(ShapeError, match="does not fit"):
        views(24, 32)
