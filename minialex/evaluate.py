"""Error rates of a network on a split, one crop or ten (paper, sections 4.1 and 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

from .column_net import ColumnNet
from .data import Split, Store, View, views
from .data.loader import share
from .distributed import world
from .net import Net
from .nets.recipe import Recipe
from .spec import MiniAlexError


@dataclass(frozen=True)
class Metrics:
    """Errors in per cent and the mean loss over `images` images."""

    top1: float
    top5: float
    loss: float
    images: int

    def as_dict(self) -> dict:
        return asdict(self)

    def __str__(self) -> str:
        return f"top-1 error {self.top1:.2f} %, top-5 error {self.top5:.2f} %, loss {self.loss:.4f} ({self.images} images)"


def credit(p: np.ndarray, labels: np.ndarray, k: int, ties: str = "index") -> np.ndarray:
    """Credit in [0, 1] of each image for having its label among the k most probable.

    p is (n, K), labels (n,).  ties="index" ranks equal probabilities by class index; "fractional" is the 2012 program's
    clip((k - better) / tied, 0, 1).  Raises MiniAlexError on a NaN, which would compare as best of all.
    """
    if not np.isfinite(p).all():
        raise MiniAlexError("evaluation met a probability that is not finite; the weights have diverged: use an earlier checkpoint")
    own = p[np.arange(len(labels)), labels][:, None]
    better, equal = (p > own).sum(1), p == own
    if ties == "fractional":
        return np.clip((k - better) / equal.sum(1), 0.0, 1.0)
    before = (equal & (np.arange(p.shape[1]) < labels[:, None])).sum(1)
    return (better + before < k).astype(np.float64)


def sums_of(p: np.ndarray, labels: np.ndarray, loss: float, ties: str) -> tuple[float, float, float]:
    """(loss, right at once, right among five), summed over the images that have the mean loss `loss`."""
    if not np.isfinite(loss):
        return loss, 0.0, 0.0
    return loss * len(labels), *(float(credit(p, labels, k, ties).sum()) for k in (1, 5))


def on_each(net: Net | ColumnNet, array: np.ndarray) -> list:
    """A copy of a host array on each place of a net, floats in its type."""
    array = array.astype(net.dtype) if array.dtype.kind == "f" else array
    return [ops.from_host(array) for ops in net.places]


def seen(net: Net | ColumnNet, images: np.ndarray, means: list, recipe: Recipe, chosen: list[View]) -> Iterator[View]:
    """Fills the net's inputs with each of the views `chosen` of up to net.batch pictures (n, H, W, 3) uint8 in turn, without noise."""
    n = len(images)
    held = list(zip(net.places, net.inputs(n), means, on_each(net, images), on_each(net, np.zeros((n, 3))), strict=True))
    for view in chosen:
        for ops, x, mean, pictures, noise in held:
            ops.augment_fprop(pictures, mean, ops.from_host(np.tile(np.int32([view.top, view.left]), (n, 1))),
                              ops.from_host(np.full(n, view.flip)), noise, x, mean_at=recipe.augmentation.mean_at,
                              scale=recipe.augmentation.scale)
        yield view


def probabilities(net: Net | ColumnNet, images: np.ndarray, means: list, recipe: Recipe, which: str) -> np.ndarray:
    """Mean softmax output over the views of up to net.batch pictures; images (n, H, W, 3) uint8 -> (n, K) float64.

    means : the mean image on each place, of `on_each`
    """
    n = len(images)
    chosen = views(images.shape[1], recipe.crop, which)
    total = np.zeros((n, net.classes))
    for _ in seen(net, images, means, recipe, chosen):
        net.fprop(n=n)
        total += net.ops.to_host(net.probabilities[:n])
    return total / len(chosen)


def validation_split(store: Store) -> Split:
    """What errors are measured on while training: "val", or "test" where the data has only that (CIFAR-10)."""
    return store.split("val" if "val" in store.splits else "test")


def evaluate(net: Net | ColumnNet, store: Store, split: Split, recipe: Recipe, *, which: str = "centre", limit: int | None = None,
             progress: Callable[[int, int], None] | None = None, collect: list | None = None,
             mean: np.ndarray | None = None) -> Metrics:
    """Top-1 and top-5 error of `split`; `limit` batches at most.  `collect` receives each batch's probabilities, (n, K) float32.

    Of several processes each takes an equal part of the pictures (and collects of it alone); all get the sums.

    mean : (record, record, 3) float32, subtracted from every picture; the store's own unless the network was trained with another
    """
    means = on_each(net, store.mean if mean is None else mean)
    total = len(split) if limit is None else min(len(split), limit * net.batch * world().size)
    if total == 0:
        raise MiniAlexError(f"{store.path}: the split has no pictures to evaluate; prepare it again from data with a validation part")
    right1 = right5 = loss = 0.0
    first, stop = share(total, world().rank, world().size)
    for start in range(first, stop, net.batch):
        indices = np.arange(start, min(start + net.batch, stop))
        labels = split.labels[indices]
        p = probabilities(net, split.read(indices), means, recipe, which).astype(np.float32)      # as files keep them: one ranking
        right1 += credit(p, labels, 1, recipe.ties).sum()
        right5 += credit(p, labels, 5, recipe.ties).sum()
        loss -= np.log(np.maximum(p[np.arange(len(labels)), labels].astype(np.float64), np.finfo(np.float32).tiny)).sum()
        if collect is not None:
            collect.append(p)
        if progress:
            progress(total * (start + len(indices) - first) // (stop - first), total)
    right1, right5, loss = world().add(np.array([right1, right5, loss], np.float64))
    return Metrics(100 * (1 - right1 / total), 100 * (1 - right5 / total), loss / total, total)
