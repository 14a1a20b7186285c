"""Carries out runs side by side, one process each, and says how far they are.

A run that has finished before is read, not repeated; one that was stopped goes on from its checkpoint.  Every process computes on one core,
so that as many runs as there are cores go on at once: for networks as small as these that beats several threads in one run.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from ..data import Store
from ..progress import Progress, clock
from ..spec import Interrupted, MiniAlexError
from .arms import FINISHED, Outcome, Run, work


class Hand(NamedTuple):
    """A process at work on a run."""

    run: Run
    process: subprocess.Popen
    errors: IO[bytes]

    def close(self) -> None:
        """Waits for its end, and gives back its pipe and file."""
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


class Crew:
    """`jobs` processes at a time, run folders below `folder`."""

    def __init__(self, folder: Path, *, jobs: int, device: str, quiet: bool = False):
        self.folder, self.jobs, self.device, self.quiet = folder, jobs, device, quiet
        self.began = time.monotonic()
        self.progress = Progress(100, quiet=quiet)
        self._pictures: dict[str, int] = {}                     # of a store's training split
        self._work: dict[Run, float] = {}                       # of every run that has been asked for
        self._done: dict[Run, float] = {}                       # the part of it that was done in this process
        self._finished = 0

    def folder_of(self, run: Run) -> Path:
        return self.folder / run.name

    def outcome(self, run: Run) -> Outcome | None:
        """What came of a run, None while it is not finished."""
        folder = self.folder_of(run)
        try:
            return Outcome(run, folder, **json.loads((folder / FINISHED).read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise MiniAlexError(f"{folder / FINISHED} cannot be read ({error}); remove the folder {folder} "
                                "and give the command again") from error

    def carry_out(self, wanted: Callable[[], Sequence[Run]], finished: Callable[[Run], None]) -> None:
        """Works until `wanted()` names no run that is not finished; calls `finished(run)` after each.

        Raises Interrupted after SIGINT and SIGTERM, when the runs at work have saved what they have, and MiniAlexError where one fails.
        """
        hands: dict[int, Hand] = {}
        selector, old = selectors.DefaultSelector(), signal.signal(signal.SIGTERM, _interrupt)
        try:
            while True:
                todo = self._todo(wanted(), [hand.run for hand in hands.values()])
                while todo and len(hands) < self.jobs:
                    hand = self._start(todo.pop(0))
                    hands[hand.process.stdout.fileno()] = hand
                    selector.register(hand.process.stdout, selectors.EVENT_READ)
                if not hands:
                    return
                for key, _ in selector.select(1.0):
                    hand = hands[key.fd]
                    line = hand.process.stdout.readline()
                    if line:
                        self._heard(hand.run, line)
                        continue
                    selector.unregister(key.fileobj)
                    del hands[key.fd]
                    self._ended(hand)
                    finished(hand.run)
                self.progress.update(*self._told(len(todo) + len(hands)))
        except KeyboardInterrupt:
            raise Interrupted("stopped; every run has saved what it has: the same command goes on from there", 130) from None
        finally:
            signal.signal(signal.SIGTERM, old)
            for hand in hands.values():
                hand.process.terminate()                        # it saves a checkpoint first
            for hand in hands.values():
                hand.process.stdout.read()
                hand.close()
            selector.close()
            self.progress.close()

    def _todo(self, wanted: Sequence[Run], at_work: Sequence[Run]) -> list[Run]:
        """The runs that can begin now, in order: not finished, not at work, and what they begin with is there."""
        todo = []
        for run in dict.fromkeys(wanted):
            if run.init and self.outcome(run.init) is None:
                todo += [run.init] if run.init not in at_work and run.init not in todo else []
            elif run not in at_work and self.outcome(run) is None:
                todo.append(run)
            if run not in self._work:
                self._work[run] = work(run, self._count(run.data))
                if self.outcome(run):
                    del self._work[run]
        return list(dict.fromkeys(todo))

    def _count(self, data: str) -> int:
        if data not in self._pictures:
            self._pictures[data] = len(Store(data).split("train"))
        return self._pictures[data]

    def _start(self, run: Run) -> Hand:
        folder = self.folder_of(run)
        order = {"asked": run.asked(folder, self.device), "until": run.until, "init": str(self.folder_of(run.init)) if run.init else None}
        errors = tempfile.TemporaryFile()                       # noqa: SIM115 - closed when the process has ended
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])}
        process = subprocess.Popen([sys.executable, "-m", "minialex.reproduce.worker", json.dumps(order)], stdout=subprocess.PIPE,
                                   stderr=errors, env=environment, start_new_session=True)
        return Hand(run, process, errors)

    def _heard(self, run: Run, line: bytes) -> None:
        if line.strip().isdigit() and run in self._work:
            self._done[run] = self._work[run] * min(1.0, int(line) / (run.epochs * self._count(run.data)))

    def _ended(self, hand: Hand) -> None:
        status = hand.process.wait()
        hand.errors.seek(0)
        said = hand.errors.read().decode("utf-8", "replace").strip().splitlines()
        hand.close()
        if status or self.outcome(hand.run) is None:
            why = said[-1] if said else f"its process ended with status {status}"
            raise MiniAlexError(f"the run {hand.run.recipe}, seed {hand.run.seed}, in {self.folder_of(hand.run)} failed: {why}; "
                                "the same command goes on with the others' results")
        self._finished += 1
        if hand.run in self._work:
            self._done[hand.run] = self._work[hand.run]

    def _told(self, left: int) -> tuple[int, str]:
        """Per cent done, and a line about it."""
        total, done = sum(self._work.values()), sum(self._done.values())
        seconds = time.monotonic() - self.began
        share = done / total if total else 1.0
        rest = clock(seconds * (total - done) / done) if done > 0.01 * total else "?"
        return round(100 * share), (f"{self._finished} runs finished, {left} to do, {100 * share:.0f} %, {clock(seconds)} so far, "
                                    f"left at least {rest}")


def _interrupt(number: int, frame) -> None:
    raise KeyboardInterrupt
