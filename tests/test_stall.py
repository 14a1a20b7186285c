"""Pictures that do not come: a disk that hangs is named and ends the run; an error is heard at once; nothing is left behind."""

import gc
import os
import threading
import time

import numpy as np
import pytest
from commands import said
from drawn import small_store

from minialex.data import Loader, Store
from minialex.data.ahead import ahead
from minialex.data.shard import Shard
from minialex.data.store import StoreError
from minialex.nets import recipe
from minialex.spec import Stalled


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("stall") / "store"
    small_store(place)
    return place


@pytest.fixture
def hanging(monkeypatch):
    """Shard.read hangs at train-00002.shard, record 3, as a read from a dead share does, until the test ends."""
    real, free = Shard.read, threading.Event()

    def read(shard, record, out, handle=None, check=True):
        if shard.path.name == "train-00002.shard" and record == 3:
            free.wait(60)
        return real(shard, record, out, handle, check)
    monkeypatch.setattr(Shard, "read", read)
    yield
    free.set()
    time.sleep(0.05)


def loader(folder, **more):
    store = Store(folder)
    return Loader(store.split("train"), store, augmentation=recipe("paper").augmentation, crop=6, batch=8, workers=2, **more)


def test_a_hanging_read_is_named_and_does_not_hang_the_caller(folder, hanging, capsys):
    began = time.monotonic()
    with pytest.raises(Stalled, match=r"no batch has come for 0.3 s: .*train-00002\.shard, record 3.*--resume auto goes on"):
        list(loader(folder, stall_timeout=0.3).batches(0))
    assert time.monotonic() - began < 30
    stacks = capsys.readouterr().err
    assert "minialex-loader_0:" in stacks and "free.wait" in stacks       # where in the program it hangs


def test_patience_is_only_for_what_is_late(folder, monkeypatch):
    """The clock begins anew with each batch."""
    real = Shard.read
    monkeypatch.setattr(Shard, "read", lambda *args: (time.sleep(0.002), real(*args))[1])
    assert len(list(loader(folder, stall_timeout=0.5, prefetch=1).batches(0))) == 7
    assert len(list(loader(folder, stall_timeout=0).batches(0))) == 7


def test_training_ends_with_75_and_a_way_on(folder, hanging, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "store"
    small_store(store, train=50, side=recipe("tiny").record)
    run = tmp_path / "run"
    status, _, err = said(capsys, "train", store, "--recipe", "tiny", "-b", "8", "--epochs", "1", "--output-dir", run,
                          "--stall-timeout", "1", "--checkpoint-minutes", "0", "-q")
    assert status == 75
    assert "minialex: no batch has come for 1 s" in err and "train-00002.shard, record 3" in err and "--stall-timeout" in err


def test_an_error_in_a_thread_is_heard_at_once(folder, monkeypatch):
    def read(shard, record, out, handle=None, check=True):
        raise StoreError(f"{shard.path}, record {record}: cannot be read (Input/output error); check the disk")
    monkeypatch.setattr(Shard, "read", read)
    began = time.monotonic()
    with pytest.raises(StoreError, match="Input/output error"):
        next(loader(folder, stall_timeout=60).batches(0))
    assert time.monotonic() - began < 5


def test_a_real_input_output_error_names_shard_and_record(folder, monkeypatch):
    def preadv(handle, buffers, offset):
        raise OSError(5, "Input/output error")
    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(StoreError, match=r"train-0000\d\.shard, record \d+: cannot be read \(Input/output error\)"):
        Store(folder).split("train").read([20])


def test_an_error_that_is_itself_a_timeout_stays_one():
    def make(index):
        raise TimeoutError("of the file system")
    with pytest.raises(TimeoutError, match="of the file system"):
        next(ahead(make, iter(range(3)), depth=2, workers=1, timeout=5, name="minialex-test"))


def left():
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("minialex-loader"))


@pytest.mark.parametrize("cycles", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_starting_and_stopping_leaves_nothing(folder, cycles):
    gc.collect()
    files = len(os.listdir("/proc/self/fd"))
    for cycle in range(cycles):
        batches = loader(folder).batches(cycle)
        for _ in range(cycle % 4):
            assert np.isfinite(next(batches).noise).all()
        batches.close()
    gc.collect()
    assert left() == [] and len(os.listdir("/proc/self/fd")) == files
