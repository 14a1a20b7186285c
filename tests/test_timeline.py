"""The schedule of a step on several devices: worked by hand, and read off a real step."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import load_or_skip
from PIL import Image
from two_devices import INPUT, Without, layers, train

from minialex import figures
from minialex.bench import timeline
from minialex.bench.__main__ import main as bench
from minialex.bench.timeline import Asked, Machine, Recorder, exposed, length, schedule, step
from minialex.column_net import ColumnNet
from minialex.columns import exchange_points

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def kernels():
    return load_or_skip("emulated").kernels


def net(kernels, batch=4, **options) -> ColumnNet:
    return ColumnNet(layers(), INPUT, batch, [kernels.on(0), kernels.on(1)], seed=1, **options)


BY_HAND = [
    Asked(0, "compute", "work", "x", 3.0), Asked(0, "compute", "record", event=1),
    Asked(1, "compute", "work", "y", 1.0),
    Asked(1, "copy", "wait", event=1), Asked(1, "copy", "work", "x", 2.0), Asked(1, "copy", "record", event=2),
    Asked(1, "compute", "work", "own", 1.5), Asked(1, "compute", "wait", event=2), Asked(1, "compute", "work", "sum", 1.0),
]


def test_a_schedule_worked_by_hand():
    """Device 0 makes x until 3; the copy travels from 3 to 5; device 1, done with its own at 2.5, waits for it until 5."""
    spans = {(s.place, s.lane, s.name): (s.start, s.stop) for s in schedule(BY_HAND)}
    assert spans == {(0, "compute", "x"): (0, 3), (1, "compute", "y"): (0, 1), (1, "copy", "x"): (3, 5),
                     (1, "compute", "own"): (1, 2.5), (1, "compute", "sum"): (5, 6)}
    assert length(schedule(BY_HAND)) == 6 and exposed(schedule(BY_HAND), 1) == 2 and exposed(schedule(BY_HAND), 0) == 0


def test_a_missing_wait_shows():
    without = [item for item in BY_HAND if item.kind != "wait"]
    assert length(schedule(without)) < 6 and exposed(schedule(without), 1) == 0


def test_copies_hidden_in_part():
    spans = schedule([Asked(0, "compute", "work", "a", 1.0), Asked(0, "copy", "work", "b", 3.0), Asked(0, "compute", "work", "c", 0.5)])
    assert exposed(spans, 0) == 1.5


def test_the_copies_of_a_step_are_those_of_the_plan(kernels):
    made = net(kernels)
    spans = step(made, dry=False)
    points = exchange_points(layers(), INPUT)
    want = 2 * sum(point.bytes(4) for point in points if not point.row_parallel) + points[-1].partial_bytes(4)
    for place in (0, 1):
        assert sum(span.nbytes for span in spans if (span.place, span.lane) == (place, "copy")) == want
    assert {span.name for span in spans if span.lane == "copy"} == {
        "conv3 fprop", "conv3 bprop", "fc4 fprop", "fc4 bprop", "fc6 fprop", "fc6 bprop"}


def test_dry_is_the_same_schedule_and_computes_nothing(kernels):
    made = net(kernels)
    train(made, 1)
    before = made.params.numpy(("conv1", "w"))
    assert [s for s in step(made) if s.nbytes] == [s for s in step(made, dry=False) if s.nbytes]
    np.testing.assert_array_equal(made.params.numpy(("conv1", "w")), before)


def test_overlap_shows_and_so_does_a_program_without_events(kernels):
    """With slow links the copies before conv3 travel beside its own product, and without overlap before it."""
    slow = Machine("slow links", 1e12, 1e12, 1e9)
    on, off = (step(net(kernels, overlap=overlap), slow) for overlap in (True, False))
    assert length(on) < length(off) and exposed(on, 0) < exposed(off, 0)

    def conv3(spans, lane):
        return next(s for s in spans if (s.place, s.lane, s.name) == (0, lane, "conv3 fprop"))
    assert conv3(on, "compute").start < conv3(on, "copy").stop and conv3(off, "compute").start >= conv3(off, "copy").stop
    wrong = net(kernels)
    with Recorder(wrong, slow, dry=True) as recorder:
        Without(wrong.exchange, lambda stream, event: event in wrong.exchange._arrived.values())
        wrong.fprop()
    hasty = schedule(recorder.asked)
    assert [s for s in hasty if s.name == "conv3 fprop" and s.lane == "compute"][-1].stop < conv3(on, "copy").stop


def test_the_recorder_leaves_no_trace(kernels):
    made = net(kernels)
    extension = made.exchange.extension
    with Recorder(made):
        assert made.exchange.extension is not extension
    assert made.exchange.extension is extension and "_ring" not in vars(made.places[0])
    assert np.isfinite(train(made, 1)).all()


def test_the_picture(kernels, tmp_path):
    spans = step(net(kernels))
    figures.timeline([("a step", spans), ("the same", spans)], ["conv3"], tmp_path / "a.png", title="two\nlines")
    figures.timeline([("a step", spans[: len(spans) // 2])], ["conv3"], tmp_path / "b.png")
    a, b = (pixels(tmp_path / name) for name in ("a.png", "b.png"))
    assert a.shape != b.shape
    for colour in timeline_colours():
        assert (np.abs(a.astype(int) - colour).sum(-1) < 12).any()


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def timeline_colours():
    from minialex.figures.timeline import COLOURS
    return [[int(code[i:i + 2], 16) for i in (1, 3, 5)] for kind in ("own", "joint", "copy") for code in COLOURS[kind]]


def test_the_example_runs(tmp_path):
    load_or_skip("emulated")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, str(ROOT / "examples/two_columns.py"), "--steps", "2", "--picture", "x.png"], cwd=tmp_path,
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    assert "the placement changes nothing" in done.stdout and "16 of 16" in done.stdout and "15.53 MB" in done.stdout
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width > 800


def test_the_bench_of_exchanges(kernels, capsys, tmp_path):
    assert bench(["exchange", "--recipe", "tiny", "--device", "emulated:0,emulated:1", "--batch", "2", "--rounds", "1"]) == 0
    out = capsys.readouterr().out
    assert "take turns on the CPU" in out and out.count("exchange conv3") == 2 and "two, no overlap" in out
    for what, device in (("exchange", "emulated:0"), ("step", "emulated:0,emulated:1")):
        assert bench([what, "--recipe", "tiny", "--device", device]) == 2
        assert "needs the devices of all columns" in capsys.readouterr().err


def test_machine_of_the_paper():
    """512 cores at 1,544 MHz, one multiply-add each a cycle."""
    assert timeline.GTX580.flop / 2 == pytest.approx(512 * 1.544e9, rel=1e-3)
