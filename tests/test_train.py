"""The training program: it learns, it does not learn what cannot be learnt, and what it leaves in its run directory."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from runs import small_store, train_in_child

from minialex.checkpoint import candidates, load, save
from minialex.cli import main
from minialex.data import open_store
from minialex.evaluate import credit
from minialex.progress import clock
from minialex.spec import MiniAlexError
from minialex.train import Diverged, Trainer, run


def train(asked):
    return run(asked, quiet=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    train({"data": str(store), "recipe": "tiny", "batch": 32, "epochs": 2, "output_dir": str(folder)})
    return folder


@pytest.mark.parametrize("shuffled", [False, True])
def test_it_learns_and_shuffled_labels_stay_at_chance(tmp_path, shuffled):
    """50 pictures of each class, 228 steps: enough to learn the colours (75 % error left), and with labels that have nothing to
    do with the pictures nothing: the error stays at 11 of 12 within four standard deviations, and the loss at ln 12."""
    store = small_store(tmp_path, 50, 10, shuffled_labels=shuffled)
    asked = {"data": str(store), "recipe": "tiny", "epochs": 6, "batch": 16, "output_dir": str(tmp_path / "run")}
    images = len(train(asked).validation)
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    error, loss, chance = last["validation"]["top1"], last["train"]["loss"], 100 * 11 / 12
    margin = 4 * 100 * math.sqrt(11 / 144 / images)
    if shuffled:
        assert abs(error - chance) < margin and abs(loss - math.log(12)) < 0.1
    else:
        assert error < chance - margin and loss < 2.0


def test_a_run_directory_holds_everything(finished):
    config = json.loads((finished / "config.json").read_text())
    assert config["recipe"] == "tiny" and config["batch"] == 32 and len(config["hash"]) == 16
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1] and rows[-1]["step"] == 6
    for name in ("curves.png", "filters.png", "predictions.png"):
        with Image.open(finished / name) as picture:
            assert picture.format == "PNG" and min(picture.size) > 100
    arrays, state = load(finished / (finished / "last").read_text().strip())
    assert state["step"] == 6 and len(state["classes"]) == 12 and "w/fc8.w" in arrays and "v/fc8.w" in arrays


def test_evaluate_says_what_training_said(finished, store, capsys):
    """The best checkpoint, loaded afresh, has the validation error that was written in its epoch."""
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert main(["evaluate", str(finished), str(store), "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    best = min(rows, key=lambda row: row["validation"]["top1"])["validation"]
    assert (got["top1"], got["top5"], got["images"]) == (best["top1"], best["top5"], best["images"])
    assert got["loss"] == pytest.approx(best["loss"], rel=1e-5)
    assert main(["evaluate", str(finished), str(store), "--ten-crops"]) == 0
    assert "ten view(s), val pictures: top-1 error" in capsys.readouterr().out


def test_evaluate_reads_the_store_that_training_made(finished, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays, state = load(candidates(finished)[0])
    state["config"] |= {"data": str(store.parent / "archives"), "store": str(store)}         # as after train ARCHIVES --store STORE
    path = save(tmp_path, "checkpoint-6.safetensors", arrays, state)
    assert main(["evaluate", str(path), "-q"]) == 0
    assert list(tmp_path.iterdir()) == [path], "the pictures were prepared again"


def test_predict_shows_bars(finished, store, tmp_path, capsys):
    picture = tmp_path / "photo.png"
    pixels = open_store(store, 128).split("val").read([0])[0]
    Image.fromarray(pixels).resize((300, 200)).save(picture)
    assert main(["predict", str(picture), "--checkpoint", str(finished), "--figure", str(tmp_path / "bars.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(picture) and sum(" %  " in line for line in lines) == 5
    shares = [float(line.split(" %")[0].split()[-1]) for line in lines[1:6]]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 100.2
    assert (tmp_path / "bars.png").exists()
    assert main(["predict", str(picture), "--checkpoint", str(finished), "--json", "--top", "12"]) == 0
    assert sum(json.loads(capsys.readouterr().out)[str(picture)].values()) == pytest.approx(1, abs=1e-5)


def test_resume_goes_further_and_says_what_changed(finished, store, tmp_path, capsys):
    folder = tmp_path / "run"
    asked = {"data": str(store), "recipe": "tiny", "batch": 32, "epochs": 1, "output_dir": str(folder)}
    train(asked)
    trainer = run({"output_dir": str(folder), "rate": 0.002, "epochs": 2}, resume="auto")
    assert trainer.schedule.rate(1) == 0.002 and trainer.step == 6
    said = capsys.readouterr().out
    assert "resume: rate 0.01 -> 0.002 (command line)" in said and "resume: epochs 1 -> 2 (command line)" in said
    assert "epoch 2/2" in said


def test_nan_stops_within_a_step_and_names_the_tensor(store, tmp_path):
    folder = tmp_path / "run"
    with Trainer({"data": str(store), "recipe": "tiny", "batch": 16, "epochs": 9, "output_dir": str(folder)}, quiet=True) as trainer:
        batches = trainer.batches(0)
        trainer.learn(next(batches))
        kept = trainer.save()
        trainer.net.params["conv3", "w"][0, 0, 0, 0] = np.nan
        with pytest.raises(Diverged, match=r"at step 1 .*first bad tensor: weight conv3\.w\. The last good checkpoint"):
            trainer.learn(next(batches))
        with pytest.raises(Diverged, match=r"w/conv3\.w is no longer finite .*nothing was saved"):
            trainer.save()
        with pytest.raises(Diverged, match=r"w/conv3\.w is no longer finite"):          # an epoch's last update may do it
            trainer.validate(0)
        batches.close()
    assert [path.name for path in folder.glob("*.safetensors")] == [kept.name]
    assert np.isfinite(load(kept)[0]["w/conv3.w"]).all()


def test_a_far_too_high_rate_exits_with_70(store, tmp_path):
    done = train_in_child(store, "--recipe", "tiny", "-b", "16", "--lr", "1e9", "--output-dir", tmp_path / "run", "-q")
    assert done.returncode == 70 and len(done.stderr.splitlines()) == 1
    assert "first bad tensor" in done.stderr and "--lr 1e+08" in done.stderr


def test_credit_and_ties():
    """Label 2 of p = (.4, .3, .3, 0): second or third.  By index it comes after 1; in fractions it has half of the second place."""
    p, labels = np.array([[0.4, 0.3, 0.3, 0.0]]), np.array([2])
    assert [credit(p, labels, k)[0] for k in (1, 2, 3)] == [0, 0, 1]
    assert [credit(p, labels, k, "fractional")[0] for k in (1, 2, 3)] == [0, 0.5, 1]
    assert [credit(p, np.array([1]), k)[0] for k in (1, 2)] == [0, 1]
    even = np.full((1, 8), 1 / 8)
    assert credit(even, np.array([6]), 5, "fractional")[0] == pytest.approx(5 / 8) and credit(even, np.array([6]), 5)[0] == 0
    with pytest.raises(MiniAlexError, match="not finite"):
        credit(np.array([[np.nan, 1.0]]), np.array([0]), 1)         # compares as best of all if nobody looks


def test_clock():
    assert [clock(s) for s in (0, 75, 3599.6, 4000)] == ["0:00", "1:15", "1:00:00", "1:06:40"]
