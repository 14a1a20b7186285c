"""Two hundred points at which a training run is killed: at moments of its time, and in its saves at any byte, fsync, rename or removal."""

from __future__ import annotations

import random
import shutil
import signal

import pytest
from killing import Nursery
from runs import assert_same_run, small_store


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    store = small_store(tmp_path_factory.mktemp("pictures"), per_class=4, val_per_class=2)
    with Nursery(data=str(store), recipe="tiny", batch=12, epochs=3, seed=5, workers=2) as nursery:
        yield nursery


@pytest.fixture(scope="module")
def untouched(nursery, tmp_path_factory):
    """(the run nobody disturbs, what it counted): a checkpoint after each of its 12 steps."""
    run = tmp_path_factory.mktemp("untouched") / "run"
    result = nursery.run(run)
    assert result["status"] == 0 and result["bytes"] > 12 * 10**6, result
    return run, result


def point(draw: random.Random, counts: dict, kind: str) -> dict:
    """Where to kill: uniform in time, or in the bytes written, or in the calls of a save."""
    if kind == "time":
        return {"event": "time", "at": draw.uniform(0, 1) * counts["seconds"]}
    return {"event": kind, "at": draw.randint(1, counts[kind + "s"])}


def killed(nursery, run, when) -> bool:
    result = nursery.run(run, **when)
    assert result["status"] in (-signal.SIGKILL, 0) and not result["orphans"], (when, result)
    return result["status"] != 0


def ends_the_same(nursery, untouched, run) -> None:
    result = nursery.run(run)
    assert result["status"] == 0, result
    assert_same_run(untouched[0], run)
    assert not list(run.glob(".*.partial"))


@pytest.mark.parametrize("kind", ["time", "byte", "call"])
def test_one_kill(nursery, untouched, tmp_path, kind):
    assert killed(nursery, tmp_path, point(random.Random(1), untouched[1], kind)) or kind == "time"
    ends_the_same(nursery, untouched, tmp_path)


@pytest.mark.long
def test_two_hundred_kills(nursery, untouched, tmp_path):
    draw, dead = random.Random(0), {"time": 0, "byte": 0, "call": 0}
    for kind in ("time",) * 100 + ("byte", "call") * 50:
        dead[kind] += killed(nursery, tmp_path / "run", point(draw, untouched[1], kind))
        ends_the_same(nursery, untouched, tmp_path / "run")
        shutil.rmtree(tmp_path / "run")
    print(f"\n200 points, killed {dead}; the same bits in 200 of 200")
    assert dead["byte"] == dead["call"] == 50 and dead["time"] > 50


@pytest.mark.long
def test_ten_kills_in_one_run(nursery, untouched, tmp_path):
    draw, dead, links = random.Random(7), 0, 0
    while dead < 10:
        kind, links = draw.choice(("time", "byte", "call")), links + 1
        when = point(draw, untouched[1], kind)
        when["at"] = when["at"] / 12 if kind == "time" else max(1, when["at"] // 12)        # each a step or so from the last
        dead += killed(nursery, tmp_path / "run", when)
    ends_the_same(nursery, untouched, tmp_path / "run")
    print(f"\na chain of {dead} kills in {links} starts; the same bits")
