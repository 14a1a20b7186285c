"""Odd paths in a whole run, Ctrl-C at bad moments, and a rate that diverges at once."""

import os
import signal
import sys

import pytest
from commands import empty_folder, finished, refused, said
from pictures import tree
from runs import small_store

from minialex import train
from minialex.checkpoint import candidates
from minialex.data import prepare

TINY = ("--recipe", "tiny", "--epochs", "1", "-q")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("pictures"), per_class=3, val_per_class=1)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    return empty_folder(tmp_path, monkeypatch)


def test_paths_with_spaces_newlines_and_emoji(tmp_path, capsys):
    """Also class names that look like formulas to a plotting library, and lines of output stay lines."""
    files = {f"{c}/{i} \U0001f600.png": i for c in ("a $x^{$", "b\n\U0001f600", "\u732b", os.fsdecode(b"\xff")) for i in range(4)}
    place = tree(tmp_path / "the pictures\n\U0001f600 $", files)
    out = finished(capsys, "train", place, *TINY[:-1], "-b", "3", "--output-dir", tmp_path / "a run\n\U0001f600")
    assert "the pictures\\n\U0001f600 $" in out.splitlines()[0]
    assert (tmp_path / "a run\n\U0001f600" / "predictions.png").exists() and (tmp_path / "a run\n\U0001f600" / "curves.png").exists()
    assert finished(capsys, "train", "-e", "--resume", tmp_path / "a run\n\U0001f600").count("top-1 error") == 1


def test_interrupted_once_finishes_the_step(tmp_path, store, capsys, monkeypatch):
    learn = train.Trainer.learn

    def interrupted(trainer, batch):
        os.kill(os.getpid(), signal.SIGINT)
        return learn(trainer, batch)

    monkeypatch.setattr(train.Trainer, "learn", interrupted)
    status, _, err = said(capsys, "train", store, *TINY, "-b", "6", "--output-dir", tmp_path / "run")
    path = tmp_path / "run" / "checkpoint-1.safetensors"
    assert status == 130 and err == f"minialex: SIGINT: stopped after step 1; go on with --resume {path}\n" and path.exists()


def test_asked_for_a_checkpoint(tmp_path, store, capsys, monkeypatch):
    """SIGUSR1: one behind the step, and the run goes on."""
    learn, asked = train.Trainer.learn, []

    def asking(trainer, batch):
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        result = learn(trainer, batch)
        asked.append((trainer.step, candidates(trainer.folder)))
        return result

    monkeypatch.setattr(train.Trainer, "learn", asking)
    handler = signal.getsignal(signal.SIGUSR1)
    finished(capsys, "train", store, *TINY, "-b", "6", "--output-dir", tmp_path / "run")
    for step, found in asked:
        assert [path.name for path in found] == ([] if step < 3 else ["checkpoint-3.safetensors"])
    assert len(asked) == 6 and signal.getsignal(signal.SIGUSR1) is handler


def test_interrupted_twice_stops_at_once(tmp_path, store, capsys, monkeypatch):
    """The second Ctrl-C does not wait for the step; nothing half-written stays."""
    learn = train.Trainer.learn

    def interrupting(trainer, batch):
        learn(trainer, batch)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(train.Trainer, "learn", interrupting)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    words = ("train", store, "--recipe", "tiny", "-q", "-b", "6", "--output-dir", tmp_path / "run", "--checkpoint-minutes", "0")
    status, out, err = said(capsys, *words)
    assert err == "minialex: SIGINT, a second time: stopped at once; --resume auto goes on from the last checkpoint\n"
    assert status == 130 and not out
    assert not (tmp_path / "run" / "lock").exists() and not list((tmp_path / "run").glob(".*.partial"))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    finished(capsys, *words, "--resume", "auto", "--epochs", "1")


def test_interrupted_while_pictures_are_prepared(tmp_path, capsys, monkeypatch):
    def interrupting(*_):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sys.modules[prepare.__module__], "write_shard", interrupting)
    place = tree(tmp_path / "in", {f"{c}/{i}.png": i for c in "ab" for i in range(3)})
    before = signal.signal(signal.SIGINT, signal.default_int_handler)      # a job in the background of a shell ignores it
    try:
        refused(capsys, tmp_path, ("prepare", place, "--out", tmp_path / "store", "-q"), "interrupted", "same command", status=130)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_rate_that_diverges_before_any_checkpoint(tmp_path, store, capsys):
    """The way back that is offered exists."""
    status, _, err = said(capsys, "train", store, *TINY, "-b", "6", "--lr", "1e9", "--output-dir", tmp_path / "run")
    assert status == 70 and "first bad tensor" in err and "There is no checkpoint yet: begin again" in err and "--lr 1e+08" in err
    finished(capsys, "train", store, *TINY, "-b", "18", "--output-dir", tmp_path / "run")
