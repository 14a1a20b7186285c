"""One shard: a fixed number of pictures of one size as raw bytes in one file, checked by length, header sum and a sum per record.

    offset 0       magic "MiniAlex", version, records, H, W, C, kind (0: raw bytes), offset of record 0, CRC-32 of the tables,
                   CRC-32 of these fields
    64             labels      (records,) int32, little-endian
    64 + 4n        sums        (records,) uint32: CRC-32 of each record
    offset         records     (records, H, W, C) uint8
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from ..files import atomic
from ..spec import MiniAlexError

MAGIC, VERSION, RAW = b"MiniAlex", 1, 0
_FIELDS = struct.Struct("<8s6IQI")      # magic, version, records, H, W, C, kind, offset, sum of the tables
_SUM = struct.Struct("<I")
_TABLES = 64                            # where the labels begin
_ALIGN = 4096                           # records begin on a page


class StoreError(MiniAlexError):
    """A prepared store that is missing, unfinished, damaged or of another kind, or that cannot be written."""


class Shard(NamedTuple):
    """A checked shard, its records mapped into memory."""

    path: Path
    labels: np.ndarray                  # (n,) int32
    sums: np.ndarray                    # (n,) uint32
    shape: tuple[int, int, int]         # H, W, C
    offset: int                         # of record 0 in the file, bytes

    def records(self) -> np.ndarray:
        """(n, H, W, C) uint8, read only, mapped: pages come from the disk when touched."""
        return np.memmap(self.path, np.uint8, "r", self.offset, (len(self.labels), *self.shape))


def records_offset(capacity: int) -> int:
    """Where record 0 of a shard for `capacity` records begins, in bytes."""
    return -(-(_TABLES + 8 * capacity) // _ALIGN) * _ALIGN


def write_shard(path: Path, records: Iterable[tuple[np.ndarray, int, int]], shape: tuple[int, int, int], capacity: int) -> int:
    """Writes up to `capacity` (pixels, label, CRC-32 of the pixels) from an iterator as they come; the file takes its name when it is
    whole.  Returns the number written.  Raises OSError, and what the iterator raises; then no file is left."""
    labels: list[int] = []
    sums: list[int] = []
    with atomic(path) as temporary, open(temporary, "wb") as file:
        file.seek(records_offset(capacity))
        for pixels, label, total in islice(records, capacity):
            file.write(pixels)
            labels.append(label)
            sums.append(total)
        _write_tables(file, np.array(labels, "<i4"), np.array(sums, "<u4"), shape, capacity)
    return len(labels)


def _write_tables(file: IO[bytes], labels: np.ndarray, sums: np.ndarray, shape: tuple[int, int, int], capacity: int) -> None:
    """Everything in front of the records, written last, when labels and sums are known."""
    tables = labels.tobytes() + sums.tobytes()
    fields = _FIELDS.pack(MAGIC, VERSION, len(labels), *shape, RAW, records_offset(capacity), zlib.crc32(tables))
    head = (fields + _SUM.pack(zlib.crc32(fields))).ljust(_TABLES, b"\0")
    file.seek(0)
    file.write((head + tables).ljust(records_offset(capacity), b"\0"))


def open_shard(path: Path, shape: tuple[int, int, int] | None = None) -> Shard:
    """Checks length, header and tables (not the records: their sums are checked when they are read).  Raises StoreError."""
    try:
        with open(path, "rb") as file:
            head = file.read(_TABLES)
            size = file.seek(0, 2)
            if len(head) < _TABLES:
                raise StoreError(f"{path} is cut short: {size} bytes, not even a header; prepare the store again")
            fields = head[:_FIELDS.size]
            magic, version, count, H, W, C, kind, offset, tables_sum = _FIELDS.unpack(fields)
            if magic != MAGIC:
                raise StoreError(f"{path} is not a shard of a prepared store (it begins with {magic!r}); prepare the store again")
            if zlib.crc32(fields) != _SUM.unpack_from(head, _FIELDS.size)[0]:
                raise StoreError(f"{path}: the header is damaged (its check sum differs); prepare the store again")
            if (version, kind) != (VERSION, RAW):
                raise StoreError(f"{path} has shard version {version}, kind {kind}, and this program reads {VERSION}, {RAW}; "
                                 f"prepare the store again")
            want = offset + count * H * W * C
            if size != want:
                word = "cut short" if size < want else "too long"
                raise StoreError(f"{path} is {word}: {size} bytes where {count} records of {H} x {W} x {C} need {want}; "
                                 f"prepare the store again")
            file.seek(_TABLES)
            tables = file.read(8 * count)
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); if it is gone, prepare the store again") from error
    if zlib.crc32(tables) != tables_sum:
        raise StoreError(f"{path}: labels or check sums are damaged; prepare the store again")
    if shape is not None and shape != (H, W, C):
        raise StoreError(f"{path} holds records of {H} x {W} x {C}, but the manifest says {' x '.join(map(str, shape))}; "
                         f"the files of two stores are mixed")
    labels, sums = np.frombuffer(tables, "<i4", count), np.frombuffer(tables, "<u4", count, 4 * count)
    return Shard(path, labels.astype(np.int32), sums.astype(np.uint32), (H, W, C), offset)


def check_record(shard: Shard, number: int, pixels: np.ndarray) -> None:
    """Raises StoreError naming shard and record when the pixels are not those that were written."""
    if zlib.crc32(pixels) != shard.sums[number]:
        raise StoreError(f"{shard.path}, record {number}: the pixels are not those that were written (check sum differs), "
                         f"so the disk or a copy is faulty; prepare the store again")
