"""Short binary codes: an autoencoder, built of this library's layers, squeezes features through a few sigmoid units (paper, section 6.1).

    features -> linear, ReLU -> linear, sigmoid (the code) -> linear, ReLU -> linear -> features again

Noise added below the sigmoids makes them choose between 0 and 1, so that little is lost when they are cut at the middle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import backends, checkpoint
from ..layers import Layer, Linear, ReLU, Run, Sigmoid
from ..memory import Arena, initial
from ..optim import SGD
from ..spec import MiniAlexError, Shape

HIDDEN, BATCH, RATE, NOISE = 256, 100, 0.005, 0.5
KIND = "codes"


@dataclass(frozen=True)
class Codes:
    """A coder: (x - mean) / scale, then `layers` of (w (K, F), b (K,)) with a ReLU between them; a bit is 1 above its threshold."""

    mean: np.ndarray
    scale: float
    layers: list[tuple[np.ndarray, np.ndarray]]
    thresholds: np.ndarray

    @property
    def bits(self) -> int:
        return len(self.thresholds)

    def logits(self, features: np.ndarray) -> np.ndarray:
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise MiniAlexError(f"features of shape {features.shape} were given to codes made for rows of {len(self.mean)}: "
                                "they are of another layer or network")
        x = (features - self.mean) / np.float32(self.scale)
        for w, b in self.layers[:-1]:
            x = np.maximum(x @ w.T + b, 0)
        w, b = self.layers[-1]
        return x @ w.T + b

    def encode(self, features: np.ndarray, block: int = 4096) -> np.ndarray:
        """(n, bits / 64) uint64."""
        parts = [np.packbits(self.logits(np.asarray(features[i:i + block])) > self.thresholds, axis=1, bitorder="little")
                 for i in range(0, len(features), block)]
        return np.ascontiguousarray(np.concatenate(parts)).view("<u8")

    def save(self, path: str | Path, about: dict | None = None) -> Path:
        path = Path(path)
        arrays = {"mean": self.mean, "thresholds": self.thresholds}
        for i, (w, b) in enumerate(self.layers):
            arrays |= {f"w{i}": w, f"b{i}": b}
        state = {"kind": KIND, "scale": self.scale, "layers": len(self.layers), **(about or {})}
        return checkpoint.save(path.parent, path.name, arrays, state)

    @classmethod
    def load(cls, path: str | Path) -> tuple[Codes, dict]:
        """(codes, what `save` was told about them)."""
        arrays, state = checkpoint.load(path, KIND)
        try:
            layers = [(arrays[f"w{i}"], arrays[f"b{i}"]) for i in range(state["layers"])]
            return cls(arrays["mean"], state["scale"], layers, arrays["thresholds"]), state
        except (KeyError, TypeError) as error:
            raise MiniAlexError(f"{path}: codes that lack {error}; train them again with minialex features --codes") from error


class Autoencoder:
    """The layers with their arrays, as a Net has them; ends in rows, not in classes."""

    def __init__(self, width: int, bits: int, seed: int, batch: int = BATCH):
        self.ops = backends.load("cpu")
        self.layers: list[Layer] = [
            Linear("in", HIDDEN, std=width**-0.5), ReLU("relu1"), Linear("code", bits, std=HIDDEN**-0.5), Sigmoid("bits"),
            Linear("out1", HIDDEN, std=bits**-0.5), ReLU("relu2"), Linear("out", width, std=HIDDEN**-0.5)]
        self.shapes = [Shape(1, 1, 1, width)]
        for layer in self.layers:
            self.shapes.append(layer.out_shape(self.shapes[-1]))
        specs = {(layer.name, spec.name): spec for layer, x in zip(self.layers, self.shapes, strict=False) for spec in layer.params(x)}
        self.params = Arena(self.ops, specs)
        self.grads = self.params.like()
        for key, spec in specs.items():
            self.params.fill(key, initial(spec, key[0], seed))
        self.values = [self.ops.empty(shape.array(batch), "float32") for shape in self.shapes]
        self.errors = [self.ops.empty(shape.array(batch), "float32") for shape in self.shapes]
        self.runs = [Run(params={k[1]: self.params[k] for k in specs if k[0] == layer.name},
                         grads={k[1]: self.grads[k] for k in specs if k[0] == layer.name}) for layer in self.layers]

    def fprop(self, x: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Rows x (n, width) through all layers; noise (n, bits) is added below the sigmoids."""
        n = len(x)
        v = [array[:, :n] for array in self.values]
        v[0][...] = x.reshape(v[0].shape)
        for i, layer in enumerate(self.layers):
            if layer.name == "bits":
                v[i] += noise.reshape(v[i].shape)
            layer.fprop(self.ops, v[i], v[i + 1], self.runs[i])
        return v[-1].reshape(n, -1)

    def bprop(self, dy: np.ndarray) -> None:
        """Overwrites the gradients with those for dL/d(output) = dy, of the last fprop."""
        n = len(dy)
        v, e = [array[:, :n] for array in self.values], [array[:, :n] for array in self.errors]
        e[-1][...] = dy.reshape(e[-1].shape)
        for i in range(len(self.layers) - 1, -1, -1):
            self.layers[i].bprop(self.ops, v[i], v[i + 1], e[i + 1], e[i] if i else None, self.runs[i])


