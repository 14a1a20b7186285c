"""docs/PERFORMANCE.md: floors computed from the network agree with those known, the ladder is what the compiler and the emulator say,
and the page is made from what is committed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import launches
import pytest
from conftest import compiled_backends, load_or_skip
from ptx.toolchain import ROOT

from minialex.bench import floors, ladder, launched, page
from minialex.spec import PRECISIONS, MiniAlexError

RESULTS = ROOT / "benchmarks" / "results"
emulated = pytest.mark.parametrize("backend", [name for name in compiled_backends() if name == "emulated"])

# Microseconds of the paper's step on an H200 as computed before by another program, with 790 TFLOP/s for bf16: (unfused, fused).
BEFORE = {(128, "float32"): (9159, 8122), (128, "tf32"): (2657, 1779), (128, "bf16"): (1526, 1026),
          (1024, "float32"): (71285, 64934), (1024, "tf32"): (18799, 12444), (1024, "bf16"): (9573, 6328)}


@pytest.mark.parametrize("batch, precision", BEFORE)
def test_floors_are_those_known(batch, precision):
    steps = {way: floors.kernels("paper", batch, precision, way) for way in floors.WAYS}
    times = {way: 1e6 * floors.total(step, precision) for way, step in steps.items()}
    assert (times["unfused"], times["fused"]) == pytest.approx(BEFORE[batch, precision], rel=0.003)
    assert [len(steps[way]) for way in ("unfused", "fused")] == [69, 30]
    assert times["fused"] < times["launched"] < times["unfused"]
    images = sum(kernel.flop for kernel in steps["unfused"] if kernel.product) / batch
    assert images == pytest.approx(4.136e9, rel=1e-3)


def test_a_floor_is_of_bytes_or_of_products():
    machine = floors.Machine("one", 1, 100.0, {"float32": 10.0, "bf16": 60.0}, {})
    copy, product = floors.Kernel("a", "copy", 200.0, 1e9), floors.Kernel("b", "fprop", 200.0, 90.0, True)
    assert [kernel.seconds(machine, "float32") for kernel in (copy, product)] == [2.0, 9.0]
    assert product.seconds(machine, "bf16") == 2.0 and product.seconds(machine, "bf16x3") == 4.5        # three products for one
    assert [product.bound(machine, precision) for precision in ("float32", "bf16")] == ["products", "bytes"]
    with pytest.raises(MiniAlexError, match=r"norm1 \(SpatialNorm\) is not counted"):
        floors.kernels("cifar18", 1, "float32", "fused")


@emulated
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_dry_step_asks_for_what_a_real_one_launches(backend, precision):
    load_or_skip(backend)
    real, found = launches.whole(launches.step("tiny", 4, precision)), launched.record("tiny", 4)
    assert (found["launches"][precision], found["chain"][precision]) == (len(real), real.depth())


@emulated
def test_recorded_launches_are_those_of_now(backend):
    load_or_skip(backend)
    known = json.loads((ROOT / launched.RESULT).read_text())
    assert launched.record("paper", 128) == known, "write them and the page again: python -m minialex.bench.page --launches"


@pytest.mark.parametrize("arch, registers, threads, shared, held", [
    ("80", 32, 1024, 0, (2, "registers")), ("80", 128, 256, 0, (2, "registers")), ("80", 129, 256, 0, (1, "registers")),
    ("80", 16, 64, 0, (32, "threads")), ("80", 16, 32, 0, (32, "blocks")), ("90", 32, 256, 57344, (4, "shared memory")),
    ("80", 32, 256, 57344, (2, "shared memory")), ("86", 32, 256, 0, (6, "threads")), ("86", 32, 256, 101377, (0, "does not fit")),
    ("86", 32, 256, 101376, (1, "shared memory")), ("90", 256, 256, 0, (0, "does not fit"))])
def test_blocks_on_a_multiprocessor(arch, registers, threads, shared, held):
    """Worked by hand from the tables of the CUDA programming guide."""
    assert ladder.blocks_held(ladder.GPUS[arch], registers, threads, shared) == held


def test_the_ladder_knows_every_kernel():
    _, steps = ladder.committed()
    ran = [step for step in steps if step.threads]
    assert not [(step.op, step.variant, step.kernel) for step in ran if step.compiled is None]
    for step in ran:                                            # a name's claim about a tile or a precision is the compiled kernel's
        words = {word.lower() for word in step.compiled.words}
        assert (step.precision == "float32") == (not words & set(PRECISIONS[1:])), (step.op, step.variant, step.compiled.name)
        assert "64x64" not in step.variant or step.compiled.tile == (64, 64)
    conv4 = {s.variant: next(shape for shape in s.shapes if shape.layers == "conv4") for s in steps if s.op == "conv_fprop"}
    small, large = conv4["bf16_64x64"], conv4["bf16"]           # 21,632 pixels by 192 maps, twice: a quarter of 256 is padding
    assert small.blocks == 338 * 3 * 2 and small.share(ladder.GPUS["90"], 3) == pytest.approx(2028 / 2376)
    assert large.blocks == 169 * 2 * 2 and large.share(ladder.GPUS["90"], 1) == pytest.approx(676 / 792 * 192 / 256)


def test_the_page_is_that_of_the_committed_results():
    text = page.page(page.known_of(RESULTS))
    assert (ROOT / "docs/PERFORMANCE.md").read_text() == text, "write it again: python -m minialex.bench.page"
    pictures = list((ROOT / "docs/performance").glob("*.png"))
    assert len(pictures) == 3 and all(picture.stat().st_size < 150_000 for picture in pictures)


# No GPU ever gave these figures: they are made up, so that the page can be seen to read them.
def made_up(batch: int, own: float) -> dict:
    def row(name: str, note: str, ms: float) -> dict:
        return {"name": name, "note": note, "ms": ms, "ms_min": ms, "ms_max": ms, "images_per_second": 1e3 * batch / ms, "ratio": ms / own}
    rows = [row("minialex cuda:0", "float32", 99.0), row("minialex cuda:0", "products in bf16", own), row("torch bf16", "eager", 7 * own),
            row("torch bf16 graph", "one CUDA graph", 3 * own), row("torch float32", "eager", 500.0)]
    return {"what": "step", "recipe": "paper", "batch": batch, "rounds": 1, "rows": rows}


def op(layer: str, name: str, variant: str, precision: str, peer: float) -> dict:
    return {"layer": layer, "op": name, "variant": variant, "precision": precision, "ms": 0.125, "gigaflops": 456789.0, "peer_ratio": peer,
            "share_of_floor": 0.5, "share_of_copy": 0.875}


def test_the_page_shows_what_a_gpu_measured(tmp_path):
    where = {"command": "python -m minialex.bench step --device cuda:0", "commit": "0" * 40, "date": "1999-01-01 00:00 UTC",
             "devices": ["a made-up GPU"], "malloc": {}, "load_average": [0]}
    ops = [{"what": "ops", "recipe": "paper", "batch": batch, "rows": [
        op("conv3", "conv_wgrad", "bf16", "bf16", 1.125), op("conv2", "conv_fprop", "bf16", "bf16", 1.375),
        op("pool1", "lrn_maxpool_fprop", "tiled", "float32", 6.5)]} for batch in (1024, 128)]
    steps = [{"what": "exchange steps", "recipe": "paper", "batch": 128,
              "rows": [{"name": "two devices", "note": "cuda:0, cuda:0", "ms": 2.5}, {"name": "one device", "note": "cuda:0", "ms": 2.0}]}]
    for stage, found in (("ops", ops[1:]), ("ops1024", ops[:1]), ("step", [made_up(128, 2.5)]), ("large", [made_up(1024, 12.5)]),
                         ("exchange", steps)):
        (tmp_path / f"{stage}_table.json").write_text(json.dumps({"environment": where, "tables": found}))
    rehearsed = {"environment": where | {"command": "python -m minialex.bench step --device emulated:0"}, "tables": [made_up(128, 0.001)]}
    (tmp_path / "rehearsed_table.json").write_text(json.dumps(rehearsed))
    done = subprocess.run([ROOT / "tests/gpu_check.sh", "-d", "emulated:0", "-o", tmp_path, "summary", "page"], capture_output=True,
                          text=True, env={**os.environ, "PYTHON": sys.executable})
    assert done.returncode == 0, done.stdout + done.stderr
    text = next(tmp_path.glob("*.md")).read_text()
    point, other = page._products(page.known_of(tmp_path / "results"), floors.kernels("paper", 128, "bf16", "launched"))
    assert (point.label, point.measured, other.label) == ("conv2 fprop", True, "conv3 wgrad")
    assert point.rate == pytest.approx(57.33e9 / 0.125e-3, rel=1e-3)
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert "3.00 times torch bf16 graph: 2.500 ms (51,200 images/s)" in rows["whole step, bf16, batch 128"]
    assert "41 % of an H200's fused floor" in rows["whole step, bf16, batch 128"]
    assert "3.00 times torch bf16 graph: 12.500 ms" in rows["whole step, bf16, batch 1024"]
    assert "7.00 times torch bf16:" in rows["whole step against idiomatic eager AMP, batch 128"]
    assert "| conv2 fprop 1.38 |" in rows["conv1, conv2, conv4, conv5, each pass, bf16"]
    assert "| conv3 wgrad 1.12 (457 TFLOP/s) |" in rows["conv3, each pass, bf16, batch 1024"]
    assert "pool1 fprop 88%, 6.5 times" in rows["LRN, pool, ReLU, both ways, fused"]
    assert "1.25 times the time of one (cuda:0, cuda:0)" in rows["two logical devices on one GPU"]
    assert "not measured" in rows["whole step, float32 storage, products of three bf16 terms"]
    assert "a made-up GPU, 1999-01-01 00:00 UTC, commit 000000000000" in text and page.NOTHING not in text
    assert "conv2 125 us, 50% of its floor, PyTorch 1.38 |" in text and "0.001" not in text
    (tmp_path / "results" / "cut.json").write_text("{")
    with pytest.raises(MiniAlexError, match=r"cut\.json: no result of the bench"):
        page.known_of(tmp_path / "results")
