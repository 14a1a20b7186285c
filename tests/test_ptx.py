"""The kernels' inline assembly, executed: what nvcc emits runs in an interpreter of PTX, what the host compiler makes of the same
source on the emulator, and one oracle judges both.  Then each way to get an instruction wrong must be seen."""

from __future__ import annotations

import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from ptx.interpreter import Run
from ptx.launches import Recorded
from ptx.memory import Memory
from ptx.program import Module, PtxError
from ptx.toolchain import ROOT, WRAPPERS, emulate, emulator_object, host_library, host_objects, ptx
from ptx.wrapper_cases import CASES, rounded

from minialex.backends import reference
from minialex.bf16 import narrow
from minialex.spec import PRECISIONS

ARCHS = ("compute_80", "compute_90")
ORDERS = ("together", "warps", "warps backwards")


@pytest.fixture(scope="module")
def wrappers(tmp_path_factory):
    """Architecture -> PTX of wrappers.cu."""
    folder = tmp_path_factory.mktemp("ptx")
    return {arch: ptx(WRAPPERS, arch, folder) for arch in ARCHS}


def case_of(name: str):
    return CASES[name](np.random.default_rng(zlib.crc32(name.encode())))


def interpret(text: str, name: str, order: str = "together") -> int:
    """How many words are wrong after the wrapper's kernel has run."""
    case, memory = case_of(name), Memory(1 << 16)
    out = np.full(case.expected.size, 0xFFFFFFFF, np.uint32)
    addresses = [memory.put(array) for array in (case.a, case.b, out)]
    Run(Module(text), f"{name}_wrapper", 1, case.threads, addresses, memory, order=order)
    return case.faults(memory.get(addresses[2], out))


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", CASES)
def test_ptx_does_what_the_isa_says(wrappers, name, arch):
    assert {order: interpret(wrappers[arch], name, order) for order in ORDERS} == dict.fromkeys(ORDERS, 0)


def test_each_wrapper_is_one_instruction(wrappers):
    """Every function of tensor_core.h has a kernel whose PTX holds its instruction, so none of the tests here is about nothing."""
    opcodes = {
        "to_tf32": "cvt.rna.tf32.f32", "pack_bf16": "cvt.rn.bf16x2.f32",
        "mma_tf32": "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", "mma_bf16": "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
        "ldmatrix_x4": "ldmatrix.sync.aligned.m8n8.x4.shared.b16", "ldmatrix_x4_trans": "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16",
        "ldmatrix_x2": "ldmatrix.sync.aligned.m8n8.x2.shared.b16", "ldmatrix_x2_trans": "ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16",
        "cp_async_16": "cp.async.cg.shared.global", "cp_async_4": "cp.async.ca.shared.global", "cp_async_wait": "cp.async.wait_group"}
    for text in wrappers.values():
        module = Module(text)
        found = {name: sum(".".join(i.opcode) == opcode for i in module.entry(f"{name}_wrapper").code) for name, opcode in opcodes.items()}
        assert found == {**dict.fromkeys(opcodes, 1), "cp_async_wait": 3}


