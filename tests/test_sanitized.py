"""The kernels under the address and undefined-behaviour sanitizers: overruns of rows and local arrays, overflows, wild shifts.

MINIALEX_SANITIZED=1 asks for it: the build takes some minutes of a core, so it is for the night and for new kernels.  The
sanitizers' library must come first in a process, hence the one started here.
"""

from __future__ import annotations

import os
import subprocess
import sys

import building
import checked
import pytest
from test_checked import KERNEL_OPS

pytestmark = pytest.mark.skipif(os.environ.get("MINIALEX_SANITIZED", "0") in ("", "0"),
                                reason="MINIALEX_SANITIZED=1 runs it; it takes minutes")

CHILD = """
import sys
import numpy as np
import checked, test_checked
from minialex.spec import ShapeError
kernels = checked.kernels(checked.load(checked.Path(sys.argv[1])))
for op in sys.argv[2:]:
    for variant in kernels.variants(op):
        for case in test_checked.CASES.get(op) or test_checked.CASES[test_checked.stem_of(op)]:
            print(op, variant, case, flush=True)
            for arguments in test_checked.calls(op, case, np.random.default_rng(1)):
                try:
                    test_checked.ring(kernels, op, arguments, variant)
                except ShapeError as error:
                    assert f"variant {variant} does not run" in str(error), error
"""


@pytest.fixture(scope="session")
def library(request, tmp_path_factory):
    building.need("g++")
    folder = building.folder(request.config, "minialex-sanitized", tmp_path_factory)
    parts = [*checked.doorbells(folder, "_sanitized"), *building.units(checked.KERNELS, "-O1", *building.SANITIZED),
             *building.units(building.EMULATOR, "-O1", building.SANITIZED[0])]
    return building.build(folder, "_sanitized.so", parts, "-shared", *building.SANITIZED)


@pytest.fixture(scope="session")
def preloaded() -> str:
    """The sanitizers' libraries, as the loader wants them named."""
    asked = (["g++", f"-print-file-name={name}.so"] for name in ("libasan", "libubsan"))
    return ":".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() for command in asked)


@pytest.mark.parametrize("op", KERNEL_OPS)
def test_nothing_to_report(library, preloaded, op):
    environment = {**os.environ, "LD_PRELOAD": preloaded, "ASAN_OPTIONS": "detect_leaks=0",
                   "PYTHONPATH": os.pathsep.join([str(building.ROOT), str(building.ROOT / "tests")])}
    done = subprocess.run([sys.executable, "-c", CHILD, library, op], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"at {done.stdout.splitlines()[-1:]}: {done.stderr[-3000:]}"
