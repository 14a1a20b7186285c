"""First weights from another network: pre-training and fine-tuning (paper, section 6).

A layer is taken from a checkpoint, every bit of it, where both networks have one of its name whose numbers mean the same: filters of
one shape in as many groups, a fully connected layer that reads the same maps.  The head is taken only with its class list.  All else
is drawn as in any new run, and nothing else comes along: momentum starts at 0, the mean image is that of the new data.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .checkpoint import load
from .column_net import ColumnNet
from .config import Config
from .layers import Layer, Linear
from .net import Net
from .nets import recipe as find_recipe
from .nets.table import grid
from .predict import chosen
from .spec import MiniAlexError, Shape


class Reads(NamedTuple):
    """A layer with weights and the shape it reads."""

    layer: Layer
    x: Shape

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {spec.name: spec.shape for spec in self.layer.params(self.x)}

    @property
    def groups(self) -> int:
        return getattr(self.layer, "groups", 1)


class Row(NamedTuple):
    """What became of a layer: taken, reshaped, new (first weights of its own), skipped (does not fit) or left (only the checkpoint's)."""

    layer: str
    what: str
    numbers: int                            # in the new network
    why: str = ""


def readers(layers: list[Layer], input: Shape) -> dict[str, Reads]:
    """The layers with weights, by name, in order."""
    found, x = {}, input
    for layer in layers:
        if layer.params(x):
            found[layer.name] = Reads(layer, x)
        x = layer.out_shape(x)
    return found


def misfit(there: Reads, here: Reads) -> str:
    """Why a layer's weights cannot be used in another network; "" where they can."""
    if there.shapes != here.shapes:
        return f"{there.shapes['w']} there, {here.shapes['w']} here"
    if there.groups != here.groups:
        return f"in {there.groups} group(s) there, {here.groups} here"
    maps = [(one.x.H, one.x.W, one.x.channels) for one in (there, here)]
    if isinstance(here.layer, Linear) and maps[0] != maps[1]:
        return "reads {} x {} x {} there, {} x {} x {} here".format(*maps[0], *maps[1])
    return ""


def reordered(w: np.ndarray, there: Shape, here: Shape) -> np.ndarray:
    """A fully connected layer's weights (K, F) for the same maps in another number of columns.

    F runs over columns, rows, places and a column's maps.  Map c of column g is map g C + c of all, so two columns and one hold the
    same numbers in another order wherever there is more than one place.
    """
    K = len(w)
    maps = w.reshape(K, there.columns, there.H, there.W, there.C).transpose(0, 2, 3, 1, 4)          # K, H, W, all maps in order
    return maps.reshape(K, here.H, here.W, here.columns, here.C).transpose(0, 3, 1, 2, 4).reshape(K, -1)


def compare(there: dict[str, Reads], here: dict[str, Reads], arrays: dict[str, np.ndarray], *, head: str = "",
            skip: tuple[str, ...] = ()) -> tuple[list[Row], dict[tuple[str, str], np.ndarray]]:
    """What becomes of each layer, and the values to fill in: {(layer, parameter): array}.

    arrays : the checkpoint's, named "conv1.w"      head : why the last layer's weights are of no use; "" where they are
    skip   : layers to leave as they are drawn
    """
    rows, values = [], {}
    last = [*here][-1]
    for name, one in here.items():
        numbers = sum(spec.size for spec in one.layer.params(one.x))
        new = ("asked by --init-skip" if name in skip else "the checkpoint has none" if name not in there else
               head if name == last else "")
        if new or (why := misfit(there[name], one)):
            rows.append(Row(name, "new" if new else "skipped", numbers, new or why))
            continue
        found = {key: arrays[f"{name}.{key}"] for key in one.shapes}
        turned = isinstance(one.layer, Linear) and one.groups == 1 and there[name].x != one.x
        if turned:
            w, found["w"] = found["w"], reordered(found["w"], there[name].x, one.x)
            turned = not np.array_equal(w, found["w"])
        order = f"the same maps, in {one.x.columns} column(s) instead of {there[name].x.columns}"
        rows.append(Row(name, "reshaped", numbers, order) if turned else Row(name, "taken", numbers))
        values |= {(name, key): value for key, value in found.items()}
    rows += [Row(name, "left", 0, f"only the checkpoint has it, {one.shapes['w']}") for name, one in there.items() if name not in here]
    return rows, values


def begin(net: Net | ColumnNet, config: Config, classes: list[str]) -> tuple[Config, list[str]]:
    """Fills a new run's net as `config.init` asks; returns the configuration, which then says what was taken, and a table to print.

    Does nothing without --init, and nothing in a run that is gone on with: its own checkpoint has its weights.
    Raises MiniAlexError for a checkpoint that cannot be read, of which nothing fits, or for a layer to skip that is not there.
    """
    if config.init is None or config.taken is not None:
        return config, []
    path = chosen(config.init)
    arrays, state = load(path)
    there, here = _checkpoint(path, arrays, state), readers(net.layers, net.shapes[0])
    skip = tuple(word.strip() for word in (config.init_skip or "").split(",") if word.strip())
    if unknown := [name for name in skip if name not in here]:
        raise MiniAlexError(f"--init-skip {config.init_skip}: recipe {config.recipe} has no weights called {unknown[0]!r}; "
                            f"it has {', '.join(here)}")
    own = {name[2:]: value for name, value in arrays.items() if name.startswith("w/")}
    head = "" if state["classes"] == classes else f"another class list: {len(state['classes']):,} there, {len(classes):,} here"
    rows, values = compare(there, here, own, head=head, skip=skip)
    if not values:
        first = next((f"{row.layer}: {row.why}" for row in rows if row.what == "skipped"), f"{rows[0].layer}: {rows[0].why}")
        raise MiniAlexError(f"--init {config.init}: no layer of recipe {config.recipe} could be taken from it, which is of recipe "
                            f"{state['recipe']} ({first}); name a checkpoint of a network that shares layers, or leave --init out")
    for key, value in values.items():
        net.params.fill(key, value)
    layers = list(dict.fromkeys(layer for layer, _ in values))
    config = replace(config, taken={"layers": layers, "sha256": _digest(values)})
    return config, [f"init: weights from {path} (recipe {state['recipe']}, {len(state['classes']):,} classes, step {state['step']})",
                    *_table(rows, config)]


def _checkpoint(path, arrays: dict[str, np.ndarray], state: dict) -> dict[str, Reads]:
    """The layers with weights of the network that a checkpoint was made by, which must hold them."""
    one = find_recipe(state["recipe"])
    layers = readers(one.build(len(state["classes"])), one.input)
    for name, reads in layers.items():
        for key, shape in reads.shapes.items():
            value = arrays.get(f"w/{name}.{key}")
            if value is None or value.shape != shape:
                raise MiniAlexError(f"{path}: it has no {name}.{key} of shape {shape}, so it is not of recipe {one.name} as this version "
                                    "builds it; train that network again with this version")
    return layers


def _digest(values: dict[tuple[str, str], np.ndarray]) -> str:
    """Of all numbers taken: what decides the run beside its configuration, wherever the checkpoint lies."""
    digest = hashlib.sha256()
    for key, value in values.items():
        digest.update(".".join(key).encode())
        digest.update(np.ascontiguousarray(value, "<f4"))
    return digest.hexdigest()[:16]


def _table(rows: list[Row], config: Config) -> list[str]:
    lines = grid(("layer", "weights", "numbers", "why"),
                 [(row.layer, row.what, f"{row.numbers:,}" if row.numbers else "", row.why) for row in rows], left=(0, 1, 3))
    here = [row for row in rows if row.what != "left"]
    used = [row for row in here if row.what in ("taken", "reshaped")]
    few, all_ = (sum(row.numbers for row in some) for some in (used, here))
    rate = "" if config.taken_rate is None else f"; they learn at {config.taken_rate:g} of the rate"
    return ["  " + line for line in lines] + [
        f"init: {len(used)} of {len(here)} layers, {few:,} of {all_:,} numbers{rate}",
        "init: momentum starts at 0, and the mean image is that of the new data"]
