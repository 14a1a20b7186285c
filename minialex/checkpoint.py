"""Checkpoints: one safetensors file holds the arrays and, as JSON in its metadata, the state of a run.  No pickle.

    8 bytes     length of the header, little-endian
    header      {"__metadata__":{"format":"minialex-checkpoint","version":"1","sha256":"...","crc32":"{...}","state":"{...}"},
                 "w/conv1.w":{"dtype":"F32","shape":[96,11,11,3],"data_offsets":[0,139392]}, ...}
    data        the arrays one behind the other, little-endian, C order

`sha256` is that of everything before the data with itself written as zeros, `crc32` holds one sum for each array: a bit flipped
anywhere is noticed.  Equal arrays and state give equal files.  Other programs read the arrays as from any safetensors file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import platform
import re
import shutil
import struct
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO

import numpy as np

from . import files
from .spec import MiniAlexError

VERSION = 1
HEADER_LIMIT = 8_000_000                         # bytes, five times that of 21,841 classes; the safetensors library takes 100,000,000
_START = b'{"__metadata__":{"format":"minialex-checkpoint","version":"'
_ZEROS = b"0" * 64
_SEAL = re.compile(re.escape(_START) + rb'(\d{1,9})","sha256":"([0-9a-f]{64})"')
_DTYPES = {"BOOL": "bool", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8", "I64": "<i8",
           "F16": "<f2", "F32": "<f4", "F64": "<f8"}
_NAMES = {np.dtype(kind): name for name, kind in _DTYPES.items()}
_FILE = re.compile(r"checkpoint-(\d{1,15})\.safetensors")
POINTERS = ("last", "best")


class CheckpointError(MiniAlexError):
    """A checkpoint that cannot be written, read or used; the message says which and why."""


class SaveError(CheckpointError):
    """The disk refused a checkpoint (full, failing, not permitted); earlier ones are untouched."""


def _digest(length: bytes, header: bytes) -> str:
    """Of the header with its own digest as zeros; the digest has a fixed place behind the version."""
    begin = header.index(b'"sha256":"') + 10
    return hashlib.sha256(length + header[:begin] + _ZEROS + header[begin + 64:]).hexdigest()


def _header(arrays: dict[str, np.ndarray], state: dict) -> bytes:
    """Length and sealed header; the arrays are contiguous."""
    entries, end, sums = {}, 0, {}
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        entries[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
        sums[name] = zlib.crc32(array.reshape(-1).view(np.uint8))
    text = json.dumps(state, allow_nan=False)
    _parse(text)                                             # what could not be read back (1 and "1" as keys) is not written
    metadata = {"format": "minialex-checkpoint", "version": str(VERSION), "sha256": _ZEROS.decode(),
                "crc32": json.dumps(sums), "state": text}
    header = json.dumps({"__metadata__": metadata, **entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)                      # arrays start at a multiple of 8, as the format recommends
    if len(header) > HEADER_LIMIT:
        raise ValueError(f"{len(header):,} bytes of it, at most {HEADER_LIMIT:,} fit")
    length = struct.pack("<Q", len(header))
    return length + header.replace(_ZEROS, _digest(length, header).encode(), 1)


def save(folder: str | os.PathLike, name: str, arrays: dict[str, np.ndarray], state: dict) -> Path:
    """Writes folder/name atomically and returns its path; what stood there before stays until the new file is safe on the disk.

    arrays : name -> array of a bool, integer or float type; any strides and byte order, stored contiguous and little-endian
    state  : whatever JSON keeps: position, schedule, configuration, classes ...

    Raises CheckpointError for a value that cannot be stored, SaveError for a file that cannot be written (no space, no permission).
    """
    path = Path(folder) / name
    stored = {}
    for key, array in arrays.items():
        array = np.asarray(array, order="C")                 # not ascontiguousarray: that makes a scalar an array of one
        little = array.dtype.newbyteorder("<")
        if key == "__metadata__" or little not in _NAMES:
            raise CheckpointError(f"{path}: array {key!r} of type {array.dtype} cannot be stored; convert it to numbers or bools first")
        stored[key] = array.astype(little, copy=False)
    try:
        header = _header(stored, state)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: the state holds something JSON cannot keep ({error}); nothing was written") from error

    def write(file: IO[bytes]) -> None:
        file.write(header)
        for array in stored.values():
            file.write(array.reshape(-1).view(np.uint8))

    try:
        files.write(path, write)
    except OSError as error:
        size = (len(header) + sum(a.nbytes for a in stored.values())) / 2**20
        raise SaveError(f"{path}: could not be written ({error.strerror or error}); it needs {size:.1f} MiB and {_free(folder)}; "
                        "earlier checkpoints are untouched: free some space or name another --output-dir") from error
    return path


def _free(folder: str | os.PathLike) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 2**20:.1f} MiB are free there"
    except OSError:
        return f"{folder} cannot be looked at"


def load(path: str | os.PathLike, kind: str | None = None) -> tuple[dict[str, np.ndarray], dict]:
    """(arrays, state) of a checkpoint.  Every size is checked against the file's before memory is taken.

    kind : "kind" in the state of a file that is written by `save` too, but holds something else than a network

    Raises CheckpointError for a file that is missing, truncated, damaged, not a checkpoint, of a newer version, or of another kind.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            metadata, entries, start = _read_header(path, file, size)
            if (found := metadata["state"].get("kind")) != kind:
                raise CheckpointError(f"{path}: it holds {found or 'a network'}, not {kind or 'a network'}; give another file")
            return _read_arrays(path, file, size - start, metadata, entries)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such checkpoint; give a checkpoint-<step>.safetensors or the run's folder") from error
    except IsADirectoryError as error:
        raise CheckpointError(f"{path} is a folder, not a checkpoint; choose one of the checkpoint-<step>.safetensors in it") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: damaged or cut short, or no checkpoint at all ({what}); "
                           "use an earlier one of the run, --resume auto finds it")


