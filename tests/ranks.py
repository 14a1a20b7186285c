"""Runs under mpiexec for tests: a training program in which one rank may fail, and what it printed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from runs import ROOT

MPIEXEC = Path(sys.executable).with_name("mpiexec")
MISSING = ("mpi4py is not installed" if importlib.util.find_spec("mpi4py") is None else
           f"there is no {MPIEXEC}" if not MPIEXEC.exists() else None)

# FAIL names rank, event and step: "1 kill 3", "1 raise 3", "1 term 3" (SIGTERM, asking politely), before that rank's third step.
# At the end each rank says the check sum of its weights and momentum.
PROGRAM = """
import os, signal, sys, zlib
import minialex.train as train
from minialex.flags import guarded, training_parser

who, event, at = os.environ.get("FAIL", "0 never 0").split()
seen = 0
learn = train.Trainer.learn

def failing(self, batch):
    global seen
    seen += 1
    if seen == int(at) and self.world.rank == int(who):
        if event == "raise":
            raise ZeroDivisionError("a fault of rank " + who)
        if event == "disk":
            raise OSError(28, "No space left on device", "here")
        os.kill(os.getpid(), signal.SIGKILL if event == "kill" else signal.SIGTERM)
    return learn(self, batch)

train.Trainer.learn = failing

def main():
    o = training_parser().parse_args()
    trainer = train.run(vars(o), resume=o.resume, quiet=o.quiet, checkpoint_minutes=o.checkpoint_minutes)
    sums = [zlib.crc32(a) for arena in (trainer.net.params, trainer.sgd.velocity) for a in arena.host().values()]
    sys.stdout.write(f"rank {trainer.world.rank} weights {zlib.crc32(repr(sums).encode())}\\n")     # whole, beside other ranks' lines
    sys.stdout.flush()

sys.exit(guarded(main))
"""


def mpi(ranks: int, *command, fail: str = "0 never 0", timeout: float = 60, **more: str) -> subprocess.CompletedProcess:
    """mpiexec -n RANKS python COMMAND, with its output."""
    own = {"FAIL": fail, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "OPENBLAS_NUM_THREADS": "1"}
    words = [str(MPIEXEC), "-n", str(ranks), sys.executable, *map(str, command)]
    return subprocess.run(words, env=os.environ | own | more, capture_output=True, text=True, timeout=timeout)


def train(ranks: int, *flags, **more) -> subprocess.CompletedProcess:
    """The training program above on so many ranks."""
    return mpi(ranks, "-c", PROGRAM, *flags, **more)


def trained(ranks: int, *flags, **more) -> list[str]:
    """The same, which must end well; returns each rank's check sum of the weights."""
    done = train(ranks, *flags, **more)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "ended before its time" not in done.stderr
    return [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("rank ")]


def sentences(done: subprocess.CompletedProcess) -> list[str]:
    """What the program itself said on stderr; mpiexec adds words of its own."""
    return [line for line in done.stderr.splitlines() if line.startswith("minialex: ")]
