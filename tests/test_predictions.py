"""Prediction files: literal averages, coefficients that are the best there are, tables that add up, submissions, and every refusal."""

from __future__ import annotations

import csv
import errno
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import finished, refused, said
from faults import Crash, Faults
from ranks import MISSING, mpi
from runs import small_store
from safetensors.numpy import load_file

from minialex import checkpoint, predictions, train
from minialex.checkpoint import candidates
from minialex.predictions import (
    GAP,
    Predictions,
    PredictionsError,
    average,
    confusion,
    errors,
    load,
    per_class,
    save,
    search,
    submission,
    worst,
)

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


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))


# -------------------------------------------------------------------------------------------------------------------------- averaging


def test_an_average_by_hand():
    got = average([ONE, TWO])
    assert got.probabilities.dtype == np.float32
    assert got.probabilities.tolist() == [[.25, .625, .125], [.25, .625, .125], [.125, .25, .625], [0, .75, .25]]
    assert got.labels.tolist() == [0, 1, 2, 2] and got.checkpoint == "0.5 run/checkpoint-3.safetensors + 0.5 run/checkpoint-4.safetensors"
    assert (errors(ONE.probabilities, ONE.labels), errors(TWO.probabilities, TWO.labels)) == ((50, 0), (50, 0))
    metrics = got.metrics()
    assert (metrics.top1, metrics.top5, metrics.images) == (50, 0, 4)
    assert metrics.loss == pytest.approx(-(np.log(.25) + 2 * np.log(.625) + np.log(.25)) / 4, rel=1e-12)
    got = average([ONE, TWO], [.25, .75])
    assert got.probabilities.tolist() == [[.125, .8125, .0625], [.25, .6875, .0625], [.0625, .125, .8125], [0, .625, .375]]
    assert average([ONE, TWO], [1, 0]).probabilities.tobytes() == ONE.probabilities.tobytes()
    assert average([ONE]).probabilities.tobytes() == ONE.probabilities.tobytes()


def test_blocks_change_no_bit(monkeypatch):
    several = [drawn(seed, 1.0, n=50) for seed in (1, 2, 3)]
    devkit = tuple(range(7, 0, -1))
    several = [replace(one, devkit=devkit) for one in several]
    want, text = average(several, [.2, .3, .5]), submission(several[0])
    monkeypatch.setattr(predictions, "BLOCK", 7)
    assert average(several, [.2, .3, .5]).probabilities.tobytes() == want.probabilities.tobytes() and submission(several[0]) == text


def loss(several, c) -> float:
    rows = np.arange(len(several[0]))
    own = [one.probabilities[rows, one.labels].astype(np.float64) for one in several]
    return float(-np.log(sum(x * p for x, p in zip(c, own, strict=True))).mean())


@pytest.mark.parametrize("noises", [(1.0, 1.0), (1.0, 1.6), (1.2, 0.9), (0.5, 3.0)])
def test_search_is_monotone_and_finds_the_best_of_a_grid(noises):
    """0.5 against 3.0: one network is of no use beside the other, the best coefficients are at the border."""
    several, trace = [drawn(k, noise) for k, noise in enumerate(noises)], []
    c = search(several, trace)
    assert c.min() >= 0 and c.sum() == pytest.approx(1, abs=1e-12) and len(trace) > 1
    assert (np.diff(trace) <= 1e-15).all() and trace[-1] == pytest.approx(loss(several, c), abs=1e-12)
    assert trace[0] == pytest.approx(loss(several, (.5, .5)), abs=1e-12)
    grid = np.linspace(0, 1, 1001)
    losses = np.array([loss(several, (a, 1 - a)) for a in grid])
    assert loss(several, c) < losses.min() + GAP
    within = grid[losses < losses.min() + 2 * GAP]                      # the loss is flat at its bottom
    assert within.min() - .001 <= c[0] <= within.max() + .001
    assert losses.max() > losses.min() + 100 * GAP                      # not flat all over
    assert search(several).tobytes() == c.tobytes()