def train_codes(features: np.ndarray, bits: int = 128, seed: int = 0, epochs: int = 20,
                progress: Callable[[int, float], None] = lambda epoch, loss: None) -> Codes:
    """Trains the autoencoder on rows (n, D); the same rows and seed give the same codes.  `progress(epoch, mean squared error)`.

    Thresholds are the medians over the rows, so that every bit is 1 for half of them.
    """
    if bits < 64 or bits % 64:
        raise MiniAlexError(f"codes of {bits} bits: a multiple of 64 is needed, for example 128")
    if len(features) < 2:
        raise MiniAlexError(f"codes are learnt from the features of many pictures, but there are {len(features)}")
    features = np.asarray(features, np.float32)
    mean = features.mean(0, dtype=np.float64).astype(np.float32)
    scale = float(np.sqrt(np.mean((features - mean).astype(np.float64) ** 2))) or 1.0
    x, rng = (features - mean) / np.float32(scale), np.random.default_rng([seed, bits])
    net = Autoencoder(x.shape[1], bits, seed)
    sgd = SGD(net, momentum=0.9, decay=0.0)
    for epoch in range(epochs):
        order, loss = rng.permutation(len(x)), 0.0
        rate = RATE * (1.0 if epoch < 0.7 * epochs else 0.1)
        for start in range(0, len(x), BATCH):
            rows = x[order[start:start + BATCH]]
            noise = rng.normal(0, NOISE * (epoch + 1) / epochs * 2, (len(rows), bits)).astype(np.float32)
            error = net.fprop(rows, noise) - rows
            loss += float((error.astype(np.float64) ** 2).sum())
            net.bprop(error / np.float32(len(rows)))
            sgd.step(rate)
        if not np.isfinite(loss):
            raise MiniAlexError(f"the autoencoder diverged in epoch {epoch + 1}; features of this kind need another rate")
        progress(epoch + 1, loss / x.size)
    layers = [(net.params.numpy((name, "w")), net.params.numpy((name, "b"))) for name in ("in", "code")]
    return _balanced(Codes(mean, scale, layers, np.zeros(bits, np.float32)), features)


def hyperplanes(features: np.ndarray, bits: int = 128, seed: int = 0) -> Codes:
    """Random hyperplanes through the middle of the features: what learning has to beat."""
    features = np.asarray(features, np.float32)
    w = np.random.default_rng([seed, bits]).normal(size=(bits, features.shape[1])).astype(np.float32)
    mean = features.mean(0, dtype=np.float64).astype(np.float32)
    return _balanced(Codes(mean, 1.0, [(w, np.zeros(bits, np.float32))], np.zeros(bits, np.float32)), features)


def _balanced(codes: Codes, features: np.ndarray) -> Codes:
    return Codes(codes.mean, codes.scale, codes.layers, np.median(codes.logits(features), axis=0).astype(np.float32))
