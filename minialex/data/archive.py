"""Tar archives as streams: members are read where they lie and never extracted, so no name in an archive is ever a path here."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from ..files import make_folder, write_json
from .source import MAX_FILE_BYTES, DataError, ImageError, shown

MAX_HEADER_BYTES = 1 << 20  # of one member, all headers before its own together; real ones have a few hundred bytes
MIN_HEADER_BYTES = 4096     # what each of them counts at least: tarfile goes a level deeper for each
MAX_GLOBAL = 1000           # pax records for all members, which tarfile keeps
MAX_NAME = 4096             # characters; no system has longer paths
_RECORD = re.compile(rb"([1-9]\d{0,6}) [^=\n]{1,255}=")
_NUMBER = re.compile(rb"\d{256}")
END = bytes(tarfile.BLOCKSIZE)


class Window:
    """A file, or the part of one from `start` on with `size` bytes, as tarfile wants it; remembers the last bytes read, for the
    end check, and refuses reads that only a forged header asks for (tarfile reads a long name whole, whatever its stated size)."""

    def __init__(self, file: IO[bytes], start: int = 0, size: int | None = None) -> None:
        self.file, self.start, self.size, self.position, self.last, self.spent = file, start, size, 0, b"", 0

    def seek(self, position: int) -> int:
        if position < 0:
            raise tarfile.ReadError("a header states a negative size")
        self.position = position
        return position

    def tell(self) -> int:
        return self.position

    def read(self, count: int = -1) -> bytes:
        if count < 0 or count > MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header states an absurd size")
        self.spent += max(count, MIN_HEADER_BYTES)
        if self.spent > MAX_HEADER_BYTES:
            raise tarfile.ReadError("headers without end")
        self.last = self.take(count)
        if count > 2 * MAX_NAME and not _is_pax(self.last):
            raise tarfile.ReadError("a header is longer than any name")
        return self.last

    def take(self, count: int) -> bytes:
        """Reads without the header limit; the caller has checked `count`."""
        if self.size is not None:
            count = max(0, min(count, self.size - self.position))
        self.file.seek(self.start + self.position)
        content = self.file.read(count)
        self.position += len(content)
        return content


def _is_pax(content: bytes) -> bool:
    """Whether these are records "LENGTH key=value" and nothing else.  tarfile before Python 3.11.10 takes time and memory that grow
    with the square of what is none, and of long rows of digits."""
    at = 0
    while at < len(content) and content[at]:
        record = _RECORD.match(content, at)
        if record is None or content[at + int(record[1]) - 1 : at + int(record[1])] != b"\n":
            return False
        at += int(record[1])
    return not _NUMBER.search(content)


class Member:
    """A regular file in an archive: `name` as written there, `parts` of it, `size` in bytes, and `read()` while it is the current one."""

    def __init__(self, archive: str, info: tarfile.TarInfo, window: Window) -> None:
        self.name, self.size, self.offset = info.name, info.size, info.offset_data
        self.label = f"{archive}:{shown(info.name)}"
        self._window = window

    @property
    def parts(self) -> tuple[str, ...] | None:
        """Folders and file name, or None for a name that is absolute, climbs with '..' or has no end."""
        if len(self.name) > MAX_NAME:
            return None
        parts = tuple(part for part in self.name.split("/") if part not in ("", "."))
        return None if self.name.startswith("/") or ".." in parts or not parts else parts

    @property
    def base(self) -> str:
        return self.name.rsplit("/", 1)[-1]

    def read(self, limit: int = MAX_FILE_BYTES) -> bytes:
        """The member's bytes.  ImageError if it is larger than `limit`, DataError if the archive ends within it."""
        if self.size > limit:
            raise ImageError(f"{self.label} has {self.size} bytes, more than the {limit} that are read; remove it")
        self._window.seek(self.offset)
        try:
            content = self._window.take(self.size)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{self.label}: the archive is damaged here ({error}); get it again") from error
        if len(content) != self.size:
            raise DataError(f"{self.label}: the archive ends within this file, so it is truncated; get it again")
        return content


@contextmanager
def opened(path: Path) -> Iterator[Window]:
    """The archive at `path`, uncompressed or gzip by content.  A compressed one is read forward only."""
    try:
        file: IO[bytes] = open(path, "rb")  # noqa: SIM115 - closed below, together with the gzip layer
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be read ({error.strerror}); check its permissions") from error
    with file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        yield Window(gzip.GzipFile(fileobj=file) if packed else file)


