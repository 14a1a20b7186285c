"""Event files that TensorBoard reads, written without TensorBoard.

A file is a row of records: length (8 bytes), checksum of the length, data, checksum of the data.  The data are an Event in
protocol-buffer form; only the fields used here are known.  Each record is one write to the file, so what a killed run wrote can be read
up to the record it died in.  A resumed run begins a new file, whose first events are the version and a session start at the step behind
its checkpoint: TensorBoard then forgets what earlier files say of that step and later ones.
"""

from __future__ import annotations

import io
import platform
import re
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import files

_POLYNOMIAL = 0x82F63B78            # Castagnoli's, lowest bit first


def _entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ _POLYNOMIAL * (value & 1)
    return value


_TABLE = [_entry(byte) for byte in range(256)]


def crc32c(data: bytes) -> int:
    """The CRC of iSCSI; zlib's has another polynomial."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    """The checksum as records hold it: rotated by 15 bits, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record(data: bytes) -> bytes:
    """`data` framed."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked(length)) + data + struct.pack("<I", masked(data))


# ------------------------------------------------------------------------------------------------------------- protocol buffers, by hand


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def _whole(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def event(step: int, *, version: str = "", start: bool = False, values: bytes = b"") -> bytes:
    """An Event: of the file's version, of a session's start, or with the values of a Summary."""
    data = _varint(1 << 3 | 1) + struct.pack("<d", time.time()) + _whole(2, step)
    if version:
        data += _bytes(3, version.encode())
    if start:
        data += _bytes(7, _whole(1, 1))
    return data + (_bytes(5, values) if values else b"")


def scalar(tag: str, value: float) -> bytes:
    """A Summary's value: one number."""
    return _bytes(1, _bytes(1, tag.encode()) + _varint(2 << 3 | 5) + struct.pack("<f", value))


def image(tag: str, picture: np.ndarray) -> bytes:
    """A Summary's value: a picture (H, W, 3) uint8, as PNG."""
    from PIL import Image
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    height, width, _ = picture.shape
    return _bytes(1, _bytes(1, tag.encode()) + _bytes(4, _whole(1, height) + _whole(2, width) + _whole(3, 3) + _bytes(4, file.getvalue())))


# ------------------------------------------------------------------------------------------------------------------------------- writing


class Writer:
    """One event file in `folder`, of a run that begins behind step `done`."""

    def __init__(self, folder: Path, done: int = 0):
        stamps = [int(found[1]) for p in folder.iterdir() if (found := re.match(r"events\.out\.tfevents\.(\d+)", p.name))]
        stamp = max([int(time.time()), *(s + 1 for s in stamps)])       # TensorBoard reads files in the order of their names
        self.path = folder / f"events.out.tfevents.{stamp:010d}.{platform.node() or 'host'}"
        self.append(event(0, version="brain.Event:2"))
        if done:
            self.append(event(done + 1, start=True))

    def append(self, data: bytes) -> None:
        files.append(self.path, record(data), sync=False)


class TensorBoard:
    """The events of one run, rank 0 alone: `learned` behind every step, `validated` behind every epoch."""

    def __init__(self, trainer: Any):
        self.trainer = trainer
        self.writer = Writer(trainer.folder, trainer.step) if trainer.world.rank == 0 else None

    def learned(self, loss: float, statistics: dict | None = None) -> None:
        """The loss of a batch, and the row that Statistics.learned returned."""
        if self.writer is None:
            return
        values = scalar("batch/loss", loss)
        for name, row in (statistics or {"layers": {}})["layers"].items():
            values += b"".join(scalar(f"{kind}/{name}", value) for kind, value in row.items() if value is not None)
        self.writer.append(event(self.trainer.step, values=values))

    def validated(self) -> None:
        """What the journal says of the last epoch, and the first-layer kernels where they are coloured."""
        if self.writer is None:
            return
        row = self.trainer.journal.epochs()[-1]
        values = scalar("rate", row["rate"])
        for part in ("train", "validation"):
            values += b"".join(scalar(f"{name}/{part}", row[part][name]) for name in ("loss", "top1", "top5"))
        params = self.trainer.net.params
        first = next((key for key in params if key[1] == "w"), None)
        if first and len(params.specs[first].shape) == 4 and params.specs[first].shape[-1] == 3:
            from .figures.filters import mosaic
            kernels = mosaic(params.numpy(first), 16).repeat(4, 0).repeat(4, 1)
            values += image("kernels", np.rint(255 * kernels).astype(np.uint8))
        self.writer.append(event(row["step"], values=values))
