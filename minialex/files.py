"""Every file the program keeps is written here: temporary name, fsync, rename, fsync of the folder; or a line at its end, and fsync.

Standard library only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

TEMPORARY = ".partial"


def sync_folder(folder: Path) -> None:
    """Makes names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: str | os.PathLike, exist_ok: bool = True) -> list[Path]:
    """Makes `folder` and those above it, durably; returns the ones that were not there, the innermost first."""
    folder = Path(folder)
    created = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
        for place in created:
            sync_folder(place.parent)
    except OSError as error:
        for place in created:
            with suppress(OSError):                              # was not made, or another process is in it by now
                place.rmdir()
        _named(error, folder)
        raise
    return created


def _named(error: OSError, path: Path, instead_of: Path | None = None) -> None:
    """A write or a sync says why it failed, but not where."""
    if error.filename is None or (instead_of is not None and error.filename == os.fspath(instead_of)):
        error.filename, error.filename2 = os.fspath(path), None


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success its content is synced and takes the name `path`, on any error it is
    removed and what stood at `path` stays.  A failed fsync is a failed write (OSError)."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        yield temporary
        handle = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):                                  # the disk that failed may fail here too; `sweep` finds what it leaves
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            _named(error, path, temporary)
        raise


def write(path: str | os.PathLike, content: bytes | str | Callable[[IO[bytes]], None]) -> None:
    """Replaces `path` by `content` atomically."""
    with atomic(path) as temporary, open(temporary, "wb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: str | os.PathLike, value) -> None:
    write(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def append(path: str | os.PathLike, content: bytes | str, sync: bool = True) -> None:
    """Adds `content` at the end of `path`.  A power cut may tear it, and without `sync` lose it; what stood before stays."""
    try:
        with open(path, "ab") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except OSError as error:
        _named(error, Path(path))
        raise


def sweep(folder: str | os.PathLike) -> list[str]:
    """Removes temporary files a killed run left in `folder`; returns their names."""
    names = []
    for path in Path(folder).glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)
        names.append(path.name)
    return names
