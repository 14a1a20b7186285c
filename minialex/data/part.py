"""A part of a prepared store as a source of its own: some classes, some pictures of each, or all of them dealt into two halves.

Experiments learn from such parts: other classes for pre-training, half and half as the paper did with Fall-2009 (section 6), a few pictures
where time is short.  The pictures are the store's records as they are; preparing the part copies them and measures its own mean image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from .source import DataError, Item, Source, shown
from .store import Store


class Part(Source):
    """`per_class` and `val_per_class`: at most that many pictures of each class, the first in the store's order (None: all).

    classes     ids to keep (None: all); labels are renumbered
    halves      deal the pictures of all splits class by class, the first to training, the second to validation, and so on
    """

    kind = "part"

    def __init__(self, store: Store, *, classes: Sequence[str] | None = None, per_class: int | None = None,
                 val_per_class: int | None = None, halves: bool = False) -> None:
        known = [c.id for c in store.classes]
        if unknown := [c for c in classes or () if c not in known]:
            raise DataError(f"{shown(store.path)} has no class {unknown[0]!r}; it has {', '.join(known[:5])}, ...")
        kept = [i for i, c in enumerate(known) if classes is None or c in classes]
        super().__init__(store.path, tuple(store.classes[i] for i in kept), ("train", "val"))
        if len(kept) < 2:
            raise DataError(f"a part of {shown(store.path)} needs at least two classes, {len(kept)} were named")
        if "train" not in store.splits or not {"val", "test"} & set(store.splits):
            raise DataError(f"{shown(store.path)} has only {', '.join(store.splits)} pictures; a part needs training and validation ones")
        self._store, self.verified, self.reason = store, store.verified, "a part of a prepared store"
        self._words = f"{store.fingerprint} {store.record} {classes and sorted(classes)} {per_class} {val_per_class} {halves}"
        label_of = {old: new for new, old in enumerate(kept)}
        pictures = [(split, index, label_of[int(label)])
                    for split in ("train", "val" if "val" in store.splits else "test")
                    for index, label in enumerate(store.split(split).labels) if int(label) in label_of]
        chosen: dict[str, list[tuple[str, int, int]]] = {"train": [], "val": []}
        seen = np.zeros(len(kept), int)
        for split, index, label in pictures:
            target = ("train", "val")[seen[label] % 2] if halves else "train" if split == "train" else "val"
            chosen[target].append((split, index, label))
            seen[label] += 1
        self._chosen = {split: _first(found, limit, len(kept)) for (split, found), limit in
                        zip(chosen.items(), (per_class, val_per_class), strict=True)}
        if empty := next((split for split, found in self._chosen.items() if not found), None):
            raise DataError(f"this part of {shown(store.path)} has no {empty} pictures; keep more classes or more pictures of each")

    def count(self, split: str) -> int:
        self._check(split)
        return len(self._chosen[split])

    def items(self, split: str, start: int = 0) -> Iterator[Item]:
        self._check(split)
        for origin, index, label in self._chosen[split][start:]:
            yield Item(f"{origin}[{index}]", label, pixels=self._store.split(origin).read([index])[0])

    def fingerprint(self) -> str:
        return hashlib.sha256(self._words.encode()).hexdigest()[:16]


def _first(pictures: list[tuple[str, int, int]], limit: int | None, classes: int) -> list[tuple[str, int, int]]:
    """At most `limit` pictures of each class, in their order."""
    seen, kept = [0] * classes, []
    for picture in pictures:
        if limit is None or seen[picture[2]] < limit:
            kept.append(picture)
            seen[picture[2]] += 1
    return kept
