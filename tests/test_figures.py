"""Everyday views: what is drawn is what was counted, and what cannot be drawn is one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from commands import empty_folder, finished, refused
from PIL import Image
from runs import small_store

from minialex import figures
from minialex.data import Store
from minialex.figures.filters import mosaic, tiled
from minialex.train import run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    small_store(folder)
    run({"data": str(folder / "store"), "recipe": "tiny", "batch": 24, "epochs": 2, "limit_batches": 2, "statistics": 1,
         "output_dir": str(folder / "run")}, quiet=True, pictures=False)
    Image.fromarray(Store(folder / "store").split("val").read([3])[0]).save(folder / "picture.png")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    return empty_folder(tmp_path, monkeypatch)


def drawn(path) -> np.ndarray:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) > 150 and pixels.std() > 10
    return pixels


# ---------------------------------------------------------------- what is counted
def test_colourfulness_by_hand():
    """Grey is 0; a kernel whose three channels sum to 0 everywhere is 1; equal parts of both lie between; size does not matter."""
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.normal(size=(1, 7, 7, 1)), 3, axis=3)
    colour = rng.normal(size=(1, 7, 7, 1)) * np.array([1.0, -1.0, 0.0])
    grey, colour = (k / np.sqrt((k**2).sum()) for k in (grey, colour))
    w = np.concatenate([grey, colour, grey + colour, 5 * (grey + colour), 0 * grey])
    assert figures.colourfulness(w).shape == (1, 5)
    assert np.allclose(figures.colourfulness(w)[0, :4], [0, 1, 0.5, 0.5], atol=1e-12)
    assert figures.colourfulness(w[:4], columns=2).shape == (2, 2)


def test_kernels_stand_in_rows_and_keep_their_colours():
    w = np.zeros((5, 2, 2, 3))
    w[3, 0, 1] = (1, -1, 0)
    whole = mosaic(w, across=3)
    assert whole.shape == (7, 10, 3) and np.array_equal(whole[4, 2], [1, 0, 0.5]) and (whole[1, 1] == 0.5).all() and (whole[0] == 1).all()
    cells = tiled(np.arange(5.0)[:, None, None] * np.ones((1, 2, 2)), across=3)
    assert cells.shape == (7, 10) and cells[4, 4] == 4 and np.isnan(cells[0]).all()


def test_the_most_confused_pairs_by_hand():
    counts = np.array([[5, 2, 0], [0, 9, 1], [2, 0, 3]])
    assert figures.confused(counts, 10) == [(0, 1, 2), (2, 0, 2), (1, 2, 1)] and figures.confused(counts, 1) == [(0, 1, 2)]


def test_the_surest_mistakes_come_first():
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    assert figures.mistaken(p, np.array([1, 1, 1, 0]), 5).tolist() == [0, 1]


# ---------------------------------------------------------------- as typed
@pytest.mark.parametrize("words, said", [
    (["curves"], "2 epochs, validation top-1 error"), (["filters"], "conv1: 12 kernels, colourfulness"),
    (["filters", "--layer", "conv3", "--channel", "2"], "conv3: 48 kernels of 3 x 3 x 32"), (["statistics"], "4 rows up to step 4"),
    (["confusion"], "taken for"), (["mistakes", "--count", "3"], "taken for"),
])
def test_a_view_is_drawn(words, said, place, capsys, here):
    out = finished(capsys, "figures", words[0], str(place / "run"), *words[1:], "--out", "view.png")
    assert said in out and "picture: view.png" in out
    drawn(here / "view.png")


def test_maps_of_a_picture(place, capsys, here):
    out = finished(capsys, "figures", "maps", str(place / "run"), "--picture", str(place / "picture.png"), "--layer", "pool1")
    assert "pool1: 12 maps of 13 x 13" in out
    drawn(here / "maps.png")


def test_several_runs_lie_over_each_other(place, capsys, here):
    out = finished(capsys, "figures", "curves", str(place / "run"), str(place / "run" / "checkpoint-4.safetensors"))
    assert out.count("2 epochs") == 2
    drawn(here / "curves.png")


def test_views_of_a_prediction_file(place, capsys, here):
    finished(capsys, "evaluate", str(place / "run"), "--save-predictions", "p.safetensors")
    out = finished(capsys, "figures", "confusion", "p.safetensors")
    assert "24 images" in out
    finished(capsys, "figures", "mistakes", "p.safetensors", "--data", str(place / "store"))
    drawn(here / "mistakes.png")


def test_mistakes_show_the_pictures_that_were_mistaken(place, capsys, here, monkeypatch):
    drawn_there = []
    monkeypatch.setattr(figures, "predictions", lambda examples, path: drawn_there.extend(examples))
    out = finished(capsys, "figures", "mistakes", str(place / "run"), "--count", "3")
    numbers = [int(line.split()[1].rstrip(":")) for line in out.splitlines() if line.startswith("picture ") and "taken for" in line]
    split = Store(place / "store").split("val")
    assert len(numbers) == len(drawn_there) == 3 and len(set(numbers)) == 3
    for number, (image, right, ranked) in zip(numbers, drawn_there, strict=True):
        assert np.array_equal(image, split.read([number])[0])
        assert right == Store(place / "store").classes[split.labels[number]].name != ranked[0][0] and len(ranked) == 5


@pytest.mark.parametrize("words, parts", [
    (["filters", "RUN", "--layer", "conv9"], ["there is no layer 'conv9'", "conv1"]),
    (["filters", "RUN", "--layer", "fc6"], ["fc6 has no kernels to draw"]),
    (["filters", "RUN", "--channel", "3"], ["--channel 3", "0 to 2"]),
    (["maps", "RUN"], ["needs a picture", "--picture"]),
    (["maps", "RUN", "--picture", "RUN/metrics.jsonl"], ["metrics.jsonl"]),
    (["maps", "RUN", "--picture", "PICTURE", "--layer", "drop7"], ["no maps", "pool1"]),
    (["curves", "RUN", "--layer", "conv1"], ["has no use for --layer"]),
    (["filters", "RUN", "RUN"], ["draws one run"]),
    (["curves", "none"], ["there is no such file or folder"]),
    (["curves", "."], ["has no metrics.jsonl"]),
    (["statistics", "."], ["has no statistics.jsonl", "--statistics 10"]),
    (["curves", "RUN", "--out", "x.jpg"], ["only PNG"]),
    (["curves", "RUN", "--out", "none/x.png"], ["--out none/x.png"]),
    (["kernels", "RUN"], ["there is no such choice", "filters"]),
])
def test_what_cannot_be_drawn_is_one_sentence(words, parts, place, capsys, here):
    said = [w.replace("RUN", str(place / "run")).replace("PICTURE", str(place / "picture.png")) for w in words]
    refused(capsys, here, ["figures", *said], *parts)


def test_training_writes_what_was_asked(place, tmp_path):
    folder = tmp_path / "run"
    run({"data": str(place / "store"), "recipe": "tiny", "batch": 24, "epochs": 1, "limit_batches": 2, "statistics": 2, "tensorboard": True,
         "output_dir": str(folder)}, quiet=True)
    assert len((folder / "statistics.jsonl").read_text().splitlines()) == 1
    (events,) = folder.glob("events.out.tfevents.*")
    content = events.read_bytes()
    assert content.count(b"batch/loss") == 2 and b"ratio/conv1.w" in content and b"loss/validation" in content
    for name in ("curves.png", "filters.png", "predictions.png"):
        drawn(folder / name)
