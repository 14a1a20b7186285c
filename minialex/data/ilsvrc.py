"""The official archives of ILSVRC-2012 and, under their own names, of ILSVRC-2010, read where they lie (paper, section 2).

    ILSVRC2012_img_train.tar        a tar of one tar per class, nXXXXXXXX.tar, of nXXXXXXXX_N.JPEG
    ILSVRC2012_img_val.tar          ILSVRC2012_val_XXXXXXXX.JPEG, flat; their labels are in the devkit
    ILSVRC2012_devkit_t12.tar.gz    data/meta.mat and data/ILSVRC2012_validation_ground_truth.txt
The ground truth speaks in ILSVRC2012_IDs, which are in another order than the sorted WNIDs that labels follow everywhere here; the
translation happens in this file and nowhere else.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import matfile
from .archive import Member, Official, Window, members, opened, read_or_refuse, stamp, verify, walk
from .source import ClassInfo, DataError, Item, Source, read_file, shown

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
META, TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"
MAX_DEVKIT_FILE = 16 << 20


ARCHIVES = {
    TRAIN: Official(147897477120, "1d675b47d978889d74fa0da5fadfb00e", 1281167),
    VAL: Official(6744924160, "29b22e2961454d5413ddabcf34fc5622", 50000),
    DEVKIT: Official(2568145, "fa75699e90414af021442c21a62c3abf", 0),
}
TEST = re.compile(r"ILSVRC20\d\d_im(g|ages)_test\w*\.tar")
CLASS_TAR = re.compile(r"n\d{8}\.tar")
_TRAIN_PICTURE = re.compile(r"n\d{8}_\d+\.JPEG")


class Edition(NamedTuple):
    """What the archives of a year are called, and their numbers in meta.mat."""

    year: int
    train: str
    val: str
    devkit: str

    @property
    def names(self) -> tuple[str, str, str]:
        return self.train, self.val, self.devkit

    @property
    def number(self) -> str:
        return f"ILSVRC{self.year}_ID"

    @property
    def truth(self) -> str:
        return f"data/ILSVRC{self.year}_validation_ground_truth.txt"

    @property
    def val_picture(self) -> re.Pattern:
        return re.compile(rf"ILSVRC{self.year}_val_(\d{{8}})\.JPEG")


EDITIONS = (Edition(2012, TRAIN, VAL, DEVKIT),
            Edition(2010, "ILSVRC2010_images_train.tar", "ILSVRC2010_images_val.tar", "ILSVRC2010_devkit-1.0.tar.gz"))


def editions(names: Iterable[str]) -> list[Edition]:
    """The years of which any archive is among the names of a folder."""
    there = set(names)
    return [edition for edition in EDITIONS if there & set(edition.names)]


class Ilsvrc(Source):
    """The archives in one folder.  Training order is that of the archives, validation order likewise; labels are sorted WNIDs."""

    kind = "ilsvrc"

    def __init__(self, path: Path, *, allow_unverified: bool = False, progress: Callable[[int, int], None] | None = None,
                 kept: Path | None = None) -> None:
        path = Path(path)
        found = editions(name for edition in EDITIONS for name in edition.names if (path / name).is_file())
        if len(found) != 1:
            years = " and ".join(str(edition.year) for edition in found) or "no year"
            raise DataError(f"{shown(path)} has archives of {years}, whose classes are not the same; give a folder with those of one year")
        self.edition = edition = found[0]
        train, val, devkit = edition.names
        here = [name for name in edition.names if (path / name).is_file()]
        if val in here and devkit not in here:
            raise DataError(f"{shown(path)} has {val} but not {devkit}, which holds the validation labels; put it beside")
        if train not in here and val not in here:
            raise DataError(f"{shown(path)} has neither {train} nor {val}; put the archives beside {devkit}")
        verified, reason = False, f"no official MD5 of ILSVRC-{edition.year} is known here"
        if edition.year == 2012:
            verified, reason = verify(path, {name: ARCHIVES[name] for name in here}, allow_unverified, progress, kept)
        notes = [f"{name} is left out: its pictures have no labels" for name in sorted(os.listdir(path)) if TEST.fullmatch(name)]
        self._spans = in_train = class_tars(path / train) if train in here else {}
        if devkit in here:
            classes, self.truth = _devkit(path / devkit, edition)
            known = {info.id for info in classes}
            if unknown := [wnid for wnid in in_train if wnid not in known]:
                raise DataError(f"{shown(path / train)} has class {unknown[0]}, unknown to {META} of the devkit; take one year's")
            if in_train and (missing := len(known - set(in_train))):
                notes.append(f"{missing} of {len(known)} classes have no training pictures")
        else:
            classes, self.truth = tuple(ClassInfo(wnid, wnid) for wnid in sorted(in_train)), np.zeros(0, np.int64)
            notes.append(f"without {devkit} beside, classes have no words and no {edition.number}")
        if len(classes) == 1:
            raise DataError(f"{shown(path)} has one class only ({classes[0].id}); a classifier needs two or more")
        super().__init__(path, classes, tuple(split for split, name in (("train", train), ("val", val)) if name in here))
        self.verified, self.reason, self.notes = verified, reason, notes
        self._labels = {info.id: label for label, info in enumerate(classes)}
        self._label_of_devkit = {info.devkit_id: label for label, info in enumerate(classes)}
        self._here, self._counts = here, {}

    def count(self, split: str) -> int:
        """Known for official archives; else one pass over the headers."""
        self._check(split)
        if split not in self._counts:
            known = self.verified and ARCHIVES[TRAIN if split == "train" else VAL].pictures
            self._counts[split] = known or sum(1 for _ in (self._train() if split == "train" else self._val()))
        return self._counts[split]

    def items(self, split: str, start: int = 0) -> Iterator[Item]:
        self._check(split)
        for index, (member, name, label) in enumerate(self._train() if split == "train" else self._val()):
            if index >= start:
                yield Item(name, label, read_or_refuse(member))

    def _train(self) -> Iterator[tuple[Member, str, int]]:
        train = self.edition.train
        with opened(self.path / train) as window:
            for wnid, span in self._spans.items():
                archive = f"{train}:{wnid}.tar"
                for member in members(Window(window.file, *span), archive):
                    if _TRAIN_PICTURE.fullmatch(member.base):
                        if member.base[:9] != wnid:
                            raise DataError(f"{archive} holds {member.base}, a picture of another class; get the archive again")
                        yield member, f"{archive}:{member.base}", self._labels[wnid]

    def _val(self) -> Iterator[tuple[Member, str, int]]:
        val, picture = self.edition.val, self.edition.val_picture
        for member in walk(self.path / val):
            if match := picture.fullmatch(member.base):
                number = int(match[1])
                if not 1 <= number <= len(self.truth):
                    raise DataError(f"{val}:{member.base} has no label: the devkit's ground truth has {len(self.truth)} lines")
                yield member, f"{val}:{member.base}", self._label_of_devkit[int(self.truth[number - 1])]

    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(stamp(self.path / name) for name in self._here).encode()).hexdigest()[:16]


def class_tars(path: Path) -> dict[str, tuple[int, int]]:
    """Where in an archive of archives those of each class lie: WNID to (offset, bytes), in the archive's order."""
    found = [(member.base[:9], (member.offset, member.size)) for member in walk(path) if CLASS_TAR.fullmatch(member.base)]
    if not found:
        raise DataError(f"{shown(path)} holds no class archives (nXXXXXXXX.tar); it is not the training archive")
    if len(dict(found)) < len(found):
        raise DataError(f"{shown(path)} holds a class twice; get it again")
    return dict(found)