def test_search_among_three_and_among_equals():
    several = [drawn(k, noise) for k, noise in enumerate((1.0, 1.5, 1.2))]
    c = search(several)
    steps = np.linspace(0, 1, 41)
    best = min((loss(several, (a, b, 1 - a - b)), a, b) for a in steps for b in steps if a + b < 1 + 1e-9)
    assert loss(several, c) < best[0] + GAP and np.abs(c[:2] - best[1:]).max() < .05 and c.min() > .1
    assert search([ONE, ONE]).tolist() == [.5, .5] and search([ONE]).tolist() == [1]
    certain = made([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]])
    wrong = made([[0, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]])
    assert search([certain, wrong])[0] == pytest.approx(1, abs=2 * GAP)


# ---------------------------------------------------------------------------------------------------------------------------- judging


def test_ties_by_hand():
    """Three of the second picture's classes share the first place: its label is the last of them in the list, or has a third of it."""
    p, labels = np.float32([[.5, .25, .25], [1 / 3] * 3]), np.int32([0, 2])
    assert errors(p, labels) == (50, 0)
    assert errors(p, labels, "fractional") == (pytest.approx(100 / 3), 0)
    six = np.full((1, 6), 1 / 6, np.float32)
    assert errors(six, np.int32([5])) == (100, 100) and errors(six, np.int32([4])) == (100, 0)
    assert errors(six, np.int32([5]), "fractional") == (pytest.approx(500 / 6), pytest.approx(100 / 6))
    recipe = replace(made(p, labels), ties="fractional")
    assert recipe.metrics().top1 == pytest.approx(100 / 3) and recipe.metrics("index").top1 == 50


@pytest.mark.parametrize("ties", ["index", "fractional"])
def test_the_table_of_classes_adds_up(ties):
    one = drawn(5, 2.0)
    rounded = np.round(one.probabilities * 8) / 8 + np.float32(.01)                         # many ties
    one = replace(one, probabilities=rounded / rounded.sum(1, keepdims=True), ties=ties)
    rows = per_class(one)
    assert sorted(row.id for row in rows) == sorted(one.classes) and sum(row.pictures for row in rows) == len(one)
    for column, total in zip(("top1", "top5"), errors(one.probabilities, one.labels, ties), strict=True):
        assert sum(row.pictures * getattr(row, column) for row in rows) / len(one) == pytest.approx(total, rel=1e-12)
    assert [row.top1 for row in rows] == sorted((row.top1 for row in rows), reverse=True) and rows[0].top1 > rows[-1].top1
    other = per_class(one, "index" if ties == "fractional" else "fractional")
    assert {row.id: row.top1 for row in other} != {row.id: row.top1 for row in rows}


def test_the_table_by_hand():
    """n4 has no picture; n1 is seen as n2, half of n3 too."""
    one = made([[.25, .5, .25, 0], [.25, .5, .25, 0], [.25, .5, .25, 0], [0, .25, .75, 0]], classes=("n1", "n2", "n3", 'a, "b"'))
    rows = per_class(one)
    assert [row[:4] for row in rows[:3]] == [("n1", "the n1", 1, 100), ("n3", "the n3", 2, 50), ("n2", "the n2", 1, 0)]
    assert rows[3][:3] == ('a, "b"', 'the a, "b"', 0) and np.isnan(rows[3].top1)
    assert predictions.table(rows) == ("class,name,pictures,top1_error,top5_error\n"
                                       "n1,the n1,1,100.0000,0.0000\nn3,the n3,2,50.0000,0.0000\n"
                                       'n2,the n2,1,0.0000,0.0000\n"a, ""b""","the a, ""b""",0,,\n')
    assert list(csv.reader(io.StringIO(predictions.table(rows))))[4] == ['a, "b"', 'the a, "b"', "0", "", ""]
    assert confusion(one).tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_confusion_and_the_worst_mistakes_by_hand():
    assert confusion(ONE).tolist() == [[1, 0, 0], [0, 1, 0], [0, 2, 0]] and confusion(ONE).dtype == np.int64
    assert confusion(TWO).tolist() == [[0, 1, 0], [0, 1, 0], [0, 1, 1]]
    assert worst(ONE, 2).tolist() == [3, 2] and worst(TWO, 9).tolist() == [0, 3, 1, 2]
    for one in (drawn(1, 1.0), drawn(2, 2.0)):
        assert 100 * (1 - np.trace(confusion(one)) / len(one)) == pytest.approx(errors(one.probabilities, one.labels)[0])


