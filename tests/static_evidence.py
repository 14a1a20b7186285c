"""What nvcc says about every kernel, without a GPU: registers, memory, spills and which instructions it chose.

`python tests/static_evidence.py` prints the table of cuda/README.md, `--write` puts it there; tests/test_static.py holds the
kernels to it.  PTX and ptxas' report need nothing but nvcc.  Where nvdisasm is found too (beside nvcc, in PATH, or as the
wheel nvidia-cuda-nvdisasm), the final instructions of one architecture are counted under the same names.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ptx.toolchain import ROOT, find

ARCHITECTURES = ("80", "90", "100")
DISASSEMBLED = "90"                                         # three would take a minute
README = ROOT / "cuda" / "README.md"
BEGIN, END = "<!-- evidence: begin -->", "<!-- evidence: end -->"

# The same name in PTX and in SASS.
PTX = {
    "load4": r"ld\.global\S*\.v4\.", "store4": r"st\.global\S*\.v4\.",
    "load2": r"ld\.global\S*\.v2\.", "store2": r"st\.global\S*\.(?:v2\.|[bu]64)", "shared4": r"ld\.shared\S*\.v4\.",
    "mma_tf32": r"mma\.sync\S*\.m16n8k8\S*\.tf32", "mma_bf16": r"mma\.sync\S*\.m16n8k16\S*\.bf16",
    "ldmatrix": r"ldmatrix\.", "cp_async": r"cp\.async\.c[ag]\.", "atomic": r"(?:atom|red)\.", "float64": r"\S*\.f64\b",
    "local": r"(?:ld|st)\.local\b", "call": r"call\b"}
SASS = {
    "load4": r"LDG\.E\S*\.128", "store4": r"STG\.E\S*\.128", "load2": r"LDG\.E\S*\.64", "store2": r"STG\.E\S*\.64",
    "shared4": r"LDS\S*\.128",
    "mma_tf32": r"HMMA\.1688\.F32\.TF32", "mma_bf16": r"HMMA\.16816\.F32\.BF16",
    "ldmatrix": r"LDSM\.", "cp_async": r"LDGSTS\.", "atomic": r"(?:ATOM[GS]?|REDG?)\b",
    "float64": r"D(?:ADD|MUL|FMA|SETP|MNMX)\b|\S*\.F64\b", "local": r"(?:LDL|STL)\b"}
FORBIDDEN = ("atomic", "float64", "local", "call")

# A kernel whose name matches holds each of these instructions.  The variants' names in the corridor map stand on it.
CLAIMS = (
    (r"\w+_vector\b(?!<bf16)", ("store4",)),
    (r"(?!augment)\w+_vector\b(?!<bf16)", ("load4",)),      # augment reads bytes
    (r"\w+_vector<bf16|lrn_maxpool_[fb]prop_tiled<bf16", ("load2", "store2")),         # four numbers in 8 bytes
    (r"\w+<Quad>|sgd_update_kernel<4>", ("load4", "store4")),
    (r"\w+_tiled<GemmTile<|linear_(?:chains|wgrad_chain)<GemmTile<", ("shared4", "store4")),
    (r"conv_(?:fprop|dgrad)_tiled<|linear_(?:chains|wgrad_chain)<", ("load4",)),
    (r"lrn_maxpool_[fb]prop_tiled<float|linear_(?:fprop|wgrad)_rows_kernel", ("load4",)),
    (r"conv_mma::\w+<mma::TF32", ("mma_tf32", "cp_async")),
    (r"conv_mma::\w+<mma::BF16X[36]|conv_mma::\w+<mma::BF16, .*>, 1\b", ("cp_async",)),          # of bf16 those in whole vectors
    (r"conv_mma::\w+<mma::BF16\b|conv_mma::[fd](?:prop|grad)<", ("ldmatrix",)),
    (r"conv_mma::\w+<mma::BF16", ("mma_bf16",)),
)
# nvcc 13.0 reads a number that dropout drops only where it is kept, and so splits the four on this architecture.
EXCEPTIONS = {("dropout_vector", "100"): {"load4"}}


class Kernel(NamedTuple):
    """One kernel for one architecture."""

    stem: str
    name: str                                               # with template arguments, without minialex::
    arch: str
    registers: int
    shared: int                                             # static bytes
    dynamic: bool                                           # asks for dynamic shared memory as well
    stack: int
    spills: int
    ptx: dict[str, int]
    sass: dict[str, int] | None                             # None where it was not disassembled


@cache
def disassembler() -> str | None:
    """nvdisasm: that of the toolkit, which reads what its own nvcc wrote, or the wheel's."""
    spec = importlib.util.find_spec("nvidia")
    wheels = [path for root in (spec.submodule_search_locations if spec else ()) for path in sorted(Path(root).glob("cu*/bin/nvdisasm"))]
    places = [Path(find("nvcc", "CUDACXX")).resolve().parent / "nvdisasm", shutil.which("nvdisasm"), *wheels]
    return next((str(place) for place in places if place and os.access(place, os.X_OK)), None)


