"""Preparation and loading: pictures a second, beside what Pillow alone needs to open and resize them."""

from __future__ import annotations

import io
import statistics
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from ..backends import load
from ..data.decode import decode
from ..data.loader import Loader, transform
from ..data.open import open_store
from ..nets import recipe as recipe_of
from .measure import once

SIZE = (500, 375)               # a usual ILSVRC picture
PICTURES = 128                  # of each of two classes
BATCH = 64


def _jpeg(seed: int) -> bytes:
    """A picture with the soft shapes and the grain of a photograph, so that decoding costs what it usually costs."""
    random = np.random.default_rng(seed)
    soft = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    grain = random.normal(0, 8, (SIZE[1], SIZE[0], 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(soft) + grain, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _pillow(data: bytes, record: int) -> np.ndarray:
    """Open, resize the shorter side to `record`, crop the centre: the least anybody does."""
    with Image.open(io.BytesIO(data)) as image:
        image = image.convert("RGB")
        share = record / min(image.size)
        image = image.resize([max(record, round(side * share)) for side in image.size], Image.Resampling.BICUBIC)
        left, top = ((side - record) // 2 for side in image.size)
        return np.asarray(image.crop((left, top, left + record, top + record)))


def bench_data(rounds: int) -> list[dict]:
    """Prints and returns pictures a second: decoding in one thread, a whole preparation, an epoch of the loader, augmentation."""
    recipe = recipe_of("paper")
    pictures = [_jpeg(seed) for seed in range(16)]
    own, plain = [], []
    for _ in range(rounds):         # in turn, processor time: a busy machine slows both alike
        own.append(once(lambda: [decode(data, recipe.record, "picture") for data in pictures])[1])
        plain.append(once(lambda: [_pillow(data, recipe.record) for data in pictures])[1])
    rates = {"decode, one core": len(pictures) / statistics.median(own),
             "Pillow open + resize, one core": len(pictures) / statistics.median(plain)}
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "val"):
            for kind in ("first", "second"):
                place = Path(folder) / "pictures" / split / kind
                place.mkdir(parents=True)
                for number in range(PICTURES if split == "train" else 2):
                    (place / f"{number:04}.jpg").write_bytes(pictures[number % len(pictures)])
        wall, _ = once(lambda: open_store(Path(folder) / "pictures", recipe.record, folder=Path(folder) / "store", quiet=True))
        rates["prepare, whole command"] = 2 * (PICTURES + 2) / wall
        store = open_store(Path(folder) / "store", recipe.record, quiet=True)
        ops = load("cpu")
        loader = Loader(store.split("train"), store, augmentation=recipe.augmentation, crop=recipe.crop, batch=BATCH)
        out, mean = ops.empty((1, BATCH, recipe.crop, recipe.crop, 3)), ops.from_host(store.mean.astype(np.float32))
        batches = list(loader.batches(0))
        reading = [once(lambda: list(loader.batches(0)))[0] for _ in range(rounds)]
        rates["loader, an epoch"] = 2 * PICTURES / statistics.median(reading)
        turning = [once(lambda: [transform(ops, batch, mean, out[:, :len(batch)]) for batch in batches])[0] for _ in range(rounds)]
        rates["crop, flip, mean, colour"] = 2 * PICTURES / statistics.median(turning)
    print(f"\npictures of {SIZE[0]} x {SIZE[1]} to records of {recipe.record}, {rounds} rounds")
    for name, rate in rates.items():
        print(f"{name:<34}{rate:>10.0f} pictures/s")
    return [{"what": "data", "picture": list(SIZE), "record": recipe.record, "rounds": rounds,
             "pictures_per_second": {name: round(rate, 1) for name, rate in rates.items()}}]