def test_a_submission_by_hand():
    """Labels are sorted WNIDs, the text speaks in ILSVRC2012_IDs; the first of equal probabilities comes first."""
    p = [[.1, .2, .3, .05, .25, .1], [1, 0, 0, 0, 0, 0]]
    six = made(p, None, tuple("abcdef"), devkit=(449, 7, 1000, 12, 3, 81))
    assert submission(six) == "1000 3 7 449 81\n449 7 1000 12 3\n"
    assert submission(replace(ONE, devkit=(3, 1, 2))) == "3 1 2\n1 3 2\n1 3 2\n1 3 2\n"            # three classes: all of them
    assert submission(average([six, six])) == submission(six)


# ------------------------------------------------------------------------------------------------------------------------------ files


def same(a: Predictions, b: Predictions) -> bool:
    arrays = a.probabilities.tobytes() == b.probabilities.tobytes() and (
        b.labels is None if a.labels is None else a.labels.tobytes() == b.labels.tobytes())
    return arrays and all(getattr(a, name) == getattr(b, name) for name in predictions._KEPT)


def test_a_file_comes_back(tmp_path):
    full = replace(TWO, devkit=(3, None, 1), names=("é", "x\ny", ""), views="ten", ties="fractional", listed=9)
    for one in (ONE, full, replace(ONE, labels=None)):
        path = save(one, tmp_path / "p.safetensors")
        got = load(path)
        assert same(got, one) and got.path == path and same(load(str(path)), one)
        content = path.read_bytes()
        assert save(got, path).read_bytes() == content                                 # equal predictions, equal files
        library = load_file(path)
        assert library["probabilities"].tobytes() == one.probabilities.tobytes() and ("labels" in library) == (one.labels is not None)
    assert [p.name for p in tmp_path.iterdir()] == ["p.safetensors"]


def test_a_file_cut_anywhere_or_with_a_changed_byte_is_refused(tmp_path):
    content = save(ONE, tmp_path / "p.safetensors").read_bytes()
    path = tmp_path / "other.safetensors"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(PredictionsError, match=r"no prediction file, or no longer one .*--save-predictions"):
            load(path)
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1:])
        with pytest.raises(PredictionsError, match="no prediction file, or no longer one"):
            load(path)
    path.write_bytes(content)
    assert same(load(path), ONE)


@pytest.mark.parametrize("kind", ["error", "crash"])
def test_a_file_is_whole_or_the_one_before(tmp_path, kind):
    """Every call that writes fails once, as on a full disk, or is the last the machine makes."""
    path, seen = tmp_path / "p.safetensors", set()
    for at in range(1, 99):
        save(ONE, path)
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, at, kind)
            try:
                save(TWO, path)
            except (PredictionsError, Crash) as error:
                if kind == "error":
                    assert error.__cause__.errno == errno.ENOSPC and str(path) in str(error) and "No space left" in str(error)
        seen.add(tuple(same(load(path), one) for one in (ONE, TWO)))
        assert kind == "crash" or list(tmp_path.iterdir()) == [path]
        if not faults.fired:
            break
    assert not faults.fired and seen == {(True, False), (False, True)}


def state_of(one: Predictions) -> dict:
    return {"kind": "predictions", "version": 1} | {name: getattr(one, name) for name in predictions._KEPT}


