"""A folder of train/CLASS/ beside a flat val/ whose labels stand in a file (paper, section 2): Kaggle's layout, or Caffe's list.

    Kaggle       ILSVRC/Data/CLS-LOC/train/WNID/*.JPEG, .../val/*.JPEG, with LOC_val_solution.csv ("ILSVRC2012_val_00000001,n01751748 ...")
                 and LOC_synset_mapping.txt ("WNID words") in the outermost folder
    val.txt      beside train and val: "file label" a line, as Caffe's; every label a class id, or every label 0..n-1 in sorted order
    the devkit's ILSVRC2012_validation_ground_truth.txt alone is refused: its numbers are ILSVRC2012_IDs, which only meta.mat explains.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from .folder import MAX_NAMES_BYTES, FolderTree, Reader
from .labels import MAPPING, MAX_LIST_BYTES, SOLUTION
from .source import ClassInfo, DataError, Item, is_picture, read_file, read_names, shown

KAGGLE = ("ILSVRC", "Data", "CLS-LOC")
LISTED, TRUTH = "val.txt", "ILSVRC2012_validation_ground_truth.txt"


def find(path: Path) -> tuple[Path, Path] | None:
    """(folder with train and a flat val, file of labels) at `path`, or None where it is something else.  Raises DataError."""
    top = path
    for deeper in (path, path.joinpath(*KAGGLE), path.joinpath(*KAGGLE[1:])):
        if (deeper / "train").is_dir() and (deeper / "val").is_dir():
            top = deeper
    val = top / "val"
    if not (top / "train").is_dir() or not val.is_dir():
        return None
    with os.scandir(val) as entries:
        found = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    # With class folders it is a tree, and pictures beside them are strays.
    if any(folder for _, folder in found) or not any(is_picture(name) for name, _ in found):
        return None
    for file in (path / SOLUTION, top / LISTED):
        if file.is_file():
            return top, file
    if any((place / TRUTH).is_file() for place in (path, top, val)):
        raise DataError(f"{shown(path)}: {TRUTH} holds ILSVRC2012_IDs, which are in another order than the sorted WNIDs; taken for "
                        f"labels they give an accuracy of 0.1 %.  Put the official archives with the devkit into one folder instead, or "
                        f"write {LISTED} beside train and val, a line 'file WNID' for each picture")
    raise DataError(f"{shown(val)} holds pictures without class folders, and neither {SOLUTION} nor {LISTED} says what they show; "
                    f"put one beside")


class FlatVal(FolderTree):
    """Training pictures by folder; validation pictures in the order of their names, labels from the file.  Labels are sorted ids."""

    kind = "flat"

    def __init__(self, path: Path, top: Path, labels: Path) -> None:
        super().__init__(top / "train", whole=True)
        ids = {entry.id: label for label, entry in enumerate(self.classes)}
        self.top, self.truth_file = top, labels
        text = read_file(labels, shown(labels), MAX_LIST_BYTES).decode("utf-8", "replace")
        words = {}
        if (path / MAPPING).is_file():
            words = read_names(read_file(path / MAPPING, MAPPING, MAX_NAMES_BYTES).decode("utf-8", "replace"))
        self.classes = tuple(ClassInfo(entry.id, words.get(entry.id, entry.name)) for entry in self.classes)
        self._val = self._labels(_kaggle(text) if labels.name == SOLUTION else _listed(text), ids)
        self.path, self.splits = path, ("train", "val")

    def _labels(self, truth: dict[str, str], ids: dict[str, int]) -> list[tuple[str, int]]:
        """(file, label) of every picture in val/, sorted by file.  Raises DataError where a convention is mixed or a label missing."""
        names = sorted(name for name in os.listdir(self.top / "val") if is_picture(name))
        place, found = shown(self.truth_file), set(truth.values())
        if all(label in ids for label in found):
            number_of = ids
        elif all(re.fullmatch(r"[0-9]{1,9}", label) for label in found):
            if "0" not in found or max(map(int, found)) >= len(ids):
                raise DataError(f"{place} has labels from {min(map(int, found))} to {max(map(int, found))} for {len(ids)} classes, so it "
                                f"does not count sorted ids from 0; they may be ILSVRC2012_IDs, which are in another order and would "
                                f"give an accuracy of chance, 0.1 %.  Write the class ids themselves, a line 'file WNID'")
            number_of = {label: int(label) for label in found}
        else:
            odd = next(label for label in sorted(found) if label not in ids)
            raise DataError(f"{place} names {shown(odd)!r}, which is no folder of train; give class ids throughout, or numbers throughout: "
                            f"mixed conventions give an accuracy of chance")
        pairs = []
        for name in names:
            label = truth.get(name, truth.get(name.rpartition(".")[0]))
            if label is None:
                raise DataError(f"{place} does not say what {shown(name)} shows; it belongs to another set of pictures")
            pairs.append((name, number_of[label]))
        if len(truth) > len(pairs):
            self.notes.append(f"{len(truth) - len(pairs)} of the {len(truth)} validation pictures in {self.truth_file.name} are not there")
        return pairs

    def count(self, split: str) -> int:
        self._check(split)
        return len(self._val) if split == "val" else super().count("train")

    def items(self, split: str, start: int = 0) -> Iterator[Item]:
        self._check(split)
        if split == "train":
            yield from super().items("train", start)
            return
        for name, label in self._val[start:]:
            yield Item(f"val/{shown(name)}", label, Reader(os.path.join(self.top, "val", name), shown(name)))

    def fingerprint(self) -> str:
        digest = hashlib.sha256(super().fingerprint().encode())
        for name, label in self._val:
            status = os.stat(os.path.join(self.top, "val", name))
            digest.update(f"{name} {label} {status.st_size} {status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]


def _kaggle(text: str) -> dict[str, str]:
    """Picture -> WNID of LOC_val_solution.csv; its boxes are not wanted here."""
    rows = (re.match(r"([^,\s]+),(n\d{8})\b", line) for line in text.splitlines()[1:])
    return {row[1]: row[2] for row in rows if row}


def _listed(text: str) -> dict[str, str]:
    pairs = (line.split() for line in text.splitlines())
    return {pair[0].rpartition("/")[2]: pair[1] for pair in pairs if len(pair) == 2}
