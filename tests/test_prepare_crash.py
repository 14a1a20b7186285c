"""Preparation killed, and refused by the disk, at every change it makes there: the same bytes in the end, and nothing half-written."""

import errno
import os
import resource
import shutil
import signal
import time
from importlib import import_module

import pytest
from drawn import Drawn, contents
from faults import Faults

from minialex.data import Item, StoreError, prepare

module = import_module("minialex.data.prepare")     # the package's attribute of that name is the function
ODD = dict(broken=(4, 22), grey=(6,))


def make(out, source=None):
    return prepare(source or Drawn({"train": 23, "val": 7}, **ODD), out, 8, 2, False, 5)


@pytest.fixture
def hasty(monkeypatch):
    """Without waiting for the disk: a killed process, unlike a fallen machine, loses nothing that was written."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory) -> dict[str, bytes]:
    """The bytes of the undisturbed store of the default source."""
    folder = tmp_path_factory.mktemp("wanted") / "store"
    make(folder)
    return contents(folder)


def in_child(work) -> int:
    """Runs work() in a forked process; its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitpid(child, 0)[1]


class Killer:
    """Kills the process, unblockably, at the chosen one of the calls that change the disk, before or after it is carried out."""

    def __init__(self, at: int):
        self.at, self.count = at, 0
        for name in ("replace", "fsync", "mkdir", "unlink", "rmdir"):
            setattr(os, name, self.wrapped(getattr(os, name)))

    def point(self):
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(self, call):
        def killed_around(*args, **more):
            self.point()
            result = call(*args, **more)
            self.point()
            return result
        return killed_around


def test_killed_at_every_change_of_the_disk_then_resumed(tmp_path, wanted, hasty):
    at, killed = 1, 0
    while True:
        out = tmp_path / str(at)

        def work(at=at, out=out):
            Killer(at)
            make(out)

        status = in_child(work)
        make(out)
        assert contents(out) == wanted, f"killed at change {at}"
        shutil.rmtree(out)
        if not os.WIFSIGNALED(status):
            assert status == 0
            break
        killed += 1
        at += 1 if at < 12 else 5                               # every point of the first shard, then every fifth
    assert killed > 25


def test_killed_again_and_again(tmp_path, wanted, hasty):
    """Each run gets a little further: one shard and its journal are finished before the fatal change of the disk."""
    def work():
        Killer(24)
        make(tmp_path / "store")

    deaths = 0
    while os.WIFSIGNALED(in_child(work)):
        deaths += 1
        assert deaths < 40
    assert deaths >= 3
    assert contents(tmp_path / "store") == wanted


def test_killed_at_any_moment(tmp_path, wanted, hasty):
    class Slow(Drawn):
        def items(self, split, start=0):
            for item in super().items(split, start):
                time.sleep(0.003)
                yield Item(item.name, item.label, lambda data=item.data: data)

    source = Slow({"train": 23, "val": 7}, **ODD)
    for delay in (0.01, 0.035, 0.06, 0.085):
        out = tmp_path / str(delay)
        child = os.fork()
        if child == 0:
            make(out, source=source)
            os._exit(0)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        make(out, source=source)
        assert contents(out) == wanted, delay


def test_an_error_at_every_change_of_the_disk_is_one_sentence(tmp_path, wanted, hasty):
    """A disk that is full at the n-th call: the sentence, no temporary file, and the same bytes once there is room."""
    at, failed = 1, 0
    while True:
        out = tmp_path / str(at)
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, at, code=errno.ENOSPC)
            try:
                make(out)
                done = faults.count < at
            except StoreError as error:
                done = False
                assert "No space left on device" in str(error) and "bytes are free; make room" in str(error)
                failed += 1
        if done:
            break
        assert not out.exists() or not [path for path in out.rglob("*") if path.name.endswith(".partial")], at
        make(out)
        assert contents(out) == wanted, at
        shutil.rmtree(out)
        at += 1 if at < 12 else 5
    assert failed > 15


def test_a_file_size_limit_leaves_nothing_behind(tmp_path):
    """A real refusal by the kernel in the middle of a shard."""
    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4500, 4500))
        try:
            make(tmp_path / "new" / "store")
        except StoreError as error:
            os._exit(0 if "File too large" in str(error) and "bytes are free" in str(error) else 3)
        os._exit(4)

    assert os.waitstatus_to_exitcode(in_child(work)) == 0
    assert list(tmp_path.iterdir()) == []


def test_too_small_a_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=5000))
    with pytest.raises(StoreError, match="the store needs 5,760 more bytes, but the disk has 5,000; make room"):
        make(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_the_disk_begins_early(tmp_path, wanted, monkeypatch):
    """Shards go to the disk while pictures are decoded: the same bytes, and an error there is none less."""
    monkeypatch.setattr("minialex.data.shard.EARLY", 1)
    calls = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda handle: (calls.append(handle), real(handle)))
    make(tmp_path / "store")
    assert contents(tmp_path / "store") == wanted and len(calls) > 5

    def fails(handle):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fails)
    with pytest.raises((OSError, StoreError), match="Input/output error"):
        make(tmp_path / "other")
    assert not list((tmp_path / "other").rglob("*.shard"))
