"""The embedded pictures: coloured forms on mottled grounds, packed as archives of the official ILSVRC layout (no photograph is shipped).

A class is one form in one colour, so that neither alone gives more than a fraction of the labels.  Every picture is a function of (seed,
split, class, number) through Philox; the arithmetic is float32 +, -, x, / and square roots on rounded constants, so it is the same on
every machine (JPEG bytes are the installed Pillow's).  Classes, WNIDs and devkit ids are in three different orders, as in the real set.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .. import files
from ..philox import philox, uniform
from . import matfile
from .ilsvrc import DEVKIT, META, TRAIN, TRUTH, VAL
from .source import DataError

VERSION = 1  # goes up with every change that moves a pixel
PER_CLASS, VAL_PER_CLASS, SIZE, SEED = 300, 50, 128, 2012
STAMP = "synthetic.json"

# What makes the pictures harder or easier to learn.
RADIUS = (0.30, 0.44)  # of the form, as a share of the shorter side
ROTATION = 20.0  # degrees, either way
OFF_CENTRE = 0.06  # of the form's middle, as a share of the picture's sides, either way
ASPECT = (1.0, 1.35)  # longer side over shorter
GROUND_LEVEL = (60, 170)  # grey level of the ground
GROUND_CONTRAST = 36.0  # of its mottles, grey levels either way
GROUND_TINT = 14.0  # of its colour away from grey, levels either way
TEXTURE_CONTRAST = 26.0  # of the stripes on the form, levels either way
COLOUR_SPREAD = 22.0  # of the form's colour around its class's, levels either way
NOISE = 8  # of every pixel, levels either way
QUALITY = 88  # of the JPEG files

COLOURS = {"red": (208, 44, 40), "green": (48, 170, 56), "blue": (44, 72, 212)}
_MOTTLE, _TABLE = 8, 512  # mottles across a picture; side of the shared noise table


def _disc(x, y, distance):
    return distance - 1.0


def _ring(x, y, distance):
    return np.maximum(distance - 1.0, 0.55 - distance)


def _cross(x, y, distance):
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.minimum(x, y) - 0.28, np.maximum(x, y) - 1.0)


def _triangle(x, y, distance):
    return np.maximum(0.8660254 * np.abs(x) - 0.5 * y, y) - 0.62


# Each gives the signed distance (in units of the radius, negative inside) from coordinates turned into the form's own frame.
FORMS: dict[str, Callable] = {"disc": _disc, "ring": _ring, "cross": _cross, "triangle": _triangle}


@dataclass(frozen=True)
class Kind:
    """One class: WNID, words, the form and colour drawn, and its place in the devkit (from 1)."""

    wnid: str
    words: str
    form: str
    colour: str
    devkit_id: int


def kinds() -> list[Kind]:
    """The classes in sorted WNID order.  WNIDs begin with n9, which WordNet does not use."""
    pairs = [(form, colour) for form in FORMS for colour in COLOURS]
    count = len(pairs)
    # 7 and 5 are coprime to the number of classes, so these are permutations with no order in common.
    found = [Kind(f"n{90000000 + 137 * (7 * i % count + 1):08d}", f"{colour} {form}", form, colour, 5 * i % count + 1)
             for i, (form, colour) in enumerate(pairs)]
    return sorted(found, key=lambda kind: kind.wnid)


def draw(kind: Kind, split: int, number: int, size: int = SIZE, seed: int = SEED) -> np.ndarray:
    """Picture `number` of a class as (H, W, 3) uint8, shorter side `size`; `split` 0 is training, 1 validation."""
    words = np.concatenate(philox(np.arange(16), number, kind.devkit_id + 4096 * split, VERSION, seed))
    u = iter(uniform(words).tolist())

    def between(low: float, high: float) -> float:
        return low + (high - low) * next(u)

    long = round(size * between(*ASPECT))
    height, width = (size, long) if next(u) < 0.5 else (long, size)
    ground = _ground(height, width, words[32:], between, u)
    radius = size * between(*RADIUS)
    middle_x, middle_y = width * (0.5 + between(-OFF_CENTRE, OFF_CENTRE)), height * (0.5 + between(-OFF_CENTRE, OFF_CENTRE))
    turn = math.radians(between(-ROTATION, ROTATION))
    # Sines of different C libraries differ in the last digit; on a grid of 1/65536 they agree.
    cosine, sine = (np.float32(round(value * 65536) / 65536) for value in (math.cos(turn), math.sin(turn)))
    across = ((np.arange(width) + 0.5 - middle_x) / radius).astype(np.float32)[None, :]
    down = ((np.arange(height) + 0.5 - middle_y) / radius).astype(np.float32)[:, None]
    x, y = across * cosine + down * sine, down * cosine - across * sine  # (H, W) each
    distance = FORMS[kind.form](x, y, np.sqrt(x * x + y * y))
    cover = np.clip(0.5 - distance * np.float32(radius), 0, 1)[..., None]  # share of the pixel inside the form
    colour = np.array([level + between(-COLOUR_SPREAD, COLOUR_SPREAD) for level in COLOURS[kind.colour]], np.float32)
    picture = ground + cover * (colour + _stripes(x, y, between)[..., None] - ground)
    return np.clip(picture + _noise(height, width, next(u), next(u), seed) + 0.5, 0, 255).astype(np.uint8)


def _ground(height: int, width: int, words: np.ndarray, between, u) -> np.ndarray:
    """(H, W, 3) float32: a tinted grey with smooth mottles, interpolated between a few random levels."""
    level = between(*GROUND_LEVEL)
    tint = np.array([level + between(-GROUND_TINT, GROUND_TINT) for _ in range(3)], np.float32)
    grid = philox(np.arange(_MOTTLE + 1)[:, None], np.arange(_MOTTLE + 1)[None, :], int(words[0]), int(words[1]), int(words[2]))[0] >> 24
    rows, columns = _weights(height), _weights(width)
    # Weights are sixteenths and levels integers, so these products are exact and no order of sums matters.
    mottles = rows @ grid.astype(np.float32) @ columns.T
    return tint + ((mottles - 127.5) * np.float32(GROUND_CONTRAST / 127.5))[..., None]


def _weights(length: int) -> np.ndarray:
    """(length, _MOTTLE + 1) float32: linear interpolation in steps of 1/16."""
    at = (np.arange(length) * (_MOTTLE * 16)) // length
    weights = np.zeros((length, _MOTTLE + 1), np.float32)
    weights[np.arange(length), at // 16] = 1 - at % 16 / 16
    weights[np.arange(length), at // 16 + 1] = at % 16 / 16
    return weights


def _stripes(x: np.ndarray, y: np.ndarray, between) -> np.ndarray:
    """(H, W) float32: a triangle wave across the form; its direction, pitch and strength say nothing about the class."""
    a, b = between(-1, 1), between(-1, 1)
    length = math.sqrt(a * a + b * b) + 1e-3
    pitch, strength = between(3.0, 6.0), between(0, TEXTURE_CONTRAST)
    wave = x * np.float32(pitch * a / length) + y * np.float32(pitch * b / length) + np.float32(between(0, 1))
    return (np.abs(wave - np.floor(wave) - np.float32(0.5)) * 4 - 1) * np.float32(strength)


_tables: dict[int, np.ndarray] = {}


def _noise(height: int, width: int, u: float, v: float, seed: int) -> np.ndarray:
    """(H, W, 3) float32 of whole levels: a window of one table, which is drawn once per seed."""
    if seed not in _tables:
        words = philox(np.arange(_TABLE)[:, None], np.arange(_TABLE)[None, :], 0, 0xFFFF0000 + VERSION, seed)[:3]
        _tables.clear()
        _tables[seed] = np.stack([(word % np.uint32(2 * NOISE + 1)).astype(np.float32) - NOISE for word in words], axis=2)
    top, left = int(u * (_TABLE - height)), int(v * (_TABLE - width))
    return _tables[seed][top : top + height, left : left + width]


def make(
    folder: str | os.PathLike,
    pictures_per_class: int = PER_CLASS,
    size: int = SIZE,
    seed: int = SEED,
    *,
    val_per_class: int | None = None,
    shuffled_labels: bool = False,
) -> Path:
    """Writes the three archives into `folder`, each atomically, and last a stamp of what they were made with.

    Parameters
    ----------
    pictures_per_class : int       for training; validation gets `val_per_class`, a sixth of it unless told
    size : int                     shorter side in pixels, 16 to 256        seed : int     another seed draws other pictures
    shuffled_labels : bool         every picture shows a class drawn at random instead of its label's: nothing can be learnt from it
    """
    folder, plan = Path(folder), _plan(pictures_per_class, val_per_class, size, seed, shuffled_labels)
    if not 16 <= size <= _TABLE / 2 or min(plan["train"], plan["val"]) < 1:
        raise DataError(f"synthetic pictures need a size of 16 to {_TABLE // 2} and a picture of each class for training and validation, "
                        f"got size {size}, {plan['train']} and {plan['val']}")
    folder.mkdir(parents=True, exist_ok=True)
    files.sweep(folder)
    for name in (STAMP, TRAIN, VAL, DEVKIT):
        (folder / name).unlink(missing_ok=True)
    everything = kinds()
    # Validation pictures come in no order of classes: a keyed rank sorts them.
    val = [(kind, number) for number in range(plan["val"]) for kind in everything]
    rank = philox(np.arange(len(val)), 1, 0, 0xFFFF0001, seed)[0]
    val = [val[i] for i in np.argsort(rank, kind="stable")]

    def jpeg(kind: Kind, split: int, number: int) -> bytes:
        shown = kind
        if shuffled_labels:
            word = philox(number, kind.devkit_id, split, 0xFFFF0002, seed)[0]
            shown = everything[int(word) % len(everything)]
        # The number leaves room for every class, so that two labels never share one picture.
        return _jpeg(draw(shown, split, number * len(everything) + kind.devkit_id - 1, size, seed))

    def class_tars() -> Iterator[tuple[str, bytes]]:
        for kind in everything:
            yield f"{kind.wnid}.tar", pack((f"{kind.wnid}_{n + 1}.JPEG", jpeg(kind, 0, n)) for n in range(plan["train"]))

    def val_pictures() -> Iterator[tuple[str, bytes]]:
        for i, (kind, number) in enumerate(val):
            yield f"ILSVRC2012_val_{i + 1:08d}.JPEG", jpeg(kind, 1, number)

    files.write(folder / TRAIN, lambda file: write_tar(file, class_tars()))
    files.write(folder / VAL, lambda file: write_tar(file, val_pictures()))
    files.write(folder / DEVKIT, devkit(everything, [kind.devkit_id for kind, _ in val], plan["train"]))
    files.write_json(folder / STAMP, plan)
    return folder


def make_if_absent(folder: str | os.PathLike, pictures_per_class: int = PER_CLASS, size: int = SIZE, seed: int = SEED, **options) -> Path:
    """`make`, unless the folder already holds the archives that it would make, as its stamp says."""
    plan = _plan(pictures_per_class, options.get("val_per_class"), size, seed, options.get("shuffled_labels", False))
    stamp = Path(folder) / STAMP
    try:
        if json.loads(stamp.read_text()) == plan and all((stamp.parent / name).is_file() for name in (TRAIN, VAL, DEVKIT)):
            return Path(folder)
    except (OSError, ValueError):
        pass
    return make(folder, pictures_per_class, size, seed, **options)


def _plan(train: int, val: int | None, size: int, seed: int, shuffled: bool) -> dict:
    return {"version": VERSION, "train": train, "val": max(1, train // 6) if val is None else val, "size": size, "seed": seed,
            "shuffled": shuffled}


def devkit(everything: list[Kind], truth: list[int], pictures_per_class: int) -> bytes:
    """The devkit archive: meta.mat in the order of ILSVRC2012_ID with one inner synset, as the real one has many, and the ground truth."""
    leaves = [
        {"ILSVRC2012_ID": kind.devkit_id, "WNID": kind.wnid, "words": kind.words, "gloss": f"a {kind.form}, drawn in {kind.colour}",
         "num_children": 0, "children": np.zeros((1, 0)), "wordnet_height": 0, "num_train_images": pictures_per_class}
        for kind in sorted(everything, key=lambda kind: kind.devkit_id)
    ]
    root = {"ILSVRC2012_ID": len(leaves) + 1, "WNID": "n99999999", "words": "coloured form", "gloss": "any of the forms in any colour",
            "num_children": len(leaves), "children": np.arange(1, len(leaves) + 1), "wordnet_height": 1, "num_train_images": 0}
    outer = DEVKIT.removesuffix(".tar.gz")
    plain = pack([(f"{outer}/{META}", matfile.dump("synsets", [*leaves, root])),
                  (f"{outer}/{TRUTH}", "".join(f"{number}\n" for number in truth).encode())])
    return gzip.compress(plain, 6, mtime=0)


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def write_tar(file, members) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)  # time, owner and mode are constants, so equal pictures give equal archives
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            tar.members.clear()


def pack(members) -> bytes:
    buffer = io.BytesIO()
    write_tar(buffer, members)
    return buffer.getvalue()
