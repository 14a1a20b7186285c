"""Parts of a prepared store: other classes, fewer pictures, two halves."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import Drawn, pixels

from minialex.data import DataError, prepare
from minialex.data.part import Part

SIDE = 8


@pytest.fixture
def store(tmp_path):
    """4 training and 2 validation pictures of each of three classes."""
    return prepare(Drawn({"train": 12, "val": 6}, SIDE), tmp_path / "store", record=SIDE, progress=False)


def indices(part: Part, split: str) -> list[tuple[str, int]]:
    return [(item.name, item.label) for item in part.items(split)]


def test_the_first_of_each_class_are_kept(store):
    part = Part(store, per_class=2, val_per_class=1)
    assert indices(part, "train") == [("train[0]", 0), ("train[1]", 0), ("train[4]", 1), ("train[5]", 1), ("train[8]", 2), ("train[9]", 2)]
    assert indices(part, "val") == [("val[0]", 0), ("val[2]", 1), ("val[4]", 2)]
    assert part.count("train") == 6 and next(part.items("train", 4)).name == "train[8]"


def test_classes_are_renumbered_and_pictures_unchanged(store):
    part = Part(store, classes=["n03", "n01"])
    assert [c.id for c in part.classes] == ["n01", "n03"]
    items = list(part.items("train"))
    assert [item.label for item in items] == [0] * 4 + [1] * 4
    assert np.array_equal(items[4].pixels, pixels("train", 8, SIDE))


def test_halves_deal_every_picture_once_and_evenly(store):
    part = Part(store, halves=True)
    train, val = indices(part, "train"), indices(part, "val")
    assert len(train) == len(val) == 9 and not {name for name, _ in train} & {name for name, _ in val}
    assert train[:3] == [("train[0]", 0), ("train[2]", 0), ("train[4]", 1)] and val[:2] == [("train[1]", 0), ("train[3]", 0)]
    assert ("val[0]", 0) in train and ("val[1]", 0) in val


def test_a_part_becomes_a_store_with_its_own_mean(store, tmp_path):
    made = prepare(Part(store, classes=["n01", "n02"], per_class=3), tmp_path / "part", record=SIDE, progress=False)
    assert len(made.split("train")) == 6 and len(made.classes) == 2
    assert np.allclose(made.mean, np.mean([pixels("train", i, SIDE) for i in (0, 1, 2, 4, 5, 6)], axis=0), atol=1e-4)


def test_a_part_is_told_from_another_by_its_fingerprint(store):
    prints = [Part(store, **words).fingerprint() for words in
              ({}, {"per_class": 2}, {"per_class": 3}, {"val_per_class": 2}, {"halves": True}, {"classes": ["n01", "n02"]})]
    assert len(set(prints)) == len(prints)
    assert Part(store, classes=["n02", "n01"]).fingerprint() == prints[-1]


@pytest.mark.parametrize("words, sentence", [
    ({"classes": ["n01", "n09"]}, "has no class 'n09'"),
    ({"classes": ["n01"]}, "at least two classes"),
    ({"per_class": 0}, "has no train pictures"),
])
def test_a_part_that_cannot_be_is_refused(store, words, sentence):
    with pytest.raises(DataError, match=sentence):
        Part(store, **words)
