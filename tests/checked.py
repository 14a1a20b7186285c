"""The project's own kernels in the access checker's build: minialex._emulated once more, with every load and store reported.

Only the kernels are instrumented; the emulator and the doorbells are as always.  `extension` compiles what changed since the
last run and loads it from its path, beside minialex._emulated where that is built too.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sysconfig
from pathlib import Path
from types import ModuleType

import building

from minialex.backends.compiled import Compiled

KERNELS = sorted(building.ROOT.glob("cuda/*.cu"))
BINDINGS = sorted(building.ROOT.glob("bindings/*.cpp"))


def doorbells(cache_folder: Path, name: str) -> list[building.Unit]:
    """All of bindings/ as two units: pybind11's headers take longer than the rest of a file."""
    import pybind11

    includes = [f"-I{path}" for path in (pybind11.get_include(), sysconfig.get_path("include"), building.ROOT / "bindings")]
    halves = []
    for half in (0, 1):
        source = cache_folder / f"doorbells{half}.cpp"
        text = "".join(f'#include "{path}"\n' for path in BINDINGS[half::2])
        if not source.exists() or source.read_text() != text:
            source.write_text(text)
        halves.append(source)
    return building.units(halves, "-O0", "-g0", f"-DMINIALEX_MODULE={name}", *includes)


def path(cache_folder: Path, name: str = "_checked", compiler: str = "g++") -> Path:
    """The extension as a file."""
    parts = [*doorbells(cache_folder, name), *building.units(KERNELS, *building.instrumented(compiler), compiler=compiler),
             *building.units(building.EMULATOR, "-O1"), *building.units(building.CHECKER, "-O2")]
    return building.build(cache_folder, f"{name}.so", parts, "-shared")


def load(file: Path, name: str = "") -> ModuleType:
    """The module of that file under its own name, without a place among the imported ones."""
    spec = importlib.util.spec_from_file_location(name or file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kernels(module: ModuleType, device: int = 0) -> Compiled:
    """The ops of such a module.  Its arrays come from a file of a package that imports only where minialex._emulated is built."""
    arrays = load(building.ROOT / "minialex/backends/emulated/array.py", "minialex.backends.emulated.array")
    return Compiled(module, arrays.EmulatedMemory(module, device))


def configure(file: Path, **settings: str) -> None:
    """Order and streams from now on, as emulated::configure takes them."""
    library = ctypes.CDLL(str(file))
    for name, value in settings.items():
        assert library.minialex_configure(name.encode(), value.encode()) == 0, f"{name}={value} is refused"
