"""SIGTERM and SIGINT at any moment: the step (or one more) is finished and saved, validation is left, the run ends in the same bits."""

from __future__ import annotations

import random
import signal

import pytest
from killing import Nursery
from runs import assert_same_run, small_store

from minialex.checkpoint import candidates, load


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    store = small_store(tmp_path_factory.mktemp("pictures"), per_class=4, val_per_class=8)
    with Nursery(data=str(store), recipe="tiny", batch=12, epochs=3, seed=5, workers=2) as nursery:
        yield nursery


@pytest.fixture(scope="module")
def untouched(nursery, tmp_path_factory):
    run = tmp_path_factory.mktemp("untouched") / "run"
    result = nursery.run(run, minutes=10)
    assert result["status"] == 0, result
    return run, result["seconds"]


def politely(nursery, untouched, run, number, **when) -> dict:
    """One run that is asked to stop, and gone on with; how it ended the first time."""
    undisturbed, _ = untouched
    result = nursery.run(run, minutes=10, number=number, **when)
    assert not result["orphans"] and "Traceback" not in result["stderr"], result
    found = candidates(run) if run.exists() else []
    if "signalled" in result and result["status"]:
        step, validating = result["signalled"]
        saved = load(found[0])[1]
        assert result["status"] == 128 + number and not (run / "lock").exists(), result
        assert f"{signal.Signals(number).name}: stopped after step {saved['step']}; go on with --resume {found[0]}" in result["stderr"]
        # heard behind the sums of a step, which carry it to the other ranks, or behind the last batch of a validation: with the next step's
        assert saved["step"] in ((step, step + 1) if validating else (step, step + 1, step + 2)), (saved["step"], result)
    elif result["status"]:                                  # before the first step, when nothing is there to save, or behind the last save
        assert result["status"] in (-number, 128 + number) and (not found or load(found[0])[1]["epoch"] == 3), result
    again = nursery.run(run, minutes=10)
    assert again["status"] == 0, again
    assert_same_run(undisturbed, run)
    assert not list(run.glob(".*.partial"))
    return result


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_three_random_moments(nursery, untouched, tmp_path, number):
    draw = random.Random(int(number))
    for k in range(3):
        politely(nursery, untouched, tmp_path / str(k), number, event="time", at=draw.uniform(0.2, 0.9) * untouched[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_validation_is_left_at_once(nursery, untouched, tmp_path, number):
    """At the third of its eight batches: no further one is begun, and the step before it is what is saved."""
    result = politely(nursery, untouched, tmp_path / "run", number, event="validation", at=3)
    assert result["status"] == 128 + number and result["validations"] == 3, result
    assert result["signalled"] == [4, True]


@pytest.mark.long
def test_a_hundred_random_moments(nursery, untouched, tmp_path):
    draw, ends, slowest = random.Random(0), [], 0.0
    for _ in range(100):
        number = draw.choice((signal.SIGTERM, signal.SIGINT))
        result = politely(nursery, untouched, tmp_path / "run", number, event="time", at=draw.uniform(0, 1) * untouched[1])
        ends.append(("validation" if result["signalled"][1] else "training") if "signalled" in result else
                    "finished" if result["status"] == 0 else "beginning")
        slowest = max(slowest, result["seconds"] if result["status"] else 0)
        for path in (tmp_path / "run").iterdir():
            path.unlink()
    print(f"\n100 signals, an undisturbed run of {untouched[1]:.2f} s: {({end: ends.count(end) for end in sorted(set(ends))})}, "
          f"slowest end {slowest:.2f} s behind the signal")
    assert ends.count("training") > 20