# What is wrong -> (the wrapper, a pattern in its PTX, what replaces it, how often it stands there).
FRAGMENT_4 = r"\{(\S+), (\S+), (\S+), (\S+)\}"
MUTANTS = {
    "tf32 mma: rows and depth of A exchanged": ("mma_tf32", rf"(mma\.\S+ \S.*?\}}, ){FRAGMENT_4}", r"\1{\2, \4, \3, \5}", 1),
    "tf32 mma: upper and lower rows of A exchanged": ("mma_tf32", rf"(mma\.\S+ \S.*?\}}, ){FRAGMENT_4}", r"\1{\3, \2, \5, \4}", 1),
    "tf32 mma: the registers of B exchanged": ("mma_tf32", r"(mma\..*), \{(\S+), (\S+)\},", r"\1, {\3, \2},", 1),
    "tf32 mma: rows and columns of D exchanged": ("mma_tf32", rf"(mma\.\S+ ){FRAGMENT_4}", r"\1{\2, \4, \3, \5}", 1),
    "tf32 mma: C is A's third register": ("mma_tf32", r"(mma\..*\{\S+, \S+, (\S+), \S+\}, \{\S+, \S+\}, )\{\S+,", r"\1{\2,", 1),
    "bf16 mma: rows and depth of A exchanged": ("mma_bf16", rf"(mma\.\S+ \S.*?\}}, ){FRAGMENT_4}", r"\1{\2, \4, \3, \5}", 1),
    "bf16 mma: the registers of B exchanged": ("mma_bf16", r"(mma\..*), \{(\S+), (\S+)\},", r"\1, {\3, \2},", 1),
    "bf16 mma: first rows of A twice": ("mma_bf16", rf"(mma\.\S+ \S.*?\}}, ){FRAGMENT_4}", r"\1{\2, \2, \4, \4}", 1),
    "bf16 pair: low and high exchanged": ("pack_bf16", r"(cvt\.rn\.bf16x2\.f32 \S+), (\S+), (\S+);", r"\1, \3, \2;", 1),
    "tf32 by cutting off": ("to_tf32", r"cvt\.rna\.tf32\.f32", "mov.b32", 1),
    "ldmatrix x4 without .trans": ("ldmatrix_x4_trans", r"\.trans", "", 1),
    "ldmatrix x2 without .trans": ("ldmatrix_x2_trans", r"\.trans", "", 1),
    "ldmatrix x4 with .trans": ("ldmatrix_x4", r"\.x4", ".x4.trans", 1),
    "ldmatrix x2: the registers exchanged": ("ldmatrix_x2", r"(ldmatrix\S+ )\{(\S+), (\S+)\}", r"\1{\3, \2}", 1),
    "tile product: B not transposed on its way": ("tile_product", r"\.trans", "", 1),
    "cp.async: waits for one group too few": ("cp_async_wait", r"wait_group 1", "wait_group 2", 1),
    "cp.async: waits for none": ("cp_async_16", r"wait_group 0", "wait_group 1", 1),
    "cp.async: not committed": ("cp_async_4", r"cp\.async\.commit_group;", "", 1),
    "cp.async: no zeros for what is not valid": ("cp_async_4", r"(cp\.async\.ca.*), %r\d+;", r"\1;", 1),
    "cp.async: a quarter of 16 bytes": ("cp_async_16", r"(cp\.async)\.cg(.*), 16, (%r\d+);", r"\1.ca\2, 4;", 1),
    "shuffle: every step of the tree to the neighbour": ("reduction", r"(shfl\.sync\.bfly\S+\s+\S+ \S+), \S+,", r"\1, 1,", 7),
    "shuffle: the segments forgotten": ("reduction", r"(shfl\.sync\.down\S+\s+\S+ \S+ \S+), \S+,", r"\1, 31,", 1),
    "no barriers": ("transpose", r"bar\.sync\s+0;", "", 3),
    "no barrier before the tile is used again": ("transpose", r"(ld\.shared[^;]*;)\s*bar\.sync\s+0;", r"\1", 1),
}


def mutated(text: str, name: str, pattern: str, replacement: str, times: int) -> str:
    """The PTX with the pattern replaced in the wrapper's entry only."""
    found = re.search(rf"\.entry \w*\d{name}_wrapper\w*\((?s:.*?)^\}}", text, re.M)
    body, count = re.subn(pattern, replacement, found[0])
    assert count == times, f"the pattern stands {count} times in {name}, not {times}"
    return text[:found.start()] + body + text[found.end():]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_seen(wrappers, mutant):
    """A wrong answer, or an error that names the line."""
    text = mutated(wrappers["compute_80"], *MUTANTS[mutant])
    name, faults = MUTANTS[mutant][0], []
    for order in ORDERS:
        try:
            faults.append(interpret(text, name, order))
        except PtxError as error:
            assert re.match(r"line \d+: ", str(error))
            faults.append(1)
    assert any(faults)


