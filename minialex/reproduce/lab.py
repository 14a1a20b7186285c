"""What experiments work with: their scale, their pictures and the words to say what they want.

An experiment's steps are a generator.  It yields the arms it needs as {word: Arm}, gets them back as {word: Measured}, may ask again,
and returns what it found.  So it reads from claim to figure in one place, while runs that several experiments share are carried out once.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from .. import __version__
from ..bench.measure import commit, processor
from ..checkpoint import candidates
from ..data import DataError, Store, is_store, locate, prepare, store_of
from ..data.open import store_name
from ..data.part import Part
from ..evaluate import evaluate, validation_split
from ..predict import Trained, trained
from ..predictions import Predictions
from ..predictions import of as predictions_of
from .arms import Measured, Outcome
from .result import Interval

SCALES = ("quick", "cifar", "full")


class Missing(DataError):
    """Pictures that an experiment needs are not at hand: it is reported as not run, with this sentence."""


@dataclass
class Lab:
    """scale      one of SCALES        folder   of results, runs and stores
    pictures      a user's photographs (a folder per class, archives, a store); None: the embedded ones, at quick
    cifar         CIFAR-10's binary batches, or a folder per class of it; None: the embedded pictures at 32 pixels, at quick
    other         photographs of other classes, for pre-training at full; at quick half of the classes play that part
    remark        what to say about the pictures beside every figure ("a JPEG-75 copy")
    seeds         of an arm, instead of the experiment's own number
    """

    scale: str
    folder: Path
    pictures: str | None = None
    cifar: str | None = None
    other: str | None = None
    remark: str = ""
    seeds: int | None = None
    device: str = "cpu"
    quiet: bool = False

    @property
    def quick(self) -> bool:
        return self.scale == "quick"

    def seeds_of(self, usual: int) -> tuple[int, ...]:
        """0, 1, ...: `usual` of them at quick, one at the scale of the paper, unless asked otherwise."""
        return tuple(range(self.seeds or (usual if self.quick else 1)))

    # ---------------------------------------------------------------- pictures
    def photographs(self, record: int, *, most_classes: int | None = None, **part) -> str:
        """The store of the user's photographs, or at quick of the embedded pictures; at quick a part of it: Part's keywords, and the
        first `most_classes` classes."""
        if not self.quick and self.pictures is None:
            raise Missing("needs ImageNet's pictures: get the official archives from image-net.org and name their folder with --data; "
                          "--scale quick runs on any pictures, or on the embedded ones")
        if not self.quick:
            return self._store(self.pictures, record, {})
        classes = [c.id for c in Store(self._store(self.pictures, record, {})).classes]
        if most_classes is not None and len(classes) > most_classes and "classes" not in part:
            part["classes"] = classes[:most_classes]
        return self._store(self.pictures, record, part)

    def others(self, record: int) -> str:
        """The store of the pictures to pre-train on at full."""
        return self._store(self.other, record, {})

    def halves(self, record: int) -> str:
        """The whole store of photographs, each class dealt into two halves."""
        return self._store(self.photographs(record), record, {"halves": True})

    def classes(self, store: str) -> list[str]:
        return [c.id for c in Store(store).classes]

    def count(self, store: str) -> int:
        """Training pictures."""
        return len(Store(store).split("train"))

    def cifar10(self, per_class: int | None = None, val_per_class: int | None = None) -> str:
        """The store of CIFAR-10, or at quick of the embedded pictures at 32 pixels."""
        if not self.quick and self.cifar is None:
            raise Missing("needs CIFAR-10: get cifar-10-binary.tar.gz from its home page at the University of Toronto, name it "
                          "with --cifar; --scale quick runs on the embedded pictures")
        return self._store(self.cifar, 32, {"per_class": per_class, "val_per_class": val_per_class} if self.quick else {})

    def _store(self, data: str | None, record: int, part: dict) -> str:
        found = locate(data, self.quiet)
        if isinstance(found, Store) and found.record == record:
            whole = found
        elif isinstance(found, Store):
            raise DataError(f"{found.path} holds pictures of {found.record} pixels a side, this experiment needs {record}; "
                            "name the pictures it was prepared from")
        else:
            place = self.folder / "stores" / store_name(found, record)
            whole = store_of(found, record, folder=place, quiet=self.quiet or is_store(place))
        part = {key: value for key, value in part.items() if value is not None}
        if not part:
            return str(whole.path)
        source = Part(whole, **part)
        return str(prepare(source, self.folder / "stores" / f"part-{source.fingerprint()}", record=record, progress=False).path)

    def described(self, store: str) -> str:
        """Which pictures these are, for people."""
        opened = Store(store)
        name = Path(self.named(store)).name
        counts = ", ".join(f"{len(opened.split(split)):,} {'training' if split == 'train' else 'validation'}" for split in opened.splits)
        text = f"{name}: {counts} pictures of {opened.record} pixels, {len(opened.classes)} classes"
        return f"{text}; {self.remark}" if self.remark and name != "embedded pictures" else text

    def named(self, store: str) -> str:
        record = Store(store).record
        return (self.cifar if record == 32 else self.pictures) or "embedded pictures"

    def publishable(self, store: str) -> bool:
        """Whether pictures made from this store may be passed on: only the embedded ones are ours."""
        return self.named(store) == "embedded pictures"


def paired(base: Measured, other: Measured, field: str, part: str = "validation") -> Interval:
    """The difference other - base, seed by seed; over the seeds both have, where one has more."""
    n = min(len(base.outcomes), len(other.outcomes))
    return paired_values(base.values(field, part)[:n], other.values(field, part)[:n])


def paired_values(base: list[float], other: list[float]) -> Interval:
    return Interval.of(np.subtract(other, base))


def network(outcome: Outcome, batch: int = 100) -> Trained:
    """A run's last weights, as a network that can be asked."""
    return trained(candidates(outcome.folder)[0], batch=batch)


def predicted(outcome: Outcome, views: str = "centre") -> Predictions:
    """What a run's network says of its validation pictures."""
    model, store = network(outcome), Store(outcome.run.data)
    split, found = validation_split(store), []
    evaluate(model.net, store, split, model.recipe, which=views, collect=found, mean=model.mean)
    return predictions_of(model, store, split, np.concatenate(found), views)


def cores() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def circumstances() -> dict:
    """commit, date and machine of a result."""
    return {"commit": commit() or f"version {__version__}", "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{cores()} cores of {processor()}, Python {platform.python_version()}, NumPy {np.__version__}"}
