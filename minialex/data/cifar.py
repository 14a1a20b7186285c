"""CIFAR-10, the official binary version: records of one label byte and 3 x 1024 bytes of red, green and blue planes.

The Python version of the same data set consists of pickles, which can run code when opened and are refused here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .archive import Official, stamp, verify, walk
from .source import ClassInfo, DataError, Item, Source, read_file, shown

ARCHIVE, PYTHON_ARCHIVE = "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"
ARCHIVES = {ARCHIVE: Official(170052171, "c32a1d4ab5d03f1284b67883e8d87530", 60000), PYTHON_ARCHIVE: Official(170498071, "")}
FOLDER, PYTHON_FOLDER = "cifar-10-batches-bin", "cifar-10-batches-py"
NAMES_FILE = "batches.meta.txt"
BATCHES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "val": ("test_batch.bin",)}
RECORD = 1 + 3 * 32 * 32
MAX_BATCH_BYTES = 64 << 20


def is_here(names: list[str]) -> bool:
    """Whether a folder with these names holds CIFAR-10 in some form, the refused one included."""
    known = {ARCHIVE, PYTHON_ARCHIVE, FOLDER, PYTHON_FOLDER, BATCHES["train"][0], "data_batch_1", "batches.meta"}
    return not known.isdisjoint(names)


class Cifar10(Source):
    """Five training batches and the test batch, which is the "val" split.  Items carry 32 x 32 x 3 pixels instead of encoded bytes."""

    kind = "cifar10"

    def __init__(self, path: Path, *, allow_unverified: bool = False) -> None:
        path, self._archive = Path(path), None
        if path.is_file():
            self._archive = path
        elif (path / BATCHES["train"][0]).is_file():
            self._folder = path
        elif (path / FOLDER).is_dir():
            self._folder = path / FOLDER
        elif (path / ARCHIVE).is_file():
            self._archive = path / ARCHIVE
        else:
            self._archive = path / PYTHON_ARCHIVE
        if self._archive and self._archive.name == PYTHON_ARCHIVE:
            raise DataError(f"{shown(path)} is CIFAR-10's Python version, made of pickles, which can run code and are not opened; "
                            f"download the binary version, {ARCHIVE}, from the same page")
        sizes = dict(self._sizes())
        for name in (NAMES_FILE, *BATCHES["train"], *BATCHES["val"]):
            if name not in sizes:
                raise DataError(f"{shown(path)} lacks {name} of CIFAR-10's binary version; unpack {ARCHIVE} again")
            if name != NAMES_FILE and (sizes[name] % RECORD or not 0 < sizes[name] <= MAX_BATCH_BYTES):
                raise DataError(f"{shown(path)}: {name} has {sizes[name]} bytes, which is no whole number of {RECORD}-byte records, "
                                f"so it is truncated; get {ARCHIVE} again")
        names = self._content(NAMES_FILE).decode("utf-8", "replace").split()
        if len(names) != 10:
            raise DataError(f"{shown(path)}: {NAMES_FILE} lists {len(names)} classes instead of 10; get {ARCHIVE} again")
        super().__init__(path, tuple(ClassInfo(name, name) for name in names), ("train", "val"))
        self._counts = {split: sum(sizes[name] for name in batches) // RECORD for split, batches in BATCHES.items()}
        if self._archive and self._archive.name == ARCHIVE:
            self.verified, self.reason = verify(self._archive.parent, {ARCHIVE: ARCHIVES[ARCHIVE]}, allow_unverified)
        self.notes.append("the test batch is used as validation pictures")

    def count(self, split: str) -> int:
        self._check(split)
        return self._counts[split]

    def items(self, split: str, start: int = 0) -> Iterator[Item]:
        """One batch file (30 MB) is in memory at a time."""
        self._check(split)
        index = 0
        for name in BATCHES[split]:
            records = np.frombuffer(self._content(name), np.uint8).reshape(-1, RECORD)
            for position in range(max(0, start - index), len(records)):
                label, planes = int(records[position, 0]), records[position, 1:]
                if label > 9:
                    raise DataError(f"{shown(self.path)}: {name} has label {label} in record {position}; labels are 0 to 9, get it again")
                pixels = np.ascontiguousarray(planes.reshape(3, 32, 32).transpose(1, 2, 0))  # (32, 32, 3)
                yield Item(f"{name}[{position}]", label, pixels=pixels)
            index += len(records)

    def fingerprint(self) -> str:
        names = [NAMES_FILE, *BATCHES["train"], *BATCHES["val"]]
        files = [self._archive] if self._archive else [self._folder / name for name in names]
        return hashlib.sha256("\n".join(stamp(file) for file in files).encode()).hexdigest()[:16]

    def _sizes(self) -> Iterator[tuple[str, int]]:
        if self._archive:
            yield from ((member.base, member.size) for member in walk(self._archive))
        else:
            yield from ((file.name, file.stat().st_size) for file in self._folder.iterdir())

    def _content(self, name: str) -> bytes:
        if not self._archive:
            return read_file(self._folder / name, shown(self._folder / name), MAX_BATCH_BYTES)
        for member in walk(self._archive):
            if member.base == name:
                return member.read(MAX_BATCH_BYTES)
        raise DataError(f"{shown(self._archive)} lost {name} while it was read; start again")
