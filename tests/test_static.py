"""What the compiler says about every kernel, for each architecture: no spills, no stack, no atomics, no doubles, and the vector
loads and tensor-core instructions that the variants' names claim.  cuda/README.md lists the registers and the variants."""

from __future__ import annotations

import building
import pytest
import static_evidence
from conftest import compiled_backends
from ptx.toolchain import ROOT, find

from minialex import backends


@pytest.fixture(scope="module")
def kernels(pytestconfig, tmp_path_factory):
    find("nvcc", "CUDACXX")
    return static_evidence.evidence(building.folder(pytestconfig, "static", tmp_path_factory))


def test_every_file_is_compiled_for_every_architecture(kernels):
    stems = {path.stem for path in ROOT.glob("cuda/*.cu") if "__global__" in path.read_text() or "conv_direct::launch" in path.read_text()}
    seen = {(kernel.stem, kernel.arch) for kernel in kernels}
    assert "80" in static_evidence.architectures() and "90" in static_evidence.architectures()
    assert {(stem, arch) for stem in stems for arch in static_evidence.architectures()} <= seen
    assert all(kernel.registers > 0 and kernel.ptx is not None for kernel in kernels)


def test_kernels_hold_what_they_claim_and_nothing_forbidden(kernels):
    found = static_evidence.faults(kernels)
    assert not found, "\n".join(found)


def test_every_claim_is_about_a_kernel(kernels):
    names = {kernel.name for kernel in kernels}
    idle = [pattern for pattern, _ in static_evidence.CLAIMS if not any(static_evidence.re.match(pattern, name) for name in names)]
    assert not idle


def test_final_instructions_were_read_where_they_can_be(kernels):
    if static_evidence.disassembler() is None:
        pytest.skip("there is no nvdisasm beside nvcc, in PATH or as the wheel nvidia-cuda-nvdisasm; PTX was read")
    assert all("load4" in kernel.sass for kernel in kernels if kernel.arch == static_evidence.DISASSEMBLED and
               kernel.name.startswith("relu_fprop_vector"))
    assert sum(kernel.sass is not None for kernel in kernels) > 20


def test_the_table_of_the_readme_is_fresh(kernels):
    """Every kernel always; the figures with the nvcc that the table names, since another may use other registers."""
    now = static_evidence.table(kernels)
    then = static_evidence.README.read_text().partition(static_evidence.BEGIN)[2].partition(static_evidence.END)[0].strip().splitlines()
    rows = [[line.split("|")[1:4] for line in lines if "`" in line] for lines in (now, then)]
    assert rows[0] == rows[1], "kernels came or went: python tests/static_evidence.py --write"
    if now[0] == then[0]:
        assert now == then, "registers or shared memory changed: python tests/static_evidence.py --write"


PLANTED = """
#include <minialex/kernel.h>
namespace minialex {
__global__ void __launch_bounds__(1024, 2) spills(const float* x, float* y, int n) {       // 32 registers, 64 values alive
  float kept[64];
  MINIALEX_UNROLL for (int i = 0; i < 64; ++i) kept[i] = x[i * n + threadIdx.x];
  __syncthreads();
  float sum = 0;
  MINIALEX_UNROLL for (int i = 0; i < 64; ++i) sum += kept[i] * kept[63 - i] + sum * kept[(i * 7) % 64];
  MINIALEX_UNROLL for (int i = 0; i < 64; ++i) y[i * n + threadIdx.x] = kept[i] + sum;
}
__global__ void stacks(const float* x, float* y, int n) {                                  // an index the compiler does not know
  float kept[16];
  for (int i = 0; i < 16; ++i) kept[i] = x[i];
  for (int i = 0; i < n; ++i) kept[(i * n) & 15] += x[i];
  y[0] = kept[n & 15];
}
__global__ void adds(const float* x, float* y) { atomicAdd(y, x[threadIdx.x]); }
__global__ void doubles(const float* x, float* y) { y[threadIdx.x] = float(x[threadIdx.x] * 2.1); }
__global__ void relu_fprop_vector(const float* x, float* y) { y[threadIdx.x] = fmaxf(x[threadIdx.x], 0.f); }
__global__ void plain_direct(const float* x, float* y) { y[threadIdx.x] = fmaxf(x[threadIdx.x], 0.f); }
namespace mma { struct TF32; struct BF16; }
namespace conv_mma {
template <class Type> __global__ void fprop(float* y) { y[threadIdx.x] = 1; }
template __global__ void fprop<mma::TF32>(float*);
template __global__ void fprop<mma::BF16>(float*);
}
}
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    source = tmp_path_factory.mktemp("planted") / "planted.cu"
    find("nvcc", "CUDACXX")
    source.write_text(PLANTED)
    return static_evidence.faults(static_evidence.examine(source, ("80", "90")))


@pytest.mark.parametrize("kernel, words", [
    ("spills", ["bytes of spills"]), ("stacks", ["has a stack", "local instructions"]), ("adds", ["atomic instructions"]),
    ("doubles", ["float64 instructions"]), ("relu_fprop_vector", ["no load4", "no store4"]),
    ("conv_mma::fprop<mma::TF32>", ["no mma_tf32", "no cp_async", "no ldmatrix"]),
    ("conv_mma::fprop<mma::BF16>", ["no mma_bf16", "no ldmatrix"])])
def test_a_planted_fault_is_reported(planted, kernel, words):
    mine = [fault for fault in planted if f": {kernel} for" in fault]
    for word in words:
        for arch in ("80", "90"):
            assert any(word in fault and f"sm_{arch}" in fault for fault in mine), (word, arch, mine)
        in_sass = [fault for fault in mine if word in fault and "SASS" in fault]
        assert in_sass or "stack" in word or "spills" in word or static_evidence.disassembler() is None
    assert not [fault for fault in planted if "plain_direct" in fault]


def test_a_warning_is_an_error(tmp_path):
    find("nvcc", "CUDACXX")
    source = tmp_path / "careless.cu"
    source.write_text("__global__ void careless(float* y) { int unused; y[0] = 1; }\n")
    with pytest.raises(AssertionError, match="unused"):
        static_evidence.examine(source, ("80", "90"))


def corridor() -> dict[str, list[str]]:
    """Op -> its variants, as the map of cuda/README.md has them: the ops stand in the first cell of a row, variants in the second."""
    rows: dict[str, list[str]] = {}
    section = static_evidence.README.read_text().partition("## Map")[2].partition("\n## ")[0]
    for line in section.splitlines():
        if line.startswith("| `"):
            ops, variants = (static_evidence.re.findall(r"`(\w+)`", cell) for cell in line.split("|")[1:3])
            for op in ops:
                rows.setdefault(op, []).extend(variants)
    return rows


def test_the_map_names_every_op_and_variant():
    names = compiled_backends()
    if not names:
        pytest.skip("no compiled backend is built here, so there are no tables to compare with")
    tables = backends.load(names[0]).kernels.extension.tables
    assert corridor() == {op: [name for name, _ in rows] for op, rows in tables.items()}
