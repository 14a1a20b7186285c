"""A NaN or an infinity, wherever it comes from: the run stops within a step, names a tensor, and keeps its last good checkpoint."""

import os

import numpy as np
import pytest
from runs import small_store

from minialex.checkpoint import load
from minialex.spec import Diverged
from minialex.train import Trainer

KINDS = ("image", "weight", "activation", "gradient", "momentum", "rate")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("nonfinite"))


def poison(trainer, kind, value, rng, monkeypatch):
    """Puts one bad number into the run; returns what the sentence may name."""
    net, keys = trainer.net, list(trainer.net.params)
    key = keys[rng.integers(len(keys))]
    at = int(rng.integers(net.params[key].size))

    def spoil(array):
        array.reshape(-1)[at % array.size] = value
    if kind == "image":
        height, width, _ = trainer.means[0].shape
        trainer.means[0][height // 2, width // 2] = value       # the middle, which every crop sees
        return "input"
    if kind == "weight":
        spoil(net.params[key])
    elif kind == "momentum":
        spoil(trainer.sgd.velocity[key])
    elif kind == "rate":
        monkeypatch.setattr(trainer.schedule, "rate", lambda epoch: value)
    elif kind == "gradient":
        real = net.bprop
        monkeypatch.setattr(net, "bprop", lambda: (real(), spoil(net.grads[key]))[0])
    elif kind == "activation":
        real = net.ops.linear_fprop

        def linear_fprop(x, *arguments, **more):
            spoil(x)
            return real(x, *arguments, **more)
        monkeypatch.setattr(net.ops, "linear_fprop", linear_fprop)
        return "activation"
    return "weight"


def stops(store, folder, kind, value, step, monkeypatch):
    asked = {"data": str(store), "recipe": "tiny", "batch": 16, "epochs": 9, "output_dir": str(folder)}
    with Trainer(asked, quiet=True) as trainer, monkeypatch.context() as patch:
        batches = (batch for epoch in range(99) for batch in trainer.loader.batches(epoch))
        list(trainer.batches(0))                                # only for the progress line
        for _ in range(step):
            trainer.learn(next(batches))
        kept = trainer.save()
        named = poison(trainer, kind, value, np.random.default_rng([step, KINDS.index(kind)]), patch)
        with pytest.raises(Diverged, match=rf"first bad tensor: {named}.* The last good checkpoint is in"):
            for _ in range(2):                                  # gradient, momentum and rate come to light behind their update
                trainer.learn(next(batches))
        if named == "weight":                                   # else the weights are sound and may be kept
            with pytest.raises(Diverged, match="nothing was saved"):
                trainer.save()
        batches.close()
    files = [path for path in os.listdir(folder) if path.endswith(".safetensors")]
    assert files == [kept.name]
    arrays, _ = load(kept)
    assert all(np.isfinite(array).all() for array in arrays.values())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_it_stops_within_a_step(store, tmp_path, kind, value, monkeypatch):
    stops(store, tmp_path / "run", kind, value, 1 + KINDS.index(kind) % 3, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_it_stops_wherever_the_bad_number_falls(store, tmp_path, kind, monkeypatch):
    for step in range(1, 51):
        stops(store, tmp_path / str(step), kind, (np.nan, np.inf, -np.inf)[step % 3], step, monkeypatch)
