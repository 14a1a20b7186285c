"""minialex doctor: Print what this installation can do, and what is missing for the rest."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
from pathlib import Path


def main(options: argparse.Namespace) -> None:
    """Print what this installation can do, and what is missing for the rest."""
    import numpy
    import PIL

    from .. import __version__, backends
    print(f"minialex {__version__}, Python {platform.python_version()}, NumPy {numpy.__version__}, Pillow {PIL.__version__}, "
          f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}")
    print("backends (--device):")
    for name, reason in backends.available().items():
        print(f"  {name:<10} {'ready' if reason is None else 'no: ' + reason}")
        if reason is None and hasattr(module := backends.load(name), "kernels"):
            for number, what in enumerate(devices := module.kernels.devices()):
                print(f"    {name}:{number}  {what}")
            if len(devices) > 1:
                print(f"    {_peers(name, module.kernels.extension, len(devices))}")
    tools = {"nvcc": "compiles the kernels for a GPU", "c++": "compiles them for the emulator", "cmake": "both need it"}
    print("to build kernels (pip install -e . again afterwards): " + "; ".join(
        f"{tool} {'found' if shutil.which(tool) else 'missing (' + what + ')'}" for tool, what in tools.items()))
    writable = os.access(".", os.W_OK)
    print(f"folder {Path.cwd()}: " + ("runs/ and stores/ can be made here" if writable else
                                      "not writable; go to another, or give --output-dir and --store"))


def _peers(name: str, extension, count: int) -> str:
    """Which devices copy straight into each other's memory."""
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    apart = [f"{name}:{a} and {name}:{b}" for a, b in pairs if not (extension.can_access_peer(a, b) and extension.can_access_peer(b, a))]
    return ("no peer access between " + ", ".join(apart) + ": columns there exchange through the host's memory" if apart else
            "all devices reach each other's memory (peer access)")


def add(verbs) -> None:
    verbs.add_parser("doctor", help="what this installation can do", description=main.__doc__).set_defaults(run=main)
