"""The kernels' inline assembly, executed: what nvcc emits runs in an interpreter of PTX, what the host compiler makes of the same
source on the emulator, and one oracle judges both.  Then each way to get an instruction wrong must be seen."""

from __future__ import annotations

import re
import zlib

import numpy as np
import pytest
from ptx.interpreter import Run
from ptx.memory import Memory
from ptx.program import Module, PtxError
from ptx.toolchain import ROOT, WRAPPERS, emulate, host_library, host_objects, ptx
from ptx.wrapper_cases import CASES

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
def emulator_objects(tmp_path_factory):
    return host_objects(sorted((ROOT / "cuda" / "emulated").glob("*.cpp")), tmp_path_factory.mktemp("emulator"))


@pytest.fixture(scope="module")
def emulator(emulator_objects, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrappers")
    return host_library([*host_objects([WRAPPERS], folder), *emulator_objects], folder)


@pytest.mark.parametrize("name", CASES)
def test_the_emulator_does_what_the_isa_says(emulator, name):
    case = case_of(name)
    assert case.faults(emulate(emulator, f"{name}_wrapper", case.threads, case.a, case.b, case.expected.size)) == 0
