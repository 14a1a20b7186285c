"""Validation pictures in one flat folder, their labels in a file, with or without training pictures by class (paper, section 2).

    train/WNID/*.JPEG, val/ILSVRC2012_val_00000001.JPEG ...     Kaggle has them in ILSVRC/Data/CLS-LOC
    LOC_val_solution.csv or the devkit       in the outermost folder, beside train and val, or in val: labels.py
    val.txt                                  beside train and val, "file label" a line as Caffe's: class ids, or numbers throughout
Numbers prove nothing by themselves: with one of the two files at hand they must say the same as it does in sorted order, without it they
are taken for sorted order if they run from 0, and a note says so.  The ground truth alone is refused: only meta.mat explains its numbers.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from os.path import splitext
from pathlib import Path

from .folder import FolderTree, Reader
from .labels import SOLUTION, Labels, known, text_of
from .source import DataError, Item, Source, is_picture, shown

KAGGLE, LISTED, TRUTH = ("ILSVRC", "Data", "CLS-LOC"), "val.txt", "ILSVRC2012_validation_ground_truth.txt"
_OFFICIAL = re.compile(r"ILSVRC20\d\d_val_\d{8}\.JPEG")


def find(path: Path) -> tuple[Path, Path, Labels | None] | None:
    """(folder of training classes, flat folder, labels known) at `path`, or None where it is something else.  Raises DataError."""
    tops = [top for top in (path, path.joinpath(*KAGGLE), path.joinpath(*KAGGLE[1:])) if (top / "val").is_dir()]
    top = next((top for top in tops if (top / "train").is_dir()), tops[0] if tops else path)
    val = top / "val" if tops else path
    with os.scandir(val) as entries:
        found = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    # With class folders it is a tree, and pictures beside them are strays.
    looked_for = is_picture if (top / "train").is_dir() else _OFFICIAL.fullmatch
    if any(folder for name, folder in found if name in ("train", "val") or val != path) or not any(looked_for(name) for name, _ in found):
        return None
    places = list(dict.fromkeys((path, top, val)))
    labels = known(places)
    if labels is None and not ((top / "train").is_dir() and (top / LISTED).is_file()):
        if any((place / TRUTH).is_file() for place in places):
            raise DataError(f"{shown(path)}: {TRUTH} holds ILSVRC2012_IDs, which are in another order than the sorted WNIDs; taken for "
                            f"labels they give an accuracy of 0.1 %.  Put meta.mat of the devkit, or the devkit's archive, beside it")
        raise DataError(f"{shown(val)} holds pictures without class folders; put {SOLUTION}, the devkit or {LISTED} beside")
    return top / "train", val, labels


class FlatVal(Source):
    """Training pictures by folder; validation pictures in the order of their names, labels from the file.  Labels are sorted ids."""

    kind = "flat"

    def __init__(self, path: Path, train: Path, val: Path, labels: Labels | None) -> None:
        self.train, self.val = FolderTree(train, whole=True) if train.is_dir() else None, val
        infos = labels.infos if labels else {}
        classes = self.train.classes if self.train else sorted(infos.values(), key=lambda entry: entry.id)
        super().__init__(path, tuple(infos.get(entry.id, entry) for entry in classes), ("train", "val") if self.train else ("val",))
        self.ids, file = {entry.id: label for label, entry in enumerate(classes)}, train.parent / LISTED
        truth, self.truth_file = (labels.wnid, labels.file) if labels else ({}, LISTED)
        names = sorted(name for name in os.listdir(val) if is_picture(name))
        if self.train and file.is_file():
            truth = self._listed(file, names, labels)
        self._val = [(name, self._label(truth, name)) for name in names]
        self.notes.append(f"validation labels by {self.truth_file}")
        if len(truth) > len(names):
            self.notes.append(f"{len(truth) - len(names)} of the {len(truth)} validation pictures in {self.truth_file} are not there")

    def _label(self, truth: dict[str, str], name: str) -> int:
        shows = truth.get(splitext(name)[0])
        if shows is None:
            raise DataError(f"{self.truth_file} does not say what {shown(name)} shows; it belongs to another set of pictures")
        if shows not in self.ids:
            raise DataError(f"{self.truth_file} names {shown(shows)!r}, which is no class; mixed conventions give an accuracy of chance")
        return self.ids[shows]

    def _listed(self, file: Path, names: list[str], labels: Labels | None) -> dict[str, str]:
        """Class ids by picture from the list.  Raises DataError where numbers are not certain or another file contradicts."""
        place, order = shown(file), list(self.ids)
        pairs = (line.split() for line in text_of(file).splitlines())
        listed = {splitext(pair[0].rpartition("/")[2])[0]: pair[1] for pair in pairs if len(pair) == 2}
        found = set(listed.values())
        numbers = not found <= self.ids.keys() and all(re.fullmatch(r"[0-9]{1,9}", label) for label in found)
        truth = listed
        if numbers:
            if "0" not in found or max(map(int, found)) >= len(order):
                raise DataError(f"{place} has labels from {min(map(int, found))} to {max(map(int, found))} for {len(order)} classes, "
                                f"not sorted ids from 0; ILSVRC2012_IDs would give an accuracy of chance, 0.1 %.  Write lines 'file WNID'")
            truth = {name: order[int(label)] for name, label in listed.items()}
        if labels is None:
            self.notes += numbers * [f"{LISTED} has numbers from 0, taken for positions in the sorted class ids; nothing proves it.  If "
                                     f"they are ILSVRC2012_ID - 1, a trained network scores 0.1 %: put the devkit or {SOLUTION} "
                                     f"beside to have them checked"]
            return truth
        stems = [splitext(name)[0] for name in names]
        odd = next((stem for stem in stems if truth.get(stem) != labels.wnid.get(stem, truth.get(stem))), None)
        if odd:
            raise DataError(f"{place} says that {shown(odd)} shows {shown(truth.get(odd, 'nothing'))}, but {labels.file} says "
                            f"{labels.wnid[odd]}; numbers that are ILSVRC2012_ID - 1 and not positions in the sorted WNIDs give an "
                            f"accuracy of chance, 0.1 %: remove {LISTED}, {labels.file} suffices")
        self.truth_file = f"{LISTED}, which agrees with {labels.file}"
        return truth

    def count(self, split: str) -> int:
        self._check(split)
        return len(self._val) if split == "val" else self.train.count("train")

    def items(self, split: str, start: int = 0) -> Iterator[Item]:
        self._check(split)
        if split == "train":
            yield from self.train.items("train", start)
            return
        for name, label in self._val[start:]:
            yield Item(f"val/{shown(name)}", label, Reader(os.path.join(self.val, name), shown(name)))

    def fingerprint(self) -> str:
        digest = hashlib.sha256((self.train.fingerprint() if self.train else "").encode())
        for name, label in self._val:
            status = os.stat(os.path.join(self.val, name))
            digest.update(f"{name} {label} {status.st_size} {status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]
