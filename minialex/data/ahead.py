"""Things made ahead of their use by threads, in order, with a watchdog."""

from __future__ import annotations

import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import TypeVar

from ..spec import Stalled

T = TypeVar("T")
PATIENCE = 5.0                  # seconds that one waits for threads to end


class Threads:
    """A pool whose threads are daemons: one that hangs in a dead disk must not keep the process from ending."""

    def __init__(self, count: int, name: str):
        self._tasks: SimpleQueue = SimpleQueue()
        self.threads = [Thread(target=self._work, name=f"{name}_{number}", daemon=True) for number in range(count)]
        for thread in self.threads:
            thread.start()

    def submit(self, make: Callable[[int], T], index: int) -> Future[T]:
        future: Future[T] = Future()
        self._tasks.put((future, make, index))
        return future

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, make, index = task
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(make(index))
                except BaseException as error:
                    future.set_exception(error)
            del task, future, make                          # else the thread would keep its last thing alive

    def close(self, patience: float) -> None:
        """Ends the threads behind what they are at; those that hang for longer than `patience` seconds are left behind."""
        for _ in self.threads:
            self._tasks.put(None)
        end = monotonic() + patience
        for thread in self.threads:
            thread.join(max(0.0, end - monotonic()))


def ahead(make: Callable[[int], T], indices: Iterator[int], *, depth: int, workers: int, timeout: float = 0.0,
          doing: Callable[[int], str] | None = None, waited: Callable[[float], None] | None = None, name: str) -> Iterator[T]:
    """make(i) for the indices in their order, computed ahead by `workers` threads that end with this generator, however it ends.

    At most `depth` things exist at once, that in the caller's hands included.  An error in `make` is raised where its thing is due.

    timeout : seconds to wait for one thing before Stalled is raised; 0 waits for ever
    doing   : Thread.ident -> what that thread is at, for the sentence; the threads' stacks go to stderr
    waited  : is told the seconds that the caller stood waiting, each time
    """
    pool, waiting, patience = Threads(workers, name), deque(), PATIENCE
    try:
        for index in indices:
            waiting.append(pool.submit(make, index))
            if len(waiting) >= depth:
                break
        while waiting:
            began = monotonic()
            future = waiting.popleft()
            try:
                thing = future.result(timeout or None)
            except TimeoutError as error:
                if future.done():                           # its own
                    raise
                patience = 0.0
                raise _stalled(pool, timeout, doing) from error
            if waited:
                waited(monotonic() - began)
            yield thing
            del thing, future                               # else it would live beside `depth` others
            for index in indices:
                waiting.append(pool.submit(make, index))
                break
    finally:
        for future in waiting:
            future.cancel()
        pool.close(patience)


def _stalled(pool: Threads, timeout: float, doing: Callable[[int], str] | None) -> Stalled:
    frames, at = sys._current_frames(), []
    for thread in pool.threads:
        at.append(f"{thread.name} at {(doing and doing(thread.ident)) or 'no file'}")
        if thread.ident in frames:
            print(f"{thread.name}:\n{''.join(traceback.format_stack(frames[thread.ident]))}", file=sys.stderr, end="", flush=True)
    return Stalled(f"no batch has come for {timeout:g} s: {'; '.join(at)}. Is that disk or network share alive? The checkpoints are whole, "
                   f"so --resume auto goes on; --stall-timeout SECONDS waits longer, 0 for ever")
