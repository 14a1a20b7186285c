"""Every file the program keeps is written here: temporary name, fsync, rename, fsync of the folder.  Standard library only."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

TEMPORARY = ".partial"


def sync_folder(folder: Path) -> None:
    """Makes renames in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:       # a write says why it failed, but not where
            error.filename = os.fspath(path)
        raise
    sync_folder(path.parent)


def write(path: str | os.PathLike, content: bytes | str | Callable[[IO[bytes]], None]) -> None:
    """Replaces `path` by `content` atomically."""
    with atomic(path) as temporary, open(temporary, "wb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: str | os.PathLike, value) -> None:
    write(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def sweep(folder: str | os.PathLike) -> list[str]:
    """Removes temporary files a killed run left in `folder`; returns their names."""
    names = []
    for path in Path(folder).glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)
        names.append(path.name)
    return names
