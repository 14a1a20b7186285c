"""The emulator against its self-test, tests/emulated/smoke.cu, as each compiler and each kind of fiber builds it."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["-std=c++17", "-O2", "-fno-strict-aliasing", "-Wall", "-Wno-unknown-pragmas", "-Werror", "-DMINIALEX_EMULATED",
         f"-I{ROOT / 'cuda/emulated'}", f"-I{ROOT / 'cuda/include'}"]
BUILDS = {
    "g++": ("g++", []),
    "g++ portable fibers": ("g++", ["-DMINIALEX_PORTABLE_FIBERS"]),
    "clang++": ("clang++", []),
}


def build(folder: Path, compiler: str, extra: list[str]) -> Path:
    """The smoke program, its files compiled two at a time."""
    sources = [ROOT / "tests/emulated/smoke.cu"] + [p for p in sorted(ROOT.glob("cuda/emulated/*.cpp")) if p.stem != "checker"]
    objects = [folder / f"{source.stem}.o" for source in sources]
    commands = [[compiler, *FLAGS, *extra, "-x", "c++", "-c", str(s), "-o", str(o)] for s, o in zip(sources, objects, strict=True)]
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(lambda command: subprocess.run(command, capture_output=True, text=True), commands):
            assert done.returncode == 0, done.stderr
    program = folder / "smoke"
    subprocess.run([compiler, *map(str, objects), "-o", str(program), "-pthread"], check=True)
    return program


@pytest.fixture(scope="session", params=BUILDS)
def smoke(request, tmp_path_factory):
    compiler, extra = BUILDS[request.param]
    if not shutil.which(compiler):
        pytest.skip(f"there is no {compiler} on this machine")
    return build(tmp_path_factory.mktemp("smoke"), compiler, extra)


def run(program: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MINIALEX_EMULATED_")}
    chosen = {f"MINIALEX_EMULATED_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run([str(program), *arguments], env={**kept, **chosen}, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("workers", ["1", "3"])
def test_orders_errors_and_streams(smoke, workers):
    """Right kernels in every order; wrong ones end in an error that names them, and the emulator goes on; events order lazy streams."""
    done = run(smoke, workers=workers)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and all(line.endswith(": ok") for line in lines), done.stdout + done.stderr
    assert len(lines) > 50


def test_the_environment_is_read(smoke):
    chosen = run(smoke, "settings", order="random:7", streams="lazy", devices="3", memory="64")
    assert chosen.stdout == "order 2, streams 1, seed 7, 3 devices of 64 MiB\n"
    assert run(smoke, "settings").stdout == "order 0, streams 0, seed 1, 2 devices of 16384 MiB\n"


@pytest.mark.parametrize("name, value", [
    ("order", "random:x"), ("order", "forward:3"), ("streams", "eager"), ("devices", "17"), ("protect", "-1")])
def test_a_bad_environment_is_one_sentence(smoke, name, value):
    done = run(smoke, "settings", **{name: value})
    assert done.returncode == 2 and f'setting {name} is "{value}"' in done.stdout


def test_a_fault_of_the_host_is_not_swallowed(smoke):
    """Outside kernels the handler that was there before gets its turn, and the process ends as without an emulator."""
    done = run(smoke, "host fault", protect="2")
    assert done.returncode < 0 and "the host itself touched memory of emulated device 0" in done.stderr
    assert "the earlier handler ran" in done.stdout
