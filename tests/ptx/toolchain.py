"""nvcc and the host compiler, as the tests call them."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
WRAPPERS = ROOT / "tests" / "ptx" / "wrappers.cu"


def find(tool: str, variable: str) -> str:
    """The compiler's path; without it the test is skipped with the reason, which MINIALEX_REQUIRE=nvcc turns into a failure."""
    path = shutil.which(os.environ.get(variable) or tool)
    if path is None:
        reason = f"there is no {tool} in PATH, nor does {variable} name one"
        if tool in os.environ.get("MINIALEX_REQUIRE", "").split(","):
            pytest.fail(f"{tool} is required, but {reason}")
        pytest.skip(reason)
    return path


def compiled(command: list, target: Path) -> Path:
    """`target`, made by `command`; a failure shows what the compiler said."""
    answer = subprocess.run([*map(str, command), "-o", str(target)], capture_output=True, text=True)
    if answer.returncode:
        pytest.fail(f"{' '.join(map(str, command))}\n{answer.stdout}{answer.stderr}", pytrace=False)
    return target


def ptx(source: Path, arch: str, folder: Path, cuda: Path = ROOT / "cuda") -> str:
    """The PTX of a kernel file; `cuda` is the folder its headers come from."""
    command = [find("nvcc", "CUDACXX"), "-std=c++17", f"-I{cuda / 'include'}", f"-arch={arch}", "-ptx", source]
    return compiled(command, folder / f"{source.stem}_{arch}.ptx").read_text()


def host_objects(sources: list[Path], folder: Path, *, cuda: Path = ROOT / "cuda", before: Path | None = None,
                 level: str = "-O1") -> list[Path]:
    """One object file for each source; `before` is a header that each of them includes first."""
    command = [find("g++", "CXX"), "-std=c++17", level, "-fPIC", "-fno-strict-aliasing", "-Wno-unknown-pragmas", "-DMINIALEX_EMULATED",
               f"-I{cuda / 'include'}", f"-I{cuda / 'emulated'}", *(["-include", before] if before else [])]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda source: compiled([*command, "-x", "c++", "-c", source], folder / f"{source.stem}.o"), sources))


def emulator_object(folder: Path) -> Path:
    """All files of the emulator as one: a third of the time.  So no two of them give different things of their own one name."""
    whole = folder / "emulator.cpp"
    whole.write_text("".join(f'#include "{source}"\n' for source in sorted((ROOT / "cuda" / "emulated").glob("*.cpp"))))
    return host_objects([whole], folder)[0]


def host_library(objects: list[Path], folder: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(compiled([find("g++", "CXX"), "-shared", "-pthread", *objects], folder / "wrappers.so")))
    library.run_wrapper.restype = ctypes.c_char_p
    return library


def emulate(library: ctypes.CDLL, name: str, threads: int, a: np.ndarray, b: np.ndarray, words: int) -> np.ndarray:
    """What a kernel of wrappers.cu writes on the emulator."""
    out = np.full(words, 0xFFFFFFFF, np.uint32)
    arrays = [part for array in (a, b, out) for part in (array.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(array.nbytes))]
    message = library.run_wrapper(name.encode(), threads, *arrays)
    if message:
        raise RuntimeError(message.decode())
    return out
