"""python tests/launches.py [RECIPE] [BATCH] [PRECISION]: the launches of one training step as the emulator captures them.

Nothing is computed, so the paper's network at a batch of 128 takes seconds (and 2 GB)."""

from __future__ import annotations

import sys
import time
from collections import Counter

import numpy as np

from minialex import backends, net
from minialex.graph import StepGraph
from minialex.nets import recipe as recipe_of
from minialex.optim import SGD

WORKSPACE = 1 << 28                     # bytes: more than any kernel asks for at a batch of 128


def step(name: str, batch: int, precision: str = "float32") -> StepGraph:
    """A step that can be captured at once; weights are zeros."""
    initial, net.initial = net.initial, lambda spec, layer, seed: np.zeros(spec.shape, np.float32)
    try:
        ops = backends.load("emulated").kernels.on(0)
        ops.set_precision(precision)
        recipe = recipe_of(name)
        made = net.Net(recipe.build(recipe.classes), recipe.input, batch, ops)
    finally:
        net.initial = initial
    for each in (ops, *(branch.ops for branch in made.branches)):
        each.memory.workspace(WORKSPACE)
    graph = StepGraph(made, SGD(made))
    graph._begin(np.zeros(batch, np.int32), 0, 0, None)
    return graph


def launches(graph: StepGraph) -> dict[str, list[str]]:
    """Part of the step -> each of its launches."""
    parts = {"fprop": graph.net.forward, "bprop and update": graph._learn}
    return {part: [name for name, _ in graph.capture(launch).kernels()] for part, launch in parts.items()}


def whole(graph: StepGraph):
    """The step as one graph of the device: len() counts its launches, depth() those of its longest chain."""
    return graph.capture(lambda: (graph.net.forward(), graph._learn()))


if __name__ == "__main__":
    recipe, batch, precision = (sys.argv[1:] + ["paper", "128", "bf16"][len(sys.argv) - 1:])[:3]
    graph = step(recipe, int(batch), precision)
    found = launches(graph)
    for part, names in found.items():
        print(f"{part}: {len(names)}")
        for name, count in Counter(names).items():
            print(f"  {count} x {name}")
    step_of = whole(graph)
    labels, asked, said = np.zeros(int(batch), np.int32), [], []
    for _ in range(20):
        start = time.perf_counter()
        whole(graph)
        asked.append(time.perf_counter() - start)
        start = time.perf_counter()
        graph._begin(labels, 0, 0, None)
        graph._at(0.01)
        graph._workspaces()
        said.append(time.perf_counter() - start)
    print(f"{recipe}, batch {batch}, {precision}: {len(step_of)} launches, {step_of.depth()} of them one behind the other; to ask for "
          f"them one by one takes this host {1e6 * np.median(asked):,.0f} us, to say what a graph needs to know "
          f"{1e6 * np.median(said):,.0f} us")
