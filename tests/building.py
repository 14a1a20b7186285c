"""Compiles C++ for tests: two files at a time, and only what changed since the last run.

An object lies in pytest's cache under a name made of its source and its command, with a digest of the contents of all files
it was made from; a run that finds the digest unchanged takes it as it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent
EMULATOR = sorted(ROOT.glob("cuda/emulated/*.cpp"))
CHECKER = sorted(ROOT.glob("cuda/emulated/checker/*.cpp"))
# Frame pointers: the checker walks them to the line of an atomic or of an asynchronous copy.
COMMON = ("-std=c++17", "-fPIC", "-g1", "-fno-strict-aliasing", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls",
          "-fvisibility=hidden", "-Wall", "-Wno-unknown-pragmas", "-DMINIALEX_EMULATED",
          f"-I{ROOT / 'cuda/emulated'}", f"-I{ROOT / 'cuda/include'}")
SANITIZED = ("-fsanitize=address", "-fsanitize=undefined", "-fno-sanitize-recover=all")


def instrumented(compiler: str) -> tuple[str, ...]:
    """The flags by which every load and store of a kernel calls the access checker.  At -O1 without scalar replacement a
    float4 stays one access; that functions begin and end is of no interest."""
    if compiler.startswith("clang"):
        return ("-O1", "-fsanitize=thread", "-mllvm", "-tsan-instrument-func-entry-exit=0")
    return ("-O1", "-fno-tree-sra", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0")


class Unit(NamedTuple):
    """A source file and how it is compiled."""

    source: Path
    flags: tuple[str, ...]
    compiler: str = "g++"


def units(sources: Iterable[Path], *flags: str, compiler: str = "g++") -> list[Unit]:
    """Each source with COMMON and these flags."""
    return [Unit(source, (*COMMON, *flags), compiler) for source in sources]


def missing(what: str) -> NoReturn:
    """Skips, or fails where MINIALEX_REQUIRE names the emulated backend."""
    if "emulated" in os.environ.get("MINIALEX_REQUIRE", "").split(","):
        pytest.fail(f"the emulated backend is required, but {what}")
    pytest.skip(what)


def need(compiler: str) -> None:
    """The one compiler that must be there is g++; others are tested where they are."""
    if shutil.which(compiler):
        return
    if compiler == "g++":
        missing("there is no g++ on this machine")
    pytest.skip(f"there is no {compiler} on this machine")


def folder(config: pytest.Config, name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where objects of the last run may lie."""
    return Path(config.cache.mkdir(name)) if getattr(config, "cache", None) else tmp_path_factory.mktemp(name)


@cache
def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(str(path).encode() + b"\0" + (path.read_bytes() if path.is_file() else b"gone"))
    return digest.hexdigest()


def _inputs(depfile: Path) -> list[Path]:
    words = depfile.read_text().replace("\\\n", " ").split()
    return [Path(word) for word in words[1:]]


def _replace(command: list[str], output: Path) -> None:
    """Runs the command with `-o` and puts its output in place at once, since another test run may share the folder."""
    made = output.with_name(f"{output.name}.{os.getpid()}")
    done = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stderr}", pytrace=False)
    os.replace(made, output)


def _compile(cache_folder: Path, unit: Unit) -> Path:
    command = [unit.compiler, *unit.flags]
    key = hashlib.sha256("\0".join([*command, str(unit.source), _version(unit.compiler)]).encode()).hexdigest()[:16]
    output = cache_folder / f"{unit.source.stem}-{key}.o"
    depfile, stamp = output.with_suffix(".d"), output.with_suffix(".digest")
    if output.exists() and stamp.exists() and depfile.exists() and stamp.read_text() == _digest(_inputs(depfile)):
        return output
    stamp.unlink(missing_ok=True)
    _replace([*command, "-MMD", "-MF", str(depfile), "-MT", "object", "-x", "c++", "-c", str(unit.source)], output)
    stamp.write_text(_digest(_inputs(depfile)))
    return output


def build(cache_folder: Path, name: str, parts: Sequence[Unit], *link: str) -> Path:
    """The program or, with -shared, the library `name` of these units."""
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(lambda unit: _compile(cache_folder, unit), parts))
    output, stamp = cache_folder / name, cache_folder / f"{name}.digest"
    command = ["g++", *map(str, objects), *link, "-pthread", "-ldl"]
    digest = hashlib.sha256("\0".join(command).encode()).hexdigest() + _digest(objects)
    if not (output.exists() and stamp.exists() and stamp.read_text() == digest):
        _replace(command, output)
        stamp.write_text(digest)
    return output
