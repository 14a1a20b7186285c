"""A run of many steps takes no more memory, files or threads at its end than at its beginning; clocks may jump; lines may be torn."""

import json
import os
import statistics
import threading
import time

import numpy as np
import pytest
from runs import small_store

from minialex.journal import read
from minialex.train import Trainer, run


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("long"), per_class=4, val_per_class=1)


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def slope(samples: list[tuple[int, int]]) -> float:
    """Theil and Sen's: the median over pairs of samples, which single jumps do not move."""
    return statistics.median((b - a) / (n - m) for i, (m, a) in enumerate(samples) for n, b in samples[i + 1:])


@pytest.mark.parametrize("steps, warm, limit", [(240, 120, 16384), pytest.param(10_000, 500, 1024, marks=pytest.mark.long)])
def test_nothing_grows(store, tmp_path, steps, warm, limit):
    asked = {"data": str(store), "recipe": "tiny", "batch": 4, "epochs": 10**6, "rate": 0.0, "output_dir": str(tmp_path / "run")}
    samples, things = [], set()
    with Trainer(asked, quiet=True) as trainer:
        batches = (batch for epoch in range(10**6) for batch in trainer.loader.batches(epoch))
        list(trainer.batches(0))                            # the progress line begins here
        for step, batch in zip(range(steps), batches, strict=False):
            trainer.learn(batch)
            if step >= warm and step % (steps // 60) == 0:
                samples.append((step, resident()))
                things.add((len(os.listdir("/proc/self/fd")), threading.active_count()))
        batches.close()
    growth = slope(samples)
    print(f"{steps} steps: {growth:.0f} bytes a step, {things}")
    assert growth < limit
    files, threads = (max(each) - min(each) for each in zip(*things, strict=True))
    assert files <= 2 and threads <= 2                      # an epoch's reading threads come and go


def test_a_growing_run_would_be_seen():
    assert slope([(n, 2000 * n + (10**7 if n > 90 else 0)) for n in range(100)]) > 1024
    assert slope([(n, 10**8 + (10**7 if n > 90 else 0)) for n in range(100)]) < 1024


def test_a_clock_that_jumps_harms_nothing(store, tmp_path, monkeypatch):
    """Rates, times left and the age of a checkpoint come from the monotonic clock."""
    asked = {"data": str(store), "recipe": "tiny", "batch": 16, "epochs": 1, "seed": 3}
    run({**asked, "output_dir": str(tmp_path / "still")}, quiet=True)
    jumps = iter(np.random.default_rng(0).uniform(-1e9, 1e9, 10**6).tolist())
    monkeypatch.setattr(time, "time", lambda: 1.7e9 + next(jumps))
    run({**asked, "output_dir": str(tmp_path / "jumping")}, quiet=True)
    still, jumping = (read(tmp_path / name / "metrics.jsonl")[0] for name in ("still", "jumping"))
    assert 0 <= jumping["seconds"] < 600
    for key in still.keys() - {"seconds", "time"}:
        assert still[key] == jumping[key]


@pytest.mark.parametrize("torn", ['{"epoch": 1, "st', "\0\0\0\0", '{"epoch": 1}{"epo', "\xff", "3"])
def test_a_torn_last_line_is_repaired(store, tmp_path, torn):
    """What a fallen machine leaves behind the last whole line is cut off by the next run, and no line is lost or doubled."""
    asked = {"data": str(store), "recipe": "tiny", "batch": 16, "epochs": 1, "output_dir": str(tmp_path / "run")}
    run(asked, quiet=True)
    path = tmp_path / "run" / "metrics.jsonl"
    whole = path.read_text()
    with open(path, "a", encoding="latin-1") as file:
        file.write(torn)
    run({"output_dir": str(tmp_path / "run"), "epochs": 2}, resume="auto", quiet=True)
    lines = path.read_text().splitlines()
    assert path.read_text().startswith(whole) and [json.loads(line)["epoch"] for line in lines] == [0, 1]
