"""How large weights, updates and gradients are, layer by layer, while a network learns.

    watch = Statistics(trainer, every=10)               # behind `with Trainer(...) as trainer`
    loss = trainer.learn(batch)
    watch.learned()

It reads copies on the host and draws nothing at random: no bit of the training changes.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from . import files
from .journal import read

FILE = "statistics.jsonl"


def measure(net: Any, sgd: Any) -> dict[str, dict[str, float | None]]:
    """{"conv1.w": {"w": mean |w|, "dw": mean |dw|, "ratio": dw / w, "gradient": mean |gradient|}, ...} of a net behind a step of `sgd`,
    whose velocity is what that step added.  The ratio is None where all weights are 0."""
    result = {}
    updates, gradients = sgd.velocity.host(), net.grads.host()
    for name, weights in net.params.host().items():
        w, dw, gradient = (float(np.abs(array).mean(dtype=np.float64)) for array in (weights, updates[name], gradients[name]))
        result[name] = {"w": w, "dw": dw, "ratio": dw / w if w else None, "gradient": gradient}
    return result


class Statistics:
    """Appends a row to statistics.jsonl every `every` steps, rank 0 alone; a torn last line is dropped, and so are rows that a resumed
    run will make anew."""

    def __init__(self, trainer: Any, every: int):
        self.trainer, self.every = trainer, every
        self.path = trainer.folder / FILE
        if trainer.world.rank == 0:
            kept = [row for row in read(self.path) if row["step"] <= trainer.step]
            files.write(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def learned(self) -> dict | None:
        """To be called behind every step; returns the row where this step has one."""
        trainer = self.trainer
        if trainer.world.rank or trainer.step % self.every:
            return None
        row = {"step": trainer.step, "epoch": trainer.epoch, "layers": measure(trainer.net, trainer.sgd)}
        files.append(self.path, json.dumps(row) + "\n", sync=False)     # a sync every few steps would cost more than it saves
        return row
