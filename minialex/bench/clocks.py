"""How long a call takes: on the host by the wall clock, on a GPU by its own events, cold (caches emptied before) or back to back."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

BACK_TO_BACK = 10           # launches between two events
SLOW, FEW = 20.0, 3         # on a GPU a call of more milliseconds is timed alone, in a few rounds: some "direct" variants take that long


class HostClock:
    """Wall time; cold calls follow a sweep over more memory than any cache holds."""

    def __init__(self, sweep: int = 1 << 26):
        self._sweep = np.zeros(sweep, np.uint8)

    def prepare(self, call: Callable[[], None]) -> Callable[[], None]:
        """The call in the form that is timed, run once."""
        call()
        return call

    def rounds(self, asked: int) -> int:
        """How many rounds of the call prepared last are worth their time."""
        return asked

    def milliseconds(self, call: Callable[[], None], cold: bool) -> float:
        if cold:
            self._sweep += 1
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)


class CudaClock:
    """CUDA events on CuPy's current stream.  A call is replayed as a CUDA graph, so that Python's own time (checks, launches) lies
    outside; cold calls follow a fill of 256 MiB, several times the L2."""

    def __init__(self, cupy):
        self._cupy = cupy
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._stream.use()
        self._flush = cupy.zeros(1 << 28, cupy.uint8)
        self.graphs = True
        self._slow = False

    def prepare(self, call: Callable[[], None]) -> Callable[[], None]:
        """The call as a captured graph; where capture fails, the call itself, and `graphs` says so."""
        call()                                      # compiles what CuPy compiles, and grows the workspace, which a capture may not
        self._stream.synchronize()
        ready = call
        try:
            self._stream.begin_capture()
            try:
                call()
            finally:
                graph = self._stream.end_capture()

            def ready() -> None:
                graph.launch(self._stream)
            ready.of = call                         # a graph knows addresses; the arrays must live as long as it does
            ready()
            self._stream.synchronize()
        except Exception as error:
            self.graphs, ready = False, call
            print(f"not captured as a CUDA graph, timed with Python's own time: {type(error).__name__}: {error}", file=sys.stderr)
            self._stream.synchronize()
        self._slow = self.milliseconds(ready, cold=True) > SLOW
        return ready

    def rounds(self, asked: int) -> int:
        return min(asked, FEW) if self._slow else asked

    def milliseconds(self, call: Callable[[], None], cold: bool) -> float:
        start, stop = self._cupy.cuda.Event(), self._cupy.cuda.Event()
        count = 1 if cold or self._slow else BACK_TO_BACK
        if cold:
            self._flush.fill(1)
        start.record(self._stream)
        for _ in range(count):
            call()
        stop.record(self._stream)
        stop.synchronize()
        return self._cupy.cuda.get_elapsed_time(start, stop) / count


def clock_of(backend: str) -> HostClock | CudaClock:
    """The clock that fits a backend."""
    if backend != "cuda":
        return HostClock()
    import cupy
    return CudaClock(cupy)
