"""One call in a whole training run fails as a full, broken, over-used, read-only or forbidden disk makes it fail."""

from __future__ import annotations

import errno
import os
import random
import shutil

import pytest
from commands import finished, said
from faults import Faults
from runs import assert_same_run, small_store

from minialex import figures
from minialex.checkpoint import candidates, load
from minialex.cli import main
from minialex.journal import read

CODES = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    store = small_store(tmp_path_factory.mktemp("failing"), per_class=2, val_per_class=1)
    return ("train", store, "--recipe", "tiny", "-b", "12", "--epochs", "2", "--seed", "3", "-j", "1", "--statistics", "1", "--tensorboard",
            "--checkpoint-minutes", "0", "-q")


@pytest.fixture(autouse=True, scope="module")
def without_pictures():
    """They are written as all files are, take most of the time, and test_disk.py looks after them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("curves", "filters", "predictions"):
            patch.setattr(figures, name, lambda *args, **more: None)
        yield


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory):
    """(the run no call of which fails, the names of its calls)"""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main([*map(str, words), "--output-dir", str(folder.parent / "first")]) == 0      # imports what is imported once
    with pytest.MonkeyPatch.context() as patch:
        calls = Faults(patch, at=10**9).calls
        assert main([*map(str, words), "--output-dir", str(folder)]) == 0
    return folder, list(calls)


def fails_and_goes_on(words, whole, folder, capsys, at: int, code: int) -> int:
    """The status of a run whose call number `at` fails; whatever it is, the run goes on to the same bits."""
    with pytest.MonkeyPatch.context() as patch:
        faults = Faults(patch, at, code=code)
        status, _, err = said(capsys, *words, "--output-dir", folder)
    where = (at, faults.calls[at - 1], os.strerror(code), err)
    assert faults.fired, where
    if status:
        assert status == 74 or (status == 2 and code == errno.EACCES), where
        assert len(err.splitlines()) == 1 and os.strerror(code) in err and ".partial" not in err, where
    found = candidates(folder)
    for path in found:
        load(path)                                              # none is half-written
    finished(capsys, *words, "--output-dir", folder, *(("--resume", "auto") if found else ()))
    assert_same_run(whole[0], folder)
    assert [row["epoch"] for row in read(folder / "metrics.jsonl")] == [0, 1], where
    assert not list(folder.glob(".*.partial")) and not (folder / "lock").exists(), where
    return status


def test_a_call_that_fails(words, whole, tmp_path, capsys):
    """One of each kind of call, by lot."""
    draw, calls = random.Random(5), whole[1]
    for kind in sorted(set(calls)):
        at = draw.choice([k for k, name in enumerate(calls, 1) if name == kind])
        fails_and_goes_on(words, whole, tmp_path / str(at), capsys, at, draw.choice(CODES))


@pytest.mark.long
@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
def test_every_call_fails_once(words, whole, tmp_path, capsys, code):
    refused = 0
    for at in range(1, len(whole[1]) + 1):
        refused += fails_and_goes_on(words, whole, tmp_path / "run", capsys, at, code) != 0
        shutil.rmtree(tmp_path / "run")
    print(f"\n{errno.errorcode[code]} at each of {len(whole[1])} calls: {refused} ended with a sentence, the same bits in all")
    assert refused > len(whole[1]) // 2
