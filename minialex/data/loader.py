"""Batches of raw pictures with what each is to undergo, read ahead by threads.

A batch is a pure function of (store, seed, epoch, index): threads only decide when it is ready.  Pictures stay uint8 until the op
`augment_fprop` makes the network's input from them where the network is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..nets.recipe import Augmentation
from .ahead import ahead
from .augment import draw, offset_count
from .order import epoch_order
from .source import DataError
from .store import Split, Store

PREFETCH = 256 << 20                # bytes of batches made ahead


@dataclass(frozen=True)
class Batch:
    """n pictures in the order of use, and the arguments of `augment_fprop`."""

    images: np.ndarray              # (n, H, W, 3) uint8
    labels: np.ndarray              # (n,) int32
    pictures: np.ndarray            # (n,) int64, numbers in the split
    offsets: np.ndarray             # (n, 2) int32
    flips: np.ndarray               # (n,) bool
    noise: np.ndarray               # (n, 3) float32
    scale: float
    mean_at: str                    # "crop" or "centre"
    epoch: int
    index: int                      # of this batch in its epoch
    first: int                      # position of its first picture in its epoch
    place: int = 0                  # of its first picture in the whole batch, which several processes may share
    total: int = 0                  # pictures of the whole batch
    sent: tuple = ()                # the images on each device, where they were sent ahead (upload.py),
    turn: int | None = None         # and which of a net's two inputs was made from them there

    def __len__(self) -> int:
        return len(self.labels)


def share(n: int, rank: int, ranks: int) -> tuple[int, int]:
    """Where the part of process `rank` begins and ends among n things."""
    return n * rank // ranks, n * (rank + 1) // ranks


class Loader:
    """Batches of one split.

    Parameters
    ----------
    split, store : Split, Store     pictures; mean and colour statistics come from the store
    augmentation : Augmentation     of the recipe
    crop : int                      pixels a side the network sees
    batch : int                     pictures a batch; the last of an epoch may have fewer
    seed : int                      with epoch and position it decides order, crops, flips, noise
    workers : int                   threads that read ahead; changes no bit
    prefetch : int                  bytes of batches made or in the making ahead of the caller (one batch at the least)
    check : bool                    compare each picture's check sum when it is read
    rank, ranks : int               this process reads its share of each training batch alone: part `rank` of `ranks`, equal where they
                                    can be, in the order of the batch; the last batch of an epoch may have none for it
    room : Callable                 gives the uint8 array of a shape to read a batch into (default: new memory)
    stall_timeout : float           seconds without a batch after which Stalled is raised, naming file and thread; 0 waits for ever

    `waited` counts the seconds the caller stood waiting for batches.
    """

    def __init__(self, split: Split, store: Store, *, augmentation: Augmentation, crop: int, batch: int, seed: int = 0, workers: int = 2,
                 prefetch: int = PREFETCH, check: bool = True, rank: int = 0, ranks: int = 1,
                 room: Callable[[tuple[int, ...]], np.ndarray] | None = None, stall_timeout: float = 120.0):
        if batch < 1 or workers < 1:
            raise DataError(f"a batch of {batch} pictures and {workers} workers: both start at 1")
        offset_count(store.record, crop, augmentation.inclusive)
        self.split, self.augmentation, self.crop, self.batch = split, augmentation, crop, batch
        self.seed, self.workers, self.prefetch, self.check = seed, workers, prefetch, check
        self.rank, self.ranks, self.stall_timeout = rank, ranks, stall_timeout
        self.room, self.waited = room, 0.0
        self._record, self._directions = store.record, store.colour_directions

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.split) // self.batch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The training batches of an epoch from batch `start` on.  Raises DataError (at once) for a batch larger than the split."""
        if self.batch > len(self.split):
            raise DataError(f"a batch of {self.batch} is larger than the {len(self.split)} {self.split.name} pictures; "
                            f"use a smaller batch (-b)")
        if not 0 <= start <= len(self):
            raise DataError(f"batch {start} of an epoch of {len(self)} batches: the run to be resumed had other data or another batch size")
        return self._ahead(lambda index: self._training(epoch, index), start)

    def _training(self, epoch: int, index: int) -> Batch:
        whole = np.arange(index * self.batch, min((index + 1) * self.batch, len(self.split)))
        start, stop = share(len(whole), self.rank, self.ranks)
        positions = whole[start:stop]
        pictures = epoch_order(self.augmentation.order, self.seed, epoch, len(self.split), positions)
        drawn = draw(self.augmentation, self.seed, epoch, positions, pictures, self._record, self.crop, self._directions)
        into = {"out": self.room((len(pictures), *self.split.shape))} if self.room and len(pictures) else {}
        return Batch(self.split.read(pictures, check=self.check, **into), self.split.labels[pictures], pictures, *drawn,
                     mean_at=self.augmentation.mean_at, epoch=epoch, index=index, first=index * self.batch + start, place=start,
                     total=len(whole))

    def _ahead(self, make: Callable[[int], Batch], start: int) -> Iterator[Batch]:
        """make(start), make(start + 1), ... in order, computed ahead by threads that end with this generator, however it ends."""
        depth = max(1, self.prefetch // (-(-self.batch // self.ranks) * int(np.prod(self.split.shape))))
        return ahead(make, iter(range(start, len(self))), depth=depth, workers=self.workers, timeout=self.stall_timeout,
                     doing=self.split.reading.get, waited=self._wait, name="minialex-loader")

    def _wait(self, seconds: float) -> None:
        self.waited += seconds


def transform(ops, batch: Batch, mean, out, place: int = 0) -> tuple:
    """Makes the network's input from a batch: `out` is (1, n, crop, crop, 3) of the backend `ops`, or cells of that, `mean` its copy of
    Store.mean.  Pictures that were sent ahead are those of device `place`.  Returns the arrays that the op reads besides."""
    noise = batch.noise.astype(str(mean.dtype), copy=False)
    images = batch.sent[place] if batch.sent else ops.from_host(batch.images)
    offsets, flips, noise = (ops.from_host(array) for array in (batch.offsets, batch.flips, noise))
    ops.augment_fprop(images, mean, offsets, flips, noise, out, mean_at=batch.mean_at, scale=batch.scale)
    return offsets, flips, noise


def showing(net, means: list) -> Callable:
    """What makes the input of one place of `net` from a batch, the one that batch.turn says, as Uploads.ahead asks for it.  `means`:
    Store.mean on each place."""
    return lambda place, ops, batch: transform(ops, batch, means[place], net.inputs(len(batch), batch.turn)[place], place)
