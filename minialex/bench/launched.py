"""Which kernels each variant of each op launches at a recipe's shapes, and how large: what a GPU would be asked for.

    python -m minialex.bench.launched [--recipe paper] [--batch 128] [--out benchmarks/results/launches_paper.json]

The emulator captures the launches and runs none of them.  bench/ladder.py reads the result.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import load
from ..files import write_json
from ..spec import PRECISIONS, MiniAlexError
from . import dry

RESULT = Path("benchmarks/results/launches_paper.json")
SHAPE = re.compile(r"(.*) \((\d+),(\d+),(\d+)\) x \((\d+),(\d+),(\d+)\), (\d+) bytes shared")


def _launch(text: str) -> str:
    """"kernel, blocks, threads of each, dynamic shared bytes" of a captured launch, "name (g,g,g) x (b,b,b), n bytes shared"."""
    found = SHAPE.fullmatch(text)
    if not found:
        raise MiniAlexError(f"bench launched: {text!r} is no launch as the emulator writes it")
    name, (*grid, bx, by, bz, shared) = re.sub(r"^\(+", "", found[1]), map(int, found.groups()[1:])
    kernel = re.match(r"[\w:]+", name.rpartition("? ")[2])[0]
    return f"{kernel} {int(np.prod(grid))} {bx * by * bz} {shared}"


def calls_of(recipe: str, batch: int, precision: str = "float32") -> list[tuple[dry.Called, list[str]]]:
    """The different calls of a step, fused and not, and the names of the layers that make them."""
    found: dict[tuple, tuple[dry.Called, list[str]]] = {}
    for fuse in (True, False):
        for call in dry.step(recipe, batch, precision, fuse=fuse):
            _, layers = found.setdefault((call.op, call.dims), (call, []))
            if call.layer not in layers:
                layers.append(call.layer)
    return list(found.values())


class Room:
    """One block of emulated memory in which each call's arrays lie one behind the other, and a workspace."""

    def __init__(self, ops, calls: list[dry.Called], workspace: int = 1 << 28):
        self.ops = ops
        largest = max(sum(-(-a.nbytes // 256) * 256 for a in call.arrays) for call in calls)
        self.bytes = ops.empty((largest // 4,), "float32")
        ops.memory.workspace(workspace)

    def arguments(self, call: dry.Called) -> list:
        """The call's arguments with arrays of this room in place of ghosts; those at one address stay at one."""
        start, placed, found = 0, {}, []
        for argument in call.arguments:
            if isinstance(argument, dry.Ghost):
                if argument.address not in placed:
                    placed[argument.address] = start
                    start += -(-argument.nbytes // 256) * 64
                at = placed[argument.address]
                piece = self.bytes[at:at + argument.size]
                piece.dtype = argument.dtype
                argument = piece.reshape(argument.shape)
            found.append(argument)
        return found

    def launches(self, call: dry.Called, variant: str) -> list[str]:
        """What this variant of the call launches."""
        context, op, arguments = self.ops._context, getattr(self.ops.extension, call.op), self.arguments(call)

        def body() -> None:
            context.stream = self.ops.stream()
            op(call.dims, *arguments, context, variant)
        return [_launch(name) for name, _ in self.ops.capture(body).kernels()]

    def whole(self, asked: tuple[dry.Called | dry.Ordered, ...], precision: str) -> Any:
        """All that a step asks, on as many streams as it asks them, as one graph."""
        extension, context = self.ops.extension, self.ops._context
        first, *others = dict.fromkeys(one.stream for one in asked)
        streams = {stream: extension.stream_create(0) for stream in others}
        events = {event: extension.event_create(0) for event in {one.event for one in asked if isinstance(one, dry.Ordered)}}

        def body() -> None:
            streams[first] = self.ops.stream()
            for one in asked:
                context.stream = streams[one.stream]
                if isinstance(one, dry.Called):
                    getattr(extension, one.op)(one.dims, *self.arguments(one), context, self.ops.choose(one.op, one.dims, precision))
                elif one.what == "event_record":
                    extension.event_record(events[one.event], context.stream)
                else:
                    extension.stream_wait(context.stream, events[one.event])
        try:
            return self.ops.capture(body)
        finally:
            for stream in others:
                extension.stream_destroy(streams[stream])
            for event in events.values():
                extension.event_destroy(event)


def record(recipe: str, batch: int) -> dict:
    """Every variant of every op of the recipe's step: its launches, or why it refuses, and for which precisions it is chosen; and of the
    step as one graph in each precision how many launches it has, and how many its longest chain."""
    ops = load("emulated").kernels.on(0)
    calls = calls_of(recipe, batch)
    narrow = {(call.op, call.dims): call for call, _ in calls_of(recipe, batch, "bf16")}        # the same on arrays of bfloat16
    room, rows = Room(ops, [call for call, _ in calls]), []
    for call, layers in calls:
        chosen = {precision: ops.choose(call.op, call.dims, precision) for precision in PRECISIONS}
        for variant, precision in ops.extension.tables[call.op]:
            row = {"op": call.op, "layers": ", ".join(layers), "dims": " ".join(str(int(word)) for word in call.dims), "variant": variant,
                   "precision": precision, "chosen": " ".join(name for name, choice in chosen.items() if choice == variant)}
            why = ops.extension.refusals[call.op](call.dims, variant)
            made = narrow[call.op, call.dims] if precision == "bf16" else call
            rows.append(row | ({"refused": why} if why else {"launches": room.launches(made, variant)}))
    graphs = {precision: room.whole(dry.asked(recipe, batch, precision), precision) for precision in PRECISIONS}
    return {"recipe": recipe, "batch": batch, "launches": {precision: len(graph) for precision, graph in graphs.items()},
            "chain": {precision: graph.depth() for precision, graph in graphs.items()}, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write down what each variant launches, as the emulator captures it.")
    parser.add_argument("--recipe", default="paper")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    found = record(asked.recipe, asked.batch)
    write_json(asked.out, found)
    print(f"{asked.out}: {len(found['rows'])} rows")


if __name__ == "__main__":
    main()
