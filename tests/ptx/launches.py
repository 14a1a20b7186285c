"""Real kernels in the interpreter: an op's own launcher says which kernel, grid, block and arguments, and the PTX does the work."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np

from .interpreter import Run
from .memory import Memory
from .program import Module, PtxError
from .toolchain import ROOT, compiled, find, host_objects, ptx

RECORDER = ROOT / "tests" / "ptx" / "recorder.cpp"


def demangled(names: list[str]) -> list[str]:
    """Without parameters and return types; nvcc and g++ mangle anonymous namespaces differently, this way they agree."""
    text = subprocess.run([find("c++filt", "CXXFILT"), "-p", *names], capture_output=True, text=True, check=True).stdout
    return [line.removeprefix("void ") for line in text.splitlines()]


def symbols(path: Path) -> list[tuple[int, str]]:
    """(address, name) of the functions in an object file or a library."""
    lines = subprocess.run([find("nm", "NM"), path], capture_output=True, text=True, check=True).stdout.splitlines()
    return [(int(words[0], 16), words[2]) for words in map(str.split, lines) if len(words) == 3 and words[1] in "tTwW"]


class Recorded:
    """The ops of some kernel files; a file's PTX is made when one of its kernels is launched first."""

    def __init__(self, sources: list[Path], emulator: list[Path], folder: Path, arch: str = "compute_80"):
        self.folder, self.arch, self.modules = folder, arch, {}
        objects = host_objects(sources, folder, before=RECORDER.with_suffix(".h"), level="-O0")
        self.sources = {name: source for source, path in zip(sources, objects, strict=True) for _, name in symbols(path)}
        path = compiled([find("g++", "CXX"), "-shared", "-pthread", *host_objects([RECORDER], folder), *objects, *emulator, "-ldl"],
                        folder / "recorder.so")
        self.names = dict(symbols(path))
        self.library = ctypes.CDLL(str(path))
        self.library.record_op.restype = self.library.table_of.restype = ctypes.c_char_p

    def kernel(self, offset: int) -> tuple[Module, str]:
        """The PTX and the entry of the kernel that lies at `offset` of the library."""
        symbol = self.names[offset]
        source = self.sources[symbol]
        if source not in self.modules:
            module = Module(ptx(source, self.arch, self.folder))
            self.modules[source] = module, dict(zip(demangled(list(module.entries)), module.entries, strict=True))
        module, entries = self.modules[source]
        name, = demangled([symbol])
        if name not in entries:
            raise PtxError(f"{name} was launched, but the PTX of {source.name} has only {', '.join(entries)}")
        return module, entries[name]

    def variants(self, op: str) -> list[tuple[str, str]]:
        """(name, precision) of each row of the op's table."""
        return [tuple(line.split()) for line in self.library.table_of(op.encode()).decode().splitlines()]

    def run(self, op: str, variant: str, dims: list[int], arrays: list[np.ndarray], floats: tuple = ()) -> list[np.ndarray]:
        """The arrays after the call, inputs and outputs in the order of the op's pointers; the workspace is added."""
        memory = Memory(1 << 22)
        addresses = [memory.put(array) for array in (*arrays, np.full(1 << 18, np.nan, np.float32))]
        text = self.library.record_op(op.encode(), variant.encode(), (ctypes.c_int * len(dims))(*dims),
                                      (ctypes.c_void_p * len(addresses))(*addresses), (ctypes.c_float * 8)(*floats)).decode()
        if text.startswith("error: "):
            raise PtxError(f"{op}, {variant}: {text}")
        for line in text.splitlines():
            offset, *sizes = (int(word) for word in line.split()[:8])
            arguments = [bytes.fromhex(word) for word in line.split()[8:]]
            Run(*self.kernel(offset), sizes[:3], sizes[3:6], arguments, memory, dynamic_shared=sizes[6])
        return [memory.get(address, array) for address, array in zip(addresses, arrays, strict=False)]
