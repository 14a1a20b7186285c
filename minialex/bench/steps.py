"""The whole training step of a recipe, MiniAlex and its peers taking turns on the same weights and pictures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ..graph import StepGraph
from ..layers import Layer
from ..net import Net
from ..nets import recipe as recipe_of
from ..nets.recipe import Recipe
from ..optim import SGD
from ..spec import PRECISIONS, MiniAlexError
from .measure import Contender, paired_ratio, peak_memory, take_turns

SEED = 1


def start(name: str, ops, batch: int, *, overlap: bool = True) -> tuple[Recipe, list[Layer], Net, np.ndarray]:
    """A recipe's net on random pictures (values like a mean-free photograph's) with random labels."""
    recipe = recipe_of(name)
    layers = recipe.build(recipe.classes)
    net = Net(layers, recipe.input, batch, ops, seed=SEED, overlap=overlap)
    net.show(pictures(recipe, batch))
    return recipe, layers, net, np.random.default_rng(SEED + 1).integers(0, recipe.classes, batch).astype(np.int32)


def pictures(recipe: Recipe, batch: int) -> np.ndarray:
    """What `start` shows the net, (1, batch, H, W, C)."""
    return (np.random.default_rng(SEED).standard_normal(recipe.input.array(batch)) * 60).astype(np.float32)


def finish(ops) -> None:
    """Waits until the device has done everything that was asked of it."""
    if kernels := getattr(ops, "kernels", None):
        kernels.extension.device_synchronize(kernels.memory.device)


def own_step(recipe: Recipe, net: Net, labels: np.ndarray) -> Callable[[], None]:
    """fprop with dropout, bprop, update: one call, done when it returns; on a device one graph, as training runs it."""
    graph = StepGraph(net, SGD(net, momentum=recipe.momentum, decay=recipe.decay))
    count = 0

    def step() -> None:
        nonlocal count
        graph.step(labels, recipe.rate / 100, count)        # so small that labels without a pattern never drive the weights to infinity
        finish(net.ops)
        count += 1
    return step


def contenders(name: str, ops, device: str, batch: int, peers: tuple[str, ...], best: bool = False, only: str = "") -> list[Contender]:
    """MiniAlex first, then the peers named; of precisions and forms of PyTorch those with the word `only` in name or note."""
    recipe, layers, net, labels = start(name, ops, batch)
    constants = dict(momentum=recipe.momentum, decay=recipe.decay)
    own = own_step(recipe, net, labels)
    result = [Contender(f"minialex {device}", "float32" if hasattr(ops, "kernels") else f"{ops.workers()} workers", own)]
    if device.startswith("cuda"):
        result += [Contender(f"minialex {device}", f"products in {precision}", _in_precision(precision, name, net, own))
                   for precision in PRECISIONS[1:] if only in precision]
        if only in "bf16":                                  # what the second branch brings
            alone = own_step(recipe, start(name, ops, batch, overlap=False)[2], labels)
            result.append(Contender(f"minialex {device}", "products in bf16, one stream", _in_precision(alone, ops, "bf16")))
    x = np.ascontiguousarray(pictures(recipe, batch)[0].transpose(0, 3, 1, 2))
    if "torch" in peers:
        from .torch_peer import TorchPeer, forms
        where = "cuda" if device.startswith("cuda") else "cpu"
        threads = ops.workers() if where == "cpu" else 2
        for form in (form for form in forms(where, best) if only in f"{form.name} {form.note}"):
            peer = TorchPeer(net, layers, x, form=form, device=where, threads=threads, rate=recipe.rate / 100, **constants)
            note = form.note + (f", {threads} threads" if where == "cpu" else "")
            result.append(Contender(form.name, note, lambda peer=peer: peer.step(labels)))
    if "plain" in peers:
        from ..backends.cpu.workers import set_blas_threads
        from .plain import Plain, unknown
        if "torch" in peers and (lacking := unknown(layers)):
            print(f"plain numpy takes no part: it has no {type(lacking).__name__}")
            return result
        plain = Plain(net, layers, **constants)

        def plain_step() -> None:
            set_blas_threads(ops.workers())
            try:
                plain.step(x, labels, recipe.rate / 100)
            finally:
                set_blas_threads(1)
        result.append(Contender("plain numpy", f"whole-batch im2col, NCHW, {ops.workers()} BLAS threads", plain_step))
    return result


def _in_precision(precision: str, name: str, net: Net, step: Callable[[], None]) -> Callable[[], None]:
    """The step with products that take operands of this precision: that of `net`, or of one that stores its activations so."""
    ops = net.ops

    def within(function: Callable) -> Any:
        ops.set_precision(precision)
        try:
            return function()
        finally:
            ops.set_precision("float32")

    def of_its_own() -> Callable[[], None]:
        if ops.storage(net.dtype) == net.storage:
            return step
        recipe, _, other, labels = start(name, ops, net.batch)
        return own_step(recipe, other, labels)

    rounded = within(of_its_own)
    return lambda: within(rounded)


def bench_steps(name: str, ops, device: str, batches: list[int], peers: tuple[str, ...], rounds: int, *, best: bool = False,
                only: str = "") -> list[dict]:
    """Prints and returns one table for each batch size."""
    tables = []
    for batch in batches:
        entries = contenders(name, ops, device, batch, peers, best, only)
        take_turns(entries, rounds, **(dict(warm_up=3, pause=0.0, lead=2) if device.startswith("cuda") else {}))
        own = entries[0]
        rows = []
        print(f"\nwhole step of {name}, batch {batch}, {rounds} rounds, contenders in turn")
        print(f"{'':<22}{'ms/step':>9}{'min':>9}{'max':>9}{'ms/image':>10}{'images/s':>10}{'cpu ms':>9}{'time / own':>12}")
        for entry in entries:
            row = {**entry.result(batch), "ratio": round(paired_ratio(entry, own), 3)}
            rows.append(row)
            print(f"{row['name']:<22}{row['ms']:>9.4g}{row['ms_min']:>9.4g}{row['ms_max']:>9.4g}{row['ms_per_image']:>10.2f}"
                  f"{row['images_per_second']:>10.1f}{row['cpu_ms']:>9.0f}{row['ratio']:>12.2f}   {row['note']}")
        memory = child_memory(name, device, batch)
        kind = "device memory" if device.startswith("cuda") else "peak memory"
        print(f"{kind} of the MiniAlex step, a process of its own: {memory / 2**30:.2f} GiB", flush=True)
        tables.append({"what": "step", "recipe": name, "batch": batch, "rounds": rounds, "rows": rows, "peak_memory_bytes": memory})
    return tables


def child_memory(name: str, device: str, batch: int) -> int:
    """Peak bytes (resident, or of a GPU's pool) of a fresh process that takes two steps: this one has held the peers' arrays too."""
    command = [sys.executable, "-m", "minialex.bench", "memory", "--recipe", name, "--device", device, "--batch", str(batch)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        raise MiniAlexError(f"bench: the process that measures memory ended with {done.returncode}: {last}")
    return int(done.stdout)


def memory(name: str, ops, batch: int) -> int:
    """Two steps in this process; its peak resident bytes, or what a GPU's memory pool took from the device."""
    recipe, _, net, labels = start(name, ops, batch)
    step = own_step(recipe, net, labels)
    step()
    step()
    held = getattr(getattr(getattr(ops, "kernels", None), "memory", None), "held", peak_memory)
    return held()
