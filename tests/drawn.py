"""A small source of drawn PNG files for the tests of preparation, store and loader: nothing is on disk, everything follows from numbers."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from minialex.data import ClassInfo, Item, Source, Store, prepare

CLASSES = (ClassInfo("n01", "crane", 7), ClassInfo("n02", "crane", 3), ClassInfo("n03", "kite"))


def pixels(split: str, index: int, side: int) -> np.ndarray:
    """(side, side, 3) uint8 noise with a colour cast, so that the channels are correlated."""
    rng = np.random.default_rng([len(split), index])
    cast = rng.normal(size=(1, 1, 3)) * (60, 25, 10) + rng.normal() * 40
    return np.clip(120 + cast + rng.normal(size=(side, side, 3)) * 15, 0, 255).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


class Drawn(Source):
    """`counts` pictures a split, class by class as real sources list them; items in `broken` are no pictures, those in `grey` are grey.

    Pictures have the record's size, so a record must hold exactly `pixels(split, index, side)`.
    """

    kind = "drawn"

    def __init__(self, counts: dict[str, int], side: int = 8, broken=(), grey=(), name: str = "drawn"):
        super().__init__(Path(name), CLASSES, tuple(counts))
        self.counts, self.side, self.broken, self.grey = counts, side, frozenset(broken), frozenset(grey)

    def count(self, split: str) -> int:
        return self.counts[split]

    def label(self, split: str, index: int) -> int:
        return index * len(CLASSES) // self.counts[split]

    def items(self, split: str, start: int = 0) -> Iterator[Item]:
        for index in range(start, self.counts[split]):
            yield Item(f"{split}/{index}.png", self.label(split, index), self.file(split, index))

    def file(self, split: str, index: int) -> bytes:
        image = pixels(split, index, self.side)
        if index in self.broken:
            return b"not a picture"
        return png(image[..., 0] if index in self.grey else image)

    def fingerprint(self) -> str:
        return f"{self.path}-{sorted(self.counts.items())}"


def small_store(folder: Path, train: int = 50, val: int = 7, side: int = 8, per_shard: int = 16) -> Store:
    return prepare(Drawn({"train": train, "val": val}, side), folder, record=side, per_shard=per_shard, progress=False)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by relative name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def flip_byte(path: Path, position: int) -> None:
    """Inverts one byte of a file; negative positions count from the end."""
    with open(path, "r+b") as file:
        at = file.seek(position, os.SEEK_END if position < 0 else os.SEEK_SET)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0xFF]))
