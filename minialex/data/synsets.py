"""ImageNet as its releases of Fall 2009 and Fall 2011 come: one tar per synset, nXXXXXXXX.tar, in a folder or in one tar of them all,
fall11_whole.tar (paper, sections 2 and 7).

There are no validation pictures and no devkit: every tenth picture of a class is held out (folder.held_out), and a class's words come from
synset_words.txt beside the archives, if there is one ("WNID words" a line).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from .archive import Member, Window, members, opened, read_or_refuse, stamp, walk
from .folder import MAX_NAMES_BYTES, held_out
from .ilsvrc import ARCHIVES, CLASS_TAR, TRAIN, class_tars
from .source import ClassInfo, DataError, Item, Source, read_file, read_names, shown

WORDS = "synset_words.txt"
WHOLE = re.compile(r"fall\d\d_whole\.tar")
SAMPLE = 10                     # archives whose pictures are counted for an estimate


def is_whole(path: Path) -> bool:
    """Whether the file is a tar of synset archives, by its first member."""
    first = next(walk(path), None)
    return first is not None and bool(CLASS_TAR.fullmatch(first.base))


class SynsetTars(Source):
    """The archives in the order of their WNIDs, pictures in the order of each archive.  One pass over the headers of an archive comes
    before its pictures: a class must know how many it has to hold out a tenth."""

    kind = "synsets"

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            spans = {file.name[:9]: (file, 0, file.stat().st_size) for file in path.iterdir() if CLASS_TAR.fullmatch(file.name)}
        elif path.stat().st_size == ARCHIVES[TRAIN].size:
            raise DataError(f"{shown(path)} has the size of {TRAIN}; give it that name, and give the folder")
        elif path.suffix != ".tar":
            raise DataError(f"{shown(path)} is a packed archive of archives, which can only be read in one direction; unpack it to a .tar")
        else:
            spans = {wnid: (path, start, size) for wnid, (start, size) in class_tars(path).items()}
        self.spans, words = dict(sorted(spans.items())), (path if path.is_dir() else path.parent) / WORDS
        named = read_names(read_file(words, WORDS, MAX_NAMES_BYTES).decode("utf-8", "replace")) if words.is_file() else {}
        if len(spans) == 1:
            raise DataError(f"{shown(path)} has one class only ({next(iter(spans))}); a classifier needs two or more")
        super().__init__(path, tuple(ClassInfo(wnid, named.get(wnid, wnid)) for wnid in self.spans), ("train", "val"))
        self.notes.append("no validation pictures: every tenth of each class is held out (of two to nine, the last)")
        self._counts: dict[str, int] = {}

    def count(self, split: str) -> None:
        """Only a pass over all archives could tell."""
        self._check(split)

    def about(self, split: str) -> int:
        """By the bytes of a picture in some archives, spread evenly."""
        self._check(split)
        some = list(self.spans)[::max(1, len(self.spans) // SAMPLE)]
        pictures, size = (sum(map(of, some)) for of in (self._pictures, lambda wnid: self.spans[wnid][2]))
        total = sum(size for _, _, size in self.spans.values()) * pictures // max(1, size)
        return total // 10 if split == "val" else total - total // 10

    def _of(self, wnid: str) -> Iterator[Member]:
        """The pictures of a class: files called WNID_NUMBER.JPEG.  Raises DataError for one of another class."""
        file, start, size = self.spans[wnid]
        odd = good = False
        with opened(file) as window:
            for member in members(Window(window.file, start, size), file.name if file.name[:9] == wnid else f"{file.name}:{wnid}.tar"):
                if found := re.fullmatch(r"(n\d{8})_\d+\.JPEG", member.base):
                    if found[1] != wnid:
                        raise DataError(f"{member.label} is a picture of another class; get {wnid}.tar again")
                    good = True
                    yield member
                odd = odd or not found
        if odd and not good:
            raise DataError(f"{shown(file)}: {wnid}.tar holds no picture {wnid}_NUMBER.JPEG; remove it or get it again")

    def _pictures(self, wnid: str) -> int:
        if wnid not in self._counts:
            self._counts[wnid] = sum(1 for _ in self._of(wnid))
        return self._counts[wnid]

    def items(self, split: str, start: int = 0) -> Iterator[Item]:
        self._check(split)
        index = 0
        for label, wnid in enumerate(self.spans):
            count = self._pictures(wnid)
            mine = sum(held_out(place, count) == (split == "val") for place in range(count))
            if index + mine <= start:                           # a resumed preparation need not read what it has
                index += mine
                continue
            for place, member in enumerate(self._of(wnid)):
                if held_out(place, count) == (split == "val"):
                    if index >= start:
                        yield Item(member.label, label, read_or_refuse(member))
                    index += 1

    def fingerprint(self) -> str:
        files = dict.fromkeys(file for file, _, _ in self.spans.values())
        return hashlib.sha256("\n".join(map(stamp, files)).encode()).hexdigest()[:16]