def members(window: Window, archive: str) -> Iterator[Member]:
    """The regular files of an archive in its own order, in constant memory; links, devices, pipes and sparse files are passed over.

    Raises DataError where the archive is no tar, is damaged, or lacks its end mark: never a silently shorter list.
    """
    try:
        tar = tarfile.open(fileobj=window, mode="r:")  # noqa: SIM115 - only a view of the window, which the caller closes
        offset = -1
        while (info := tar.next()) is not None:
            window.spent = 0
            tar.members.clear()  # tarfile would keep every header it has seen
            if len(tar.pax_headers) > MAX_GLOBAL:
                raise tarfile.ReadError("too many global records")
            if info.size < 0 or info.offset <= offset:
                raise tarfile.ReadError("a header points backwards")
            offset = info.offset
            if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and info.sparse is None:
                yield Member(archive, info, window)
        # tarfile takes a damaged header for the end; the true end is a block of zeros.
        if window.last != END:
            raise tarfile.ReadError("the end mark is missing")
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError, RecursionError, LookupError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{archive} is no tar archive, or damaged or truncated ({error}); get it again") from error


def walk(path: Path) -> Iterator[Member]:
    """The regular files of the archive at `path`; read each before asking for the next."""
    with opened(path) as window:
        yield from members(window, shown(path.name))


def read_or_refuse(member: Member) -> bytes | Callable[[], bytes]:
    """The member's bytes; for one too large to be a picture, a function that raises ImageError when the picture's turn comes."""
    try:
        return member.read()
    except ImageError as error:
        return Refused(str(error))


class Refused(NamedTuple):
    """Stands for a picture that cannot be had; calling it says why."""

    reason: str

    def __call__(self) -> bytes:
        raise ImageError(self.reason)


def stamp(path: Path) -> str:
    """Name, size and time of a file, for fingerprints."""
    status = os.stat(path)
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"


def _known(kept: Path | None) -> dict[str, dict[str, str]]:
    """What `verify` kept; nothing where the file is not there or not what it should be."""
    try:
        known = json.loads(kept.read_text()) if kept else {}
        return {key: {"stamp": str(entry["stamp"]), "md5": str(entry["md5"])} for key, entry in known.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


class Official(NamedTuple):
    """An archive as published: bytes, MD5, and the pictures in it."""

    size: int
    md5: str
    pictures: int = 0


def verify(
    folder: Path, table: dict[str, Official], allow_unverified: bool = False, progress: Callable[[int, int], None] | None = None,
    kept: Path | None = None,
) -> tuple[bool, str]:
    """(verified, reason) for the archives named in `table`: every one of official size is summed, and a wrong sum is refused
    unless allowed; verified only if all are as published.  `progress` gets bytes done and bytes in all.

    `kept` is a JSON file of sums taken before: an archive whose name, size, time and inode are those of its entry is not summed again
    (the three of 2012 take minutes).  New sums are added to it.
    """
    sized = {name: official for name, official in table.items() if (folder / name).stat().st_size == official.size}
    known = _known(kept)
    total, done, wrong = sum(official.size for official in sized.values()), 0, []
    for name, official in sized.items():
        status = os.stat(folder / name)
        key, mark = os.fspath((folder / name).absolute()), f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"
        if known.get(key, {}).get("stamp") != mark:
            digest = hashlib.md5(usedforsecurity=False)
            with open(folder / name, "rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
                    done += len(block)
                    if progress:
                        progress(done, total)
            known[key] = {"stamp": mark, "md5": digest.hexdigest()}
            if kept:
                make_folder(kept.parent)
                write_json(kept, known)
        else:
            done += official.size
        if (found := known[key]["md5"]) != official.md5:
            if not allow_unverified:
                raise DataError(f"{shown(folder / name)} has the official size but MD5 {found} instead of {official.md5}, so it is "
                                f"damaged; download it again, or take it as it is with minialex prepare --allow-unverified")
            wrong.append(name)
    if wrong:
        return False, f"wrong MD5 of {', '.join(wrong)}, taken because unverified archives were allowed"
    if len(sized) < len(table):
        other = ", ".join(name for name in table if name not in sized)
        return False, f"{other}: not of the official size, so not compared with the official MD5"
    return True, f"official MD5 of {', '.join(table)}"
