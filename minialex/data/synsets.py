"""ImageNet as its releases of Fall 2009 and Fall 2011 come: a folder of one tar per synset, nXXXXXXXX.tar (paper, sections 2 and 7).

There are no validation pictures and no devkit: every tenth picture of a class is held out (folder.held_out), and a class's words come from
synset_words.txt beside the archives, if there is one ("WNID words" a line).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from .archive import Member, read_or_refuse, stamp, walk
from .folder import MAX_NAMES_BYTES, held_out
from .source import ClassInfo, DataError, Item, Source, read_file, read_names, shown

WORDS = "synset_words.txt"
_ARCHIVE = re.compile(r"n\d{8}\.tar")


def is_archive(name: str) -> bool:
    return bool(_ARCHIVE.fullmatch(name))


class SynsetTars(Source):
    """The archives of a folder, in the order of their WNIDs, pictures in the order of each archive.  One pass over the headers of an
    archive comes before its pictures: a class must know how many it has to hold out a tenth."""

    kind = "synsets"

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.wnids = sorted(name[:9] for name in names if is_archive(name))
        words = read_names(read_file(path / WORDS, WORDS, MAX_NAMES_BYTES).decode("utf-8", "replace")) if WORDS in names else {}
        super().__init__(path, tuple(ClassInfo(wnid, words.get(wnid, wnid)) for wnid in self.wnids), ("train", "val"))
        self.notes.append("no validation pictures: every tenth of each class is held out (of two to nine, the last)")
        self._counts: dict[str, int] = {}

    def count(self, split: str) -> None:
        """Only a pass over all archives could tell."""
        self._check(split)

    def _of(self, wnid: str) -> Iterator[Member]:
        """The pictures of a class: files called WNID_NUMBER.JPEG.  Raises DataError for one of another class."""
        for member in walk(self.path / f"{wnid}.tar"):
            if found := re.fullmatch(r"(n\d{8})_\d+\.JPEG", member.base):
                if found[1] != wnid:
                    raise DataError(f"{member.label} is a picture of another class; get {wnid}.tar again")
                yield member

    def _pictures(self, wnid: str) -> int:
        if wnid not in self._counts:
            self._counts[wnid] = sum(1 for _ in self._of(wnid))
            if not self._counts[wnid]:
                raise DataError(f"{shown(self.path / (wnid + '.tar'))} holds no picture {wnid}_NUMBER.JPEG; remove it or get it again")
        return self._counts[wnid]

    def items(self, split: str, start: int = 0) -> Iterator[Item]:
        self._check(split)
        index = 0
        for label, wnid in enumerate(self.wnids):
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
        return hashlib.sha256("\n".join(stamp(self.path / f"{wnid}.tar") for wnid in self.wnids).encode()).hexdigest()[:16]
