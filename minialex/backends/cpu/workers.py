"""Worker threads of the cpu backend: who computes what, in which scratch memory, with how many BLAS threads.

NumPy's products, copies and elementwise loops release the interpreter's lock, so plain threads share the cores, each
with a one-thread BLAS: it carries its images through the whole stack of layers while they are in its cache, and a
worker that loses its core delays nobody else (a multi-threaded BLAS waits at a barrier in every product).

Same bits for any number of workers: work is cut at places that depend on shapes alone (`image_ranges`, `over_chunks`),
never on who is free, and sums of pieces follow the order of the pieces.
"""

from __future__ import annotations

import ctypes
import math
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from ...spec import MiniAlexError, ShapeError
from .. import checks

RANGES = 16                 # partial gradients are kept for about so many ranges of images
BLOCK = 8                   # images that one worker carries through the layers together,
FEW = 32                    # half as many of a batch below so many;
SMALL = 1 << 16             # numbers of an image's largest activation: twice as many of those, or Python takes a fifth of the time
REDUCE = 65536              # columns of partial sums that are added at a time


# -------------------------------------------------------------------------------------------------------- arrays
def empty(shape, dtype="float32") -> np.ndarray:
    """An array of undefined content."""
    return np.empty(shape, dtype)


def from_host(array, out: np.ndarray | None = None) -> np.ndarray:
    """A copy of a host array in this backend's memory; into `out`, which must have its shape and type, if given."""
    if out is None:
        return np.array(array, order="C")
    checks.shape("from_host", "array", array, out.shape)
    checks.dtype("from_host", "array", array, str(out.dtype))
    np.copyto(out, array)
    return out


def to_host(array) -> np.ndarray:
    """A copy of an array of this backend in host memory."""
    return np.array(array, order="C")


class _Thread(threading.local):
    """What each thread has of its own: its slot while it works for `parallel`, and its scratch arrays."""

    slot = 0
    inside = False
    job: _Job | None = None

    def __init__(self) -> None:
        self.arrays: dict = {}


_thread = _Thread()


