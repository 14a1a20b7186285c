"""The sum of a network's gradients over ranks of this machine: in slices, in one call, and a plain copy of as many bytes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from .. import distributed
from ..layers import Layer
from ..nets import recipe as recipe_of
from ..spec import MiniAlexError

RANKS = (2, 4)
MEASURED = ("copy", "slices", "one call")


def numbers(recipe: str) -> int:
    """Parameters of a recipe's network."""
    found = recipe_of(recipe)
    layers: list[Layer] = found.build(found.classes)
    x, total = found.input, 0
    for layer in layers[:-1]:
        total += sum(spec.size for spec in layer.params(x))
        x = layer.out_shape(x)
    return total


def measure(world: distributed.Single, size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of the slowest rank in each round; the three take turns, all ranks at once."""
    flat, other = np.ones(size, np.float32), np.zeros(size, np.float32)

    def summed(slice: int) -> Callable[[], None]:
        def step() -> None:
            distributed.SLICE = slice
            world.sum_(SimpleNamespace(flat=flat, size=size, ops=None))
        return step

    own = distributed.SLICE
    steps = dict(zip(MEASURED, (lambda: np.copyto(other, flat), summed(own), summed(size)), strict=True))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):                            # the first touches the memory
        for name, step in steps.items():
            flat.fill(1)
            world.add(np.zeros(1))                              # all begin together
            begin = time.perf_counter()
            step()
            took = max(world.every(time.perf_counter() - begin))
            if not (flat == (1 if name == "copy" else world.size)).all():
                raise MiniAlexError(f"{name}: the sum of ones over {world.size} ranks is not {world.size}")
            if number:
                seconds[name].append(took)
    return seconds


def bench_allreduce(recipe: str, rounds: int) -> list[dict]:
    """Prints and returns GB/s (bytes of the gradients over the median time) on 2 and 4 ranks, started here."""
    mpiexec, size, tables = Path(sys.executable).with_name("mpiexec"), numbers(recipe), []
    if not mpiexec.exists():
        raise MiniAlexError(f"there is no {mpiexec}: pip install -e '.[mpi]'")
    print(f"\ngradients of {recipe}: {size:,} numbers, {4 * size / 1e6:.0f} MB, {rounds} rounds, slowest rank")
    print(f"{'ranks':<8}" + "".join(f"{name:>12} ms {'GB/s':>7}" for name in MEASURED) + f"{'slices / copy':>16}")
    for ranks in RANKS:
        command = [mpiexec, "-n", str(ranks), sys.executable, "-m", "minialex.bench.allreduce", str(size), str(rounds)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise MiniAlexError(f"mpiexec -n {ranks} failed: {done.stderr.strip()[-300:]}")
        seconds = json.loads(done.stdout)
        medians = {name: statistics.median(seconds[name]) for name in MEASURED}
        ratio = statistics.median(a / b for a, b in zip(seconds["slices"], seconds["copy"], strict=True))
        print(f"{ranks:<8}" + "".join(f"{1e3 * m:>12.1f}    {4e-9 * size / m:>7.2f}" for m in medians.values()) + f"{ratio:>16.2f}")
        tables.append({"what": "allreduce", "recipe": recipe, "ranks": ranks, "bytes": 4 * size, "rounds": rounds,
                       "slice_bytes": 4 * distributed.SLICE, "ms": {name: round(1e3 * m, 2) for name, m in medians.items()},
                       "GB_per_second": {name: round(4e-9 * size / m, 3) for name, m in medians.items()},
                       "slices_over_copy": round(ratio, 3)})
    return tables


if __name__ == "__main__":
    ranks = distributed.world()
    found = measure(ranks, int(sys.argv[1]), int(sys.argv[2]))
    if ranks.rank == 0:
        print(json.dumps(found))
