"""A run stuck at the loss of guessing is told why, as far as it can be seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from runs import small_store

from minialex import advice
from minialex.evaluate import Metrics
from minialex.train import Trainer


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("advice"), per_class=8, val_per_class=1)


def told(store, folder, capsys, monkeypatch, change=lambda trainer: None, labels=lambda batch: batch.labels, after=24, **asked) -> str:
    """What an epoch of 24 steps says at its end, when `after` are enough to tell; `labels` are those it learns."""
    monkeypatch.setattr(advice, "AFTER", after)
    with Trainer({"data": str(store), "recipe": "tiny", "batch": 4, "epochs": 1, "seed": 1, "output_dir": str(folder), **asked}) as trainer:
        change(trainer)
        for epoch in trainer.epochs():
            for batch in trainer.batches(epoch):
                trainer.learn(replace(batch, labels=labels(batch)))
            trainer.validate(epoch)
    out = capsys.readouterr().out
    return out[out.rindex("  the training loss"):] if "guessing" in out else ""


def test_a_run_that_learns_is_told_nothing(store, tmp_path, capsys, monkeypatch):
    def learn(trainer):
        monkeypatch.setattr(trainer, "_train_metrics", lambda: Metrics(top1=80.0, top5=30.0, loss=2.4, images=96))

    assert told(store, tmp_path / "run", capsys, monkeypatch, learn) == ""
    assert told(store, tmp_path / "again", capsys, monkeypatch, after=25) == ""            # too early to say


def test_labels_that_belong_to_other_pictures(store, tmp_path, capsys, monkeypatch):
    """Nothing is wrong with the network: what can be seen is as it should be, and the labels come next."""
    draw = np.random.default_rng(0)
    text = told(store, tmp_path / "run", capsys, monkeypatch, labels=lambda batch: draw.permutation(12)[:4].astype(np.int32), rate=0.001)
    assert text.startswith("  the training loss 2.") and "no better than that of guessing (2.485)" in text
    assert text.count("as it should") == 2 and "of 255 from picture to picture: as they should" in text
    assert "labels that belong to other pictures" in text and "minialex store show" in text and "deviation of 0.01" in text


def test_dead_units_are_named(store, tmp_path, capsys, monkeypatch):
    def die(trainer):
        trainer.net.params.fill(("fc7", "b"), np.full(trainer.net.params.specs["fc7", "b"].shape, -1e4, np.float32))

    text = told(store, tmp_path / "run", capsys, monkeypatch, die)
    assert "100 % of what relu7 says is 0: its ReLUs have died" in text and "a third of the --lr" in text


@pytest.mark.parametrize("rate, what", [(1e-9, "far too low; try ten times"), (0.0, "far too low")])
def test_a_rate_that_moves_nothing(store, tmp_path, capsys, monkeypatch, rate, what):
    assert what in told(store, tmp_path / "run", capsys, monkeypatch, rate=rate)


def test_a_rate_that_throws_the_weights_about(monkeypatch):
    monkeypatch.setattr(advice, "measure", lambda net, sgd: {"a.w": {"ratio": 0.5}, "b.w": {"ratio": None}, "a.b": {"ratio": 9.0}})
    assert advice._updates(None, None).endswith("by 0 to 0.5 of their size: the rate is far too high; try a tenth of the --lr")


def test_pictures_that_are_all_alike(store, tmp_path):
    with Trainer({"data": str(store), "recipe": "tiny", "batch": 4, "output_dir": str(tmp_path / "run")}, quiet=True) as trainer:
        trainer.net.input()[...] = 3.5
        assert "differ by 0 of 255 from picture to picture: they are all alike" in advice._pictures(trainer.net)


def test_the_loss_of_guessing():
    assert advice.guessing(np.full(1000, 1e-3)) == pytest.approx(np.log(1000))
    assert advice.guessing(np.array([0.5, 0.5, 0.0])) == pytest.approx(np.log(2))
