"""Small predictions for the tests, drawn by hand and at random."""

from __future__ import annotations

import numpy as np

from minialex import predictions
from minialex.predictions import Predictions

CLASSES = ("n1", "n2", "n3")


def made(p, labels=(0, 1, 2, 2), classes=CLASSES, **fields) -> Predictions:
    labels = None if labels is None else np.array(labels, np.int32)
    fields = {"names": tuple(f"the {id}" for id in classes), "devkit": (None,) * len(classes), "fingerprint": "f00d", "split": "val",
              "listed": len(p), "recipe": "tiny", "checkpoint": "run/checkpoint-3.safetensors", "config": "c0de"} | fields
    return Predictions(np.array(p, np.float32), labels, classes, **fields)


ONE = made([[.5, .25, .25], [.25, .5, .25], [.25, .5, .25], [0, 1, 0]])
TWO = made([[0, 1, 0], [.25, .75, 0], [0, 0, 1], [0, .5, .5]], checkpoint="run/checkpoint-4.safetensors")


def drawn(seed: int, noise: float, n: int = 300, K: int = 7, sure: float = 1.5) -> Predictions:
    """A network that is right more often than not; the same labels for every seed."""
    labels = np.random.default_rng(99).integers(0, K, n)
    z = np.random.default_rng(seed).normal(size=(n, K)) * noise
    z[np.arange(n), labels] += sure
    p = np.exp(z)
    return made(p / p.sum(1, keepdims=True), labels, tuple(f"k{k}" for k in range(K)), checkpoint=f"{seed}")


def same(a: Predictions, b: Predictions) -> bool:
    arrays = a.probabilities.tobytes() == b.probabilities.tobytes() and (
        b.labels is None if a.labels is None else a.labels.tobytes() == b.labels.tobytes())
    return arrays and all(getattr(a, name) == getattr(b, name) for name in predictions._KEPT)