def _pairs(pairs: list) -> dict:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name twice")
    return dict(pairs)


def _finite(text: str) -> float:
    """Of "1.5"; ValueError for NaN, Infinity and 1e999."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is no number")
    return number


def _parse(text: bytes | str) -> dict:
    """A JSON object without double names and of finite numbers; ValueError for anything else, however deep or odd."""
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value


def _read_header(path: Path, file: IO[bytes], size: int) -> tuple[dict, dict, int]:
    """(metadata, entries, where the data start)"""
    length = file.read(8)
    count = struct.unpack("<Q", length)[0] if len(length) == 8 else 0
    if count < 2 or count > min(size - 8, HEADER_LIMIT):
        raise _damaged(path, f"its header claims {count:,} of {size:,} bytes")
    header = file.read(count)
    seal = _SEAL.match(header)
    if seal and int(seal[1]) > VERSION:
        raise CheckpointError(f"{path}: written by a newer MiniAlex (format {int(seal[1])}, known is up to {VERSION}); update MiniAlex")
    if seal is None:
        raise CheckpointError(f"{path}: not a checkpoint of MiniAlex, or one with a damaged head; "
                              "give a checkpoint-<step>.safetensors, or --resume auto to find an earlier one of the run")
    try:
        if _digest(length, header) != seal[2].decode():
            raise ValueError("the header's checksum differs")
        entries = _parse(header)
        metadata = entries.pop("__metadata__")
        return {**metadata, "crc32": _parse(metadata["crc32"]), "state": _parse(metadata["state"])}, entries, 8 + count
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, str(error)) from error


def _read_arrays(path: Path, file: IO[bytes], size: int, metadata: dict, entries: dict) -> tuple[dict[str, np.ndarray], dict]:
    plans, end = {}, 0
    for name, entry in entries.items():
        try:
            dtype, shape, (begin, stop) = np.dtype(_DTYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
            whole = len(shape) <= 32 and all(type(n) is int and n >= 0 for n in shape)
            if not whole or begin != end or stop - begin != math.prod(shape) * dtype.itemsize or name not in metadata["crc32"]:
                raise ValueError("its place")
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, f"{name} is not described as it should be: {error}") from error
        plans[name], end = (tuple(shape), dtype), stop
    if end != size:
        raise _damaged(path, f"{size:,} bytes of data instead of {end:,}")
    arrays = {}
    for name, (shape, dtype) in plans.items():
        try:
            arrays[name] = np.empty(shape, dtype)
        except (ValueError, MemoryError) as error:           # an extent of 0 beside absurd ones; or simply no memory
            raise CheckpointError(f"{path}: no memory for {name} of shape {shape} ({error})") from error
        content = arrays[name].reshape(-1).view(np.uint8)
        if file.readinto(content) != content.nbytes or zlib.crc32(content) != metadata["crc32"][name]:
            raise _damaged(path, f"{name}: its checksum differs")
    return arrays, metadata["state"]


def match(state: dict, expected: dict, arrays: Mapping[str, np.ndarray] = MappingProxyType({})) -> None:
    """Raises CheckpointError at the first thing that differs between a checkpoint and the run that wants to use it.

    expected : "recipe" and other keys of the state with the run's values; "classes", the class list in order; "shapes", name -> shape
    arrays   : the checkpoint's, needed for "shapes"
    """
    for key, want in expected.items():
        if key == "shapes":
            for name, shape in want.items():
                got = arrays[name].shape if name in arrays else None
                if got != tuple(shape):
                    raise CheckpointError(f"the checkpoint has {name} of shape {got}, but this network needs {tuple(shape)}: "
                                          "it was made by another recipe or for another number of classes")
        elif state.get(key) != want:
            if key == "classes":
                raise CheckpointError(_other_classes(state.get(key) or [], want))
            raise CheckpointError(f"the checkpoint was made with {key} {state.get(key)}, but this run has {want}: "
                                  "give the same, or start a new run without --resume")


def _other_classes(there: list, here: list) -> str:
    k = next((k for k, (a, b) in enumerate(zip(there, here, strict=False)) if a != b), min(len(there), len(here)))
    first = [classes[k] if k < len(classes) else "missing" for classes in (there, here)]
    return (f"the checkpoint knows {len(there)} classes and the data has {len(here)}; the first to differ is class {k}, {first[0]} there "
            f"and {first[1]} here: give the data it was trained on, or start a new run")


def _step(path: Path) -> int | None:
    found = _FILE.fullmatch(path.name)
    return int(found[1]) if found else None


def _pointed(folder: Path, pointer: str) -> Path | None:
    """The checkpoint that `last` or `best` names, if the pointer is sound and the file is there."""
    try:
        name = (folder / pointer).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return folder / name if _FILE.fullmatch(name) and (folder / name).is_file() else None


def candidates(path: str | os.PathLike) -> list[Path]:
    """What --resume PATH means, to be tried in this order: a file is itself; a pointer the file it names; of a run folder the
    checkpoint `last` names, those before it from new to old, then any others (written, but not yet pointed at when the run died)."""
    path = Path(path)
    if path.name in POINTERS and path.is_file():
        return [target] if (target := _pointed(path.parent, path.name)) else []
    if path.is_file() or path.suffix == ".safetensors":
        return [path]
    found = sorted((p for p in path.glob("checkpoint-*.safetensors") if _step(p) is not None), key=_step, reverse=True)
    last = _pointed(path, "last")
    return found if last is None else [p for p in found if _step(p) <= _step(last)] + [p for p in found if _step(p) > _step(last)]


class Keeper:
    """The checkpoints of one run folder: the last `keep` and the best, pointed at by the text files `last` and `best`."""

    def __init__(self, folder: str | os.PathLike, keep: int = 2):
        self.folder, self.keep = Path(folder), keep
        files.make_folder(self.folder)
        files.sweep(self.folder)

    def save_step(self, step: int, arrays: dict[str, np.ndarray], state: dict, best: bool = False) -> Path:
        """Writes checkpoint-<step>.safetensors, points `best` (when told) and then `last` at it, and only then removes what is no
        longer kept: at each moment `last` names a whole file.  `last` comes after `best` so that a run killed between the two
        repeats the step and points again.  Checkpoints of later steps belong to a course the run has left, and go too."""
        name = f"checkpoint-{step}.safetensors"
        if best and (self.folder / name).exists():           # saved in mid-epoch, the same weights; `last` may name it, so the end of
            self._point("best", name)                        # the epoch must not be in it before `best` is right
        path = save(self.folder, name, arrays, state)
        for pointer in ("best", "last") if best else ("last",):
            self._point(pointer, name)
        try:
            older = [p for p in candidates(self.folder) if _step(p) < step]
            kept = {path, *older[:self.keep - 1], _pointed(self.folder, "best")}
            for old in set(candidates(self.folder)) - kept:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise SaveError(f"{self.folder}: an old checkpoint could not be removed ({error.strerror or error}); "
                            f"checkpoint-{step} is safe: look at the folder's permissions, then go on with --resume auto") from error
        return path

    def _point(self, pointer: str, name: str) -> None:
        try:
            files.write(self.folder / pointer, name + "\n")
        except OSError as error:
            raise SaveError(f"{self.folder / pointer}: could not be pointed at {name} ({error.strerror or error}; {_free(self.folder)}); "
                            "make room, --resume auto still finds a whole checkpoint") from error


class RunLock:
    """One trainer for a run folder: an advisory lock on the file `lock`, which the kernel drops when its process ends, however
    it ends; so nothing stale has to be guessed from process numbers.  The file says who holds it."""

    def __init__(self, folder: str | os.PathLike):
        self.path = Path(folder) / "lock"
        self._handle: int | None = None

    def acquire(self) -> None:
        """Raises CheckpointError when another process holds it."""
        while self._handle is None:
            try:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise CheckpointError(f"{self.path}: cannot be written ({error.strerror}); name another --output-dir") from error
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                owner = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
                os.close(handle)
                why = f"in use by {owner}" if isinstance(error, BlockingIOError) else f"on a file system without locks ({error.strerror})"
                raise CheckpointError(f"{self.path.parent}: this run is {why}; stop that one, or name another --output-dir") from error
            if os.fstat(handle).st_nlink:
                self._handle = handle
            else:                                            # its last owner removed the file between our open and our lock
                os.close(handle)
        with suppress(OSError):                              # who holds it is a help, not the lock; a full disk says so at the next write
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode(), 0)

    def release(self) -> None:
        """Removes the file while it is still locked; a second call does nothing."""
        if self._handle is not None:
            with suppress(OSError):                          # a file that stays holds no lock
                self.path.unlink()
            os.close(self._handle)
            self._handle = None
