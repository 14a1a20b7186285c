"""Statistics of layers while a network learns: equal to NumPy on copies, without a trace in the weights, whole after a kill."""

from __future__ import annotations

import json

import numpy as np
import pytest
from runs import assert_same_run, small_store

from minialex import statistics
from minialex.statistics import Statistics
from minialex.train import Trainer, run


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("data"), per_class=4, val_per_class=1)


def watched(store, folder, *, epochs=1, every=1, seen=lambda trainer, row: None, **options) -> None:
    asked = {"data": str(store), "recipe": "tiny", "batch": 12, "epochs": epochs, "output_dir": str(folder)}
    with Trainer(asked, quiet=True, pictures=False, **options) as trainer:
        watch = Statistics(trainer, every)
        for epoch in trainer.epochs():
            for batch in trainer.batches(epoch):
                trainer.learn(batch)
                seen(trainer, watch.learned())
            trainer.validate(epoch)


def rows(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / statistics.FILE).read_text().splitlines()]


def test_rows_are_what_numpy_says_of_copies(store, tmp_path):
    before, checked = {}, []

    def seen(trainer, row):
        weights = {".".join(key): trainer.net.params.numpy(key).astype(np.float64) for key in trainer.net.params}
        assert row["layers"].keys() == weights.keys()
        for name, w in weights.items():
            key, own = tuple(name.split(".")), row["layers"][name]
            assert own["w"] == pytest.approx(np.abs(w).mean(), rel=1e-6)
            assert own["gradient"] == pytest.approx(np.abs(trainer.net.grads.numpy(key).astype(np.float64)).mean(), rel=1e-6, abs=1e-30)
            assert own["ratio"] == (own["dw"] / own["w"] if own["w"] else None)
            if before and key[1] == "w":                        # what the step added, up to the rounding of the sum
                assert own["dw"] == pytest.approx(np.abs(w - before[name]).mean(), rel=1e-2)
                checked.append(name)
        before.update(weights)
        assert row["step"] == trainer.step

    watched(store, tmp_path / "run", seen=seen)
    assert len(checked) == 3 * sum(name.endswith(".w") for name in before) and len(rows(tmp_path / "run")) == 4


def test_no_bit_of_the_training_changes(store, tmp_path):
    watched(store, tmp_path / "with")
    asked = {"data": str(store), "recipe": "tiny", "batch": 12, "epochs": 1, "output_dir": str(tmp_path / "without")}
    run(asked, quiet=True, pictures=False)
    assert_same_run(tmp_path / "with", tmp_path / "without")


def test_a_resumed_run_drops_what_it_makes_anew(store, tmp_path):
    """Every second step; a row behind the checkpoint and a torn one are left by a course that was killed."""
    watched(store, tmp_path / "run", every=2)
    assert [row["step"] for row in rows(tmp_path / "run")] == [2, 4]
    path = tmp_path / "run" / statistics.FILE
    first = path.read_text()
    path.write_text(first + json.dumps({"step": 6, "layers": "of the course left"}) + '\n{"step": 8, "la')
    watched(store, tmp_path / "run", every=2, epochs=2, resume=str(tmp_path / "run"))
    assert [row["step"] for row in rows(tmp_path / "run")] == [2, 4, 6, 8]
    assert path.read_text().startswith(first) and "course left" not in path.read_text()


def test_other_ranks_write_nothing(store, tmp_path):
    def seen(trainer, row):
        assert row is not None
        trainer.world = type("World", (), {"rank": 1})()
        assert Statistics(trainer, 1).learned() is None
        raise StopIteration

    with pytest.raises(StopIteration):
        watched(store, tmp_path / "run", seen=seen)
    assert len(rows(tmp_path / "run")) == 1