def scratch(name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
    """This thread's array called `name`, content undefined; the next call of that name and dtype may overwrite it."""
    size = math.prod(shape)
    flat = _thread.arrays.get((name, dtype))
    if flat is None or flat.size < size:
        flat = _thread.arrays[name, dtype] = np.empty(size, dtype)
    return flat[:size].reshape(shape)


def zeroed(name: str, count: int, shape: tuple[int, ...], dtype, key) -> np.ndarray:
    """This thread's (count, *shape) array, zero at first; who always writes the same inside for one `key` keeps a zero border."""
    array = _thread.arrays.get((name, shape, dtype, key))
    if array is None or array.shape[0] < count:
        array = _thread.arrays[name, shape, dtype, key] = np.zeros((count, *shape), dtype)
    return array[:count]


# -------------------------------------------------------------------------------------------------------- BLAS threads
@lru_cache
def _blas_function():
    """NumPy's own OpenBLAS, its function that sets the number of threads; or the reason why there is none."""
    package = Path(np.__file__).parent
    folders = (package.parent / "numpy.libs", package / ".dylibs", package / ".libs")
    libraries = [file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*openblas*"))]
    if not libraries:
        return None, "NumPy here brings no OpenBLAS of its own; set its BLAS to one thread by OMP_NUM_THREADS=1 or MKL_NUM_THREADS=1"
    names = [f"{prefix}openblas_set_num_threads{suffix}" for prefix in ("scipy_", "") for suffix in ("64_", "")]
    for path in libraries:
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        for name in names:
            if hasattr(library, name):
                return getattr(library, name), None
    return None, f"{libraries[0].name} has none of {', '.join(names)}; set OPENBLAS_NUM_THREADS=1"


def set_blas_threads(n: int) -> str | None:
    """Lets each BLAS call of this process use n threads.  Returns None, or the reason why that cannot be set here."""
    function, reason = _blas_function()
    if function is not None:
        function.argtypes, function.restype = [ctypes.c_int], None
        function(n)
    return reason


blas_reason = set_blas_threads(1)       # None, or why products may compete with the workers for cores


# -------------------------------------------------------------------------------------------------------- threads
class _Job:
    """One call of `parallel`: workers take items until none is left or one failed."""

    def __init__(self, function: Callable, items: Sequence) -> None:
        self.function, self.items, self.next = function, iter(items), threading.Lock()
        self.error: BaseException | None = None
        self.done: SimpleQueue = SimpleQueue()
        self.kept: dict = {}
        self.keeping = threading.Lock()

    def run(self, slot: int) -> None:
        before = _thread.slot, _thread.inside, _thread.job
        _thread.slot, _thread.inside, _thread.job = slot, True, self
        try:
            while self.error is None:
                with self.next:
                    item = next(self.items, self)
                if item is self:
                    break
                self.function(slot, item)
        except BaseException as error:
            self.error = self.error or error
        finally:
            _thread.slot, _thread.inside, _thread.job = before

    def keep(self, key, shape: tuple[int, ...], dtype, make: Callable[[np.ndarray], None]) -> np.ndarray:
        with self.keeping:
            entry = self.kept.get(key)
            if entry is None:
                entry = self.kept[key] = (threading.Lock(), _spare_array(shape, dtype), [])
        lock, array, made = entry
        with lock:
            if not made:
                make(array)
                made.append(True)
        return array

    def give_back(self) -> None:
        """Its arrays serve later jobs."""
        for _, array, _ in self.kept.values():
            _spare.setdefault((array.shape, array.dtype), []).append(array)
        self.kept.clear()


_spare: dict[tuple, list[np.ndarray]] = {}


def _spare_array(shape: tuple[int, ...], dtype) -> np.ndarray:
    try:
        return _spare[shape, np.dtype(dtype)].pop()
    except (KeyError, IndexError):
        return np.empty(shape, dtype)


def per_job(key, shape: tuple[int, ...], dtype, make: Callable[[np.ndarray], None]) -> np.ndarray:
    """An array that make(array) fills once for all items of the job at hand, on whichever worker comes first; at each call outside of
    one.  What it is made from must not change during the job: weights do not, since a job that reads them writes gradients alone."""
    if _thread.job is not None:
        return _thread.job.keep(key, shape, dtype, make)
    array = scratch("per job", shape, dtype)
    make(array)
    return array


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Pool:
    """`count` workers: the calling thread and count - 1 others, which wait for jobs."""

    def __init__(self, count: int) -> None:
        self.count, self.busy, self.inbox = count, threading.Lock(), SimpleQueue()
        self.started = False

    def _start(self) -> None:
        self.started = True
        for slot in range(1, self.count):
            threading.Thread(target=self._serve, args=(slot,), name=f"minialex-cpu-{slot}", daemon=True).start()

    def _serve(self, slot: int) -> None:
        np.seterr(all="ignore")                         # of this thread: ops follow IEEE, whoever trains looks for NaN
        while (job := self.inbox.get()) is not None:
            job.run(slot)
            job.done.put(slot)
            del job                                     # else the last job's arrays live until the next one

    def run(self, job: _Job, helpers: int) -> None:
        if not self.started:
            self._start()
        for _ in range(helpers):
            self.inbox.put(job)
        try:
            job.run(0)
        finally:
            for _ in range(helpers):
                job.done.get()

    def stop(self) -> None:
        if self.started:
            for _ in range(self.count - 1):
                self.inbox.put(None)


_pool = _Pool(_processors())


def _after_fork() -> None:
    """A child process has none of its parent's threads."""
    global _pool
    _pool = _Pool(_pool.count)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def workers() -> int:
    """Worker threads, the calling one included; at first the processors this process may use."""
    return _pool.count


def set_workers(n: int) -> None:
    """Changes the number of workers; results do not depend on it."""
    global _pool
    if n < 1:
        raise MiniAlexError(f"set_workers: {n} workers; at least one is needed")
    if _thread.inside:
        raise MiniAlexError("set_workers: called from inside parallel; call it between steps")
    if n != _pool.count:
        with _pool.busy:
            _pool.stop()
            _pool = _Pool(n)


def _run(function: Callable, items: Sequence, wait: bool) -> None:
    pool = _pool
    if _thread.inside or len(items) == 1:
        for item in items:
            function(_thread.slot, item)
        return
    job = _Job(function, items)
    try:
        if not pool.busy.acquire(blocking=wait):        # another thread's job has the workers: do it alone
            job.run(_thread.slot)
        else:
            try:
                pool.run(job, min(pool.count, len(items)) - 1)
            finally:
                pool.busy.release()
    finally:
        job.give_back()
    if job.error is not None:
        raise job.error


def parallel(function: Callable, items: Iterable) -> None:
    """function(slot, item) for each item, on all workers; slot < workers() differs among calls that run at once.

    Ops called by `function` run in its thread alone, so a result depends on the items and never on the workers.  The first
    error of an item is raised here after all workers have stopped.
    """
    _run(function, tuple(items), wait=True)


@lru_cache(maxsize=256)
def image_ranges(N: int, size: int = 0) -> tuple[tuple[tuple[int, int], ...], ...]:
    """N images as ranges of blocks (start, stop) of at most 8 images, 4 of small batches, 16 of large ones of small images, whose largest
    activation has `size` numbers (0: not known): a function of these two alone.

    About 16 ranges, the last two of them halved: who comes last to the pile waits for a small piece.
    """
    if N < 1:
        raise ShapeError(f"image_ranges: {N} images; at least one is needed")
    most = BLOCK // 2 if N < FEW else 2 * BLOCK if 0 < size <= SMALL and N >= RANGES * BLOCK else BLOCK
    size = -(-N // (RANGES * most)) * most
    halved = max(0, -(-N // size) - 2) * size if 4 * size <= N else N
    starts = [*range(0, halved, size), *range(halved, N, size // 2)]
    return tuple(tuple((block, min(block + most, stop)) for block in range(start, stop, most))
                 for start, stop in pairwise([*starts, N]))


def over_images(function: Callable[[int, int], None], N: int, work: int) -> None:
    """function(start, stop) over N images: all at once inside a worker or where `work` (elements) is small, else by blocks."""
    if _thread.inside or work < 1 << 16 or N <= BLOCK // 2:
        function(0, N)
    else:
        _run(lambda slot, blocks: [function(start, stop) for start, stop in blocks], image_ranges(N), wait=False)


def over_chunks(function: Callable[[int, int], None], count: int, step: int) -> None:
    """function(start, stop) over 0 .. count in chunks of `step`."""
    if step >= count:
        function(0, count)
    else:
        _run(lambda slot, start: function(start, min(start + step, count)), range(0, count, step), wait=False)


def inside() -> bool:
    """True in a thread that works for `parallel`."""
    return _thread.inside


# -------------------------------------------------------------------------------------------------------- sums
def sum_partials(partials: np.ndarray, out: np.ndarray) -> None:
    """out (size,) = sum of the rows of partials (ranges, size), neighbours first: ((0+1)+(2+3))+...; partials stay."""
    checks.rank("sum_partials", partials=partials, want=2)
    checks.floats("sum_partials", partials=partials, out=out)
    checks.shape("sum_partials", "out", out, (partials.shape[1],))
    checks.separate("sum_partials", {"out": out}, {"partials": partials})

    def chunk(start: int, stop: int) -> None:
        rows = [row[start:stop] for row in partials]
        if len(rows) == 1:
            np.copyto(out[start:stop], rows[0])
            return
        sums = scratch("sums", (-(-len(rows) // 2), stop - start), out.dtype)
        while len(rows) > 2:
            pairs = [np.add(rows[i], rows[i + 1], out=sums[i // 2]) for i in range(0, len(rows) - 1, 2)]
            rows = pairs + rows[2 * len(pairs):]
        np.add(rows[0], rows[1], out=out[start:stop])

    step = REDUCE * max(1, out.size // (REDUCE * 64))        # at most about 128 chunks
    over_chunks(lambda start, stop: [chunk(a, min(a + REDUCE, stop)) for a in range(start, stop, REDUCE)], out.size, step)