F = np.float32
@pytest.mark.parametrize("arrays, state, word", [
    ({"probabilities": None}, {}, "no float32 array"), ({"probabilities": np.full((4, 3), 1 / 3)}, {}, "no float32 array"),
    ({"probabilities": F([1, 0, 0])}, {}, "no float32 array"), ({"probabilities": np.zeros((0, 3), F)}, {}, "no float32 array"),
    ({"probabilities": np.full((4, 2), .5, F)}, {}, "2 probabilities a picture, 3 classes"),
    ({"probabilities": np.full((4, 3), .5, F)}, {}, "does not sum to 1"),
    ({"probabilities": np.full((4, 3), np.nan, F)}, {}, "does not sum to 1"),
    ({"probabilities": F([[2, -1, 0]] * 4)}, {}, "does not sum to 1"),
    ({"labels": np.int32([0, 1, 2])}, {}, "labels are int32 (3,)"), ({"labels": np.int32([0, 1, 2, 3])}, {}, "up to 3"),
    ({"labels": np.int32([0, 1, 2, -1])}, {}, "labels are"), ({"labels": np.int64([0, 1, 2, 2])}, {}, "labels are int64"),
    ({}, {"classes": ["n1", "n1", "n2"]}, "differ"), ({}, {"classes": ["n1", "n2", 3]}, "no text"), ({}, {"names": ["a"]}, "1 names"),
    ({}, {"devkit": [1, 2]}, "2 numbers"), ({}, {"devkit": [1, 2, "3"]}, "devkit"), ({}, {"devkit": [0, 2, 3]}, "devkit"),
    ({}, {"devkit": [1, 2, True]}, "devkit"), ({}, {"split": 5}, "no text"), ({}, {"listed": 3}, "4 pictures of 3"),
    ({}, {"listed": 4.0}, "4 pictures of 4.0"), ({}, {"ties": "odd"}, "rule for ties"), ({}, {"classes": 7}, "garbles a field"),
    ({}, {"classes": [["n1"], [], {}]}, "garbles a field"),
    ({}, {"names": None}, "garbles a field"), ({}, {"split": ...}, "garbles a field ('split')" and "'split'"),
    ({}, {"kind": ...}, "it holds a network, not predictions"), ({}, {"kind": "features"}, "it holds features, not predictions"),
    ({}, {"version": 2}, "format 2, but 1 is known"),
], ids=str)
def test_a_well_sealed_file_of_nonsense(tmp_path, arrays, state, word):
    arrays = {k: v for k, v in ({"probabilities": ONE.probabilities, "labels": ONE.labels} | arrays).items() if v is not None}
    state = {k: v for k, v in (state_of(ONE) | state).items() if v is not ...}
    path = checkpoint.save(tmp_path, "p.safetensors", arrays, state)
    with pytest.raises(PredictionsError) as caught:
        load(path)
    assert word in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_file(tmp_path):
    for place, word in ((tmp_path / "none", "there is no such file"), (tmp_path, "that is a folder")):
        with pytest.raises(PredictionsError, match=f"{word}; name a prediction file"):
            load(place)


# ------------------------------------------------------------------------------------------------------- files that do not go together


@pytest.mark.parametrize("other, words", [
    (made(np.eye(4), classes=("n1", "n2", "n3", "n4")), "class lists differ (3 and 4 classes, one goes on further); average networks"),
    (replace(TWO, classes=("n1", "n0", "n3")), "class lists differ (3 and 3 classes, the first to differ is class 1, n2 and n0); average"),
    (replace(TWO, split="test"), "are of other pictures (val of f00d and test of f00d); evaluate both"),
    (replace(TWO, fingerprint="beef"), "are of other pictures (val of f00d and val of beef); evaluate both"),
    (made(TWO.probabilities[:3], (0, 1, 2)), "have 4 and 3 pictures; evaluate both"),
    (replace(TWO, labels=None), "only one of them has labels; evaluate both"),
    (replace(TWO, labels=np.int32([0, 2, 2, 1])), "the labels of 2 pictures differ, the first is picture 1 (1 and 2); evaluate both"),
])
def test_files_that_differ(other, words):
    for function in (average, search):
        with pytest.raises(PredictionsError) as caught:
            function([ONE, ONE, other])
        assert words in str(caught.value) and str(caught.value).startswith(ONE.title)


@pytest.mark.parametrize("coefficients, words", [
    ([.5], "1 coefficients were given for 2"), ([.5, .25, .25], "3 coefficients were given for 2"), ([.5, .6], "0.5, 0.6 sum to 1.1"),
    ([1.5, -.5], "1.5, -0.5 sum to 1; give numbers of at least 0"), ([np.nan, 1], "sum to nan"),
])
def test_coefficients_that_are_none(coefficients, words):
    with pytest.raises(PredictionsError) as caught:
        average([ONE, TWO], coefficients)
    assert words in str(caught.value)


