"""One shard: pictures of one size in one file, checked by length, header sum and a sum per record (docs/STORE.md).

    offset 0       magic "MiniAlex", version, records, H, W, C, kind (0: raw bytes, 1: JPEG), offset of record 0, CRC-32 of the tables,
                   CRC-32 of these fields
    64             labels      (records,) int32, little-endian
    64 + 4n        sums        (records,) uint32: CRC-32 of each record as stored
    64 + 8n        ends        (records,) uint64: where each record ends, counted from record 0; JPEG only
    offset         records     raw: (records, H, W, C) uint8; JPEG: one file behind the other
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from ..files import atomic
from ..spec import MiniAlexError
from .record import JPEG, KINDS, RAW, unpack_jpeg

MAGIC, VERSION = b"MiniAlex", 1
_FIELDS = struct.Struct("<8s6IQI")      # magic, version, records, H, W, C, kind, offset, sum of the tables
_SUM = struct.Struct("<I")
_TABLES = 64                            # where the labels begin
_ENTRY = {RAW: 8, JPEG: 16}             # bytes in the tables for each record
_ALIGN = 4096                           # records begin on a page
EARLY = 8 << 20                         # bytes written behind which the disk begins with them


class StoreError(MiniAlexError):
    """A prepared store that is missing, unfinished, damaged or of another kind, or that cannot be written."""


class Handle:
    """A file open for reading at any offset by any number of threads; closed when the last of them has let go."""

    def __init__(self, path: Path):
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self):
        if hasattr(self, "number"):
            os.close(self.number)


class Shard(NamedTuple):
    """A checked shard."""

    path: Path
    labels: np.ndarray                  # (n,) int32
    sums: np.ndarray                    # (n,) uint32
    shape: tuple[int, int, int]         # H, W, C
    kind: int                           # RAW or JPEG
    offset: int                         # of record 0 in the file, bytes
    ends: np.ndarray | None             # (n,) int64, from record 0; None where every record has the same length

    def place(self, record: int) -> tuple[int, int]:
        """(offset in the file, bytes) of a record as stored."""
        if self.ends is None:
            H, W, C = self.shape
            return self.offset + record * H * W * C, H * W * C
        start = int(self.ends[record - 1]) if record else 0
        return self.offset + start, int(self.ends[record]) - start

    def read(self, record: int, out: np.ndarray, handle: Handle | None = None, check: bool = True) -> np.ndarray:
        """Picture `record` into `out`, (H, W, C) uint8 contiguous; returns it.

        `check` compares the CRC-32 of what was stored.  Raises StoreError naming shard and record.
        """
        offset, size = self.place(record)
        content = out.reshape(-1) if self.kind == RAW else np.empty(size, np.uint8)
        try:
            # Read, not mapped: a failing disk or a file cut short behind us is an error here, and would be a dead process there.
            handle = handle or Handle(self.path)
            done = 0
            while done < size and (count := os.preadv(handle.number, [content[done:]], offset + done)):
                done += count
        except OSError as error:
            raise StoreError(f"{self.path}, record {record}: cannot be read ({error.strerror}); check the disk") from error
        if done < size:
            raise StoreError(f"{self.path}, record {record}: the file has become shorter since it was opened; prepare the store again")
        if check and zlib.crc32(content) != self.sums[record]:
            raise StoreError(f"{self.path}, record {record}: the pixels are not those that were written (check sum differs), "
                             f"so the disk or a copy is faulty; prepare the store again")
        if self.kind == JPEG:
            try:
                unpack_jpeg(content, out)
            except ValueError as error:
                raise StoreError(f"{self.path}, record {record}: no JPEG of this store ({error}); prepare the store again") from error
        return out

    def pictures(self) -> Iterator[np.ndarray]:
        """All of them in order, each checked, (H, W, C) uint8."""
        handle = Handle(self.path)
        for record in range(len(self.labels)):
            yield self.read(record, np.empty(self.shape, np.uint8), handle)


def records_offset(capacity: int, kind: int = RAW) -> int:
    """Where record 0 of a shard for `capacity` records begins, in bytes."""
    return -(-(_TABLES + _ENTRY[kind] * capacity) // _ALIGN) * _ALIGN


def write_shard(path: Path, records: Iterable[tuple[np.ndarray | bytes, int, int]], shape: tuple[int, int, int], capacity: int,
                kind: int = RAW) -> int:
    """Writes up to `capacity` (record as stored, label, CRC-32 of the record) from an iterator as they come; the file takes its name when
    it is whole.  Returns the number written.  Raises OSError, and what the iterator raises; then no file is left."""
    labels: list[int] = []
    sums: list[int] = []
    ends: list[int] = []
    with atomic(path) as temporary, open(temporary, "wb") as file, ThreadPoolExecutor(1) as pool:
        file.seek(records_offset(capacity, kind))
        early, synced = None, 0
        for content, label, total in islice(records, capacity):
            file.write(content)
            labels.append(label)
            sums.append(total)
            ends.append(file.tell() - records_offset(capacity, kind))
            if ends[-1] - synced >= EARLY and (early is None or early.done()):      # so that decoding hardly waits for the last sync
                file.flush()
                early, synced = _checked(early) or pool.submit(os.fdatasync, file.fileno()), ends[-1]
        _checked(early)
        tables = np.array(labels, "<i4").tobytes() + np.array(sums, "<u4").tobytes()
        if kind == JPEG:
            tables += np.array(ends, "<u8").tobytes()
        _write_tables(file, tables, len(labels), shape, capacity, kind)
    return len(labels)


def _checked(sync: Future[None] | None) -> None:
    """Waits for a sync; an error of the disk is told to one of them alone."""
    if sync is not None:
        sync.result()


def _write_tables(file: IO[bytes], tables: bytes, count: int, shape: tuple[int, int, int], capacity: int, kind: int) -> None:
    """Everything in front of the records, written last, when labels and sums are known."""
    offset = records_offset(capacity, kind)
    fields = _FIELDS.pack(MAGIC, VERSION, count, *shape, kind, offset, zlib.crc32(tables))
    head = (fields + _SUM.pack(zlib.crc32(fields))).ljust(_TABLES, b"\0")
    file.seek(0)
    file.write((head + tables).ljust(offset, b"\0"))


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
            if version != VERSION or kind not in _ENTRY:
                raise StoreError(f"{path} has shard version {version}, kind {kind}, and this program reads version {VERSION}, "
                                 f"kinds {RAW} and {JPEG}; prepare the store again")
            if size < (least := max(offset, _TABLES + _ENTRY[kind] * count)):
                raise _wrong_length(path, size, least, f"the tables of {count} records")
            if least > offset:
                raise StoreError(f"{path}: its records would begin within the tables; prepare the store again")
            if kind == RAW and size != offset + count * H * W * C:
                raise _wrong_length(path, size, offset + count * H * W * C, f"{count} records of {H} x {W} x {C}")
            file.seek(_TABLES)
            tables = file.read(_ENTRY[kind] * count)
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); if it is gone, prepare the store again") from error
    if zlib.crc32(tables) != tables_sum:
        raise StoreError(f"{path}: labels or check sums are damaged; prepare the store again")
    if shape is not None and shape != (H, W, C):
        raise StoreError(f"{path} holds records of {H} x {W} x {C}, but the manifest says {' x '.join(map(str, shape))}; "
                         f"the files of two stores are mixed")
    labels, sums = np.frombuffer(tables, "<i4", count), np.frombuffer(tables, "<u4", count, 4 * count)
    ends = None
    if kind == JPEG:
        ends = np.frombuffer(tables, "<u8", count, 8 * count).astype(np.int64)
        if count and (ends[0] < 0 or (np.diff(ends) < 0).any()):
            raise StoreError(f"{path}: its records overlap; prepare the store again")
        if size != (want := offset + (int(ends[-1]) if count else 0)):
            raise _wrong_length(path, size, want, f"{count} JPEG records")
    return Shard(path, labels.astype(np.int32), sums.astype(np.uint32), (H, W, C), kind, offset, ends)


def _wrong_length(path: Path, size: int, want: int, what: str) -> StoreError:
    return StoreError(f"{path} is {'cut short' if size < want else 'too long'}: {size} bytes where {what} need {want}; "
                      f"prepare the store again")


def kind_number(name: str) -> int:
    """0 or 1 of "raw" or "jpeg".  Raises StoreError for another word."""
    if name not in KINDS:
        raise StoreError(f"a store of {name!r} records: there are {' and '.join(KINDS)}; choose one")
    return KINDS.index(name)
