"""Prediction files: what a network said of every picture of a split, to be judged, averaged with others, or handed in (table 2).

One safetensors file as checkpoint.py writes it: `probabilities` (n, K) float32, mean softmax over the views; `labels` (n,) int32 where
the pictures have any; and in its state the fields of `Predictions` that say of which pictures, by which network.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import checkpoint
from .checkpoint import CheckpointError, SaveError
from .data import Split, Store
from .data.bare import Bare
from .data.source import shown
from .evaluate import Metrics, credit, on_each, probabilities
from .predict import Trained
from .spec import MiniAlexError

VERSION, KIND = 1, "predictions"
GAP = 1e-5                          # nats a picture: a search ends this near to the best coefficients there are
STEPS = 10_000
BLOCK = 4096                        # pictures at a time where a copy of all in float64 would be large
TINY = float(np.finfo(np.float32).tiny)


class PredictionsError(MiniAlexError):
    """Prediction files that are damaged, do not fit each other, or lack what is asked of them."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Probabilities of n pictures over K classes, and what they are of.  Checked when made."""

    probabilities: np.ndarray                   # (n, K) float32; rows sum to 1
    labels: np.ndarray | None                   # (n,) int32, or None where nobody says what is right
    classes: tuple[str, ...]                    # ids in label order
    names: tuple[str, ...]                      # to show a person
    devkit: tuple[int | None, ...]              # ILSVRC2012_ID of each class, where it has one
    fingerprint: str                            # of the pictures' source
    split: str
    listed: int                                 # pictures the source lists in the split; unreadable ones have no row
    views: str = "centre"
    recipe: str = ""
    checkpoint: str = ""
    config: str = ""                            # hash of what decided the weights
    ties: str = "index"                         # the recipe's
    path: Path | None = None                    # the file it was read from

    def __post_init__(self):
        if wrong := _wrong(self):
            raise PredictionsError(f"{self.title}: {wrong}; write the file again with minialex evaluate CHECKPOINT --save-predictions FILE")

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def title(self) -> str:
        """What to call it in a sentence."""
        return shown(self.path or self.checkpoint or "predictions")

    def metrics(self, ties: str | None = None) -> Metrics:
        """Errors and mean loss, as `evaluate` gives them; `ties`: the recipe's."""
        top1, top5 = errors(self.probabilities, _labels(self), ties or self.ties)
        return Metrics(top1, top5, float(-np.log(_own(self)).mean()), len(self))


def _wrong(p: Predictions) -> str | None:
    """The first thing that is not as it should be."""
    array, labels, K = p.probabilities, p.labels, len(p.classes)
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim != 2 or not len(array):
        return "there is no float32 array of probabilities, a row for each picture"
    if array.shape[1] != K or len(p.names) != K or len(p.devkit) != K or len(set(p.classes)) != K:
        return f"{array.shape[1]} probabilities a picture, {K} classes, {len(p.names)} names, {len(p.devkit)} numbers of the devkit differ"
    if not all(type(text) is str for text in (*p.classes, *p.names, p.fingerprint, p.split, p.views, p.recipe, p.checkpoint, p.config)):
        return "a class or another word is no text"
    if not all(number is None or (type(number) is int and number > 0) for number in p.devkit) or p.ties not in ("index", "fractional"):
        return "a number of the devkit or the rule for ties is unknown"
    if type(p.listed) is not int or p.listed < len(array):
        return f"it has {len(array)} pictures of {p.listed} listed"
    # A NaN fails every comparison; ten views of float32 sum to 1 within 1e-5.
    if not (array.min() >= 0 and np.abs(array.sum(1, dtype=np.float64) - 1).max() < 1e-3):
        return "a row of probabilities does not sum to 1"
    if labels is not None and (labels.dtype != np.int32 or labels.shape != (len(array),) or labels.min() < 0 or labels.max() >= K):
        return f"labels are {labels.dtype} {labels.shape} up to {labels.max(initial=0)}, but int32, one a picture, below {K} are needed"
    return None


