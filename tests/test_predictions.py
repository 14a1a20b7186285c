"""Prediction files: literal averages, coefficients that are the best there are, tables that add up, submissions, and every refusal."""

from __future__ import annotations

import csv
import errno
import io
from dataclasses import replace

import numpy as np
import pytest
from faults import Crash, Faults
from predicted import ONE, TWO, drawn, made, same
from safetensors.numpy import load_file

from minialex import checkpoint, predictions
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
    for length in range(0, len(content), 3):                    # a third of them: the reader's own tests take them all
        path.write_bytes(content[:length])
        with pytest.raises(PredictionsError, match=r"no prediction file, or no longer one .*--save-predictions"):
            load(path)
    for place in range(1, len(content), 3):
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
