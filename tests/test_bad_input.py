"""Every mistake a user can make is answered by one sentence that names it and what to do, an exit status, and an untouched disk."""

import os
import shutil

import pytest
from commands import empty_folder, finished, one_epoch, refused, said
from pictures import picture, tree
from runs import small_store

from minialex import data, train
from minialex.checkpoint import RunLock, save
from minialex.data import prepare

TINY = ("--recipe", "tiny", "--epochs", "1", "-q")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("pictures"), per_class=3, val_per_class=1)


@pytest.fixture(scope="module")
def finished_run(store, tmp_path_factory):
    return one_epoch(store, tmp_path_factory.mktemp("run"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    return empty_folder(tmp_path, monkeypatch)


# ------------------------------------------------------------------------------------------------------------------------------ DATA


def broken(number=0):
    return picture(number)[:40]


@pytest.mark.parametrize("verb", ["train", "prepare"])
@pytest.mark.parametrize("name, files, parts", [
    ("nowhere", None, ("does not exist", "check the path")),
    ("nothing", {}, ("is an empty folder", "one folder of pictures per class")),
    ("texts", {"a/x.txt": b"x", "b/y.txt": b"y"}, ("contains no pictures", "JPEG or PNG")),
    ("flat", {"1.png": 1, "2.png": 2}, ("no class folders", "a folder of its own")),
    ("one", {"cat/1.png": 1, "cat/2.png": 2}, ("one class only ('cat')", "two or more class folders")),
    ("broken", {f"{c}/{i}.png": broken() for c in "ab" for i in range(3)},
     ("none of the 4 train pictures can be read", "a/0.png", "neither JPEG nor PNG")),
    ("broken val", {f"train/{c}/1.png": 1 for c in "ab"} | {f"val/{c}/1.png": broken() for c in "ab"},
     ("none of the 2 val pictures can be read", "val/a/1.png")),
    ("pic.png", "file", ("is a single file", "give a folder, or an archive of one")),
    ("pickles", {"cifar-10-batches-py/data_batch_1": b"x"}, ("CIFAR-10's Python version", "pickles", "cifar-10-binary.tar.gz")),
    ("we ird\n\U0001f600", None, ("we ird\\n\U0001f600 does not exist",)),
    (os.fsdecode(b"not-utf\xff"), None, ("does not exist",)),
])
def test_data_that_cannot_be_trained_on(tmp_path, capsys, verb, name, files, parts):
    place = tmp_path / name
    if files == "file":
        place.write_bytes(picture())
    elif files is not None:
        place.mkdir()
        tree(place, files)
    more = ("--out", tmp_path / "store", "-q", "--record", "8") if verb == "prepare" else (*TINY, "-b", "1")
    refused(capsys, tmp_path, (verb, place, *more), str(place), *parts)


@pytest.mark.parametrize("words", [("train", ""), ("evaluate", ""), ("predict", ""), ("prepare", "x", "--out", ""),
                                   ("train", "--resume", "")])
def test_an_empty_path_is_an_unset_variable(tmp_path, capsys, words):
    refused(capsys, tmp_path, words, "the path is empty", "variable of your shell")


def test_unreadable_pictures_are_listed_and_training_goes_on(tmp_path, capsys):
    files = {f"{c}/{i}.png": i for c in "ab" for i in range(9)} | {"a/7.png": b"garbage", "b/3.png": broken()}
    place, where = tree(tmp_path / "in", files), ("--store", tmp_path / "store", "--output-dir", tmp_path / "run")
    finished(capsys, "train", place, *TINY, "-b", "4", *where)
    audit = (tmp_path / "store" / "audit.txt").read_text()
    assert "a/7.png is neither JPEG nor PNG" in audit and "b/3.png" in audit
    assert list((tmp_path / "run").glob("checkpoint-*.safetensors"))


def test_too_many_unreadable_for_one_batch(tmp_path, capsys, here):
    """Known only when the pictures were decoded: the store stays, it is whole, but no run begins."""
    files = {f"{c}/{i}.png": i for c in "ab" for i in range(9)} | {f"a/{i}.png": broken() for i in range(1, 8)}
    status, _, err = said(capsys, "train", tree(tmp_path / "in", files), *TINY, "-b", "16", "--output-dir", tmp_path / "run")
    assert status == 2 and "-b 16: a batch cannot be larger than the 9 training pictures" in err
    assert not (tmp_path / "run").exists() and os.listdir(here) == ["stores"]


def test_data_without_validation_or_training_pictures(tmp_path, capsys):
    source = data.open_source(tree(tmp_path / "in", {f"train/{c}/1.png": 1 for c in "ab"}))
    store = prepare(source, tmp_path / "store", record=128, progress=False).path
    refused(capsys, tmp_path, ("train", store, *TINY, "-b", "1"), str(store), "no validation pictures, only train", "val/CLASS/")
    only = tree(tmp_path / "v", {f"val/{c}/1.png": 1 for c in "ab"})
    refused(capsys, tmp_path, ("train", only, *TINY, "-b", "1"), str(only), "no training pictures")


def test_a_store_of_another_size(tmp_path, store, capsys, finished_run):
    """Smaller than the crop or larger than the recipe's: in training and evaluation."""
    refused(capsys, tmp_path, ("train", store, "--recipe", "paper"), str(store), "128 pixels a side", "--record 256", "another recipe")
    finished(capsys, "prepare", store.parent / "archives", "--out", tmp_path / "store", "--record", "140", "-q")
    for words in (("train", tmp_path / "store", *TINY), ("evaluate", finished_run, tmp_path / "store")):
        refused(capsys, tmp_path, words, str(tmp_path / "store"), "140 pixels a side", "--record 128")


# ----------------------------------------------------------------------------------------------------------------------------- flags


@pytest.mark.parametrize("flag, value, parts", [
    ("-b", "1000", ("-b 1000", "larger than the 36 training pictures", "-b 4")),
    ("-b", "0", ("-b/--batch-size", "'0'", "at least 1")),
    ("-b", "-3", ("-b/--batch-size", "'-3'", "at least 1")),
    ("-b", "many", ("-b/--batch-size", "'many'", "whole number")),
    ("--epochs", "0", ("--epochs", "'0'", "at least 1")),
    ("-j", "0", ("-j/--workers", "at least 1")),
    ("--lr", "nan", ("--lr/--learning-rate", "'nan'", "at least 0")),
    ("--lr", "inf", ("--lr/--learning-rate", "'inf'")),
    ("--lr", "-1", ("--lr/--learning-rate", "'-1'")),
    ("--momentum", "1", ("--momentum", "less than 1")),
    ("--wd", "nan", ("--wd/--weight-decay", "at least 0")),
    ("--seed", "-1", ("--seed", "'-1'")),
    ("--limit-batches", "0", ("--limit-batches", "at least 1")),
    ("--checkpoint-minutes", "nan", ("--checkpoint-minutes", "at least 0")),
    ("--recipe", "tinny", ("'tinny'", "did you mean 'tiny'?")),
    ("--recipe", "zzz", ("'zzz'", "there are paper")),
    ("--device", "gpu", ("'gpu'", "did you mean 'cuda'?")),
    ("--device", "cpu:7", ("--device cpu:7", "give --device cpu")),
    ("--device", "cuda:x", ("--device cuda:x", "give --device cuda:0")),
    ("--device", "cuda:0,cpu", ("--device cuda:0,cpu", "cuda and cpu", "cuda:0,cuda:1")),
])
def test_values_that_make_no_sense(tmp_path, store, capsys, flag, value, parts):
    refused(capsys, tmp_path, ("train", store, *TINY, flag, value), *parts)


@pytest.mark.parametrize("device", ["cuda:0", "emulated:0"])
def test_devices_this_machine_has_not(tmp_path, store, capsys, device, monkeypatch):
    """The reason is the backend's own, and nothing falls back to another device."""
    def missing(name, place=None):
        raise train.backends.BackendUnavailable(f"{name}: this machine has none; use --device cpu")
    monkeypatch.setattr(train.backends, "load", missing)
    refused(capsys, tmp_path, ("train", store, *TINY, "--device", device), device.split(":")[0], "use --device cpu")


@pytest.mark.parametrize("words, parts", [
    (("train", "x", "--batchsize", "3"), ("no flag --batchsize", "did you mean --batch-size?")),
    (("train", "x", "--resum", "auto"), ("no flag --resum", "did you mean --resume?")),             # an abbreviation is no flag
    (("train", "x", "--epoch=3"), ("no flag --epoch", "did you mean --epochs?")),
    (("train", "x", "--arch", "alexnet"), ("no flag --arch", "did you mean --recipe?")),
    (("train", "x", "-z"), ("no flag -z", "minialex train --help")),
    (("train", "x", "y"), ("'y' is one argument too many", "quotes")),
    (("train", "x", "--lr"), ("--lr", "expected one argument")),
    (("evaluate", "x", "--ten-crop"), ("did you mean --ten-crops?",)),
    (("evaluate", "x", "--split", "tst"), ("--split tst", "did you mean test?")),
    (("evaluate", "x", "-b", "0"), ("-b/--batch-size", "at least 1")),
    (("evaluate", "x", "-j", "0"), ("-j/--workers", "at least 1")),
    (("evaluate",), ("required: CHECKPOINT", "minialex evaluate --help")),
    (("predict", "x", "--chekpoint", "y"), ("did you mean --checkpoint?",)),
    (("predict", "x", "--top", "0"), ("--top", "at least 1")),
    (("predict",), ("required: PICTURE",)),
    (("prepare", "x", "--ot", "y"), ("did you mean --out?",)),
    (("prepare", "x"), ("required: --out",)),
    (("prepare", "x", "--out", "y", "--record", "0"), ("--record", "from 1 to 4096")),
    (("plan", "--recpie", "paper"), ("did you mean --recipe?",)),
    (("plan", "--recipe", "papier"), ("did you mean 'paper'?",)),
    (("doctor", "--jsn"), ("no flag --jsn",)),
    (("trian",), ("no verb 'trian'", "did you mean train?")),
    (("--recipe", "tiny"), ("--recipe belongs behind a verb",)),
    ((), ("minialex train", "--help")),
])
def test_words_that_are_not_understood(tmp_path, capsys, words, parts):
    refused(capsys, tmp_path, words, *parts)


# ----------------------------------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture
def damaged(tmp_path, finished_run):
    """Files that are no good checkpoints, and one that is."""
    whole = next(finished_run.glob("checkpoint-*.safetensors")).read_bytes()
    files = {"good.safetensors": whole, "short.safetensors": whole[:20000], "text.safetensors": b"hello", "empty.safetensors": b"",
             "picture.png": picture(), "other.safetensors": b"\x18\0\0\0\0\0\0\0" + b'{"__metadata__":{"a":1}}'}
    tree(tmp_path / "files", files)
    (tmp_path / "no run").mkdir()
    return tmp_path / "files"


@pytest.mark.parametrize("name, parts", [
    ("short.safetensors", ("damaged or cut short", "--resume auto")),
    ("text.safetensors", ("no checkpoint at all",)),
    ("empty.safetensors", ("no checkpoint at all",)),
    ("picture.png", ("no checkpoint at all",)),
    ("other.safetensors", ("not a checkpoint of MiniAlex",)),
    ("nowhere", ("checkpoint-<step>.safetensors or a run directory",)),
    ("no\nwhere", ("checkpoint-<step>.safetensors or a run directory",)),
    ("../no run", ("it holds no checkpoint", "run directory")),
])
def test_files_that_are_no_checkpoint(tmp_path, store, damaged, capsys, name, parts):
    path = damaged / name
    for words in (("train", store, "--resume", path, "--output-dir", tmp_path / "run"), ("train", store, "-e", "--resume", path),
                  ("evaluate", path, store), ("predict", damaged / "picture.png", "--checkpoint", path)):
        refused(capsys, tmp_path, words, str(path), *parts)


def test_a_checkpoint_of_another_recipe(tmp_path, store, damaged, capsys):
    good = damaged / "good.safetensors"
    for more in (("--output-dir", tmp_path / "run"), ("-e",)):
        refused(capsys, tmp_path, ("train", store, "--resume", good, "--recipe", "paper", *more),
                "--recipe paper", "made by recipe tiny", "leave --recipe out")


def test_a_checkpoint_whose_network_is_built_otherwise_now(tmp_path, store, capsys, finished_run, monkeypatch):
    arrays, state = train.restore(str(finished_run), None)[:2]
    arrays["w/conv1.w"] = arrays["w/conv1.w"][:, :5]
    path = save(tmp_path, "checkpoint-1.safetensors", arrays, state)
    refused(capsys, tmp_path, ("train", store, "--resume", path, "--output-dir", tmp_path / "run", "-q"), "w/conv1.w", "another recipe")
    refused(capsys, tmp_path, ("evaluate", path, store), str(path), "no conv1.w of shape", "recipe tiny")


def test_data_of_other_classes(tmp_path, damaged, capsys):
    """Found before the pictures are decoded: no store is made."""
    other, good = tree(tmp_path / "two", {f"{c}/{i}.png": i for c in "ab" for i in range(5)}), damaged / "good.safetensors"
    for words in (("train", other, "--resume", good, "--output-dir", tmp_path / "run"), ("evaluate", good, other),
                  ("train", other, "-e", "--resume", good)):
        refused(capsys, tmp_path, words, str(good), str(other), "knows 12 classes and the data has 2", "class 0", "trained on")


def test_evaluation_of_a_split_that_is_not_there(tmp_path, store, capsys, finished_run):
    refused(capsys, tmp_path, ("evaluate", finished_run, store, "--split", "test"), str(store), "no test pictures", "train, val")


def test_auto_without_a_run(tmp_path, store, capsys, here):
    for words in (("train", store, "--resume", "auto"), ("train", store, "-e", "--resume", "auto")):
        refused(capsys, tmp_path, words, "--resume auto", str(here / "runs"), "no run")
    refused(capsys, tmp_path, ("train", store, "--resume", "auto", "--output-dir", tmp_path / "x"), str(tmp_path / "x"), "does not exist")
    refused(capsys, tmp_path, ("train", store, "-e"), "--evaluate needs a network", "--resume")
    refused(capsys, tmp_path, ("predict", "x.png"), "--checkpoint", "no run")


# ------------------------------------------------------------------------------------------------------------------- run directories


def test_output_directories_that_cannot_be(tmp_path, store, capsys, finished_run, monkeypatch):
    (tmp_path / "file").write_text("x")
    for folder in ("file", "file/deeper"):
        words = ("train", store, *TINY, "--output-dir", tmp_path / folder)
        refused(capsys, tmp_path, words, f"--output-dir {tmp_path / folder}", "is a file")
    refused(capsys, finished_run, ("train", store, *TINY, "--output-dir", finished_run), "holds a run already", "--resume auto")
    refused(capsys, tmp_path, ("train", store, *TINY, "-b", "18", "--output-dir", "/proc/nowhere"), "/proc/nowhere", "check the path")
    for folder in ("file", "file/deeper"):
        refused(capsys, tmp_path, ("prepare", store.parent / "archives", "--out", tmp_path / folder, "-q"), str(tmp_path / folder))
    monkeypatch.setattr(os, "access", lambda *_: False)             # root may write anywhere
    refused(capsys, tmp_path, ("train", store, *TINY, "--output-dir", tmp_path / "new" / "run"), str(tmp_path), "not writable")


def test_a_checkpoint_never_goes_on_in_the_folder_of_another_run(tmp_path, store, capsys, finished_run, damaged):
    shutil.copytree(finished_run, tmp_path / "run")
    words = ("train", store, "--resume", damaged / "good.safetensors", "--output-dir", tmp_path / "run")
    refused(capsys, tmp_path, words, str(tmp_path / "run"), "holds a run already")


def test_two_trainers_in_one_run_directory(tmp_path, store, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    lock = RunLock(folder)
    lock.acquire()
    try:
        words = ("train", store, *TINY, "-b", "18", "--output-dir", folder)
        refused(capsys, tmp_path, words, str(folder), f"process {os.getpid()}", "--output-dir")
    finally:
        lock.release()


def test_two_trainers_that_chose_the_same_number(tmp_path, store, capsys, here):
    """The second to make its folder takes the next one."""
    asked = {"data": str(store), "recipe": "tiny", "batch": 18, "epochs": 1}
    first, second = (train.Trainer(asked, quiet=True) for _ in range(2))
    assert first.folder == second.folder
    with first, second:
        assert sorted(os.listdir(here / "runs")) == ["tiny-1", "tiny-2"]