def of(model: Trained, store: Store, split: Split, p: np.ndarray, views: str) -> Predictions:
    """The first len(p) pictures of `split` as `model` sees them: `p` is what `evaluate` collected, one behind the other."""
    devkit = tuple(c.devkit_id for c in store.classes)
    return _by(model, views, probabilities=p, labels=split.labels[:len(p)], devkit=devkit, fingerprint=store.fingerprint, split=split.name,
               listed=store.manifest["splits"][split.name]["items"])


def of_bare(model: Trained, pictures: Bare, views: str, devkit: Sequence[int | None] | None = None, *, workers: int = 2,
            progress: Callable[[int, int], None] = lambda done, total: None) -> Predictions:
    """What `model` says of pictures without labels; `devkit` as in `Predictions`."""
    means, parts, done = on_each(model.net, model.mean), [], 0
    for images in pictures.batches(model.net.batch, model.mean.shape[0], workers):
        parts.append(probabilities(model.net, images, means, model.recipe, views).astype(np.float32))
        progress(done := done + len(images), len(pictures))
    return _by(model, views, probabilities=np.concatenate(parts), labels=None, devkit=tuple(devkit or [None] * len(model.classes)),
               fingerprint=pictures.fingerprint(), split="unlabelled", listed=len(pictures))


def _by(model: Trained, views: str, **pictures) -> Predictions:
    return Predictions(classes=tuple(model.classes), names=tuple(model.names), views=views, recipe=model.config.recipe,
                       checkpoint=str(model.path), config=model.config.hash(), ties=model.recipe.ties, **pictures)


_KEPT = tuple(f.name for f in fields(Predictions) if f.name not in ("probabilities", "labels", "path"))


def save(predictions: Predictions, path: str | Path) -> Path:
    """Writes the file, whole or not at all, and returns its path."""
    path = Path(path)
    arrays = {"probabilities": predictions.probabilities} | ({} if predictions.labels is None else {"labels": predictions.labels})
    state = {"kind": KIND, "version": VERSION} | {name: getattr(predictions, name) for name in _KEPT}
    try:
        return checkpoint.save(path.parent, path.name, arrays, state)
    except SaveError as error:
        raise PredictionsError(f"{path}: could not be written ({getattr(error.__cause__, 'strerror', None) or error}); what stood there "
                               "is untouched: make room, or name a file in another folder") from error.__cause__


def load(path: str | Path) -> Predictions:
    """The predictions of a file.  Raises PredictionsError for one that is missing, cut short, damaged or of something else."""
    path = Path(path)
    again = "write it again with minialex evaluate CHECKPOINT --save-predictions FILE"
    if not path.is_file():
        raise PredictionsError(f"{shown(path)}: {'that is a folder' if path.is_dir() else 'there is no such file'}; name a prediction "
                               "file, which minialex evaluate CHECKPOINT --save-predictions FILE writes")
    try:
        arrays, state = checkpoint.load(path, KIND)
    except CheckpointError as error:
        why = str(error).removeprefix(f"{path}: ").partition(";")[0]
        raise PredictionsError(f"{shown(path)}: no prediction file, or no longer one ({why}); {again}") from error
    if state.get("version") != VERSION:
        raise PredictionsError(f"{shown(path)}: predictions of format {state.get('version')}, but {VERSION} is known; update MiniAlex, or "
                               f"{again}")
    try:
        kept = {name: state[name] for name in _KEPT} | {name: tuple(state[name]) for name in ("classes", "names", "devkit")}
        return Predictions(arrays.get("probabilities"), arrays.get("labels"), path=path, **kept)
    except (KeyError, TypeError) as error:
        raise PredictionsError(f"{shown(path)}: it lacks or garbles a field ({error!r}); {again}") from error


# ------------------------------------------------------------------------------------------------------------------------------ judging


def errors(p: np.ndarray, labels: np.ndarray, ties: str = "index") -> tuple[float, float]:
    """(top-1, top-5) error in per cent of probabilities (n, K).  Of fewer than five classes all are among the best five: top-5 is 0."""
    return tuple(100 * (1 - float(credit(p, labels, k, ties).mean())) for k in (1, 5))


class ClassErrors(NamedTuple):
    """One row of the table: errors in per cent, NaN for a class without pictures."""

    id: str
    name: str
    pictures: int
    top1: float
    top5: float


