"""A disk that fills up: exit status 74, the place and the need in one sentence, what was whole before stays whole, and the run goes on."""

import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
from commands import everything, finished, refused, said
from pictures import tree
from runs import ROOT, assert_same_run, small_store, weights

from minialex import figures, train
from minialex.checkpoint import candidates, load
from minialex.data import prepare
from minialex.journal import Journal

FLAGS = ("--recipe", "tiny", "-b", "18", "--seed", "3", "-q")
CHECKPOINT = 4 << 20                                # bytes; one of these runs needs 3.7 MiB


@contextmanager
def limit(size: int):
    """No file may grow beyond `size` bytes: the kernel refuses the write, as it does on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def limited(monkeypatch, place, name: str, size: int) -> None:
    """Calls of place.name meet the limit, and nothing else does."""
    function = getattr(place, name)

    def call(*args, **kwargs):
        with limit(size):
            return function(*args, **kwargs)

    monkeypatch.setattr(place, name, call)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("pictures"), per_class=3, val_per_class=1)


@pytest.fixture(scope="module")
def one(store, tmp_path_factory):
    """One epoch."""
    folder = tmp_path_factory.mktemp("one") / "run"
    train.run({"data": str(store), "recipe": "tiny", "batch": 18, "seed": 3, "epochs": 1, "output_dir": str(folder)}, quiet=True)
    return folder


@pytest.fixture(scope="module")
def two(store, tmp_path_factory):
    """The same to its second epoch, on a disk without end."""
    folder = tmp_path_factory.mktemp("two") / "run"
    train.run({"data": str(store), "recipe": "tiny", "batch": 18, "seed": 3, "epochs": 2, "output_dir": str(folder)}, quiet=True)
    return folder


@pytest.fixture
def begun(one, tmp_path):
    return shutil.copytree(one, tmp_path / "run")


def goes_on(store, begun, two, capsys):
    """--resume auto ends in the same bits as the run that met no limit."""
    assert not list(begun.glob(".*.partial"))
    finished(capsys, "train", store, *FLAGS, "--epochs", "2", "--output-dir", begun, "--resume", "auto")
    assert_same_run(begun, two)
    assert [row["epoch"] for row in Journal(begun, load_config(two), done=2).epochs()] == [0, 1]
    assert [row["epoch"] for row in Journal(begun, load_config(two), done=1).epochs()] == [0]      # killed between row and checkpoint


def load_config(run):
    return train.resolve({}, load(candidates(run)[0])[1]["config"])[0]


def test_a_checkpoint_that_does_not_fit(store, begun, two, capsys):
    """In a child whose files may have 1 MB: the checkpoint of the first epoch stays, to the byte."""
    path = candidates(begun)[0]
    before = path.read_bytes()
    command = [sys.executable, "-m", "minialex", "train", store, *FLAGS, "--epochs", "2", "--output-dir", begun, "--resume", "auto"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=120,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)))
    assert done.returncode == 74, done.stderr
    assert len(done.stderr.splitlines()) == 1 and str(begun / "checkpoint-4.safetensors") in done.stderr
    assert "it needs 3.7 MiB" in done.stderr and "MiB are free" in done.stderr and "earlier checkpoints are untouched" in done.stderr
    assert path.read_bytes() == before and weights(begun).keys() == weights(two).keys()
    goes_on(store, begun, two, capsys)


def test_the_first_checkpoint_that_does_not_fit(store, tmp_path, capsys, monkeypatch):
    limited(monkeypatch, train.Keeper, "save_step", 1 << 20)
    status, _, err = said(capsys, "train", store, *FLAGS, "--epochs", "1", "--output-dir", tmp_path / "run")
    assert status == 74 and "could not be written" in err and sorted(os.listdir(tmp_path / "run")) == ["config.json", "metrics.jsonl"]
    monkeypatch.undo()
    finished(capsys, "train", store, *FLAGS, "--epochs", "1", "--output-dir", tmp_path / "run")


@pytest.mark.parametrize("place, name, size, what", [
    (figures, "curves", 1000, "curves.png"), (figures, "filters", 1000, "filters.png"), (figures, "predictions", 1000, "predictions.png"),
    (Journal, "epoch", 500, "metrics.jsonl"),        # the second line of metrics.jsonl is torn
])
def test_pictures_and_metrics_that_do_not_fit(store, begun, two, capsys, monkeypatch, place, name, size, what):
    limited(monkeypatch, place, name, size)
    status, _, err = said(capsys, "train", store, *FLAGS, "--epochs", "2", "--output-dir", begun, "--resume", "auto")
    assert status == 74 and len(err.splitlines()) == 1 and what in err and ".partial" not in err and "--resume auto" in err
    monkeypatch.undo()
    goes_on(store, begun, two, capsys)


def test_a_run_directory_that_cannot_be_begun(store, tmp_path, capsys, monkeypatch):
    """Not even config.json fits: the folders made for the run go again, and its lock with them."""
    limited(monkeypatch, Journal, "__init__", 10)
    refused(capsys, tmp_path, ("train", store, *FLAGS, "--output-dir", tmp_path / "deep" / "run"), "config.json", status=74)


def test_a_store_that_does_not_fit(tmp_path, capsys, monkeypatch):
    """Shards, then the manifest; the first leaves nothing, the other what the same command goes on from."""
    place = tree(tmp_path / "in", {f"{c}/{i}.png": i for c in "ab" for i in range(6)})
    words = ("prepare", place, "--out", tmp_path / "deep" / "store", "--record", "40", "-q")
    module = sys.modules[prepare.__module__]
    with monkeypatch.context() as patched:
        limited(patched, module, "write_shard", 20000)
        refused(capsys, tmp_path, words, str(tmp_path / "deep" / "store"), "File too large", "make room", status=74)
    with monkeypatch.context() as patched:
        limited(patched, module, "finish", 100)
        status, _, err = said(capsys, *words)
        assert status == 74 and "same command" in err
        assert not (tmp_path / "deep" / "store" / "manifest.json").exists()
    finished(capsys, *words)
    assert not list((tmp_path / "deep").rglob("*.partial")) and (tmp_path / "deep" / "store" / "manifest.json").exists()


def test_a_disk_too_small_is_refused_before_anything_is_decoded(tmp_path, capsys, monkeypatch):
    place = tree(tmp_path / "in", {f"{c}/{i}.png": i for c in "ab" for i in range(6)})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    words = ("prepare", place, "--out", tmp_path / "store", "--record", "40", "-q")
    refused(capsys, tmp_path, words, str(tmp_path / "store"), "57,600 more bytes", "has 1,000", "make room", status=74)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with room for one checkpoint and not for two."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root and mount")
    command = ["mount", "-t", "tmpfs", "-o", f"size={CHECKPOINT * 3 // 2}", "minialex-test", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_really_full_disk(store, two, small_disk, capsys):
    run = small_disk / "run"
    words = ("train", store, *FLAGS, "--epochs", "2", "--output-dir", run)
    status, _, err = said(capsys, *words)
    assert status == 74 and "No space left on device" in err and "checkpoint-4.safetensors" in err and "it needs 3.7 MiB" in err
    assert load(candidates(run)[0])[1]["epoch"] == 1
    refused(capsys, small_disk, ("prepare", store.parent / "archives", "--out", small_disk / "store", "-q"), "more bytes", status=74)
    subprocess.run(["mount", "-o", f"remount,size={CHECKPOINT * 4}", small_disk], check=True)
    finished(capsys, *words, "--resume", "auto")
    assert_same_run(run, two)
    assert not [name for name in everything(small_disk) if name.endswith((".partial", "lock"))]


# ------------------------------------------------------------------------------------------------------------------- standard output


def child(*words, stdout, **more):
    return subprocess.Popen([sys.executable, "-m", "minialex", *words], stdout=stdout, stderr=subprocess.PIPE, text=True,
                            env=os.environ | {"PYTHONPATH": str(ROOT)} | more)


def test_a_reader_that_goes_away_from_training(store, tmp_path, capsys, monkeypatch):
    """The line that names the run directory is the last before the first step; nobody read it, so nothing is left of the run."""
    def gone(trainer, text):
        if "run directory" in text:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(train.Trainer, "say", gone)
    words = ("train", store, *FLAGS[:-1], "--output-dir", tmp_path / "deep" / "run")
    assert said(capsys, *words) == (141, "", "") and not (tmp_path / "deep").exists()


# Output that waits in a buffer meets the disk at the end, output without one at once.
buffers = pytest.mark.parametrize("unbuffered", ["", "1"])


@buffers
def test_a_reader_that_goes_away(unbuffered):
    """`minialex plan | head -1`: nothing on the standard error, the status of SIGPIPE (which argparse keeps from us at times)."""
    ours, theirs = os.pipe()
    os.close(ours)
    for words in (("plan",), ("--help",)):
        with child(*words, stdout=theirs, PYTHONUNBUFFERED=unbuffered) as process:
            assert process.stderr.read() == "" and process.wait(60) in ((141,) if words == ("plan",) else (0, 141))
    os.close(theirs)


@buffers
def test_a_full_disk_behind_the_standard_output(unbuffered):
    with open("/dev/full", "w") as full, child("plan", stdout=full, PYTHONUNBUFFERED=unbuffered) as process:
        assert process.stderr.read() == "minialex: the output: No space left on device; write it elsewhere\n" and process.wait(60) == 74


def test_a_terminal_without_unicode(one, tmp_path):
    """Names it cannot show come out escaped, and bars are made of something it can."""
    name = os.fsdecode(b"\xff\xc3\xa4.png")
    tree(tmp_path, {name: 77})
    words = ("predict", tmp_path / name, "--checkpoint", one)
    with child(*words, stdout=subprocess.PIPE, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0") as process:
        out = process.stdout.read()
        assert process.wait(60) == 0, process.stderr.read()
    assert out.isascii() and "\\udcff" in out and out.count(" %  ") == 5 and "#" in out
