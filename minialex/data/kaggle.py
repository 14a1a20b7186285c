"""Kaggle's archive of ILSVRC-2012, imagenet_object_localization_patched2019.tar.gz, streamed as it is (paper, section 2).

    ILSVRC/Data/CLS-LOC/train/WNID/*.JPEG, val/*.JPEG flat, test/*.JPEG without labels: left out
    LOC_val_solution.csv and LOC_synset_mapping.txt lie beside it on the competition's page (the devkit's ground truth serves as well)
A gzip cannot be entered in the middle: each split is one pass, and a resumed one reads past what is done.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from .archive import Member, read_or_refuse, stamp, walk
from .ilsvrc import ARCHIVES, TRAIN
from .labels import MAPPING, SOLUTION, known
from .source import DataError, Item, Source, is_picture, shown

NAME = re.compile(r"imagenet_object_localization\w*\.(tar|tar\.gz|tgz)")
_PICTURE = re.compile(r"(?:.*/)?Data/CLS-LOC/(train|val)/(?:(n\d{8})/)?([^/]+)")


class KaggleArchive(Source):
    """Pictures in the order of the archive; labels are sorted WNIDs."""

    kind, forward_only = "kaggle", True

    def __init__(self, archive: Path) -> None:
        labels = known([archive.parent])
        if labels is None:
            raise DataError(f"{shown(archive)} does not say what its validation pictures show: {SOLUTION} does, from the same page of "
                            f"Kaggle's competition imagenet-object-localization-challenge; put it into {shown(archive.parent)}")
        super().__init__(archive, tuple(labels.infos[wnid] for wnid in sorted(labels.infos)), ("train", "val"))
        self.reason = "no official MD5 of Kaggle's archive is known here"
        self.notes = [f"validation labels by {labels.file}", "test pictures have no labels and are left out"]
        self._wnid, self._labels = labels.wnid, {info.id: label for label, info in enumerate(self.classes)}

    def count(self, split: str) -> None:
        """Only a pass over the whole archive could tell."""
        self._check(split)

    def about(self, split: str) -> int | None:
        """As published, where it is the whole set."""
        return (len(self._wnid) if split == "val" else ARCHIVES[TRAIN].pictures) if len(self._wnid) == 50000 else None

    def items(self, split: str, start: int = 0) -> Iterator[Item]:
        self._check(split)
        index = -1
        for index, (member, wnid) in enumerate(self._pictures(split)):
            if index >= start:
                yield Item(member.label, self._labels[wnid], read_or_refuse(member))
        if index < 0:
            raise DataError(f"{shown(self.path)} holds no pictures in Data/CLS-LOC/{split}; it is not Kaggle's archive")

    def _pictures(self, split: str) -> Iterator[tuple[Member, str]]:
        for member in walk(self.path):
            found = _PICTURE.fullmatch("/".join(member.parts or ()))
            if not found or found[1] != split or not is_picture(found[3]):
                continue
            wnid = found[2] if split == "train" else self._wnid.get(found[3].rpartition(".")[0])
            if wnid not in self._labels:
                lacks = f"{wnid}, which the files beside do not list; put {MAPPING}" if wnid else f"no label; put the right {SOLUTION}"
                raise DataError(f"{member.label} has {lacks} beside the archive")
            yield member, wnid

    def fingerprint(self) -> str:
        labels = "".join(f"{name} {wnid}\n" for name, wnid in sorted(self._wnid.items())) + " ".join(self._labels)
        return hashlib.sha256(f"{stamp(self.path)}\n{labels}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