def test_other_networks_are_refused_and_the_same_pictures_noticed():
    test = [replace(one, split="test") for one in (ONE, TWO)]
    assert predictions.same_networks(test, [ONE, TWO]) is False and predictions.same_networks([ONE, TWO], [ONE, TWO]) is True
    moved = replace(ONE, checkpoint="elsewhere/checkpoint-3.safetensors")
    assert predictions.same_networks([moved, TWO], [ONE, TWO]) is True
    for searched, words in (([ONE], "searched on 1 prediction files and are for 2"),
                            ([TWO, ONE], "is of tiny checkpoint-4.safetensors c0de, but"),
                            ([replace(ONE, config="beef"), TWO], "is of tiny checkpoint-3.safetensors beef, but stands where")):
        with pytest.raises(PredictionsError, match=r"give the same networks in the same order$") as caught:
            predictions.same_networks(test, searched)
        assert words in str(caught.value)


def test_without_labels_nothing_is_judged():
    bare = replace(ONE, labels=None)
    for function in (bare.metrics, lambda: per_class(bare), lambda: confusion(bare), lambda: worst(bare, 1), lambda: search([bare, bare])):
        with pytest.raises(PredictionsError, match="have no labels"):
            function()
    assert average([bare, bare]).labels is None
    with pytest.raises(PredictionsError, match="no predictions to average"):
        average([])


def test_what_cannot_be_handed_in():
    for one, words in ((replace(ONE, devkit=(3, None, 1)), "class n2 has no ILSVRC2012_ID"),
                       (replace(ONE, devkit=(3, 2, 1), listed=5), "each of the 5 pictures of the split, but there are predictions of 4")):
        with pytest.raises(PredictionsError) as caught:
            submission(one)
        assert words in str(caught.value)


