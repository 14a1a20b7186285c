"""The table of a network: what each layer is, makes and costs, printed from the declaration (paper, section 3.5)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from ..layers import AvgPool, Conv, Layer, MaxPool
from ..spec import MiniAlexError, Shape, pair
from .recipe import Recipe


class Row(NamedTuple):
    """One layer at work: x is the shape it reads, y the shape it writes, for one image."""

    layer: Layer
    x: Shape
    y: Shape
    parameters: int
    macs: int
    reads: str                      # in several columns "image", "own" or "both"; in one "2 groups" or nothing

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def neurons(self) -> int:
        """Values of a layer with weights: what the paper counts as neurons."""
        return self.y.size if self.parameters else 0


def rows(layers: Sequence[Layer], input: Shape) -> list[Row]:
    """One row a layer.  Raises ShapeError where a layer does not fit what the one before it makes."""
    result, x = [], input
    several = any(getattr(layer, "columns", 1) > 1 for layer in layers)
    for layer in layers:
        y = layer.out_shape(x)
        parameters = sum(spec.size for spec in layer.params(x))
        if layer.joint(x):
            reads = "both"
        elif x.columns > 1:
            reads = "own"
        elif getattr(layer, "groups", 1) > 1:
            reads = f"{layer.groups} groups"
        else:
            reads = "image" if several and parameters else ""
        result.append(Row(layer, x, y, parameters, layer.macs(x), reads))
        x = y
    return result


def totals(table: Sequence[Row]) -> tuple[int, int, int]:
    """Parameters, multiply-adds of a forward pass of one image, neurons."""
    return (sum(row.parameters for row in table), sum(row.macs for row in table), sum(row.neurons for row in table))


def training_flop(table: Sequence[Row]) -> int:
    """Floating-point operations of a training step of one image: two for a multiply-add, in fprop, dgrad and wgrad, but the
    first layer with weights needs no dgrad."""
    work = [row.macs for row in table if row.macs]
    return 2 * (3 * sum(work) - work[0])


def _maps(row: Row) -> str:
    return "+".join([f"{row.y.C}"] * row.y.columns)


def _window(layer: Layer) -> str:
    """window / stride, and padding where there is one."""
    if isinstance(layer, Conv):
        before, after = pair(layer.pad)
        pad = f"{before}" if before == after else f"{before},{after}"
        return f"{layer.kernel}x{layer.kernel} / {layer.stride} / {pad}"
    return f"{layer.window}x{layer.window} / {layer.stride}" if isinstance(layer, (MaxPool, AvgPool)) else ""


def grid(head: Sequence[str], body: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Lines of a table with columns as wide as their widest entry; those numbered in `left` are flush left."""
    wide = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, wide, strict=True))).rstrip()
             for line in [head, *body]]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def table(layers: Sequence[Layer], input: Shape) -> str:
    """Text: one line a layer, and the totals."""
    lines = rows(layers, input)
    parameters, macs, neurons = totals(lines)
    head = ("layer", "kind", "maps", "window/stride/pad", "output", "parameters", "multiply-adds", "reads")
    body = [("input", "", f"{input.channels}", "", f"{input.H}x{input.W}", "", "", "")]
    for row in lines:
        count = str(row.y.size) if (row.y.H, row.y.W) == (1, 1) else f"{row.y.H}x{row.y.W}"
        body.append((row.name, type(row.layer).__name__, _maps(row), _window(row.layer), count,
                     f"{row.parameters:,}" if row.parameters else "", f"{row.macs:,}" if row.macs else "", row.reads))
    body.append(("total", "", "", "", "", f"{parameters:,}", f"{macs:,}", ""))
    text = grid(head, body, left=(0, 1, 3, 7))
    text.insert(-1, text[1])
    text.append(f"{neurons:,} neurons; {training_flop(lines) / 1e9:.3f} GFLOP for a training step of one image")
    return "\n".join(text)


def describe(recipe: Recipe, classes: int | None = None) -> str:
    """Text: the recipe, its table, how it learns, and what is not the paper's."""
    count = recipe.classes if classes is None else classes
    text = [f"{recipe.name}: {recipe.about}", "", table(recipe.build(count), recipe.input), "",
            f"batch {recipe.batch}, rate {recipe.rate:g}, momentum {recipe.momentum:g}, decay {recipe.decay:g}, {recipe.epochs} epochs, "
            f"{type(recipe.schedule).__name__.lower()}; crops of {recipe.crop} from pictures of {recipe.record}"]
    if recipe.differs:
        text += ["", "left open by the paper, and chosen:" if recipe.name == "paper" else "differs from the paper:"]
        text += [f"- {line}" for line in recipe.differs]
    return "\n".join(text)


def main(arguments: Sequence[str]) -> int:
    """`python -m minialex.nets.alexnet [recipe] [classes]`: prints the description; 2 after a wrong argument."""
    from . import recipe
    try:
        if len(arguments) > 2 or (len(arguments) == 2 and not (arguments[1].isdecimal() and int(arguments[1]) > 0)):
            raise MiniAlexError(f"arguments are a recipe and a number of classes, not {' '.join(arguments)!r}")
        print(describe(recipe(arguments[0] if arguments else "paper"), int(arguments[1]) if len(arguments) == 2 else None))
    except MiniAlexError as error:
        print(f"minialex.nets: {error}", file=sys.stderr)
        return 2
    return 0
