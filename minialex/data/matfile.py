"""MATLAB 5 files, as far as the ILSVRC devkit's meta.mat needs them: numbers, text, cells and structures, packed with zlib or not.

An element is a tag (type, bytes) and its content, padded to 8 bytes; up to 4 bytes may sit in the tag itself.  An array is an element of
elements: flags, shape, name, content.  Structure arrays come out as lists of dicts in MATLAB's column order, text as str, numbers
as ndarray.  Everything read is bounded: a forged file costs an error, not memory.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from .source import DataError

MAX_BYTES = 32 << 20  # unpacked; the devkit's has about 2 MB
MAX_DEPTH = 8
MAX_ITEMS = 1_000_000

_INT8, _INT32, _UINT32, _MATRIX, _PACKED, _UTF8, _UTF16 = 1, 5, 6, 14, 15, 16, 17
_UINT8, _UINT16, _DOUBLE = 2, 4, 9
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CELL, _STRUCT, _CHAR, _DOUBLE_CLASS = 1, 2, 4, 6
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}


def load(content: bytes, name: str = "the file") -> dict[str, object]:
    """The variables of a MATLAB 5 file.  Raises DataError naming `name` for anything that is none, or is damaged."""
    if content[:10] == b"MATLAB 7.3" or content[:8] == b"\x89HDF\r\n\x1a\n":
        raise DataError(f"{name} is a MATLAB 7.3 (HDF5) file; save it again with -v7")
    if len(content) < 128 or content[126:128] not in (b"IM", b"MI"):
        raise DataError(f"{name} is no MATLAB 5 file; get the devkit archive again")
    order = "<" if content[126:128] == b"IM" else ">"
    try:
        return _Reader(order).variables(memoryview(content)[128:])
    except (_Damaged, struct.error, zlib.error, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{name} is a damaged MATLAB 5 file ({error}); get the devkit archive again") from error


class _Damaged(Exception):
    pass


class _Reader:
    def __init__(self, order: str) -> None:
        self.order, self.bytes_left, self.items_left = order, MAX_BYTES, MAX_ITEMS

    def variables(self, content: memoryview) -> dict[str, object]:
        found = {}
        for kind, data in self.elements(content):
            if kind == _PACKED:
                unpacker = zlib.decompressobj()
                plain = unpacker.decompress(data, self.bytes_left)
                if not unpacker.eof:
                    raise _Damaged("a packed element is truncated or too large")
                self.bytes_left -= len(plain)
                kind, data = next(self.elements(memoryview(plain)), (0, b""))
            if kind == _MATRIX:
                name, value = self.array(data, 0)
                found[name] = value
        return found

    def elements(self, content: memoryview):
        """(type, data) of the elements in `content`, one after the other."""
        at = 0
        while at < len(content):
            if len(content) - at < 8:
                raise _Damaged("it ends within a tag")
            (word,) = struct.unpack_from(self.order + "I", content, at)
            if word >> 16:
                kind, size, start, step = word & 0xFFFF, word >> 16, at + 4, 8
                if size > 4:
                    raise _Damaged("a short element states more than 4 bytes")
            else:
                kind, size = word, struct.unpack_from(self.order + "I", content, at + 4)[0]
                start, step = at + 8, 8 + (size if kind == _PACKED else -(-size // 8) * 8)
            if start + size > len(content):
                raise _Damaged("it ends within an element")
            yield kind, content[start : start + size]
            at += step

    def numbers(self, kind: int, data: memoryview) -> np.ndarray:
        if kind not in _NUMBERS:
            raise _Damaged(f"element type {kind} where numbers belong")
        return np.frombuffer(data, self.order + _NUMBERS[kind])

    def array(self, data: memoryview, depth: int) -> tuple[str, object]:
        """(name, value) of one array; an array of no elements at all is MATLAB's []."""
        self.items_left -= 1
        if depth > MAX_DEPTH or self.items_left < 0:
            raise _Damaged("nested too deeply or too many arrays")
        parts = self.elements(data)
        if (first := next(parts, None)) is None:
            return "", np.zeros((0, 0))
        flags = self.numbers(*first)
        shape = tuple(int(extent) for extent in self.numbers(*next(parts, (0, b""))))
        name = bytes(next(parts, (0, b""))[1]).decode("latin-1")
        if len(flags) < 1 or len(shape) < 2 or min(shape) < 0:
            raise _Damaged("an array without flags or shape")
        kind, count = int(flags[0]) & 0xFF, 1
        for extent in shape:
            count *= extent
        if count > (MAX_ITEMS if kind in (_CELL, _STRUCT) else MAX_BYTES):
            raise _Damaged("an array of absurd shape")
        if kind == _CELL:
            return name, [self.inner(parts, depth) for _ in range(count)]
        if kind == _STRUCT:
            return name, self.structure(parts, count, depth)
        if kind == _CHAR:
            return name, self.text(*next(parts, (_UINT16, b"")), shape)
        if kind not in _CLASSES:
            raise _Damaged(f"array class {kind}, which is not read")
        values = self.numbers(*next(parts, (_DOUBLE, b"")))
        return name, values.astype(_CLASSES[kind]).reshape(shape, order="F")

    def inner(self, parts, depth: int) -> object:
        kind, data = next(parts, (0, b""))
        if kind != _MATRIX:
            raise _Damaged("a missing array")
        return self.array(data, depth + 1)[1]

    def structure(self, parts, count: int, depth: int) -> list[dict[str, object]]:
        width = self.numbers(*next(parts, (0, b"")))
        names = bytes(next(parts, (0, b""))[1])
        if len(width) != 1 or width[0] < 1:
            raise _Damaged("a structure without field names")
        step = int(width[0])
        fields = [names[at : at + step].split(b"\0")[0].decode("latin-1") for at in range(0, len(names), step)]
        return [{field: self.inner(parts, depth) for field in fields} for _ in range(count)]

    def text(self, kind: int, data: memoryview, shape: tuple[int, ...]) -> str:
        """Text of one row; of several rows, the rows joined by newlines."""
        wide = "utf-16-le" if self.order == "<" else "utf-16-be"
        codec = {_INT8: "latin-1", _UINT8: "latin-1", _UINT16: wide, _UTF16: wide, _UTF8: "utf-8"}.get(kind)
        if codec is None:
            raise _Damaged(f"element type {kind} where text belongs")
        letters = bytes(data).decode(codec, "replace")
        if len(shape) == 2 and shape[0] > 1 and letters and len(letters) == shape[0] * shape[1]:
            return "\n".join(letters[row :: shape[0]].rstrip() for row in range(shape[0]))
        return letters