# -------------------------------------------------------------------------------------------------------------------------- the verbs


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two networks of an epoch each, and their predictions of both splits."""
    folder = tmp_path_factory.mktemp("nets")
    store = small_store(folder, per_class=4, val_per_class=2)
    for seed in (0, 1):
        train.run({"data": str(store), "recipe": "tiny", "batch": 24, "epochs": 1, "seed": seed, "rate": 0.05,
                   "output_dir": str(folder / f"run{seed}")}, quiet=True)
    return folder


@pytest.fixture(scope="module")
def files(place):
    """Names of the prediction files by (split, seed)."""
    from minialex.cli import main
    names = {}
    for split, seed in ((split, seed) for split in ("val", "train") for seed in (0, 1)):
        names[split, seed] = place / f"{split}{seed}.safetensors"
        assert main(["evaluate", str(place / f"run{seed}"), "--split", split, "-q", "--save-predictions", str(names[split, seed])]) == 0
    return names


def test_evaluate_writes_what_it_says(place, files, tmp_path, capsys):
    words = ("evaluate", place / "run0", "--json", "--per-class", tmp_path / "c.csv", "--submission", tmp_path / "s.txt",
             "--save-predictions", tmp_path / "p.safetensors")
    got, one = json.loads(finished(capsys, *words)), load(tmp_path / "p.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {"c.csv", "s.txt", "p.safetensors"} and same(one, load(files["val", 0]))
    metrics = one.metrics()
    assert (got["top1"], got["top5"], got["images"]) == (metrics.top1, metrics.top5, 24) and 0 < got["top5"] < got["top1"]
    assert got["loss"] == pytest.approx(metrics.loss, rel=1e-12)
    assert (got["split"], got["views"], got["ties"]) == (one.split, one.views, one.ties) == ("val", "centre", "index")
    assert one.recipe == "tiny" and one.listed == 24 and got["checkpoint"] == one.checkpoint == str(candidates(place / "run0")[0])
    assert (tmp_path / "s.txt").read_text() == submission(one) == (tmp_path / "s.txt").read_bytes().decode()
    lines = submission(one).splitlines()
    top = [one.devkit[k] for k in one.probabilities.argmax(1)]
    assert [int(line.split()[0]) for line in lines] == top and {len(line.split()) for line in lines} == {5}
    assert one.devkit != tuple(sorted(one.devkit))                                       # the two orders do differ here
    assert (tmp_path / "c.csv").read_text() == predictions.table(per_class(one)) and len(got["per_class"]) == 12
    assert sum(row["pictures"] * row["top1"] for row in got["per_class"]) / 24 == pytest.approx(got["top1"])


def test_views_ties_limits_and_the_worst_classes(place, tmp_path, capsys):
    centre, ten = (json.loads(finished(capsys, "evaluate", place / "run0", "--json", "--per-class", "-", *more,
                                       "--save-predictions", tmp_path / f"{len(more)}.safetensors"))
                   for more in ((), ("--ten-crops", "--ties", "fractional")))
    one = load(tmp_path / "3.safetensors")
    assert (ten["views"], ten["ties"], one.views, one.ties) == ("ten", "fractional", "ten", "index") and ten["loss"] != centre["loss"]
    assert one.metrics("fractional").top1 == ten["top1"]
    out = finished(capsys, "evaluate", place / "run0", "--per-class", "-", "-b", "5", "--limit-batches", "2",
                   "--save-predictions", tmp_path / "part.safetensors").splitlines()
    part = load(tmp_path / "part.safetensors")
    whole = load(tmp_path / "0.safetensors").probabilities
    assert len(part) == 10 and part.listed == 24 and np.allclose(part.probabilities, whole[:10], atol=1e-6)
    worst_of = [row for row in per_class(part) if row.pictures]
    assert out[1:3] == [f"predictions: {tmp_path / 'part.safetensors'}", f"the {min(10, len(worst_of))} classes of the largest error among "
                        f"{len(worst_of)}:"]
    assert len(out) == 3 + min(10, len(worst_of)) and out[3].split("top-1")[0].strip() == worst_of[0].name


def test_average_of_two_networks(place, files, tmp_path, capsys):
    names, several = [files["val", 0], files["val", 1]], [load(files["val", 0]), load(files["val", 1])]
    out = finished(capsys, "average", *names).splitlines()
    assert out == [f"0.5000 of {names[0]}: {several[0].metrics()}", f"0.5000 of {names[1]}: {several[1].metrics()}",
                   f"average of 2: {average(several).metrics()}"]
    got = json.loads(finished(capsys, "average", *names, "--json", "--coefficients", "0.25,0.75", "--out", tmp_path / "a.safetensors",
                              "--per-class", tmp_path / "c.csv", "--submission", tmp_path / "s.txt", "--ties", "fractional"))
    want = average(several, (.25, .75))
    assert same(load(tmp_path / "a.safetensors"), want) and got["coefficients"] == [.25, .75]
    assert (tmp_path / "s.txt").read_text() == submission(want)
    assert (tmp_path / "c.csv").read_text() == predictions.table(per_class(want, "fractional"))
    assert [one["loss"] for one in got["files"]] == [one.metrics().loss for one in several]
    assert got["top1"] == want.metrics("fractional").top1 and got["loss"] == want.metrics().loss


def test_coefficients_searched_here_and_there(files, capsys):
    val, trained = [files["val", 0], files["val", 1]], [files["train", 0], files["train", 1]]
    got = json.loads(finished(capsys, "average", *val, "--coefficients", "search", "--search-on", *trained, "--json"))
    assert got["coefficients"] == search([load(name) for name in trained]).tolist() and not got["judged_on_the_same_pictures"]
    assert got["searched_on"] == [str(name) for name in trained] and got["images"] == 24
    out = finished(capsys, "average", *val, "--coefficients", "search", "--search-on", *trained).splitlines()
    assert out[-1] == "coefficients: searched on 48 train pictures, judged on val"
    for more in ((), ("--search-on", *val)):
        out = finished(capsys, "average", *val, "--coefficients", "search", *more).splitlines()
        assert out[-1].startswith("coefficients: searched on the pictures they are judged on, so these errors are too good")
    got = json.loads(finished(capsys, "average", *val, "--coefficients", "search", "--json"))
    assert got["judged_on_the_same_pictures"] and got["coefficients"] == search([load(name) for name in val]).tolist()


def test_fewer_than_five_classes_and_no_labels(tmp_path, capsys):
    name, bare = save(replace(ONE, devkit=(3, 1, 2)), tmp_path / "a"), save(replace(ONE, labels=None, devkit=(3, 1, 2)), tmp_path / "b")
    out = finished(capsys, "average", name, name).splitlines()
    assert "top-5 error 0.00 %" in out[2]
    assert out[3] == "there are 3 classes, all of them among the five most probable: the top-5 error is 0"
    out = finished(capsys, "average", bare, bare, "--submission", tmp_path / "s.txt").splitlines()
    assert out == [f"0.5000 of {bare}", f"0.5000 of {bare}", f"submission: {tmp_path / 's.txt'}, 4 lines"]
    assert (tmp_path / "s.txt").read_text() == "3 1 2\n1 3 2\n1 3 2\n1 3 2\n"
    assert "top1" not in json.loads(finished(capsys, "average", bare, "--out", tmp_path / "c", "--json"))
    (tmp_path / "s.txt").unlink()
    refused(capsys, tmp_path, ("average", bare), "have no labels, so there is no error to print")
    refused(capsys, tmp_path, ("average", bare, "--per-class", "-", "--out", tmp_path / "d"), "have no labels")
    refused(capsys, tmp_path, ("average", bare, bare, "--coefficients", "search"), "have no labels")


def test_refusals_of_the_commands(place, files, tmp_path, capsys):
    val, trained, here = files["val", 0], files["train", 0], tmp_path
    cut = here / "cut.safetensors"
    cut.write_bytes(val.read_bytes()[:-1])
    for words, *parts in (
        (("average", val, trained), "are of other pictures"), (("average", val, cut), "no prediction file, or no longer one", str(cut)),
        (("average", here / "none"), "there is no such file"),
        (("average", candidates(place / "run0")[0]), "holds a network, not predictions"),
        (("average", val, "--coefficients", ".5,.5"), "2 coefficients were given for 1"),
        (("average", val, "--coefficients", "0.5,x"), "equal, search, or numbers"),
        (("average", val, "--coefficients", "nan"), "equal, search"),
        (("average", val, "--search-on", trained), "add --coefficients search"), (("average",), "FILE"),
        (("average", val, "--coefficients", "search", "--search-on", files["train", 1]), "give the same networks in the same order"),
        (("average", val, "--out", here / "no" / "x"), "--out", "there is no folder"),
        (("average", val, "--out", here), "that is a folder"),
        (("evaluate", place / "run0", "--save-predictions", here / "no" / "x"), "--save-predictions", "there is no folder"),
        (("evaluate", place / "run0", "--per-class", here), "--per-class", "that is a folder"),
        (("evaluate", place / "run0", "--submission", here), "--submission", "that is a folder"),
        (("evaluate", place / "run0", "--submission", here / "s", "-b", "5", "--limit-batches", "2"), "24 pictures", "predictions of 10"),
        (("evaluate", val), "holds predictions, not a network"), (("train", "--resume", val, "-e"), "holds predictions, not a network"),
    ):
        refused(capsys, here, words, *parts)


def test_no_devkit_is_said_before_anything_is_computed(place, tmp_path, capsys, monkeypatch):
    """A folder of class folders has no ILSVRC2012_IDs."""
    manifest = place / "store" / "manifest.json"
    text = manifest.read_text()
    bare = json.loads(text)
    for entry in bare["classes"]:
        entry["devkit_id"] = None
    monkeypatch.setattr("minialex.evaluate.evaluate", lambda *args, **more: pytest.fail("it began to compute"))
    try:
        manifest.write_text(json.dumps(bare))
        words = ("evaluate", place / "run0", "--submission", tmp_path / "s")
        refused(capsys, tmp_path, words, "has no ILSVRC2012_ID", "devkit beside them")
    finally:
        manifest.write_text(text)


def test_a_full_disk(place, tmp_path, capsys, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("minialex.files.write", full)
    status, _, err = said(capsys, "evaluate", place / "run0", "-q", "--save-predictions", tmp_path / "p")
    assert status == 74 and "could not be written (No space left on device)" in err and len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
def test_ranks_gather_their_shares(place, files, tmp_path):
    done = mpi(2, "-m", "minialex", "evaluate", place / "run0", place / "store", "--save-predictions", tmp_path / "p", "--json")
    assert done.returncode == 0, done.stderr
    got, want = load(tmp_path / "p"), load(files["val", 0])
    assert np.abs(got.probabilities - want.probabilities).max() < 1e-6 and got.labels.tolist() == want.labels.tolist()
    assert json.loads(done.stdout)["top1"] == pytest.approx(want.metrics().top1)
    assert [Path(p).name for p in tmp_path.iterdir()] == ["p"]