def test_an_unknown_instruction_is_named(wrappers):
    text = mutated(wrappers["compute_80"], "to_tf32", r"cvt\.rna\.tf32\.f32", "wgmma.frobnicate.f32", 1)
    with pytest.raises(PtxError, match=r"^line \d+: the interpreter knows no such instruction: wgmma\.frobnicate\.f32 %r\d+, %f\d+$"):
        interpret(text, "to_tf32")


@pytest.fixture(scope="module")
def emulator_built(tmp_path_factory):
    return emulator_object(tmp_path_factory.mktemp("emulator"))


@pytest.fixture(scope="module")
def emulator(emulator_built, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrappers")
    return host_library([*host_objects([WRAPPERS], folder), emulator_built], folder)


@pytest.mark.parametrize("name", CASES)
def test_the_emulator_does_what_the_isa_says(emulator, name):
    case = case_of(name)
    assert case.faults(emulate(emulator, f"{name}_wrapper", case.threads, case.a, case.b, case.expected.size)) == 0


# Mistakes in the headers themselves: (file, text, what stands there instead, the wrappers that then must be wrong).
PTX_MISTAKES = [
    ("tensor_core_ptx.h", ': "f"(high), "f"(low))', ': "f"(low), "f"(high))', {"pack_bf16"}),
    ("tensor_core_ptx.h", '"r"(a[0]), "r"(a[1]), "r"(a[2]),', '"r"(a[0]), "r"(a[2]), "r"(a[1]),', {"mma_tf32", "mma_bf16", "tile_product"}),
    ("tensor_core_ptx.h", "x4.trans", "x4", {"ldmatrix_x4_trans"}),
    ("tensor_core_ptx.h", "valid ? 16 : 0", "16", {"cp_async_16"}),
    ("tensor_core_ptx.h", '"n"(N)', '"n"(N + 1)', {"cp_async_wait", "cp_async_16", "cp_async_4"}),
    ("bf16.h", "pair & 0xffff0000u", "pair & 0xfffe0000u", {"bf16"}),
]
EMULATOR_MISTAKES = [
    ("emulated_tensor_core.h", "bits + 0x1000u", "bits", {"to_tf32"}),
    ("emulated_tensor_core.h", "bf16_bits(low) | bf16_bits(high)", "bf16_bits(high) | bf16_bits(low)", {"pack_bf16"}),
    ("emulated_tensor_core.h", "word & ~0x1fffu", "word", {"mma_tf32"}),
    ("emulated_tensor_core.h", "half ? bf16_high(word) : bf16_low(word)", "bf16_low(word)", {"mma_bf16", "tile_product"}),
    ("emulated_tensor_core.h", "TRANSPOSED ? matrix[m][t][g]", "false ? matrix[m][t][g]",
     {"ldmatrix_x4_trans", "ldmatrix_x2_trans", "tile_product"}),
    ("emulated_tensor_core.h", "valid ? 4 : 0", "4", {"cp_async_4"}),
    ("emulated_tensor_core.h", "cp_async_wait(N)", "cp_async_wait(N + 1)", {"cp_async_wait", "cp_async_16", "cp_async_4"}),
    ("bf16.h", "pair << 16", "pair << 17", {"bf16", "mma_bf16", "tile_product"}),
]


def with_mistakes(mistakes, folder) -> tuple[Path, set[str]]:
    """A copy of the headers with all mistakes at once, and the names of the wrappers that must notice."""
    for part in ("include", "emulated"):
        shutil.copytree(ROOT / "cuda" / part, folder / "cuda" / part)
    for name, right, wrong, _ in mistakes:
        path, = (folder / "cuda").rglob(name)
        text = path.read_text()
        assert right in text, f"{right} no longer stands in {name}"
        path.write_text(text.replace(right, wrong))
    return folder / "cuda", set().union(*(names for *_, names in mistakes))


def test_mistakes_in_the_assembly_are_seen(tmp_path):
    cuda, expected = with_mistakes(PTX_MISTAKES, tmp_path)
    text, seen = ptx(WRAPPERS, "compute_80", tmp_path, cuda), set()
    for name in CASES:
        try:
            wrong = interpret(text, name)
        except PtxError:
            wrong = True
        seen |= {name} if wrong else set()
    assert seen == expected


def test_mistakes_in_the_emulator_are_seen(emulator_built, tmp_path):
    cuda, expected = with_mistakes(EMULATOR_MISTAKES, tmp_path)
    library, seen = host_library([*host_objects([WRAPPERS], tmp_path, cuda=cuda), emulator_built], tmp_path), set()
    for name in CASES:
        case = case_of(name)
        try:
            wrong = case.faults(emulate(library, f"{name}_wrapper", case.threads, case.a, case.b, case.expected.size))
        except RuntimeError:
            wrong = True
        seen |= {name} if wrong else set()
    assert seen == expected


@pytest.fixture(scope="module")
def kernels(emulator_built, tmp_path_factory):
    sources = [source for stem in ("conv", "lrn", "maxpool") for source in sorted((ROOT / "cuda").glob(f"{stem}*.cu"))]
    return Recorded(sources, [emulator_built], tmp_path_factory.mktemp("kernels"))


def worst(kernels, op, dims, arrays, floats, expected, bound=(0.0,), precision="float32", only=None) -> dict[str, float]:
    """Row of the op's table -> its largest error in bounds; `expected` are the outputs, the last ones of `arrays`."""
    errors = {}
    for variant, of in kernels.variants(op):
        if of != precision or (only and variant != only):
            continue
        try:
            results = kernels.run(op, variant, dims, arrays, floats)
        except PtxError as error:
            if "does not run" not in str(error):
                raise
            continue
        outputs = results[len(arrays) - len(expected):]
        errors[variant] = max(float(np.max(np.abs(got - want) / (np.abs(want) * 1e-5 + limit + 1e-30)))
                              for got, want, limit in zip(outputs, expected, bound, strict=True))
    return errors


def fine(errors: dict[str, float]) -> bool:
    return all(error <= 1 for error in errors.values())             # a NaN is not


@pytest.mark.parametrize("shape", [(2, 3, 5, 32), (1, 2, 3, 10)])
@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_lrn(kernels, rng, shape, beta):
    x, dy = (4 * rng.standard_normal((1, *shape), np.float32) for _ in range(2))
    empty, rule = np.full_like(x, np.nan), dict(n=5, k=2.0, alpha=1e-2, beta=beta)
    y, dx = (np.zeros(x.shape) for _ in range(2))
    reference.lrn_fprop(x.astype(np.float64), y, **rule)
    reference.lrn_bprop(x.astype(np.float64), dy.astype(np.float64), dx, **rule)
    floats = (2.0, 1e-2, beta)
    errors = worst(kernels, "lrn_fprop", [*shape, 5], [x, empty], floats, [y], [1e-6])
    assert "direct" in errors and fine(errors), errors
    errors = worst(kernels, "lrn_bprop", [*shape, 5], [x, dy, empty], floats, [dx], [1e-5])
    assert "direct" in errors and fine(errors), errors


@pytest.mark.parametrize("window, stride", [(3, 2), (2, 2), (3, 1)])
@pytest.mark.parametrize("ties", ["first", "all"])
def test_maxpool(kernels, rng, window, stride, ties):
    x = rng.integers(-2, 3, (1, 2, 7, 7, 8)).astype(np.float32)                     # few values: ties in most windows
    side = -(-(7 - window) // stride) + 1
    y, dy = np.zeros((1, 2, side, side, 8), np.float32), rng.standard_normal((1, 2, side, side, 8), np.float32)
    dx = np.zeros_like(x)
    reference.maxpool_fprop(x, y, window=window, stride=stride)
    reference.maxpool_bprop(x, y, dy, dx, window=window, stride=stride, ties=ties)
    dims = [2, 7, 7, 8, side, side, window, stride, ties == "all"]
    errors = worst(kernels, "maxpool_fprop", dims, [x, np.full_like(y, np.nan)], (), [y])
    assert "direct" in errors and fine(errors), errors
    errors = worst(kernels, "maxpool_bprop", dims, [x, y, dy, np.full_like(x, np.nan)], (), [dx], [1e-6])
    assert "direct" in errors and fine(errors), errors


# Gx, Gy, N, side, C, K, filter, stride, pad, groups
CONVS = {"two groups": (1, 1, 2, 6, 16, 32, 3, 1, 1, 2), "joint columns, stride 2": (2, 2, 1, 7, 24, 40, 5, 2, 2, 1),
         "like the first layer": (1, 1, 1, 19, 3, 8, 11, 4, 0, 1)}


@pytest.mark.parametrize("case, precision", [(case, precision) for case in CONVS for precision in PRECISIONS
                                             if case == "two groups" or "x" not in precision])      # those rows copy as tf32's do
def test_conv(kernels, rng, case, precision):
    """Each row of fprop's table, with operands rounded beforehand where the row rounds them."""
    if all(of != precision for _, of in kernels.variants("conv_fprop")):
        pytest.skip(f"conv_fprop has no row in {precision}")
    Gx, Gy, N, side, C, K, R, stride, pad, groups = CONVS[case]
    out = (side + 2 * pad - R) // stride + 1
    draw = {"tf32": lambda a: rounded(a, 11, away=True), "bf16": lambda a: rounded(a, 8, away=False)}.get(precision, lambda a: a)
    x = draw(rng.standard_normal((Gx, N, side, side, C // Gx), np.float32))
    w = draw(rng.standard_normal((K, R, R, C // groups), np.float32))
    dy = draw(rng.standard_normal((Gy, N, out, out, K // Gy), np.float32))
    b, geometry = rng.standard_normal(K, np.float32), dict(stride=stride, pad=pad, groups=groups)
    dims = [N, Gx, Gy, side, side, C, K, R, R, out, out, stride, pad, pad, groups]

    def products(*inputs):
        """(y, dx, dw, db) in float64."""
        x, w, b, dy = (np.asarray(a, np.float64) for a in inputs)
        y, dx, dw, db = (np.zeros(a.shape) for a in (dy, x, w, b))
        reference.conv_fprop(x, w, b, y, **geometry)
        reference.conv_dgrad(dy, w, dx, **geometry)
        reference.conv_wgrad(x, dy, dw, db, **geometry)
        return y, dx, dw, db

    y, dx, dw, db = products(x, w, b, dy)
    bounds = [size * (2.0**-20 + (2.0**-15 if precision == "bf16x3" else 0)) for size in products(*map(np.abs, (x, w, b, dy)))]
    nothing = [np.full(a.shape, np.nan, np.float32) for a in (y, dx, dw, db)]
    read = narrow(x) if precision == "bf16" else x
    errors = worst(kernels, "conv_fprop", dims, [read, w, b, nothing[0]], (), [y], bounds[:1], precision)
    assert errors and fine(errors), errors
    if precision == "float32":                                          # one row of the gradients, since nvcc takes seconds for the others
        errors = worst(kernels, "conv_dgrad", dims, [dy, w, nothing[1]], (), [dx], bounds[1:2], only="direct")
        assert errors and fine(errors), errors
        errors = worst(kernels, "conv_wgrad", dims, [x, dy, *nothing[2:]], (), [dw, db], bounds[2:], only="direct")
        assert errors and fine(errors), errors
