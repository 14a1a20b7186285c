"""`minialex evaluate` and `minialex average` with files: what they write is what they say, and every refusal comes before the work."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import finished, refused, said
from pictures import packed, picture, tar, tree
from predicted import ONE, same
from ranks import MISSING, mpi
from runs import small_store

from minialex import predictions, train
from minialex.checkpoint import candidates
from minialex.data.bare import Bare
from minialex.data.source import DataError, ImageError
from minialex.predictions import average, load, per_class, save, search, submission


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))


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
    monkeypatch.setattr(predictions, "of_bare", lambda *args, **more: pytest.fail("it began to compute"))
    words = ("evaluate", place / "run0", "--submission", tmp_path / "s")
    try:
        manifest.write_text(json.dumps(bare))
        for more in ((), ("--unlabelled", place / "archives" / "ILSVRC2012_img_val.tar")):
            refused(capsys, tmp_path, (*words, *more), "has no ILSVRC2012_ID", "devkit beside them")
    finally:
        manifest.write_text(text)


def test_ties_are_judged_alike_in_every_file(tmp_path, capsys):
    name = save(replace(ONE, probabilities=np.full((4, 3), 1 / 3, np.float32)), tmp_path / "a")
    got = [json.loads(finished(capsys, "average", name, name, "--json", *more)) for more in ((), ("--ties", "fractional"))]
    assert [(one["ties"], one["top1"], *(file["top1"] for file in one["files"])) for one in got] == [
        ("index", 75, 75, 75), ("fractional", *[pytest.approx(200 / 3)] * 3)]


# ----------------------------------------------------------------------------------------------------------- pictures without labels


def test_bare_pictures_come_in_the_order_of_their_names(tmp_path):
    files = {"b.png": 30, "a.PNG": 10, "._c.png": b"", "notes.txt": b"", "c10.jpeg": 90, "c9.jpg": 200, "sub/d.png": 7}
    folder = Bare(tree(tmp_path / "p", files))
    assert folder.names == ["a.PNG", "b.png", "c10.jpeg", "c9.jpg"] and len(folder) == 4
    levels = [10, 30, 90, 200]
    members = [(f"test/{name}", picture(level)) for name, level in zip(folder.names, levels, strict=True)]
    for archive in (tar(tmp_path / "p.tar", members[::-1]), tar(tmp_path / "p.tgz", members, "w:gz")):
        there = Bare(archive)
        assert there.names == folder.names and there.fingerprint() == folder.fingerprint()
        for size, workers in ((1, 1), (3, 2), (9, 4)):
            for bare in (folder, there):
                batches = list(bare.batches(size, 4, workers))
                assert [len(batch) for batch in batches] == {1: [1] * 4, 3: [3, 1], 9: [4]}[size]
                assert np.concatenate(batches)[:, 1, 2, 0].tolist() == levels
    (tmp_path / "p" / "b.png").write_bytes(picture(31) + b"0")
    assert Bare(tmp_path / "p").fingerprint() != folder.fingerprint()


def test_bare_pictures_that_are_none(tmp_path):
    for place, words in ((tmp_path / "none", "does not exist"), (tree(tmp_path / "x", {"a.txt": b""}), "holds no pictures"),
                         (tmp_path / "x" / "a.txt", "is a single file that is no .tar"),
                         (packed(tree(tmp_path / "y", {"1/a.png": 1, "2/a.png": 2}), tmp_path / "y.tar"), "two pictures called a.png")):
        with pytest.raises(DataError, match=words):
            Bare(place)
    broken = Bare(tree(tmp_path / "z", {"a.png": 1, "b.png": picture(3)[:45]}))
    with pytest.raises(ImageError, match=r"b\.png is truncated or broken"):
        list(broken.batches(2, 4))


def test_pictures_without_labels_are_handed_in(place, files, tmp_path, capsys):
    """The validation pictures once more, as the archive has them: what the store's say, without being judged."""
    val, want = place / "archives" / "ILSVRC2012_img_val.tar", load(files["val", 0])
    out = finished(capsys, "evaluate", place / "run0", place / "archives", "--unlabelled", val, "-b", "7", "-q",
                   "--save-predictions", tmp_path / "p", "--submission", tmp_path / "s").splitlines()
    got = load(tmp_path / "p")
    assert out == [f"{got.checkpoint}: centre view(s), 24 pictures without labels", f"predictions: {tmp_path / 'p'}",
                   f"submission: {tmp_path / 's'}, 24 lines"]
    assert got.labels is None and (got.split, got.listed, got.devkit, got.classes) == ("unlabelled", 24, want.devkit, want.classes)
    assert np.abs(got.probabilities - want.probabilities).max() < 1e-6 and (tmp_path / "s").read_text() == submission(got)
    got = json.loads(finished(capsys, "evaluate", place / "run0", "--unlabelled", val, "--ten-crops", "--save-predictions", tmp_path / "q",
                              "--json"))
    one = load(tmp_path / "q")
    assert (got["images"], got["views"], got["split"], one.views) == (24, "ten", "unlabelled", "ten") and set(one.devkit) == {None}
    refused(capsys, tmp_path, ("average", tmp_path / "q", "--submission", tmp_path / "x"), "has no ILSVRC2012_ID")
    refused(capsys, tmp_path, ("average", tmp_path / "q", files["val", 0]), "are of other pictures")


def test_refusals_of_pictures_without_labels(place, tmp_path, capsys):
    val = place / "archives" / "ILSVRC2012_img_val.tar"
    words = ("evaluate", place / "run0", "--unlabelled", val)
    refused(capsys, tmp_path, words, "add --save-predictions or --submission")
    for more in (("--per-class", "-"), ("--split", "val"), ("--ties", "index"), ("--limit-batches", "1"), ("--store", tmp_path)):
        refused(capsys, tmp_path, (*words, *more, "--submission", tmp_path / "s"), f"--unlabelled goes without {more[0]}")
    here = tree(tmp_path / "tree", {f"{kind}/{k}.png": k for kind in ("a", "b") for k in range(3)})
    refused(capsys, tmp_path, (words[0], words[1], here, *words[2:], "--submission", tmp_path / "s"), "12 classes and the data has 2")
    refused(capsys, tmp_path, (*words[:3], here, "--submission", tmp_path / "s"), "holds no pictures")


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
