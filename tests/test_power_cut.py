"""The power goes at every change that a training run or a preparation makes of the disk, and takes with it what was not synced."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from itertools import pairwise

import pytest
from drawn import Drawn, contents
from powercut import KINDS, Disk, Recorder, Workshop, joined, states
from runs import assert_same_run, small_store

from minialex import train
from minialex.checkpoint import candidates, load
from minialex.data import prepare
from minialex.journal import read
from minialex.rundir import restore

STEPS = [1, 2, 3, 4]                    # two epochs of two batches, a checkpoint behind every step and every epoch


class Run:
    """One training run below `root`, and what it did to the disk; marks are the steps whose checkpoints were said to be written."""

    def __init__(self, root):
        self.store = small_store(root / "pictures", per_class=2, val_per_class=1)
        (root / "disk").mkdir()
        self.folder = root / "disk" / "deep" / "run"
        with pytest.MonkeyPatch.context() as patch:
            recorder = Recorder(patch, root / "disk")

            def save_step(keeper, step, *args, real=train.Keeper.save_step, **more):
                path = real(keeper, step, *args, **more)
                recorder.add("mark", value=step)
                return path

            patch.setattr(train.Keeper, "save_step", save_step)
            self.train(self.folder)
        self.changes = recorder.changes

    def train(self, folder, resume=None):
        asked = {"data": str(self.store), "recipe": "tiny", "batch": 12, "epochs": 2, "seed": 3, "workers": 1, "statistics": 1,
                 "tensorboard": True, "output_dir": str(folder)}
        train.run(asked, resume=resume, quiet=True, checkpoint_minutes=0, pictures=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def workshop(tmp_path):
    workshop = Workshop(tmp_path / "states")
    yield workshop
    shutil.rmtree(workshop.place)


def test_the_record_is_what_happened(run):
    """Followed to its end, the record gives the folder there is; and all of it is safe but rows of statistics."""
    disk = Disk()
    for change in run.changes:
        disk.apply(change)
    there = {f"deep/run/{path.name}": path.read_bytes() for path in run.folder.iterdir()}
    assert {path: joined(disk.content[number]) for path, number in disk.names.items() if number is not None} == there
    assert disk.safe_names.keys() == disk.names.keys() | {"deep/run/lock"}              # whose removal nothing waits for
    behind = {p for p, n in disk.names.items() if n is not None and disk.content[n] != disk.safe_content[n]}
    assert {p.partition(".out")[0] for p in behind} == {"deep/run/statistics.jsonl", "deep/run/events"}


def goes_on_from(folder, marks) -> bool:
    """Whether a checkpoint is there: none older than the last that was said to be written, with the metrics of all epochs behind it."""
    if not marks:
        return any(folder.glob("checkpoint-*.safetensors"))
    _, state, _, _ = restore("auto", str(folder))
    assert state["step"] in (marks[-1], marks[-1] + 1)
    assert [row["epoch"] for row in read(folder / "metrics.jsonl")][:state["epoch"]] == list(range(state["epoch"]))
    if state["epoch"]:
        assert load(candidates(folder / "best")[0])[1]["epoch"] in (1, 2)
    return True


def test_every_state_of_the_disk_has_the_old_or_the_new_checkpoint(run, workshop):
    tried = Counter()
    for kind, _, marks, left in states(run.changes):
        folder = workshop.restored(left)
        goes_on_from(folder / "deep" / "run", marks)
        shutil.rmtree(folder)
        tried[kind] += 1
    print(f"\n{sum(tried.values())} different states behind {len(run.changes)} changes: {dict(tried)}")
    assert tried.keys() == set(KINDS) and sum(tried.values()) > 500


@pytest.mark.parametrize("share", [0.01, pytest.param(1, marks=pytest.mark.long)])
def test_the_run_goes_on_to_the_same_bits(run, workshop, share):
    draw, count = random.Random(4), 0
    for _, _, marks, left in states(run.changes, draws=2, seed=1):
        if draw.random() < share:
            there = workshop.restored(left)
            folder = there / "deep" / "run"
            run.train(folder, resume="auto" if goes_on_from(folder, marks) else None)
            assert_same_run(run.folder, folder)
            assert [row["step"] for row in read(folder / "metrics.jsonl")] == [2, 4]
            assert sorted(p.name for p in folder.glob("checkpoint-*")) == sorted(p.name for p in run.folder.glob("checkpoint-*"))
            assert not list(folder.glob(".*.partial"))
            shutil.rmtree(there)
            count += 1
    print(f"\n{count} runs gone on with")
    assert count > 3


def test_a_program_that_does_not_sync_would_be_seen(run, workshop):
    """The same record without one kind of sync: some state has lost a checkpoint that was said to be written."""
    for missing in ("sync", "sync folder"):
        changes = [change for change in run.changes if change.what != missing]
        seen = 0
        for _, _, marks, left in states(changes, kinds=("lost", "names first")):
            folder = workshop.restored(left)
            try:
                goes_on_from(folder / "deep" / "run", marks)
            except Exception:
                seen += 1
            shutil.rmtree(folder)
        assert seen, missing
    behind = [b for a, b in pairwise(run.changes) if (a.what, b.what) == ("write", "sync") and b.path.endswith("metrics.jsonl")]
    assert len(behind) == 2                                 # a synced row for each epoch


# ------------------------------------------------------------------------------------------------------------------------ preparation
ODD = dict(broken=(4, 12), grey=(6,))


def make(out):
    return prepare(Drawn({"train": 13, "val": 4}, **ODD), out, 8, 1, False, 5)


@pytest.mark.parametrize("share", [0.4, pytest.param(1, marks=pytest.mark.long)])
def test_a_preparation_goes_on_to_the_same_bytes(tmp_path, workshop, share):
    (tmp_path / "disk").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(patch, tmp_path / "disk")
        make(tmp_path / "disk" / "store")
    wanted, draw, tried = contents(tmp_path / "disk" / "store"), random.Random(2), Counter()
    for kind, _, _, left in states(recorder.changes, draws=3):
        if draw.random() < share:
            folder = workshop.restored(left)
            make(folder / "store")
            assert contents(folder / "store") == wanted, kind
            shutil.rmtree(folder)
            tried[kind] += 1
    print(f"\n{sum(tried.values())} states behind {len(recorder.changes)} changes: {dict(tried)}")
    assert sum(tried.values()) > 30
