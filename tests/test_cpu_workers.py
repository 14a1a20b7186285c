"""Worker threads of the cpu backend: who works, with what memory, and what happens when something goes wrong."""

from __future__ import annotations

import os
import signal
import sys
import threading

import numpy as np
import pytest

from minialex import backends
from minialex.spec import MiniAlexError

cpu = backends.load("cpu")
inner = sys.modules["minialex.backends.cpu.workers"]


@pytest.fixture(autouse=True)
def same_workers_afterwards():
    before = cpu.workers()
    yield
    cpu.set_workers(before)


def test_first_error_ends_the_call_and_the_workers_live_on():
    cpu.set_workers(3)
    seen = []

    def work(slot: int, item: int) -> None:
        seen.append(item)
        if item == 2:
            raise ZeroDivisionError("item 2")

    with pytest.raises(ZeroDivisionError, match="item 2"):
        cpu.parallel(work, range(1000))
    assert len(seen) < 1000                                 # nobody goes on after an error
    again = []
    cpu.parallel(lambda slot, item: again.append(item), range(20))
    assert sorted(again) == list(range(20))


def test_slots_differ_at_once_and_nested_calls_keep_theirs():
    cpu.set_workers(3)
    together, lock, busy = threading.Barrier(3, timeout=20), threading.Lock(), set()

    def work(slot: int, item: int) -> None:
        with lock:
            assert slot not in busy
            busy.add(slot)
        together.wait()                                     # three slots hold an item at the same time
        nested = []
        cpu.parallel(lambda own, i: nested.append((own, i, threading.get_ident())), range(4))
        assert nested == [(slot, i, threading.get_ident()) for i in range(4)]
        with lock:
            busy.remove(slot)

    cpu.parallel(work, range(3))
    with pytest.raises(MiniAlexError, match="inside parallel"):
        cpu.parallel(lambda slot, item: cpu.set_workers(2), range(2))
    with pytest.raises(MiniAlexError, match="at least one"):
        cpu.set_workers(0)


def test_another_thread_computes_while_the_workers_are_busy(seed):
    """A loader's thread may call an op during a step: it does not wait for the step's workers, and gets the same bits."""
    cpu.set_workers(2)
    x = np.random.default_rng(seed).standard_normal((2, 24, 40, 40, 8)).astype(np.float32)
    want, got, constants = np.empty_like(x), np.full_like(x, np.nan), dict(n=5, k=2.0, alpha=1.0, beta=0.75)
    cpu.lrn_fprop(x, want, **constants)
    done = threading.Event()

    def loader() -> None:
        cpu.lrn_fprop(x, got, **constants)
        done.set()

    def work(slot: int, item: int) -> None:
        if item == 0:
            thread = threading.Thread(target=loader)
            thread.start()
            assert done.wait(20)
            thread.join()

    cpu.parallel(work, range(2))
    np.testing.assert_array_equal(got, want)


def test_ranges_are_whole_and_few():
    for N in (*range(1, 70), 128, 256, 1000):
        ranges = cpu.image_ranges(N)
        blocks = [block for one in ranges for block in one]
        assert len(ranges) <= 18 and all(0 < stop - start <= (4 if N < 32 else 8) for start, stop in blocks)
        assert [start for start, _ in blocks] == [0, *(stop for _, stop in blocks[:-1])] and blocks[-1][1] == N
    for size, blocks in ((0, [8] * 14 + [4] * 4), (1 << 20, [8] * 14 + [4] * 4), (1 << 15, [16] * 6 + [8] * 4)):
        assert [one[-1][1] - one[0][0] for one in cpu.image_ranges(128, size)] == blocks    # enough for 16 processors, and small ones last


def test_scratch_is_not_shared_between_threads():
    first = inner.scratch("test", (100,), np.float32)
    assert inner.scratch("test", (10, 5), np.float32).base is first.base        # the same memory, another shape
    other = []
    thread = threading.Thread(target=lambda: other.append(inner.scratch("test", (100,), np.float32)))
    thread.start()
    thread.join()
    assert not np.shares_memory(first, other[0])


def test_zero_borders_stay_zero(seed):
    """The padded copy is kept between calls: layers that share its size but not its padding must not share its memory."""
    random = np.random.default_rng(seed)
    w, b = random.standard_normal((4, 3, 3, 2)).astype(np.float32), np.zeros(4, np.float32)
    oracle = backends.load("reference")
    for H, pad in ((6, (2, 0)), (6, (0, 2)), (6, 1), (7, (1, 0)), (6, (2, 0))):
        x = random.standard_normal((1, 2, H, H, 2)).astype(np.float32)
        extent = H + sum((pad, pad) if isinstance(pad, int) else pad) - 2
        got, want = (np.empty((1, 2, extent, extent, 4), np.float32) for _ in range(2))
        for ops, y in ((cpu, got), (oracle, want)):
            ops.conv_fprop(x, w, b, y, stride=1, pad=pad, groups=1)
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_blas_of_one_thread_or_a_reason():
    assert cpu.blas_reason is None or "=1" in cpu.blas_reason


def test_a_missing_blas_is_said_and_nothing_breaks(monkeypatch, tmp_path):
    inner._blas_function.cache_clear()
    monkeypatch.setattr(np, "__file__", str(tmp_path / "numpy" / "__init__.py"))
    try:
        assert "OMP_NUM_THREADS=1" in inner.set_blas_threads(1)
    finally:
        inner._blas_function.cache_clear()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_threads_of_its_own():
    cpu.set_workers(2)
    cpu.parallel(lambda slot, item: None, range(4))         # the parent's threads run now
    child = os.fork()
    if child == 0:
        signal.alarm(20)                                    # a child that waits for threads it does not have ends here
        done = []
        cpu.parallel(lambda slot, item: done.append(item), range(8))
        os._exit(0 if sorted(done) == list(range(8)) else 1)
    assert os.waitpid(child, 0)[1] == 0