def per_class(predictions: Predictions, ties: str | None = None) -> list[ClassErrors]:
    """Errors of each class, the worst first (top-1, then top-5, then label); classes without pictures last."""
    p, labels = predictions.probabilities, _labels(predictions)
    count = np.bincount(labels, minlength=len(predictions.classes))
    right = [np.bincount(labels, credit(p, labels, k, ties or predictions.ties), len(count)) for k in (1, 5)]
    top1, top5 = (100 * (1 - r / np.where(count, count, np.nan)) for r in right)
    order = np.lexsort((-top5, -top1))                         # NaN last
    return [ClassErrors(predictions.classes[k], predictions.names[k], int(count[k]), float(top1[k]), float(top5[k])) for k in order]


def table(rows: Sequence[ClassErrors]) -> str:
    """The rows as CSV, a head line first; errors of classes without pictures are left blank."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("class", "name", "pictures", "top1_error", "top5_error"))
    writer.writerows((*row[:3], *(f"{e:.4f}" if row.pictures else "" for e in row[3:])) for row in rows)
    return file.getvalue()


def confusion(predictions: Predictions) -> np.ndarray:
    """(K, K) int64: how many pictures of the row's class were taken for the column's (the first of equally probable ones)."""
    labels, K = _labels(predictions), len(predictions.classes)
    return np.bincount(labels.astype(np.int64) * K + predictions.probabilities.argmax(1), minlength=K * K).reshape(K, K)


def worst(predictions: Predictions, n: int) -> np.ndarray:
    """Numbers in the split of the n pictures whose own label got least probability, the least first."""
    return np.argsort(_own(predictions), kind="stable")[:n]


def submission(predictions: Predictions) -> str:
    """The text that ILSVRC takes: a line for each picture in the split's order, its five best classes by ILSVRC2012_ID, best first."""
    can_be_handed_in(predictions.title, predictions.classes, predictions.devkit, predictions.listed, len(predictions))
    numbers = np.array(predictions.devkit)
    parts = (predictions.probabilities[k:k + BLOCK] for k in range(0, len(predictions), BLOCK))
    best = (numbers[np.argsort(-part, axis=1, kind="stable")[:, :5]] for part in parts)
    return "".join(" ".join(map(str, line)) + "\n" for part in best for line in part.tolist())


def can_be_handed_in(title: str, classes: Sequence[str], devkit: Sequence[int | None], listed: int, n: int) -> None:
    """Refuses a submission without the devkit's numbers, or of n pictures where the split lists more."""
    if None in devkit:
        raise PredictionsError(f"{title}: class {shown(classes[devkit.index(None)])} has no ILSVRC2012_ID, by which a submission "
                               "names it; prepare the pictures from the official archives with the devkit beside them, and evaluate again")
    if listed != n:
        raise PredictionsError(f"{title}: a submission needs a line for each of the {listed:,} pictures of the split, but there are "
                               f"predictions of {n:,}; evaluate without --limit-batches, and see the store's audit.txt for pictures that "
                               "cannot be read")


def _labels(predictions: Predictions) -> np.ndarray:
    if predictions.labels is None:
        raise PredictionsError(f"{predictions.title}: the pictures have no labels, so nothing can be judged on them; give predictions of "
                               "validation pictures")
    return predictions.labels


def _own(predictions: Predictions) -> np.ndarray:
    """Probability of each picture's label, (n,) float64, above 0."""
    labels = _labels(predictions)
    return np.maximum(predictions.probabilities[np.arange(len(labels)), labels].astype(np.float64), TINY)


# ---------------------------------------------------------------------------------------------------------------------------- averaging


def average(several: Sequence[Predictions], coefficients: Sequence[float] | None = None) -> Predictions:
    """The mean of the networks' probabilities, or their sum weighted by `coefficients` (at least 0, sum 1)."""
    first = _same(several)
    c = np.full(len(several), 1 / len(several)) if coefficients is None else np.asarray(coefficients, np.float64)
    if c.shape != (len(several),):
        raise PredictionsError(f"{c.size} coefficients were given for {len(several)} prediction files; give one for each, in their order")
    if not (c.min() >= 0 and abs(c.sum() - 1) < 1e-6):
        raise PredictionsError(f"the coefficients {', '.join(f'{x:g}' for x in c)} sum to {c.sum():g}; give numbers of at least 0 that "
                               "sum to 1")
    p = np.empty_like(first.probabilities)
    for k in range(0, len(p), BLOCK):
        p[k:k + BLOCK] = sum(x * one.probabilities[k:k + BLOCK].astype(np.float64) for x, one in zip(c, several, strict=True))
    joined = {name: " + ".join(dict.fromkeys(getattr(one, name) for one in several)) for name in ("views", "recipe", "config")}
    return replace(first, probabilities=p, path=None, **joined,
                   checkpoint=" + ".join(f"{x:.4g} {one.checkpoint}" for x, one in zip(c, several, strict=True)))


