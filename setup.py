"""Builds the compiled backends, minialex._cuda and minialex._emulated, with CMake wherever bindings/ holds their sources.

Everything else is plain Python: without those sources, a compiler or CMake, `pip install` still gives the NumPy backends.
Environment variables
    MINIALEX_CUDA        auto (default): with CUDA where there are nvcc and an NVIDIA driver, minutes that others need not spend;
                         on: with it, fail without nvcc; off: never;
                         wheel: take nvcc 13.0 from the package index into pip's isolated build
    MINIALEX_CUDA_ARCHS  "80;90;100"        CUDACXX  path of nvcc        CMAKE_BUILD_PARALLEL_LEVEL  number of jobs
"""

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build" / f"cmake-{sys.implementation.cache_tag}"
MODE = os.environ.get("MINIALEX_CUDA", "auto").lower()
MODULES = ("_emulated", "_cuda") if any(HERE.glob("bindings/*.cpp")) else ()


def say(message: str) -> None:
    """Tells the user why something was not built: pip hides the output of a build that succeeds, but not the terminal."""
    sys.stderr.write(f"[minialex] {message}\n")
    try:
        with open("/dev/tty", "w") as terminal:
            terminal.write(f"\n[minialex] {message}\n")
    except OSError:
        pass                                    # no terminal: pip -v shows the line above


def has_driver() -> bool:
    """Whether an NVIDIA driver is installed."""
    try:
        ctypes.CDLL("libcuda.so.1")
        return True
    except OSError:
        return False


def find_nvcc() -> str | None:
    """The system's nvcc, or with MINIALEX_CUDA=wheel the one of the package index's wheels; None without or where it is not wanted."""
    if MODE == "off" or (MODE == "auto" and not has_driver()):
        return None
    if MODE == "wheel":
        wheels = importlib.util.find_spec("nvidia")
        places = [f"{root}/cu13/bin/nvcc" for root in (wheels.submodule_search_locations if wheels else ())]
    else:
        homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
        places = [os.environ.get("CUDACXX"), shutil.which("nvcc"), *(f"{home}/bin/nvcc" for home in homes if home)]
    return next((place for place in places if place and os.access(place, os.X_OK)), None)


def fingerprint(nvcc: str | None) -> str:
    """Of everything the modules are made from: an unchanged tree is not built twice.  CMake's own time stamps cannot tell, since
    pip hands over pybind11 from another folder each time."""
    facts = [sys.version, MODE, *map(os.environ.get, ("MINIALEX_CUDA_ARCHS", "CXX", "CXXFLAGS", "CUDAFLAGS"))]
    if nvcc:
        facts.append(subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout)
    total = hashlib.sha256(repr(facts).encode())
    for folder in ("cuda", "bindings"):
        for path in sorted((HERE / folder).rglob("*")):
            if path.is_file():
                total.update(str(path.relative_to(HERE)).encode() + path.read_bytes())
    for name in ("CMakeLists.txt", "setup.py"):
        total.update((HERE / name).read_bytes())
    return total.hexdigest()


class CMakeBuild(build_ext):
    """One CMake run makes every module; what it cannot make is left out, unless MINIALEX_CUDA demands it."""

    def run(self) -> None:
        nvcc = find_nvcc()
        if nvcc is None and MODE in ("on", "wheel"):
            raise SystemExit(f"MINIALEX_CUDA={MODE}, but no nvcc was found: install a CUDA toolkit, set CUDACXX, or choose wheel")
        stamp, key = BUILD / "stamp", fingerprint(nvcc)
        done = stamp.exists() and stamp.read_text() == key
        for compiler in () if done else dict.fromkeys((nvcc, None)):        # an nvcc that does not work still leaves _emulated
            try:
                stamp.unlink(missing_ok=True)
                self.cmake(compiler)
                stamp.write_text(key)
                break
            except (OSError, subprocess.CalledProcessError) as error:
                if MODE in ("on", "wheel"):
                    raise
                why = f"cmake ended with {error.returncode}" if isinstance(error, subprocess.CalledProcessError) else error
                say(f"{compiler or 'CMake or the C++ compiler'} did not work ({why}), its backend is left out; pip install -v says more")
        for extension in self.extensions:
            target = Path(self.get_ext_fullpath(extension.name))
            target.unlink(missing_ok=True)                      # never ship a module of an earlier build with other options
            built = BUILD / "modules" / target.name
            if built.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(built, target)
            else:
                skipped = extension.name.endswith("_cuda") and MODE == "auto" and not has_driver()
                why = " (no NVIDIA driver here; MINIALEX_CUDA=on builds it anyway)" if skipped else ""
                say(f"{extension.name} was not built{why}; the backends reference and cpu need no compiler")

    def cmake(self, nvcc: str | None) -> None:
        import pybind11

        shutil.rmtree(BUILD / "modules", ignore_errors=True)
        # The cache names tools of a pip build environment that no longer exists.
        (BUILD / "CMakeCache.txt").unlink(missing_ok=True)
        shutil.rmtree(BUILD / "CMakeFiles", ignore_errors=True)
        options = {"CMAKE_BUILD_TYPE": "Release", "Python_EXECUTABLE": sys.executable, "pybind11_DIR": pybind11.get_cmake_dir(),
                   "CMAKE_INSTALL_PREFIX": BUILD / "modules", "MINIALEX_CUDA_ARCHS": os.environ.get("MINIALEX_CUDA_ARCHS", "80;90;100")}
        if nvcc:
            options["CMAKE_CUDA_COMPILER"] = nvcc
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 1)
        subprocess.run(["cmake", "-S", HERE, "-B", BUILD, *(f"-D{key}={value}" for key, value in options.items())], check=True)
        subprocess.run(["cmake", "--build", BUILD, "--parallel", jobs], check=True)
        subprocess.run(["cmake", "--install", BUILD], check=True)


def build_requirements() -> list[str]:
    """What this machine lacks for the build, for pip's isolated environment."""
    lacking = [] if not MODULES or shutil.which("cmake") else ["cmake>=3.24"]
    return [*lacking, "cuda-toolkit[nvcc,cccl]==13.0.*"] if MODULES and MODE == "wheel" else lacking


if MODE not in ("auto", "on", "off", "wheel"):
    raise SystemExit(f"MINIALEX_CUDA={MODE} is unknown: choose auto, on, off or wheel")
if not MODULES and MODE in ("on", "wheel"):
    raise SystemExit(f"MINIALEX_CUDA={MODE}, but this version has no CUDA sources in bindings/: leave the variable unset")

setup(
    # optional: a module may be absent.  setup_requires only reaches pip's hook, elsewhere it would download by itself.
    ext_modules=[Extension(f"minialex.{name}", [], optional=True) for name in MODULES],
    cmdclass={"build_ext": CMakeBuild},
    setup_requires=build_requirements() if "setuptools.build_meta" in sys.modules else [],
)
