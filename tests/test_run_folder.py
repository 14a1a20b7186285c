"""A run folder at any moment holds a whole checkpoint: failing disks, crashes, which are kept and come next, one trainer at a time."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from checkpoints import STATE, arrays, refused, same
from faults import Crash, Faults

from minialex import checkpoint
from minialex.checkpoint import CheckpointError, Keeper, RunLock, SaveError, candidates, load, save

ROOT = Path(__file__).resolve().parent.parent


# ------------------------------------------------------------------ failing disks and crashes
def newest(folder: Path) -> tuple[dict, dict]:
    """As --resume auto: the first candidate that loads."""
    for path in candidates(folder):
        try:
            return load(path)
        except CheckpointError:
            continue
    raise AssertionError("neither the old nor the new checkpoint loads")


@pytest.mark.parametrize("kind", ["error", "crash"])
def test_a_failure_at_any_call_of_a_save_leaves_old_or_new(tmp_path, kind):
    for at in count(1):
        folder = tmp_path / str(at)
        keeper = Keeper(folder)
        for step in (1, 2, 3):
            keeper.save_step(step, arrays(step), {"step": step}, best=step == 1)
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, at, kind)
            try:
                keeper.save_step(4, arrays(4), {"step": 4}, best=True)
                assert not faults.fired, "a failure was swallowed"
            except (SaveError, Crash) as error:
                assert faults.fired and (kind == "crash" or str(folder) in str(error))
        got, state = newest(folder)
        assert state["step"] in (3, 4) and same(got, arrays(state["step"]))
        best = load(candidates(folder / "best")[0])[1]["step"]
        assert best in (1, 4) and (best == 4 or state["step"] == 3)       # never the new weights without the new best
        Keeper(folder).save_step(5, arrays(5), {"step": 5})               # and the run goes on
        assert newest(folder)[1]["step"] == 5 and not [p for p in folder.iterdir() if p.name.endswith(".partial")]
        if not faults.fired:
            break
    assert faults.calls.count("replace") == 3 and faults.calls.count("unlink") == 2 and at == len(faults.calls) + 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_full_disk_in_one_sentence(tmp_path, monkeypatch, code):
    old = save(tmp_path, "c.safetensors", arrays(), STATE)
    with monkeypatch.context() as patch:
        Faults(patch, 2, code=code)
        with pytest.raises(SaveError, match=r"could not be written .* needs 0\.\d MiB and [\d.]+ MiB are free .*--output") as caught:
            save(tmp_path, "c.safetensors", arrays(1), STATE)
    assert os.strerror(code) in str(caught.value) and str(old) in str(caught.value)
    assert same(load(old)[0], arrays()) and len(list(tmp_path.iterdir())) == 1


def python(code: str, *arguments, **more) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, text=True, stdout=subprocess.PIPE, **more)


def test_a_real_limit_on_file_size(tmp_path):
    keeper = Keeper(tmp_path)
    keeper.save_step(1, arrays(), STATE)
    code = ("import resource, sys; import numpy as np; from minialex.checkpoint import *\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
            "try: Keeper(sys.argv[1]).save_step(2, {'x': np.zeros(10_000)}, {})\n"
            "except CheckpointError as error: print(error)")
    with python(code, tmp_path) as process:
        said = process.communicate()[0]
    assert "checkpoint-2.safetensors: could not be written (File too large)" in said and said.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-1.safetensors", "last"] and newest(tmp_path)[1] == STATE


# ------------------------------------------------------------------ which are kept, which comes next
def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_the_last_two_and_the_best_are_kept(tmp_path):
    keeper = Keeper(tmp_path / "run")
    for step in range(1, 12):
        path = keeper.save_step(step, arrays(step), {"step": step}, best=step in (2, 5))
        assert path == tmp_path / "run" / f"checkpoint-{step}.safetensors"
    assert names(tmp_path / "run") == ["best", "checkpoint-10.safetensors", "checkpoint-11.safetensors", "checkpoint-5.safetensors", "last"]
    assert (tmp_path / "run" / "last").read_text() == "checkpoint-11.safetensors\n"
    assert [p.name for p in candidates(tmp_path / "run")] == [f"checkpoint-{k}.safetensors" for k in (11, 10, 5)]
    assert [p.name for p in candidates(tmp_path / "run" / "best")] == ["checkpoint-5.safetensors"]


def test_a_run_that_went_back_forgets_the_later_steps(tmp_path):
    keeper = Keeper(tmp_path)
    for step in (10, 20, 30):
        keeper.save_step(step, arrays(), {"step": step}, best=step == 10)
    keeper.save_step(15, arrays(), {"step": 15})
    assert [p.name for p in candidates(tmp_path)] == ["checkpoint-15.safetensors", "checkpoint-10.safetensors"]


def test_the_one_before_when_the_newest_is_damaged(tmp_path):
    keeper = Keeper(tmp_path)
    for step in (1, 2):
        keeper.save_step(step, arrays(step), {"step": step})
    newest_path = candidates(tmp_path)[0]
    newest_path.write_bytes(newest_path.read_bytes()[:-1])
    refused(newest_path, "--resume auto")
    assert newest(tmp_path)[1] == {"step": 1}


def test_pointers_that_are_damaged_or_lead_out_of_the_folder(tmp_path):
    keeper = Keeper(tmp_path / "run")
    for step in (1, 2):
        keeper.save_step(step, arrays(), {"step": step}, best=step == 1)
    save(tmp_path, "checkpoint-9.safetensors", {}, {})
    for content in (b"", b"\xff\xfe", b"../checkpoint-9.safetensors", b"checkpoint-7.safetensors", b"checkpoint-1.safetensors.txt", b"/"):
        (tmp_path / "run" / "last").write_bytes(content)
        assert [p.name for p in candidates(tmp_path / "run")] == ["checkpoint-2.safetensors", "checkpoint-1.safetensors"]
        assert candidates(tmp_path / "run" / "last") == []
    (tmp_path / "run" / "last").write_text("checkpoint-1.safetensors")        # died between the file and its pointer: it was pointed at 1
    assert [p.name for p in candidates(tmp_path / "run")] == ["checkpoint-1.safetensors", "checkpoint-2.safetensors"]


def test_candidates_of_files_and_of_nothing(tmp_path):
    path = save(tmp_path, "mine.safetensors", {}, {})
    assert candidates(path) == [path] and candidates(str(path)) == [path]
    assert candidates(tmp_path / "typo.safetensors") == [tmp_path / "typo.safetensors"]      # load then says that it is missing
    assert candidates(tmp_path) == [] and candidates(tmp_path / "nowhere") == []
    (tmp_path / "checkpoint-x.safetensors").write_text("")
    assert candidates(tmp_path) == []


def test_a_keeper_sweeps_what_a_killed_run_left(tmp_path):
    (tmp_path / ".checkpoint-3.safetensors.77.partial").write_bytes(b"half")
    Keeper(tmp_path)
    assert names(tmp_path) == []


# ------------------------------------------------------------------ one trainer for a run
def test_a_second_trainer_is_refused(tmp_path):
    first, second = RunLock(tmp_path), RunLock(tmp_path)
    first.acquire()
    with pytest.raises(CheckpointError, match=rf"in use by process {os.getpid()} on .+ since .+; stop that one, or name another"):
        second.acquire()
    second.release()                                          # has nothing to release
    with pytest.raises(CheckpointError):
        second.acquire()
    first.release()
    assert names(tmp_path) == []
    second.acquire()
    first.release()
    with pytest.raises(CheckpointError):
        RunLock(tmp_path).acquire()
    second.release()


def test_the_lock_of_a_killed_trainer_is_taken_over(tmp_path):
    code = ("import sys, time; from minialex.checkpoint import RunLock\n"
            "RunLock(sys.argv[1]).acquire(); print('locked', flush=True); time.sleep(600)")
    with python(code, tmp_path) as process:
        try:
            assert process.stdout.readline() == "locked\n"
            with pytest.raises(CheckpointError, match=f"in use by process {process.pid} "):
                RunLock(tmp_path).acquire()
        finally:
            process.send_signal(signal.SIGKILL)
    assert names(tmp_path) == ["lock"]
    (tmp_path / "lock").write_text("process 1 on a host with a very long name\n" * 9)
    lock = RunLock(tmp_path)
    lock.acquire()
    assert lock.path.read_text().startswith(f"process {os.getpid()} on ") and lock.path.read_text().count("\n") == 1
    lock.release()


def test_a_lock_removed_between_open_and_lock_is_not_taken(tmp_path, monkeypatch):
    first, second = RunLock(tmp_path), RunLock(tmp_path)
    first.acquire()
    real = checkpoint.fcntl.flock

    def late(handle, how):                                    # the first owner leaves just before the second locks the old file
        monkeypatch.setattr(checkpoint.fcntl, "flock", real)
        first.release()
        real(handle, how)
    monkeypatch.setattr(checkpoint.fcntl, "flock", late)
    second.acquire()
    assert second.path.exists()
    with pytest.raises(CheckpointError):
        RunLock(tmp_path).acquire()
    second.release()


def test_a_lock_that_cannot_be_made(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="cannot be written"):
        RunLock(tmp_path / "nowhere").acquire()

    def unsupported(handle, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    monkeypatch.setattr(checkpoint.fcntl, "flock", unsupported)
    with pytest.raises(CheckpointError, match="file system without locks"):
        RunLock(tmp_path).acquire()
