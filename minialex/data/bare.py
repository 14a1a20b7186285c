"""Pictures without labels, in the order of their names: a test set whose answers nobody tells, such as that of ILSVRC."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from .archive import members, opened
from .decode import decode
from .source import ARCHIVE_SUFFIXES, DataError, is_picture, read_file, shown


class Bare:
    """The pictures that lie in a folder or in a tar, each by its last name.  Raises DataError where there are none, or two of one name."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if not self.path.exists():
            raise DataError(f"{shown(path)} does not exist; name a folder or a tar archive of pictures")
        if self.path.is_file() and not self.path.name.lower().endswith(ARCHIVE_SUFFIXES):
            raise DataError(f"{shown(path)} is a single file that is no .tar, .tar.gz or .tgz; name a folder or an archive of pictures")
        found = sorted(self._folder() if self.path.is_dir() else self._archive())
        self.names, self._size = [name for name, _ in found], dict(found)
        if not found:
            raise DataError(f"{shown(path)} holds no pictures (JPEG or PNG files directly in it); name the folder or archive that does")
        if len(self._size) < len(found):
            twice = next(a for a, b in zip(self.names, self.names[1:], strict=False) if a == b)
            raise DataError(f"{shown(path)} holds two pictures called {shown(twice)}, so their order means nothing; keep one")

    def __len__(self) -> int:
        return len(self.names)

    def _folder(self) -> Iterator[tuple[str, int]]:
        return ((entry.name, entry.stat().st_size) for entry in os.scandir(self.path) if is_picture(entry.name) and entry.is_file())

    def _archive(self) -> Iterator[tuple[str, int]]:
        with opened(self.path) as window:
            yield from ((member.base, member.size) for member in members(window, shown(self.path.name)) if is_picture(member.base))

    def fingerprint(self) -> str:
        """16 hex digits of the names and sizes."""
        return hashlib.sha256("\n".join(f"{n} {s}" for n, s in self._size.items()).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def batches(self, size: int, record: int, workers: int = 2) -> Iterator[np.ndarray]:
        """Up to `size` pictures at a time, (n, record, record, 3) uint8; the next are decoded meanwhile.  Raises ImageError."""
        with ThreadPoolExecutor(workers, thread_name_prefix="minialex-bare") as pool:
            futures = (pool.submit(decode, data, record, shown(name)) for name, data in self._contents())
            ahead = list(islice(futures, size))
            while ahead:
                now, ahead = ahead, list(islice(futures, size))
                yield np.stack([future.result()[0] for future in now])

    def _contents(self) -> Iterator[tuple[str, bytes]]:
        """(name, bytes) in the order of the names."""
        if self.path.is_dir():
            yield from ((name, read_file(self.path / name, shown(name))) for name in self.names)
            return
        with opened(self.path) as window:
            found = {member.base: member for member in members(window, shown(self.path.name)) if is_picture(member.base)}
            yield from ((name, found[name].read()) for name in self.names)