def _devkit(path: Path, edition: Edition) -> tuple[tuple[ClassInfo, ...], np.ndarray]:
    """Classes in sorted WNID order, and the ground truth's devkit ids in picture order, of a devkit archive."""
    meta = truth = None
    for member in walk(path):
        inner = "/".join((member.parts or ())[-2:])
        if inner == META:
            meta = member.read(MAX_DEVKIT_FILE)
        elif inner == edition.truth:
            truth = member.read(MAX_DEVKIT_FILE)
    if meta is None or truth is None:
        raise DataError(f"{shown(path)} lacks {META if meta is None else edition.truth}; get the devkit archive again")
    return _classes(meta, truth, shown(path), edition)


def devkit_in(places: Iterable[Path]) -> tuple[Edition, Path, tuple[ClassInfo, ...], np.ndarray] | None:
    """(edition, file, classes, ground truth) of the devkit in one of the folders, packed or unpacked, or None."""
    for place, edition in product(places, EDITIONS):
        if (archive := place / edition.devkit).is_file():
            return edition, archive, *_devkit(archive, edition)
        for inner in (place, place / "data", place / edition.devkit.removesuffix(".tar.gz") / "data"):
            meta, truth = inner / Path(META).name, inner / Path(edition.truth).name
            if meta.is_file() and truth.is_file():
                content = (read_file(file, shown(file), MAX_DEVKIT_FILE) for file in (meta, truth))
                return edition, truth, *_classes(*content, shown(inner), edition)
    return None


def _classes(meta_mat: bytes, truth: bytes, name: str, edition: Edition) -> tuple[tuple[ClassInfo, ...], np.ndarray]:
    meta = matfile.load(meta_mat, f"{name}:{META}")
    try:
        leaves = [synset for synset in meta["synsets"] if _number(synset["num_children"]) == 0]
        found = (ClassInfo(str(synset["WNID"]), str(synset["words"]), _number(synset[edition.number])) for synset in leaves)
        classes = tuple(sorted(found, key=lambda info: info.id))
        numbers = np.array([int(line) for line in truth.split()], np.int64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{name}: {META} or {edition.truth} is not as published ({error!r}); get the devkit archive again") from error
    ids = {info.devkit_id for info in classes}
    if not classes or len(ids) < len(classes) or len({info.id for info in classes}) < len(classes):
        raise DataError(f"{name}: {META} lists no classes or one twice; get the devkit archive again")
    if unknown := sorted(set(numbers.tolist()) - ids):
        raise DataError(f"{name}: the ground truth has {edition.number} {unknown[0]}, which {META} does not list as a class; get it again")
    return classes, numbers


def _number(value) -> int:
    """A MATLAB scalar, which is a matrix of one element; ValueError for anything else."""
    return int(np.asarray(value, np.float64).item())
