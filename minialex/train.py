"""Training: the loop of the paper's section 5 with everything around it that a long run needs.

    with Trainer(options) as trainer:
        for epoch in trainer.epochs():
            for batch in trainer.batches(epoch):
                trainer.learn(batch)
            trainer.validate(epoch)
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import signal
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import __version__, advice, backends, distributed, files, initial, placement
from .checkpoint import Keeper, RunLock, candidates, match
from .config import resolve
from .data import Batch, Loader, Source, Store, count, locate, showing, store_of
from .data.source import shown
from .evaluate import Metrics, evaluate, on_each, sums_of, validation_split
from .graph import StepGraph
from .journal import Journal
from .observers import Observers
from .optim import SGD, Schedule
from .progress import Progress, clock
from .rundir import newest, restore, run_folder, same_classes
from .spec import Diverged, Interrupted, MiniAlexError
from .upload import Uploads

# Fields of Config in which ranks may differ: what is whose on which machine.
ELSEWHERE = ("device", "workers", "data", "store", "output_dir")


class Trainer:
    """One run.  `asked` maps flag names of Config, "statistics" and "tensorboard" to values (None: not given); `resume` is a path,
    "auto" or None.

    Under a launcher of several processes each learns from its share of every batch (distributed.py); rank 0 alone writes.
    """

    def __init__(self, asked: dict, *, resume: str | None = None, quiet: bool = False, checkpoint_minutes: float = 10.0,
                 stall_timeout: float = 120.0, pictures: bool = True):
        self.world, self.checkpoint_seconds, self.stall_timeout = distributed.world(), checkpoint_minutes * 60, stall_timeout
        self.quiet = quiet or self.world.rank > 0
        self._looking = {"every": asked.get("statistics") or 0, "tensorboard": bool(asked.get("tensorboard")), "pictures": pictures}
        with self.world.together():
            arrays, state, path = self._configure(dict(asked), resume)
        self.world.compare(self.config.as_dict() | {"version": __version__, "step": state and state["step"]}, but=ELSEWHERE)
        self.world.meet(self.places)
        found = self.world.staged(lambda: locate(self.config.data, self.quiet))
        with self.world.together():
            if state:
                same_classes(path, state, found)
            self._check(found)
            self._build_net([c.id for c in found.classes])
        self._announce(found)
        workers = self.config.workers
        self.store: Store = self.world.staged(
            lambda: store_of(found, self.recipe.record, folder=self.config.store, workers=workers, quiet=self.quiet))
        with self.world.together():
            self._open_data()
            if state:
                self._continue(arrays, state)
        sums = [zlib.crc32(array) for array in self.net.params.host().values()] if self.world.size > 1 else []
        self.world.compare({"data": self.store.fingerprint, "weights": sums})
        self._signal: int | None = None

    # ---------------------------------------------------------------- set-up
    def _configure(self, asked: dict, resume: str | None) -> tuple[dict[str, np.ndarray], dict | None, Path | None]:
        """Decides what is to be done, by whom and where; returns the checkpoint's (arrays, state, path)."""
        world = self.world
        if resume == "auto" and not asked.get("output_dir"):
            asked["output_dir"] = str(newest("--resume auto"))
        arrays, state, self.notes, path = restore(resume, asked.get("output_dir"))
        if path is not None and not asked.get("output_dir"):
            asked["output_dir"] = str(path.parent)
        if state is None and not asked.get("device"):
            asked["device"] = backends.best()
        if world.local_size > 1 and not asked.get("workers"):
            asked["workers"] = max(1, os.cpu_count() // world.local_size)
        self.config, self.recipe, changed = resolve(asked, state and state["config"])
        self.notes += changed
        distributed.check_batch(self.config.batch, world.size)
        mine = distributed.my_devices(self.config.device, world.local_rank, world.local_size)
        self.places = placement.places(replace(self.config, device=mine))
        self.ops = self.places[0]
        self.folder = run_folder(self.config, path)
        self.epoch = state["epoch"] if state else 0
        return arrays, state, path

    def _build_net(self, classes: list[str]) -> None:
        config, recipe = self.config, self.recipe
        own = config.batch // self.world.size
        self.net = placement.network(recipe.build(len(classes)), recipe.input, own, self.places, seed=config.seed, fuse=config.fuse,
                                     overlap=config.overlap)
        self.config, taken = initial.begin(self.net, config, classes)
        self.notes += taken + placement.notes(self.net)
        self.sgd = SGD(self.net, momentum=config.momentum, decay=config.decay, factors=self.config.factors)
        self.graph = StepGraph(self.net, self.sgd, self.world.sum_ if self.world.size > 1 else None)
        self.schedule = Schedule(recipe.schedule, config.rate)
        self.position = self.step = 0
        self.sums = {"loss": 0.0, "right1": 0.0, "right5": 0.0, "images": 0}
        self.best: float | None = None

    def _check(self, found: Source | Store) -> None:
        """Refuses data that cannot be trained on, before anything is decoded or written."""
        name = self.config.data or "the embedded pictures"
        for part, splits in (("training", ("train",)), ("validation", ("val", "test"))):
            if not set(splits) & set(found.splits):
                raise MiniAlexError(f"{name}: there are no {part} pictures, only {', '.join(found.splits)}; "
                                    "put both into one folder, for example as train/CLASS/ and val/CLASS/")
        if isinstance(found, Store):
            store_of(found, self.recipe.record)                 # refuses pictures of another size
        self._check_batch(count(found, "train"))

    def _check_batch(self, train: int | None) -> None:
        if train is not None and self.config.batch > train:
            raise MiniAlexError(f"-b {self.config.batch}: a batch cannot be larger than the {train} training pictures of "
                                f"{self.config.data or 'the embedded set'}; give a smaller batch, for example -b {max(1, train // 8)}")

    def _open_data(self) -> None:
        config, recipe, classes = self.config, self.recipe, len(self.store.classes)
        self.split, self.validation = self.store.split("train"), validation_split(self.store)
        self._check_batch(len(self.split))                      # some pictures may have been unreadable
        self.uploads = Uploads([ops.kernels for ops in self.places]) if hasattr(self.ops, "kernels") else None
        self.loader = Loader(self.split, self.store, augmentation=recipe.augmentation, crop=recipe.crop, batch=config.batch,
                             seed=config.seed, workers=config.workers, rank=self.world.rank, ranks=self.world.size,
                             room=self.uploads and self.uploads.room, stall_timeout=self.stall_timeout)
        self.means = on_each(self.net, self.store.mean)
        self._show = showing(self.net, self.means)
        self.guessing = advice.guessing(np.bincount(self.split.labels, minlength=classes) / len(self.split))
        self.steps_per_epoch = min(len(self.loader), config.limit_batches or len(self.loader))

    def _continue(self, arrays: dict[str, np.ndarray], state: dict) -> None:
        shapes = {prefix + ".".join(key): spec.shape for key, spec in self.net.params.specs.items() for prefix in ("w/", "v/")}
        match(state, {"recipe": self.config.recipe, "classes": [c.id for c in self.store.classes], "shapes": shapes}, arrays)
        for key in self.net.params:
            self.net.params.fill(key, arrays["w/" + ".".join(key)])
            self.sgd.velocity.fill(key, arrays["v/" + ".".join(key)])
        self.schedule.restore(state["schedule"])
        self.epoch, self.position, self.step = state["epoch"], state["position"], state["step"]
        self.sums, self.best = state["sums"], state["best"]
        self.say(f"  resume: from epoch {self.epoch + 1}, batch {self.position}, step {self.step}")

    def __enter__(self) -> Trainer:
        with self.world.together():
            if self.world.rank == 0:
                self._open_folder()
        self.folder = self.world.from_root(self.folder)
        if self.world.rank:
            self.observers = Observers(self, **self._looking)
        self._tell_way_back()
        self._last_save = time.monotonic()
        self._old = {s: signal.signal(s, self._on_signal) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
        return self

    def _open_folder(self) -> None:
        created = self._make_folder()
        self.lock = RunLock(self.folder)
        try:
            self.lock.acquire()
            self.keeper = Keeper(self.folder)
            self.journal = Journal(self.folder, self.config, done=self.epoch)
            self.observers = Observers(self, **self._looking)
            self.say(f"  run directory {self.folder}")
        except BaseException:
            self.lock.release()
            for folder in created:                              # nothing is left of a run that could not begin
                shutil.rmtree(folder, ignore_errors=True)
            raise

    def _make_folder(self) -> list[Path]:
        """Makes the run directory; returns the folders that were not there, the innermost first."""
        while True:
            try:
                return files.make_folder(self.folder, exist_ok=self.config.output_dir is not None)
            except FileExistsError:
                if self.config.output_dir:
                    raise
                self.folder = run_folder(self.config, None)    # another run took the number meanwhile

    def __exit__(self, kind, error, trace) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        if self.world.rank == 0:
            self.lock.release()

    def _on_signal(self, number: int, frame) -> None:
        if number == signal.SIGUSR1:                                # a checkpoint behind this step, and on
            self._last_save = -math.inf
            return
        if self._signal is not None:
            text = f"{signal.Signals(number).name}, a second time: stopped at once; --resume auto goes on from the last checkpoint"
            raise KeyboardInterrupt(text, 128 + number)
        self._signal = number

    def _announce(self, found: Source | Store) -> None:
        """First line: recipe, device, data, estimated time."""
        config, recipe = self.config, self.recipe
        train, validation = count(found, "train"), count(found, "val", "test")
        images = "an unknown number of" if train is None else f"{train:,}"
        where = config.device + (f", {self.world.size} ranks" if self.world.size > 1 else "")
        self.say(f"MiniAlex {__version__}: recipe {config.recipe} on {where}, {config.data or 'the embedded pictures'} "
                 f"({images} training pictures, {len(found.classes)} classes), {config.epochs} epochs, "
                 f"{self._estimate(train or 0, validation or 0)}")
        kind = "left open by the paper" if recipe.name == "paper" else "not the paper's"
        for line in (*self.notes, *(f"{kind}: {line}" for line in recipe.differs)):
            self.say("  " + line)

    def _estimate(self, train: int, validation: int) -> str:
        """Time of training and validation from one timed pass; a validation image costs a third, it has no backward pass."""
        if self.config.limit_batches:
            most = self.config.limit_batches * self.config.batch
            train, validation = min(train, most), min(validation, most)
        images = (train + validation / 3) * (self.config.epochs - self.epoch) / self.world.size
        return f"about {clock(images * self._measure())}" if train else "time unknown until the pictures are counted"

    def _measure(self) -> float:
        """Seconds per image of one forward and backward pass on a fraction of a batch of zeros; changes no weight."""
        n = min(self.net.batch, 16)
        for ops, x in zip(self.places, self.net.inputs(n), strict=True):
            ops.from_host(np.zeros(x.shape, x.dtype), out=x)
        for _ in range(2):                                          # the first pass pays for fresh memory
            start = time.monotonic()
            self.net.fprop(np.zeros(n, np.int32), n=n, training=True)
            self.net.bprop()
        return (time.monotonic() - start) / n

    def say(self, text: str) -> None:
        if not self.quiet:
            print(shown(text), flush=True)

    # ---------------------------------------------------------------- the loop
    def epochs(self) -> Iterator[int]:
        """Epochs still to do; ends early when a plateau schedule has nothing left to try."""
        while self.epoch < self.config.epochs and not self.schedule.finished:
            yield self.epoch
        self._finish()

    def batches(self, epoch: int) -> Iterator[Batch]:
        """This epoch's batches from where the run stands, with the progress line."""
        self.progress = Progress(self.steps_per_epoch, initial=self.position, quiet=self.quiet)
        self._began, self._behind, self.loader.waited = time.monotonic(), self.sums["images"], 0.0      # a resumed epoch is partly behind
        try:
            batches = self.loader.batches(epoch, start=self.position)
            for batch in self.uploads.ahead(batches, self._show) if self.uploads else batches:
                if self.position >= self.steps_per_epoch:
                    break
                yield batch
        finally:
            self.progress.close()

    def learn(self, batch: Batch) -> float:
        """One step: input, fprop, bprop, update.  Returns the batch's mean loss; raises Diverged when it is not finite."""
        net, n, schedule = self.net, len(batch), self.schedule
        with np.errstate(all="ignore"):                 # what overflows is found below, and named
            if n:                                       # the last batch of an epoch may leave this rank none
                net.turn = batch.turn or 0
                if batch.turn is None:                  # else its input was made beside the step before
                    self._show(0, self.ops, batch)
                own = self.graph.fprop(batch.labels, step=self.step, first=batch.place, total=batch.total)
        own = sums_of(self.ops.to_host(net.probabilities[:n]), batch.labels, own, self.recipe.ties) if n else (0, 0, 0)
        sums = self.world.add(np.array([*own, *self._wishes()], np.float64))
        loss = float(sums[0]) / batch.total
        # A weight of minus infinity hides behind its ReLU: the loss stays a number.
        if not (math.isfinite(loss) and all(arena.finite(self.step) for arena in net.params.arenas())):
            raise distributed.everywhere(Diverged(f"the loss is {loss} at step {self.step} (epoch {self.epoch + 1}); first bad tensor: "
                                                  f"{net.first_nonfinite() or 'the loss'}. {self._way_back()}"))
        with np.errstate(all="ignore"):
            self.graph.learn(schedule.rate(self.epoch), idle=not n, first_rate=schedule.first_rate,
                             layer_rates=schedule.layer_rates(self.epoch))
        for name, value in zip(("loss", "right1", "right5"), sums, strict=False):
            self.sums[name] += float(value)
        self.sums["images"] += batch.total
        self.step += 1
        self.position += 1
        self.progress.update(self.position, self._line())
        self.observers.learned(loss)
        self._housekeeping(*sums[3:])
        return loss

    def _wishes(self) -> list[bool]:
        """What this process wants behind this step, as what one wants all must do: stop for SIGTERM, for SIGINT, save."""
        age = time.monotonic() - self._last_save
        save = math.isinf(age) or (age > self.checkpoint_seconds and self.world.rank == 0)
        return [self._signal == signal.SIGTERM, self._signal == signal.SIGINT, save]

    def _line(self) -> str:
        elapsed = max(1e-9, time.monotonic() - self._began)
        rate = (self.sums["images"] - self._behind) / elapsed
        left = (self.steps_per_epoch * (self.config.epochs - self.epoch) - self.position) * self.config.batch / rate
        train, waiting = self._train_metrics(), 100 * self.loader.waited / elapsed
        return (f"epoch {self.epoch + 1}/{self.config.epochs} step {self.step} loss {train.loss:.4f} "
                f"error top-1 {train.top1:.1f} % top-5 {train.top5:.1f} % rate {self.schedule.rate(self.epoch):g} "
                f"{rate:.0f} images/s data {waiting:.0f} % left {clock(left)}")

    def _train_metrics(self) -> Metrics:
        """Of this epoch so far, with dropout and augmentation on."""
        images = max(1, self.sums["images"])
        return Metrics(100 - 100 * self.sums["right1"] / images, 100 - 100 * self.sums["right5"] / images,
                       self.sums["loss"] / images, self.sums["images"])

    def _housekeeping(self, terminate: float, interrupt: float, save: float) -> None:
        if terminate or interrupt:
            path, number = self.save(), signal.SIGTERM if terminate else signal.SIGINT
            raise distributed.everywhere(Interrupted(f"{number.name}: stopped after step {self.step}; go on with --resume {path}",
                                                     128 + number))
        if save:
            self.save()

    def validate(self, epoch: int) -> Metrics:
        """Validation error, schedule, journal, pictures and checkpoint at the end of an epoch."""
        seconds = time.monotonic() - self._began
        self._refuse_nonfinite(self._weights())
        train = self._train_metrics()
        progress = Progress(len(self.validation), quiet=self.quiet)
        recipe = self.recipe

        def validated(done: int, total: int) -> None:
            progress.update(done, f"validation {done}/{total}")
            if self.world.size == 1:                    # several ranks stop together, at the next step
                self._housekeeping(*self._wishes()[:2], save=False)     # a resumed run stands behind the epoch and validates anew

        metrics = evaluate(self.net, self.store, self.validation, recipe, which=recipe.test_views, limit=self.config.limit_batches,
                           progress=validated)
        progress.close()
        self.say(f"epoch {epoch + 1}/{self.config.epochs}: train loss {train.loss:.4f} top-1 {train.top1:.1f} %; validation {metrics}; "
                 f"rate {self.schedule.rate(epoch):g}, {(train.images - self._behind) / max(1e-9, seconds):.0f} images/s")
        if self.world.rank == 0:
            self.journal.epoch(epoch, self.step, train, metrics, self.schedule.rate(epoch), seconds)
        if self.step >= advice.AFTER and train.loss > self.guessing - advice.NEAR and not self.quiet:
            for line in advice.stuck(self.net, self.sgd, train.loss, self.guessing):
                self.say("  " + line)
        self.schedule.observe(metrics.top1)
        improved = self.best is None or metrics.top1 < self.best
        self.best = metrics.top1 if improved else self.best
        self.epoch, self.position = epoch + 1, 0
        self.sums = {"loss": 0.0, "right1": 0.0, "right5": 0.0, "images": 0}
        self.save(best=improved)
        self.observers.validated()
        return metrics

    def _way_back(self) -> str:
        lower = f"--lr {self.config.rate / 10:g}"
        if candidates(self.folder):
            return (f"The last good checkpoint is in {self.folder}: go on from it with a lower rate, "
                    f"for example --resume {self.folder} {lower}")
        return f"There is no checkpoint yet: begin again with a lower rate, for example {lower}"

    def _tell_way_back(self) -> None:
        if self.step:
            self.world.way_back(f"; the last checkpoint is whole: go on with --resume {self.folder}")

    def _weights(self) -> dict[str, np.ndarray]:
        return {"w/" + k: v for k, v in self.net.params.host().items()}

    def _refuse_nonfinite(self, arrays: dict[str, np.ndarray]) -> None:
        if bad := next((k for k, v in arrays.items() if not np.isfinite(v).all()), None):
            raise distributed.everywhere(
                Diverged(f"{bad} is no longer finite after step {self.step}; nothing was saved. {self._way_back()}"))

    def save(self, best: bool = False) -> Path:
        """Writes a checkpoint of the whole state, rank 0 alone; refuses to keep weights that are not finite.  Knows no ranks."""
        arrays = self._weights() | {"v/" + k: v for k, v in self.sgd.velocity.host().items()}
        self._refuse_nonfinite(arrays)
        state = {"recipe": self.config.recipe, "config": self.config.as_dict(), "config_hash": self.config.hash(),
                 "classes": [c.id for c in self.store.classes], "class_names": [c.name for c in self.store.classes],
                 "epoch": self.epoch, "position": self.position, "step": self.step, "schedule": self.schedule.state(), "sums": self.sums,
                 "best": self.best, "preprocessing": {"record": self.recipe.record, "crop": self.recipe.crop},
                 "versions": {"minialex": __version__, "numpy": np.__version__, "python": platform.python_version()}}
        arrays["mean"] = self.store.mean
        self._last_save = time.monotonic()
        if self.world.rank == 0:
            self.keeper.save_step(self.step, arrays, state, best=best)
        self._tell_way_back()
        return self.folder / f"checkpoint-{self.step}.safetensors"

    def _finish(self) -> None:
        self.say(f"best validation top-1 error {self.best:.2f} %" if self.best is not None else "nothing to do")
        self.observers.finished()


def run(asked: dict, **options) -> Trainer:
    """A whole run: the loop at the top of this file.  Arguments are Trainer's."""
    with Trainer(asked, **options) as trainer:
        for epoch in trainer.epochs():
            for batch in trainer.batches(epoch):
                trainer.learn(batch)
            trainer.validate(epoch)
    return trainer
