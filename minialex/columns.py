"""Columns on devices: which part of each parameter a column owns, where columns must exchange, what that costs (section 3.2).

Everything here follows from the layers' own words (`joint`, shapes of x and y); no layer is named.  A placement never
changes the network: it says where column g's arrays live.  Running it is another file's work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from .layers import Layer, Local
from .nets.recipe import Recipe
from .nets.table import describe
from .spec import MiniAlexError, ParamSpec, Shape, ShapeError

FLOAT = 4                                       # bytes of a float32


class Piece(NamedTuple):
    """What one column owns of a parameter: `start` to `stop` along `axis`.  Empty (start = stop) where it owns nothing."""

    parameter: str
    column: int
    axis: int
    start: int
    stop: int
    size: int                                   # elements


class Held(NamedTuple):
    """A block of a parameter as the device of one column keeps it: contiguous there, under a name of its own."""

    name: str                                   # "w", "b", or "w0", "w1": the weights that read column 0, 1
    parameter: str
    index: tuple[slice, ...]                    # of the whole parameter
    shape: tuple[int, ...]


class ExchangePoint(NamedTuple):
    """A place where every column needs what `source` made in all the others."""

    layer: str
    source: str                                 # the nearest layer before that made the array by itself: a pool, or a product
    shape: Shape                                # of the array, all columns
    row_parallel: bool                          # the layer writes one column: columns may send partial sums instead
    output: Shape

    def bytes(self, batch: int, itemsize: int = FLOAT) -> int:
        """Sent from one column to each other one in fprop; as much comes back as gradients in bprop."""
        return batch * self.shape.features * itemsize

    def partial_bytes(self, batch: int, itemsize: int = FLOAT) -> int:
        """Sent by each column that does not hold the sum, if the layer runs row-parallel; 0 where it cannot."""
        return batch * self.output.features * itemsize if self.row_parallel else 0


class Load(NamedTuple):
    """What one column's device holds and does for a training step."""

    column: int
    parameters: int                             # elements
    activations: int                            # elements at the given batch, layers that work in place counted once
    macs: int                                   # of the forward pass of one image


def shard(layer: Layer, x: Shape) -> tuple[Piece, ...]:
    """The columns' pieces of a layer's parameters, for an input of shape x.

    A layer that writes several columns is cut by maps: a column owns the filters and biases of its own maps.  A layer that
    reads several and writes one (fc8) is row-parallel: a column owns the weights of its own inputs, and column 0 the biases.
    Together the pieces are each parameter exactly once.
    """
    y = layer.out_shape(x)
    columns = max(x.columns, y.columns)
    pieces = []
    for spec in layer.params(x):
        if y.columns > 1 or columns == 1:
            pieces += [_piece(spec, g, _maps_axis(spec), columns) for g in range(columns)]
        elif spec.name == "w":
            pieces += [_piece(spec, g, len(spec.shape) - 1, columns) for g in range(columns)]
        else:
            pieces += [Piece(spec.name, g, 0, 0, spec.shape[0] if g == 0 else 0, spec.size if g == 0 else 0) for g in range(columns)]
    return tuple(pieces)


def _maps_axis(spec: ParamSpec) -> int:
    """The axis of the maps K: first in (K, R, S, C), (K, F) and (K,), third in a local layer's (P, Q, K, R, S, C) and (P, Q, K)."""
    return 2 if len(spec.shape) in (3, 6) else 0


