"""What ImageNet's validation pictures show, by the files that say so: Kaggle's LOC_val_solution.csv and the devkit's ground truth.

The ground truth speaks in ILSVRC2012_IDs, which only meta.mat (in the devkit's archive, or unpacked) turns into WNIDs.  Where both files
are there they must agree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from . import ilsvrc
from .folder import MAX_NAMES_BYTES
from .source import ClassInfo, DataError, read_file, read_names, shown

SOLUTION, MAPPING = "LOC_val_solution.csv", "LOC_synset_mapping.txt"
MAX_LIST_BYTES = 64 << 20       # Kaggle's has 5 MB


class Labels(NamedTuple):
    """`wnid` of each validation picture by its name without suffix, `infos` of each class by WNID, and the file they are from."""

    wnid: dict[str, str]
    infos: dict[str, ClassInfo]
    file: str


def text_of(file: Path) -> str:
    return read_file(file, shown(file), MAX_LIST_BYTES).decode("utf-8", "replace")


def known(places: Sequence[Path]) -> Labels | None:
    """The labels that any file in the folders gives, or None.  Raises DataError where two files contradict each other."""
    files = [place / SOLUTION for place in places if (place / SOLUTION).is_file()]
    solution = _kaggle(files[0]) if files else None
    if not (found := ilsvrc.devkit_in(places)):
        return solution
    edition, file, classes, numbers = found
    of = {info.devkit_id: info.id for info in classes}
    wnid = {f"ILSVRC{edition.year}_val_{place:08d}": of[number] for place, number in enumerate(numbers.tolist(), 1)}
    if solution and (odd := next((name for name, shows in solution.wnid.items() if wnid.get(name, shows) != shows), None)):
        raise DataError(f"{shown(odd)} is {solution.wnid[odd]} by {solution.file} and {wnid[odd]} by {shown(file)}; remove the one "
                        f"of another set or another order: labels in a wrong order give an accuracy of chance, 0.1 %")
    return Labels((solution.wnid if solution else {}) | wnid, {info.id: info for info in classes}, Path(file).name)


def _kaggle(file: Path) -> Labels:
    """Rows "picture,WNID box WNID box ..."; the boxes are not wanted here."""
    rows = (re.match(r"([^,\s]+),(n\d{8})\b", line) for line in text_of(file).splitlines()[1:])
    wnid, words = {row[1]: row[2] for row in rows if row}, {}
    if not wnid:
        raise DataError(f"{shown(file)} has no row 'picture,WNID ...'; get it again")
    if (mapping := file.with_name(MAPPING)).is_file():
        words = read_names(read_file(mapping, MAPPING, MAX_NAMES_BYTES).decode("utf-8", "replace"))
    return Labels(wnid, {name: ClassInfo(name, words.get(name, name)) for name in sorted(words.keys() | set(wnid.values()))}, file.name)
