"""What one use of a training picture undergoes, and the views of a test picture (paper, section 4.1): numbers only, no pixels.

Every number is a pure function of (seed, epoch, position in the epoch, picture), drawn from Philox, so neither the number of
workers nor a resumed run changes a bit.  The pixels are moved by the op `augment_fprop`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..nets.recipe import Augmentation
from ..philox import normal, philox
from ..spec import ShapeError

CROP_STREAM, COLOUR_STREAM = 0xFFFF0002, 0xFFFF0003


class Draws(NamedTuple):
    """What `augment_fprop` needs for n images."""

    offsets: np.ndarray             # (n, 2) int32: top and left edge of the crop, in pixels of the record
    flips: np.ndarray               # (n,) bool: mirrored left to right
    noise: np.ndarray               # (n, 3) float32: added to every pixel of the image, in grey levels of 0..255
    scale: float                    # multiplies (pixels - mean + noise)


class View(NamedTuple):
    """One test crop."""

    top: int
    left: int
    flip: bool


def offset_count(record: int, crop: int, inclusive: bool) -> int:
    """Crop positions along one axis: record - crop (32 at 256 and 224, the paper's 1024 crops), one more when inclusive (33, the
    program's).  A crop as large as the record has one position either way."""
    if not 1 <= crop <= record:
        raise ShapeError(f"a crop of {crop} pixels does not fit records of {record} pixels; prepare larger records or use a smaller crop")
    return max(1, record - crop + bool(inclusive))


def draw(augmentation: Augmentation, seed: int, epoch: int, positions, pictures, record: int, crop: int, colour_directions) -> Draws:
    """Crops, flips and colour noise of one use each of `pictures` at `positions` of `epoch`.

        offset = floor(count * u)      noise = P diag(s) a,  a ~ N(0, colour_std^2)^3

    `colour_directions` is P diag(s), s the STANDARD DEVIATIONS of the training pixels along the eigenvectors P: with eigenvalues
    in their place (the paper's letter) pixels would move by more than a thousand grey levels.  Images whose position falls in the same
    run of `chunk` positions share crop and flip; the colour noise is always each image's own.

    Parameters
    ----------
    positions : (n,) int        place in the epoch, 0 first: decides crop and flip
    pictures : (n,) int         number in the split: decides the colour noise
    record, crop : int          pixels a side, stored and seen
    colour_directions : (3, 3) float64
    """
    count = offset_count(record, crop, augmentation.inclusive)
    positions, pictures = np.asarray(positions, np.int64), np.asarray(pictures, np.int64)
    n = len(positions)
    chunks = positions // augmentation.chunk
    top, left, mirror, _ = philox(chunks, chunks >> 32, epoch, CROP_STREAM, seed)
    if augmentation.crops:
        offsets = np.stack([_below(count, top), _below(count, left)], axis=1)
    else:
        offsets = np.full((n, 2), (record - crop) // 2, np.int32)
    flips = (mirror >> np.uint32(31)).astype(bool) & augmentation.flips
    noisy = augmentation.colour_std > 0 and (augmentation.colour_until is None or epoch < augmentation.colour_until)
    if not noisy:
        return Draws(offsets, flips, np.zeros((n, 3), np.float32), augmentation.scale)
    words = philox(pictures, pictures >> 32, epoch, COLOUR_STREAM, seed)
    a0, a1 = normal(words[0], words[1])
    a2, _ = normal(words[2], words[3])
    directions = np.asarray(colour_directions, np.float64) * augmentation.colour_std
    # Sums written out: a matrix product may add in another order for another n.
    noise = a0[:, None] * directions[:, 0] + a1[:, None] * directions[:, 1] + a2[:, None] * directions[:, 2]
    return Draws(offsets, flips, noise.astype(np.float32), augmentation.scale * augmentation.noisy_scale)


def _below(count: int, words: np.ndarray) -> np.ndarray:
    """Words as integers 0..count-1, each with probability 1/count but for count / 2^32."""
    return (words.astype(np.uint64) * np.uint64(count) >> np.uint64(32)).astype(np.int32)


def views(record: int, crop: int, kind: str = "centre") -> list[View]:
    """The crops whose softmax outputs are averaged at test: "centre", or "ten", the four corners and the centre, each with its
    mirror image.  Corners lie at 0 and record - crop (0 and 32), also where training never draws the last offset."""
    last = offset_count(record, crop, inclusive=True) - 1
    centre = (record - crop) // 2
    if kind == "centre":
        return [View(centre, centre, False)]
    if kind == "ten":
        places = [(0, 0), (0, last), (last, 0), (last, last), (centre, centre)]
        return [View(top, left, flip) for flip in (False, True) for top, left in places]
    raise ShapeError(f"test views {kind!r}: choose 'centre' or 'ten'")