def _piece(spec: ParamSpec, column: int, axis: int, columns: int) -> Piece:
    share = spec.shape[axis] // columns
    return Piece(spec.name, column, axis, column * share, (column + 1) * share, spec.size // columns)


def held(layer: Layer, x: Shape, column: int) -> list[Held]:
    """What a column keeps of a layer's parameters.

    Its piece; of a joint layer that writes several columns one block for each column it reads, so that the product over each is one
    call on contiguous arrays and that over its own can run while the others' activations are on their way.
    """
    specs, blocks = {spec.name: spec for spec in layer.params(x)}, []
    for piece in shard(layer, x):
        if piece.column != column or piece.start == piece.stop:
            continue
        spec = specs[piece.parameter]
        index = tuple(slice(piece.start, piece.stop) if axis == piece.axis else slice(0, extent) for axis, extent in enumerate(spec.shape))
        names = [(spec.name, index)]
        if layer.joint(x) and spec.name == "w" and layer.out_shape(x).columns > 1:
            share = spec.shape[-1] // x.columns
            names = [(f"w{c}", (*index[:-1], slice(c * share, (c + 1) * share))) for c in range(x.columns)]
        blocks += [Held(name, spec.name, part, tuple(s.stop - s.start for s in part)) for name, part in names]
    return blocks


def exchange_points(layers: Sequence[Layer], input: Shape) -> list[ExchangePoint]:
    """The joint layers, in order, and whose arrays cross there; for the paper conv3, fc6, fc7 and fc8."""
    points, x, source = [], input, "input"
    for layer in layers:
        y = layer.out_shape(x)
        if layer.joint(x):
            points.append(ExchangePoint(layer.name, source, x, y.columns == 1, y))
        if not layer.in_place:
            source = layer.name
        x = y
    return points


def loads(layers: Sequence[Layer], input: Shape, batch: int) -> list[Load]:
    """One Load a column.  The image lies on every device; a layer of one column runs on column 0's, unless it is row-parallel."""
    x, shapes = input, []
    for layer in layers:
        shapes.append((layer, x, layer.out_shape(x)))
        x = shapes[-1][2]
    columns = max([input.columns, *(y.columns for _, _, y in shapes)])
    parameters, activations, macs = ([0] * columns for _ in range(3))
    for g in range(columns):
        activations[g] += batch * input.size // input.columns
    for layer, x, y in shapes:
        for piece in shard(layer, x):
            parameters[piece.column] += piece.size
        workers = max(y.columns, x.columns if layer.joint(x) else 1)
        for g in range(workers):
            macs[g] += layer.macs(x) // workers
        if not layer.in_place:
            for g in range(y.columns):
                activations[g] += batch * y.features
    return [Load(g, parameters[g], activations[g], macs[g]) for g in range(columns)]


def check_columns(layers: Sequence[Layer], input: Shape, places: int) -> tuple[list[Shape], str]:
    """(shapes, name of the row-parallel layer) of a network whose columns can lie on `places` devices.  Raises ShapeError for others."""
    shapes = [input]
    for layer in layers[:-1]:
        shapes.append(layer.out_shape(shapes[-1]))
    columns = max(shape.columns for shape in shapes)
    if columns != places:
        lies = "in one column" if columns == 1 else f"in {columns} columns"
        raise ShapeError(f"--device names {places} devices, but this network lies {lies}: name {columns} device{'s' * (columns > 1)}")
    ends = None
    for layer, x, y in zip(layers[:-1], shapes, shapes[1:], strict=False):
        joint = layer.joint(x)
        if joint and isinstance(layer, Local):
            raise ShapeError(f"{layer.name}: a locally connected layer that reads several columns runs on one device only")
        if ends is None and y.columns == 1 and joint:
            ends = layer.name
        elif (ends is None) == (y.columns == 1) or (x.columns not in (1, y.columns)) or (x is not input and x.columns != y.columns):
            raise ShapeError(f"{layer.name}: from {x.columns} column{'s' * (x.columns > 1)} to {y.columns}: on several devices a network "
                             "is in columns from its first layer on, up to one that reads all of them and writes one; name one device")
    if ends is None:
        raise ShapeError("no layer of this network brings its columns together; name one device")
    return shapes, ends


def device_bytes(layers: Sequence[Layer], input: Shape, batch: int, column: int, arenas: int = 3, stored: int = FLOAT) -> int:
    """Memory of one column's device for training steps of `batch` images, activations in numbers of `stored` bytes, from the shapes alone.

    Parameters (`arenas` times: with gradient and momentum), activations and a gradient of each, what an exchange brings and takes, two
    inputs and as many batches of records, and one more of the largest as the kernels' workspaces.
    """
    x, reads, weights, image, summed, largest = input, "", 0, 2 * input.features, input.features, 0
    own = stored < FLOAT                                        # sums that have no place in what is stored
    for layer in layers:
        y = layer.out_shape(x)
        if y.columns == 1 and column > 0 and not layer.joint(x):
            break                                               # from here on column 0's device alone
        weights += sum(math.prod(block.shape) + 64 for block in held(layer, x, column))
        weights += sum(math.prod(shape) for shape in layer.scratch(x).values())
        if layer.joint(x):
            summed += 2 * y.features if y.columns == 1 else (x.columns - 1 + own) * (x.features + y.features) + (x.columns - 1) * x.features
            image += 0 if y.columns == 1 else (x.columns - 1) * x.features
        if not (layer.in_place and "y" not in reads) and (y.columns > 1 or column == 0):
            image += 2 * y.features
        largest, x, reads = max(largest, y.features), y, layer.bprop_reads
    return FLOAT * (arenas * weights + batch * (summed + largest)) + stored * batch * image


def plan(layers: Sequence[Layer], input: Shape, batch: int, devices: Sequence[str] = ()) -> str:
    """Text: what crosses between columns at `batch` images in float32, beside which work, and what each column's device holds."""
    points, found = exchange_points(layers, input), loads(layers, input, batch)
    several = len(devices) > 1
    text = [f"{len(found)} column{'s' if len(found) > 1 else ''}, batch {batch}, float32"
            + (f", on {' and '.join(devices)}" if several else f", all on {devices[0]}" if devices else ""), ""]
    if points:
        text.append(f"{'exchange before':<16}{'of':<8}{'one column':<14}{'fprop, each way':>16}{'bprop, each way':>17}"
                    + ("   travels beside" if several else ""))
        for point in points:
            cost = f"{point.bytes(batch) / 1e6:.2f} MB"
            one = f"{point.shape.H}x{point.shape.W}x{point.shape.C}"
            beside = "nothing: the sum waits for it" if point.row_parallel else "the own column's product; weight gradients"
            text.append(f"{point.layer:<16}{point.source:<8}{one:<14}{cost:>16}{cost:>17}" + (f"   {beside}" if several else ""))
        total = f"{sum(point.bytes(batch) for point in points) / 1e6:.2f} MB"
        text.append(f"{'total':<38}{total:>16}{total:>17}")
        for point in points:
            if point.row_parallel:
                sums = f"{point.partial_bytes(batch) / 1e6:.2f} MB"
                text.append(f"{point.layer} writes one column and is row-parallel: " + (
                    f"instead of its {point.bytes(batch) / 1e6:.2f} MB partial sums of {sums} cross to {devices[0]}, their gradient back"
                    if several else f"partial sums of {sums} may cross instead"))
    else:
        text.append("nothing is exchanged")
    text += ["", f"{'device of column':<18}{'parameters':>14}{'with gradient, momentum':>26}{'activations':>14}{'multiply-adds':>16}"
             + (f"{'memory for training':>22}" if several else "")]
    for load in found:
        name = "abcdefgh"[load.column % 8] + (f": {devices[load.column]}" if several else "")
        memory = f"{device_bytes(layers, input, batch, load.column) / 1e9:>19.2f} GB" if several else ""
        text.append(f"{name:<18}{load.parameters:>14,}{3 * FLOAT * load.parameters / 1e6:>23.1f} MB"
                    f"{FLOAT * load.activations / 1e6:>11.1f} MB{load.macs:>16,}{memory}")
    if several:
        text.append("the paper's cards held 3 GB each")
    return "\n".join(text)


def print_plan(recipe: Recipe, batch: int | None = None, classes: int | None = None, devices: Sequence[str] = ()) -> None:
    """`minialex plan`: prints the recipe's table and its plan, at its own batch and number of classes unless told.

    Raises ShapeError where the columns of the recipe do not fit that many devices.
    """
    batch = recipe.batch if batch is None else batch
    if batch < 1:
        raise MiniAlexError(f"a batch of {batch} images; give at least one")
    count = recipe.classes if classes is None else classes
    layers = recipe.build(count)
    if len(devices) > 1:
        check_columns(layers, recipe.input, len(devices))
    print(describe(recipe, count))
    print()
    print(plan(layers, recipe.input, batch, devices))