def dump(name: str, records: Sequence[dict[str, str | int | float | np.ndarray]]) -> bytes:
    """A MATLAB 5 file with one structure array (len(records), 1) called `name`, zlib-packed; values are text or numbers."""
    fields = list(records[0])
    width = max(len(field) for field in fields) + 1
    if width > 32:
        raise DataError(f"a MATLAB field name has at most 31 letters, got {max(fields, key=len)!r}")
    content = _element(_INT32, struct.pack("<i", width)) + _element(_INT8, b"".join(field.encode().ljust(width, b"\0") for field in fields))
    content += b"".join(_value(record[field]) for record in records for field in fields)
    packed = zlib.compress(_array(_STRUCT, (len(records), 1), name, content), 6)
    header = b"MATLAB 5.0 MAT-file, written by MiniAlex".ljust(124, b" ") + struct.pack("<H", 0x0100) + b"IM"
    return header + struct.pack("<II", _PACKED, len(packed)) + packed


def _value(value: str | int | float | np.ndarray) -> bytes:
    if isinstance(value, str):
        text = value.encode("utf-16-le")
        return _array(_CHAR, (1, len(text) // 2), "", _element(_UINT16, text))
    numbers = np.atleast_2d(np.asarray(value, "<f8"))
    return _array(_DOUBLE_CLASS, numbers.shape, "", _element(_DOUBLE, numbers.tobytes(order="F")))


def _array(kind: int, shape: tuple[int, ...], name: str, content: bytes) -> bytes:
    head = _element(_UINT32, struct.pack("<II", kind, 0)) + _element(_INT32, struct.pack(f"<{len(shape)}i", *shape))
    return _element(_MATRIX, head + _element(_INT8, name.encode()) + content)


def _element(kind: int, data: bytes) -> bytes:
    if 0 < len(data) <= 4:
        return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)
