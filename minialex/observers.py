"""What looks on while a network learns: statistics of its layers, TensorBoard's events, pictures.  Nothing here changes a bit of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import figures
from .evaluate import probabilities
from .statistics import Statistics
from .tensorboard import TensorBoard


class Observers:
    """Of one run, once its folder is there.  `every`: steps between two rows of statistics.jsonl, 0 for none."""

    def __init__(self, trainer: Any, *, every: int = 0, tensorboard: bool = False, pictures: bool = True):
        self.trainer, self.pictures = trainer, pictures and trainer.world.rank == 0
        self.statistics = Statistics(trainer, every) if every else None
        self.tensorboard = TensorBoard(trainer) if tensorboard else None

    def learned(self, loss: float) -> None:
        """Behind every step."""
        row = self.statistics.learned() if self.statistics else None
        if self.tensorboard:
            self.tensorboard.learned(loss, row)

    def validated(self) -> None:
        """Behind every epoch, when the journal has its row."""
        trainer = self.trainer
        if self.tensorboard:
            self.tensorboard.validated()
        if self.pictures:
            figures.curves(trainer.journal.epochs(), trainer.folder / "curves.png",
                           title=f"{trainer.recipe.name} on {trainer.config.data or 'the embedded pictures'}")

    def finished(self) -> None:
        """Behind the last epoch."""
        trainer = self.trainer
        if not self.pictures or trainer.best is None:
            return
        params = trainer.net.params
        first = next((key for key in params if key[1] == "w" and len(params.specs[key].shape) == 4), None)
        if first:
            figures.filters(params.numpy(first), trainer.folder / "filters.png", columns=trainer.net.shapes[1].columns)
            figures.predictions(self._examples(), trainer.folder / "predictions.png")
            trainer.say(f"pictures: {trainer.folder}/curves.png, filters.png, predictions.png")

    def _examples(self, count: int = 8) -> list:
        """(picture, right label, five (name, probability)) of `count` validation pictures spread over the split."""
        trainer = self.trainer
        split = trainer.validation
        chosen = np.unique(np.linspace(0, len(split) - 1, min(count, len(split), trainer.net.batch)).astype(int))
        images, names = split.read(chosen), [c.name for c in trainer.store.classes]
        p = probabilities(trainer.net, images, trainer.means, trainer.recipe, "centre")
        return [(image, names[label], [(names[k], float(row[k])) for k in np.argsort(-row, kind="stable")[:5]])
                for image, label, row in zip(images, split.labels[chosen], p, strict=True)]
