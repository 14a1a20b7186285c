"""Where pictures come from: one protocol for folder trees, archives and batches, and the door that tells them apart (paper, section 2).

Labels are positions in `classes`, which is sorted by id (the WNID for ImageNet; CIFAR-10's official order is sorted too).  The devkit's
ILSVRC2012_ID is kept beside each class and is never a label: training on one order and judging by the other gives an accuracy of chance.
"""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..spec import MiniAlexError

MAX_FILE_BYTES = 256 << 20  # one picture file; the largest of ImageNet has 15 MB
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")  # decode judges by content
ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz")


class DataError(MiniAlexError, ValueError):
    """A data set that is missing, empty, damaged or of a kind that is not read."""


class ImageError(DataError):
    """One picture that cannot be had; the message names its file."""


@dataclass(frozen=True)
class ClassInfo:
    """One class: its id (folder name or WNID), the words people read, and the devkit's ILSVRC2012_ID where there is one."""

    id: str
    name: str
    devkit_id: int | None = None


@dataclass(frozen=True, eq=False)
class Item:
    """One labelled picture: encoded bytes (or a function that reads them), or `pixels` already decoded, (H, W, 3) uint8 RGB."""

    name: str
    label: int
    data: bytes | Callable[[], bytes] | None = None
    pixels: np.ndarray | None = None

    def read(self) -> bytes:
        """The file's bytes.  Raises ImageError."""
        if self.data is None:
            raise ImageError(f"{self.name} has no encoded bytes, only pixels; take those")
        return self.data() if callable(self.data) else self.data


class Source(ABC):
    """A labelled picture set, read as a stream in an order that depends on nothing but its content.

    kind      "folder", "tar", "ilsvrc", "kaggle", ...            path      what the user named
    classes   tuple of ClassInfo, position = label                splits    of ("train", "val", "test"), in that order, none empty
    verified  True only if every archive has its official MD5     reason    one line that says why or why not
    notes     lines for the audit: what was left out, by which rule validation pictures were chosen

    A test set that is the only held-out one is offered as "val" (CIFAR-10, trees of train/ and test/), and a note says so.
    """

    kind: str = ""
    forward_only = False        # packed: to start in the middle, all before it is read again

    def __init__(self, path: Path, classes: tuple[ClassInfo, ...], splits: tuple[str, ...]) -> None:
        self.path, self.classes, self.splits = path, classes, splits
        self.verified = False
        self.reason = "not an official archive, so there is no MD5 to compare with"
        self.notes: list[str] = []

    @abstractmethod
    def count(self, split: str) -> int | None:
        """Number of items `items(split)` yields, or None where only a full pass could tell."""

    def about(self, split: str) -> int | None:
        """`count`, or where only a full pass could tell an estimate, for progress and free space; None where there is none."""
        return self.count(split)

    @abstractmethod
    def items(self, split: str, start: int = 0) -> Iterator[Item]:
        """Streams the split from its item number `start` on, in constant memory and always in the same order."""

    @abstractmethod
    def fingerprint(self) -> str:
        """16 hex digits of names, sizes and times: equal for the unchanged source, so that a store can tell what it was made from."""

    def _check(self, split: str) -> None:
        if split not in self.splits:
            raise DataError(f"{shown(self.path)} has no split {split!r}, only {', '.join(self.splits)}; name one of these")


def shown(name: str | os.PathLike) -> str:
    """A file name that any terminal or log can take: undecodable bytes and control characters come out escaped."""
    text = os.fspath(name).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def is_picture(name: str) -> bool:
    """By suffix, which only decides what is looked at; hidden files (macOS leaves ._x.jpg in archives) are not pictures."""
    return not name.startswith(".") and name.lower().endswith(PICTURE_SUFFIXES)


def read_file(path: str | os.PathLike, name: str, limit: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of a regular file of at most `limit` bytes; ImageError otherwise (a pipe is refused, never waited for)."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(f"{name} is not a regular file; remove it from the data set")
            if status.st_size > limit:
                raise ImageError(f"{name} has {status.st_size} bytes, more than the {limit} a picture may have; remove it")
            return file.read()
    except OSError as error:
        raise ImageError(f"{name} cannot be read ({error.strerror}); check its permissions and the disk") from error


def read_names(text: str) -> dict[str, str]:
    """Lines "id words" (the form of synset_words.txt) as {id: words}; lines without words are left out."""
    pairs = (line.strip().split(None, 1) for line in text.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def open_source(path: str | os.PathLike, *, allow_unverified: bool = False, progress: Callable[[int, int], None] | None = None,
                kept: Path | None = None) -> Source:
    """Finds out what kind of picture set stands at `path` and opens it.

    Looked for in this order: a CIFAR-10 archive, Kaggle's, a tar of synset archives, one of a folder tree (a file); the official ILSVRC
    archives, the two above, one tar per synset, a flat val beside its labels, CIFAR-10's binary batches, a folder-per-class tree
    (a folder).  Only archives of exactly the official size are summed
    (MD5), which calls `progress(bytes done, bytes in all)`; a wrong sum is refused unless `allow_unverified`.
    `kept` is a file of sums already taken (archive.verify).

    Raises
    ------
    DataError      nothing there, nothing in it, no pictures, one class only, a prepared store, CIFAR-10's Python version, ...
    """
    from . import cifar, flat, folder, ilsvrc, kaggle, synsets  # they build on this module

    path = Path(path)
    if not path.exists():
        raise DataError(f"{shown(path)} does not exist; check the path, or leave DATA out to use the embedded pictures")
    if path.is_file():
        if official := ilsvrc.editions([path.name]):
            raise DataError(f"{shown(path)} is an archive of ILSVRC-{official[0].year}; give its folder, {shown(path.parent)}")
        if ilsvrc.TEST.fullmatch(path.name):
            raise DataError(f"{shown(path)} holds test pictures, without labels; give the folder of those for training and validation")
        if path.name in cifar.ARCHIVES:
            return cifar.Cifar10(path, allow_unverified=allow_unverified)
        if not path.name.lower().endswith(ARCHIVE_SUFFIXES):
            raise DataError(f"{shown(path)} is a single file that is no .tar, .tar.gz or .tgz; give a folder, or an archive of one")
        if kaggle.NAME.fullmatch(path.name):
            return kaggle.KaggleArchive(path)
        return synsets.SynsetTars(path) if synsets.is_whole(path) else folder.TarTree(path)
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be listed ({error.strerror}); check its permissions") from error
    if not names:
        raise DataError(f"{shown(path)} is an empty folder; put one folder of pictures per class into it, or check the path")
    if any({edition.train, edition.val} & set(names) for edition in ilsvrc.EDITIONS):
        return ilsvrc.Ilsvrc(path, allow_unverified=allow_unverified, progress=progress, kept=kept)
    if packed := next((name for name in names if kaggle.NAME.fullmatch(name) or synsets.WHOLE.fullmatch(name)), None):
        return open_source(path / packed)
    if sum(bool(ilsvrc.CLASS_TAR.fullmatch(name)) for name in names) > 1:
        return synsets.SynsetTars(path)
    if found := flat.find(path):
        return flat.FlatVal(path, *found)
    if ilsvrc.editions(names):
        return ilsvrc.Ilsvrc(path)                          # the devkit alone: refused with the reason
    if cifar.is_here(names):
        return cifar.Cifar10(path, allow_unverified=allow_unverified)
    if "manifest.json" in names:
        raise DataError(f"{shown(path)} looks like a prepared store, not like pictures; train or evaluate on it as it is")
    return folder.FolderTree(path)
