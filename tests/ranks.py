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

# Each rank's two columns on two emulated devices, and beside it all images in one process on one: float32, so 1e-5 of the largest.
COLUMNS = """
import sys
import numpy as np
from two_devices import INPUT, layers
from minialex import backends
from minialex.column_net import ColumnNet
from minialex.data.loader import share
from minialex.distributed import world
from minialex.net import Net

ops, w, total = backends.load("emulated"), world(), 5
places = [ops.kernels.on(0), ops.kernels.on(1)]
for place in places:
    place.memory.own_stream()
random = np.random.default_rng(1)
x, labels = random.standard_normal(INPUT.array(total)).astype(np.float32), random.integers(0, 3, total).astype(np.int32)
alone, shared = Net(layers(), INPUT, total, ops, seed=2), ColumnNet(layers(), INPUT, 3, places, seed=2)
ops.from_host(x, out=alone.input())
alone.fprop(labels, training=True, step=3)
alone.bprop()
first, stop = share(total, w.rank, w.size)
for place, out in zip(places, shared.inputs(stop - first), strict=True):
    place.from_host(np.ascontiguousarray(x[:, first:stop]), out=out)
shared.fprop(labels[first:stop], training=True, step=3, first=first, total=total)
shared.bprop()
for arena in shared.grads.arenas():
    w.sum_(arena)
for key in alone.grads:
    want, got = alone.grads.numpy(key), shared.grads.numpy(key)
    assert np.abs(want).max() > 0 and np.abs(want - got).max() <= 1e-5 * np.abs(want).max(), (key, np.abs(want - got).max())
sys.stdout.write("equal\\n")
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