@cache
def nvcc_version() -> str:
    said = subprocess.run([find("nvcc", "CUDACXX"), "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"V(\d+\.\d+\.\d+)", said)[1]


@cache
def architectures() -> tuple[str, ...]:
    """Those of ARCHITECTURES that this nvcc knows."""
    known = subprocess.run([find("nvcc", "CUDACXX"), "--list-gpu-code"], capture_output=True, text=True, check=True).stdout.split()
    return tuple(arch for arch in ARCHITECTURES if f"sm_{arch}" in known)


def readable(symbols: Iterable[str]) -> dict[str, str]:
    """Symbol -> name with template arguments, without namespaces that all share and without parameters."""
    symbols = list(symbols)
    lines = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True).stdout.splitlines()
    names = {}
    for symbol, line in zip(symbols, lines, strict=True):
        name = re.sub(r"^void |\(anonymous namespace\)::|\bminialex::|\((?:int|bool)\)(?=\d)", "", line)
        depth = 0
        for at, letter in enumerate(name):                  # parameters begin at the first ( outside < >
            depth += (letter == "<") - (letter == ">")
            if letter == "(" and not depth:
                name = name[:at]
                break
        names[symbol] = name.strip()
    return names


def counted(text: str, words: dict[str, str], opcode: str) -> dict[str, int]:
    """How many instructions of each word; `opcode` finds them."""
    opcodes = Counter(re.findall(opcode, text, re.M))
    return {word: found for word, pattern in words.items()
            if (found := sum(count for name, count in opcodes.items() if re.match(pattern, name)))}


def ptx_of(text: str) -> dict[str, tuple[dict[str, int], bool]]:
    """Kernel symbol -> its instructions, and whether it takes dynamic shared memory."""
    parts = re.split(r"^(?:\.(?:visible|weak) )*\.entry (\w+)", text, flags=re.M)
    opcode = r"^\s*\{?\s*(?:@!?%p\d+\s+)?([a-z][a-z0-9_]*[.;:a-z0-9_]*)"
    return {symbol: (counted(body, PTX, opcode), "minialex_dynamic_shared" in body)
            for symbol, body in zip(parts[1::2], parts[2::2], strict=True)}


def sass_of(cubin: Path) -> dict[str, dict[str, int]]:
    text = subprocess.run([disassembler(), "-c", cubin], capture_output=True, text=True, check=True).stdout
    parts = re.split(r"^\s*\.section\s+\.text\.(\w+)", text, flags=re.M)
    opcode = r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)"
    return {symbol: counted(body, SASS, opcode) for symbol, body in zip(parts[1::2], parts[2::2], strict=True)}


def examine(source: Path, archs: Iterable[str], *flags: str) -> list[Kernel]:
    """Compiles the device side of one file, once for all architectures, and reads what came out."""
    with tempfile.TemporaryDirectory() as place:
        targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
        command = [find("nvcc", "CUDACXX"), "-std=c++17", f"-I{ROOT / 'cuda/include'}", "-Werror", "all-warnings", "-Xptxas", "-v", *flags,
                   *targets, "--keep", "--keep-dir", place, "-fatbin", source]
        answer = subprocess.run([*map(str, command), "-o", f"{place}/all.fatbin"], capture_output=True, text=True)
        if answer.returncode:
            raise AssertionError(f"nvcc does not compile {source.name}:\n{answer.stdout}{answer.stderr}")
        said = answer.stdout + answer.stderr
        report = re.findall(r"Compiling entry function '(\w+)' for 'sm_(\w+)'(.*?)(?=Compiling entry|\Z)", said, re.S)
        names = readable(dict.fromkeys(symbol for symbol, _, _ in report))
        stem, kernels = source.stem, []
        kept = {arch: Path(place) / f"{stem}.compute_{arch}" for arch in archs}
        ptx = {arch: ptx_of(path.with_name(f"{path.name}.ptx").read_text()) for arch, path in kept.items()}
        sass = sass_of(Path(f"{kept[DISASSEMBLED]}.cubin")) if DISASSEMBLED in archs and disassembler() and report else {}
        for symbol, arch, words in report:
            number = {word: int(found[1]) if (found := re.search(rf"(\d+) {word}", words)) else 0
                      for word in ("bytes stack frame", "bytes spill stores", "bytes spill loads", "bytes smem")}
            kernels.append(Kernel(
                stem, names[symbol], arch, int(re.search(r"Used (\d+) registers", words)[1]), number["bytes smem"], ptx[arch][symbol][1],
                number["bytes stack frame"], number["bytes spill stores"] + number["bytes spill loads"], ptx[arch][symbol][0],
                sass[symbol] if arch == DISASSEMBLED and sass else None))
    return kernels


