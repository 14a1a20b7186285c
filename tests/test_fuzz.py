"""The fuzzer of tests/fuzz.py for a moment at each door, the same inputs each time; and that it would notice."""

import fuzz as fuzzer
import pytest
from fuzz import DOORS, doors, fuzz

from minialex.nets import recipe
from minialex.spec import MiniAlexError

INPUTS = {"picture": 1500, "tar": 500, "mat": 3000, "checkpoint": 1500, "recipe": 3000, "argv": 80}


@pytest.mark.parametrize("door", DOORS)
def test_what_comes_in_is_taken_or_refused(door, tmp_path):
    if door == "checkpoint":
        pytest.importorskip("safetensors")
    tried, taken, refusals, faults = fuzz(door, 0, tmp_path, inputs=INPUTS[door])
    assert faults == []
    assert tried == INPUTS[door] and 0 < taken < tried and refusals       # both sides of the door are seen
    assert door == "tar" or not list(tmp_path.glob("n0*"))


@pytest.mark.long
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("seed", range(1, 5))
def test_for_a_minute_each(door, seed, tmp_path):
    assert fuzz(door, seed, tmp_path, seconds=60)[3] == []


def test_a_fault_is_noticed(tmp_path, monkeypatch):
    """A reader that lets an IndexError through."""
    def broken(data, folder):
        if data[7:8] > b"\xc8":
            raise IndexError("of a careless reader")
        raise MiniAlexError("refused")
    seeds = doors(tmp_path)["picture"][0]
    monkeypatch.setattr(fuzzer, "doors", lambda folder: {"picture": (seeds, broken)})
    found = fuzzer.fuzz("picture", 0, tmp_path, inputs=400)[3]
    assert found and "IndexError: of a careless reader" in found[0][1]


@pytest.mark.parametrize("text", ["small(steps=(3.))", "small(steps=3.5)", "small(steps='3')", "small(steps=(0,))", "small(steps=(True,))"])
def test_steps_that_are_no_epochs(text):
    with pytest.raises(MiniAlexError, match="give the epochs after which the rate falls"):
        recipe(text)
    assert recipe("small(steps=(3))").schedule == recipe("small(steps=(3,))").schedule


def test_python_says_nothing_of_a_recipe_it_cannot_read(recwarn):
    with pytest.raises(MiniAlexError):
        recipe("small(pool=2and 3)")
    assert not recwarn.list