def search(several: Sequence[Predictions], trace: list | None = None) -> np.ndarray:
    """The coefficients whose mixture has the least mean log loss on these labelled pictures, (m,) float64.

    Expectation maximisation from equal coefficients: each becomes the mean over the pictures of the share it has in the probability
    of the label.  The loss is convex in the coefficients and never rises from step to step, so nothing depends on luck; the steps end
    where the gradient proves the loss to be within GAP of the least there is, or after STEPS (networks that say nearly the same).
    `trace` receives the loss of each step.
    """
    _same(several)
    own = np.stack([_own(one) for one in several])             # (m, n)
    c = np.full(len(several), 1 / len(several))
    for _ in range(STEPS):
        mixed = c @ own
        if trace is not None:
            trace.append(float(-np.log(mixed).mean()))
        gradient = (own / mixed).mean(1)
        if gradient.max() - 1 < GAP:
            break
        c = c * gradient
        c /= c.sum()
    return c


def same_networks(judged: Sequence[Predictions], searched: Sequence[Predictions]) -> bool:
    """Refuses coefficients searched for other networks than those they are for; returns whether it was on the same pictures."""
    if len(judged) != len(searched):
        raise PredictionsError(f"coefficients are searched on {len(searched)} prediction files and are for {len(judged)}; give the same "
                               "networks in the same order")
    for one, other in zip(judged, searched, strict=True):
        if [_network(one), one.classes] != [_network(other), other.classes]:
            raise PredictionsError(f"{other.title} is of {' '.join(_network(other))}, but stands where {one.title} is, of "
                                   f"{' '.join(_network(one))}; give the same networks in the same order")
    return _pictures(_same(judged)) == _pictures(_same(searched))


def _network(one: Predictions) -> tuple[str, ...]:
    return one.recipe, Path(one.checkpoint).name, one.config


def _pictures(one: Predictions) -> tuple[str, str]:
    return one.split, one.fingerprint


def _same(several: Sequence[Predictions]) -> Predictions:
    """The first of several predictions of the same pictures; refuses others."""
    if not several:
        raise PredictionsError("there are no predictions to average; name a prediction file for each network")
    first = several[0]
    for other in several[1:]:
        both = f"{first.title} and {other.title}"
        if first.classes != other.classes:
            pairs = enumerate(zip(first.classes, other.classes, strict=False))
            k, differing = next((pair for pair in pairs if pair[1][0] != pair[1][1]), (None, None))
            what = f"the first to differ is class {k}, {' and '.join(map(shown, differing))}" if differing else "one goes on further"
            raise PredictionsError(f"{both}: their class lists differ ({len(first.classes)} and {len(other.classes)} classes, {what}); "
                                   "average networks that were trained on the same classes")
        if _pictures(first) != _pictures(other):
            raise PredictionsError(f"{both} are of other pictures ({' of '.join(_pictures(first))} and {' of '.join(_pictures(other))}); "
                                   "evaluate both networks on the same data and --split")
        if len(first) != len(other):
            raise PredictionsError(f"{both} have {len(first):,} and {len(other):,} pictures; evaluate both networks on all, or with the "
                                   "same --limit-batches and -b")
        if (first.labels is None) != (other.labels is None):
            raise PredictionsError(f"{both}: only one of them has labels; evaluate both networks on the same data")
        if first.labels is not None and (differing := np.flatnonzero(first.labels != other.labels)).size:
            k = differing[0]
            raise PredictionsError(f"{both}: the labels of {differing.size:,} pictures differ, the first is picture {k} "
                                   f"({first.labels[k]} and {other.labels[k]}); evaluate both networks on the same data")
    return first
