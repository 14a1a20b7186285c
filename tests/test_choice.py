"""The choice of variants on GPUs that nobody tuned it for: whatever is chosen fits, "direct" always runs, no tile is a bad one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import compiled_backends, load_or_skip

from minialex.bench import ladder
from minialex.bench.dry import Called
from minialex.bench.launched import calls_of
from minialex.spec import PRECISIONS, ShapeError

emulated = pytest.mark.parametrize("backend", [name for name in compiled_backends() if name == "emulated"])
REPORTED = {"86": "80", "89": "80", "120": "100"}           # architectures without a report of their own -> that of their elders
WIDE = (128, 2, 2, 13, 13, 256, 384, 3, 3, 13, 13, 1, 1, 1, 1)          # conv3: large tiles pay


@pytest.fixture
def rungs() -> dict[tuple[str, str], ladder.Step]:
    return {(step.op, step.variant): step for step in ladder.committed()[1]}


@pytest.fixture
def calls() -> list[tuple[Called, list[str]]]:
    return calls_of("paper", 128)


@emulated
@pytest.mark.parametrize("gpu", ladder.GPUS.values(), ids=lambda gpu: f"sm_{gpu.arch}")
def test_what_is_chosen_fits(backend, gpu, rungs, calls):
    choices = load_or_skip(backend).kernels.extension.choices
    for call, _ in calls:
        for precision in PRECISIONS:
            name = choices[call.op](call.dims, precision, gpu.shared_block)
            step = rungs[call.op, name]
            assert 0 < step.threads <= 1024 and step.shared <= gpu.shared_block, (call.op, precision, name)
            assert step.precision in (precision, "float32")
        direct = rungs[call.op, "direct"]
        assert 0 < direct.threads <= 1024 and direct.shared <= 48 * 1024 and not any(shape.refused for shape in direct.shapes)


@emulated
def test_rows_say_how_much_shared_memory_they_take(backend, rungs, calls):
    """A row that takes more than every GPU gives is not there for one that gives less."""
    choices = load_or_skip(backend).kernels.extension.choices
    tiles = [step for step in rungs.values() if step.shared > 99 * 1024]
    assert {(step.op, step.variant) for step in tiles} >= {("conv_fprop", "tf32"), ("linear_dgrad", "tf32")}
    for call, _ in calls:
        names = {choices[call.op](call.dims, precision, 99 * 1024) for precision in PRECISIONS}
        assert not names & {step.variant for step in tiles if step.op == call.op}
    assert choices["conv_fprop"](WIDE, "tf32", 163 * 1024) == "tf32" and choices["conv_fprop"](WIDE, "tf32", 99 * 1024) == "tf32_64x64"


@emulated
@pytest.mark.parametrize("arch", ladder.GPUS)
@pytest.mark.parametrize("multiprocessors", [16, 24, 46, 84, 108, 132, 148, 170, 192])
def test_no_other_tile_would_fill_a_device_twice_as_well(backend, arch, multiprocessors, rungs, calls):
    """The choice does not know how many multiprocessors there are; padding and whole waves say that it need not."""
    choices = load_or_skip(backend).kernels.extension.choices
    gpu = replace(ladder.GPUS[arch], multiprocessors=multiprocessors)
    for call, layers in calls:
        for precision in PRECISIONS if call.op.startswith(("conv", "linear")) else ("float32",):
            name, shares = choices[call.op](call.dims, precision, gpu.shared_block), {}
            for (op, variant), step in rungs.items():
                if op != call.op or variant == "direct" or step.precision != rungs[op, name].precision or not step.compiled:
                    continue
                held, _ = ladder.blocks_held(gpu, step.compiled.registers[REPORTED.get(arch, arch)], step.threads, step.shared)
                shape = next(shape for shape in step.shapes if shape.layers == ", ".join(layers))
                if held and shape.blocks:
                    shares[variant] = shape.share(gpu, held)
            assert name == "direct" or shares[name] > 0.55 * max(shares.values()), (call.op, layers, precision, name, shares)


@emulated
def test_a_device_with_little_shared_memory(backend):
    """The emulator refuses launches that such a device would: the choice makes none, and asking for one by name is told."""
    kernels = load_or_skip(backend).kernels.on(0)
    x, w, b, y = ((2, 128, 13, 13, 128), (384, 3, 3, 256), (384,), (2, 128, 13, 13, 192))
    arrays = [kernels.empty(shape) for shape in (x, w, b, y)]
    kernels.memory.workspace(1 << 20)
    kernels.set_precision("tf32")
    conv = dict(stride=1, pad=1, groups=1)
    kernels.extension.configure("shared", "99")
    try:
        assert kernels.choose("conv_fprop", WIDE, "tf32") == "tf32_64x64"
        captured, = kernels.capture(lambda: kernels.conv_fprop(*arrays, **conv)).kernels()
        assert "x (128,1,1), 56832 bytes shared" in captured[0]
        with pytest.raises(ShapeError, match=r"tf32 does not run .*: its blocks take 114688 bytes of shared .*, this device gives 101376"):
            kernels.conv_fprop(*arrays, **conv, variant="tf32")
        x, dx, y, dy = (kernels.from_host(np.ones(shape, np.float32)) for shape in [(1, 1, 3, 2026, 4)] * 2 + [(1, 1, 1, 1013, 4)] * 2)
        constants = dict(window=3, stride=2, n=5, k=2.0, alpha=1e-4, beta=0.75)
        kernels.lrn_maxpool_fprop(x, y, **constants, variant="tiled")               # rings of 95 KiB
        kernels.lrn_maxpool_bprop(x, y, dy, dx, ties="first", relu=True, **constants, variant="tiled")
        assert kernels.extension.refusals["lrn_maxpool_bprop"]((1, 3, 2028, 4, 5, 1, 3, 2028, 4, 1, 1014, 3, 2, 0), "tiled")
    finally:
        kernels.extension.configure("shared", "227")
    captured, = kernels.capture(lambda: kernels.conv_fprop(*arrays, **conv)).kernels()
    assert "x (256,1,1), 113664 bytes shared" in captured[0]