def examine_cached(source: Path, cache_folder: Path) -> list[Kernel]:
    """As examine; an unchanged file under unchanged headers, tools and rules is not compiled again."""
    readers = [inspect.getsource(function) for function in (examine, ptx_of, sass_of, counted, readable)]
    digest = hashlib.sha256(repr((nvcc_version(), architectures(), disassembler(), PTX, SASS, readers)).encode())
    for path in (source, *sorted((ROOT / "cuda/include").rglob("*.h"))):
        digest.update(path.read_bytes())
    kept = cache_folder / f"{source.stem}.json"
    if kept.exists() and (was := json.loads(kept.read_text()))["digest"] == digest.hexdigest():
        return [Kernel(*row) for row in was["kernels"]]
    kernels = examine(source, architectures())
    made = kept.with_suffix(f".{os.getpid()}")
    made.write_text(json.dumps({"digest": digest.hexdigest(), "kernels": kernels}))
    os.replace(made, kept)
    return kernels


def evidence(cache_folder: Path) -> list[Kernel]:
    """Every kernel of every cuda/*.cu for every architecture, two files at a time, the slowest first."""
    sources = sorted(ROOT.glob("cuda/*.cu"), key=lambda path: ("mma" not in path.stem, path.stem))
    with ThreadPoolExecutor(2) as pool:
        return [kernel for kernels in pool.map(lambda source: examine_cached(source, cache_folder), sources) for kernel in kernels]


def faults(kernels: Iterable[Kernel], claims=CLAIMS) -> list[str]:
    """One sentence for each rule that a kernel breaks."""
    found = []
    for kernel in kernels:
        where = f"{kernel.stem}.cu: {kernel.name} for sm_{kernel.arch}"
        if kernel.spills or kernel.stack:
            found.append(f"{where} has a stack of {kernel.stack} bytes and {kernel.spills} bytes of spills")
        for language, counts in (("PTX", kernel.ptx), ("SASS", kernel.sass)):
            found += [f"{where}: {counts[word]} {word} instructions in its {language}" for word in FORBIDDEN if (counts or {}).get(word)]
            wanted = {word for pattern, words in claims if re.match(pattern, kernel.name) for word in words}
            wanted -= EXCEPTIONS.get((kernel.name, kernel.arch), set())
            if counts is not None:
                found += [f"{where}: no {word} in its {language}" for word in sorted(wanted - counts.keys())]
    return found


def row_name(name: str) -> str:
    """Instances of one template share a row, but for the choices that the map names: type and tile."""
    base, _, arguments = name.partition("<")
    words = re.findall(r"\b(?:TF32|BF16(?:X[36])?|Quad|float|bf16|Tanh|Sigmoid)\b", arguments)
    words += [f"{m}x{n}" for m, n in re.findall(r"Tile<(\d+), (\d+)", arguments)]
    return base + (f"<{' '.join(words)}>" if words else "")


def span(numbers: Iterable[int]) -> str:
    low, high = min(numbers := list(numbers)), max(numbers)
    return str(low) if low == high else f"{low}-{high}"


def table(kernels: Iterable[Kernel]) -> list[str]:
    """The rows of the README, one for each kernel of each file: registers per thread and architecture, shared memory, instances."""
    groups: dict[tuple[str, str], list[Kernel]] = defaultdict(list)
    for kernel in kernels:
        groups[kernel.stem, row_name(kernel.name)].append(kernel)
    lines = [f"nvcc {nvcc_version()}", "", "| file | kernel | instances | " + " | ".join(f"sm_{arch}" for arch in architectures())
             + " | static shared bytes |", "|---|---|--:|" + "--:|" * len(architectures()) + "--:|"]
    for (stem, name), group in sorted(groups.items()):
        by_arch = [[kernel for kernel in group if kernel.arch == arch] for arch in architectures()]
        shared = span(kernel.shared for kernel in group) + (" + dynamic" if any(kernel.dynamic for kernel in group) else "")
        registers = " | ".join(span(kernel.registers for kernel in some) for some in by_arch)
        lines.append(f"| {stem} | `{name}` | {len(by_arch[0])} | {registers} | {shared} |")
    return lines


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        kernels = evidence(Path(place))
    lines = "\n".join(table(kernels))
    for fault in faults(kernels):
        print(fault, file=sys.stderr)
    if sys.argv[1:] == ["--write"]:
        before, _, rest = README.read_text().partition(BEGIN)
        README.write_text(f"{before}{BEGIN}\n{lines}\n{END}{rest.partition(END)[2]}")
    else:
        print(lines)


if __name__ == "__main__":
    main()
