"""minialex features and minialex retrieve, as typed."""

from __future__ import annotations

import json
import shutil

import pytest
from commands import empty_folder, finished, refused
from runs import small_store

from minialex.retrieval import FeatureFile
from minialex.train import run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrieve")
    small_store(folder)
    for seed in (0, 1):
        run({"data": str(folder / "store"), "recipe": "tiny", "batch": 24, "epochs": 1, "limit_batches": 1, "seed": seed,
             "output_dir": str(folder / f"run{seed}")}, quiet=True, pictures=False)
    return folder


@pytest.fixture
def query(place, tmp_path):
    """A training picture as a file, so that its nearest picture is known: itself."""
    from PIL import Image

    from minialex.data import Store
    Image.fromarray(Store(place / "store").split("train").read([17])[0]).save(tmp_path / "query.png")
    return tmp_path / "query.png"


@pytest.fixture
def index(place, tmp_path, capsys, monkeypatch):
    empty_folder(tmp_path, monkeypatch)
    out = finished(capsys, "features", str(place / "run0"), "--out", str(tmp_path / "f.safetensors"), "--codes", "64")
    assert "96 x 512 of " in out and "64 bits a picture" in out
    return tmp_path / "f.safetensors"


def test_a_training_picture_finds_itself_first(place, index, query, capsys, tmp_path):
    words = [str(query), "--index", str(index), "--checkpoint", str(place / "run0"), "-k", "3"]
    figure = tmp_path / "near.png"
    out = finished(capsys, "retrieve", *words, "--figure", str(figure))
    assert out.splitlines()[1].split()[1:3] == ["picture", "17"] and len(out.splitlines()) == 5 and figure.stat().st_size > 5000
    found = json.loads(finished(capsys, "retrieve", *words, "--json"))[str(query)]
    assert found[0]["row"] == 17 and found[0]["distance"] < 1e-3 and len(found) == 3
    found = json.loads(finished(capsys, "retrieve", *words, "--json", "--codes", str(index.with_suffix(".codes.safetensors"))))[str(query)]
    assert found[0]["distance"] == 0


def test_another_layer_and_split(place, tmp_path, capsys, monkeypatch):
    empty_folder(tmp_path, monkeypatch)
    finished(capsys, "features", str(place / "run0"), "--layer", "pool5", "--split", "val", "--out", str(tmp_path / "p.safetensors"), "-q")
    opened = FeatureFile.open(tmp_path / "p.safetensors")
    assert opened.metadata["layer"] == "pool5" and opened.metadata["split"] == "val" and opened.features.shape == (24, 288)


def test_what_cannot_be_retrieved_is_one_sentence(place, index, query, tmp_path, capsys):
    run0 = ["--checkpoint", str(place / "run0")]
    refused(capsys, tmp_path, ["retrieve", str(query), "--index", str(index), "--checkpoint", str(place / "run1")], "is of another network",
            "minialex features")
    refused(capsys, tmp_path, ["retrieve", str(query), "--index", str(index), "-k", "97", *run0], "holds 96 pictures")
    refused(capsys, tmp_path, ["retrieve", str(query), "--index", str(tmp_path / "none"), *run0], "there is no such file")
    refused(capsys, tmp_path, ["retrieve", str(index), "--index", str(index), *run0], "f.safetensors")
    refused(capsys, tmp_path, ["retrieve", str(query), "--index", str(index), "--codes", str(index), *run0], str(index))
    refused(capsys, tmp_path, ["retrieve", str(query), "--index", str(index), "--figure", "x.jpg", *run0], "only PNG")
    refused(capsys, tmp_path, ["features", str(place / "run0"), "--layer", "fc9", "--out", str(tmp_path / "g")], "has no layer 'fc9'")
    refused(capsys, tmp_path, ["features", str(place / "run0"), "--out", str(tmp_path / "none" / "g")], "--out", "there is no folder")


def test_codes_of_other_features_are_refused(place, index, query, tmp_path, capsys):
    codes = tmp_path / "old.codes.safetensors"
    shutil.copy(index.with_suffix(".codes.safetensors"), codes)
    finished(capsys, "features", str(place / "run1"), "--out", str(index), "-q")
    refused(capsys, tmp_path, ["retrieve", str(query), "--index", str(index), "--codes", str(codes), "--checkpoint", str(place / "run1")],
            "made from other features", "--codes 128")


def test_pictures_that_are_gone_are_told_when_they_would_be_drawn(place, index, query, tmp_path, capsys):
    store = FeatureFile.open(index).metadata["store"]
    shutil.move(store, store + "-moved")
    try:
        refused(capsys, tmp_path, ["retrieve", str(query), "--index", str(index), "--figure", str(tmp_path / "x.png"), "--checkpoint",
                                   str(place / "run0")], "cannot be shown", "leave --figure out")
    finally:
        shutil.move(store + "-moved", store)
