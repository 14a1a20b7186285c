"""Small training runs for tests: a few embedded pictures, and a child process that can be killed where a test wants."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from minialex.checkpoint import candidates, load
from minialex.data import open_store, synthetic
from minialex.journal import read

ROOT = Path(__file__).parents[1]
RECORD = 128


def small_store(folder: Path, per_class: int = 8, val_per_class: int = 2, **options) -> Path:
    """A prepared store of 12 x per_class training and 12 x val_per_class validation pictures."""
    archives = synthetic.make(folder / "archives", per_class, val_per_class=val_per_class, size=96, **options)
    open_store(archives, RECORD, folder=folder / "store", quiet=True)
    return folder / "store"


# A whole training run in a child.  KILL names an event and how often it happens before SIGKILL: "learn 7" after the seventh
# step, "os.replace 3" or "os.fsync 5" just before that call in the middle of a save.  SIGTERM "learn 7" asks politely.
CHILD = """
import os, signal, sys
import minialex.train as train
from minialex.flags import guarded, training_parser

event, count = os.environ.get("KILL", "never 0").split()
number = signal.SIGTERM if os.environ.get("POLITELY") else signal.SIGKILL
seen = 0

def counted(function, after):
    def wrapper(*args, **kwargs):
        global seen
        result = function(*args, **kwargs) if after else None
        seen += 1
        if seen == int(count):
            os.kill(os.getpid(), number)
        return result if after else function(*args, **kwargs)
    return wrapper

if event == "learn":
    train.Trainer.learn = counted(train.Trainer.learn, after=not os.environ.get("POLITELY"))
elif event.startswith("os."):
    setattr(os, event[3:], counted(getattr(os, event[3:]), after=False))

o = training_parser().parse_args()
sys.exit(guarded(lambda: train.run(vars(o), resume=o.resume, quiet=o.quiet, checkpoint_minutes=o.checkpoint_minutes)))
"""


def train_in_child(*arguments, kill: str = "never 0", politely: bool = False, timeout: float = 120) -> subprocess.CompletedProcess:
    """Runs the training program; returns it with its output."""
    own = {"KILL": kill, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"} | ({"POLITELY": "1"} if politely else {})
    command = [sys.executable, "-c", CHILD, *map(str, arguments)]
    return subprocess.run(command, env=os.environ | own, capture_output=True, text=True, timeout=timeout)


def weights(run: Path) -> dict[str, np.ndarray]:
    """Everything the newest checkpoint of a run holds: weights and momentum."""
    return load(candidates(run)[0])[0]


def assert_same_run(one: Path, two: Path) -> None:
    """Weights, momentum, position and metrics equal to the last bit."""
    (a, state_a), (b, state_b) = (load(candidates(run)[0]) for run in (one, two))
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), f"{name} differs"
    for key in ("epoch", "position", "step", "sums", "best", "schedule"):
        assert state_a[key] == state_b[key], key
    rows = [[{key: row[key] for key in row.keys() - {"seconds", "time"}} for row in read(run / "metrics.jsonl")] for run in (one, two)]
    assert rows[0] == rows[1]
