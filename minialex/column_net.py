"""A network whose columns live on devices of their own: the same network, the same bits, another placement (paper, section 3.2).

Column g's parameters, gradients, momentum and activations are on places[g] only.  Each place computes its column by itself; at a joint
layer (conv3, fc6, fc7, found by columns.py) it fetches the other columns' activations, and sends their gradients back:

    fprop   y_g = (P_0 + P_1) + b_g     P_c the product over column c's channels, all on place g
    bprop   dx_g = D_0 + D_1            D_c the gradient through column c's maps, made on place c

A layer that brings the columns together (fc8) is row-parallel: each place multiplies its own channels, the partial sums are added on
place 0, which runs whatever follows.  One addition of floats commutes, so nothing depends on who waits for whom.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .bf16 import widen
from .branch import Branch
from .columns import check_columns, device_bytes, held
from .exchange import Exchange
from .fuse import fuse_apart, in_cells
from .layers import Layer, Run, SoftmaxLoss
from .memory import Arena, Block, Buffers, Gradients, ShardedArena, in_turn, initial
from .net import check_labels, shared_memory, show, storages
from .spec import DeviceMemoryError, MiniAlexError, Shape, ShapeError


class Column:
    """What one place holds and computes: column `index` of every layer."""

    def __init__(self, ops, index: int):
        self.ops, self.index = ops, index
        self.branch: Branch | None = None               # of the pass that runs, for gradients of weights
        self.layers: list[Layer] = []                   # of one column
        self.shapes: list[Shape] = []                   # as Net's, of one column
        self.runs: list[Run] = []
        # joint layer -> arrays of each column, None at the own index and where there is nothing to keep
        self.others: dict[int, list] = {}               # the other columns' inputs
        self.parts: dict[int, list] = {}                # of a layer that sums: the products over the others' channels
        self.sent: dict[int, list] = {}                 # gradients for the others
        self.received: dict[int, list] = {}             # and from them

    def beside(self):
        """The ops for gradients of weights and what becomes of them, behind what the column was asked so far."""
        return self.ops if self.branch is None else self.branch.fork()


class ColumnNet:
    """`layers` in as many columns as there are `places` (ops of one device each), ending in a SoftmaxLoss.  The face of a Net.

    overlap=False lets each exchange end before the next product begins, and nothing run beside another on a device (branch.py): the
    same bits.  float32, as all kernels, but activations and their gradients are stored as a Net's are.  Sums and gradients that are parts
    of a sum stay float32, so that all is rounded once, as on one device; where activations are bfloat16, so that these parts have no place
    in them, a column keeps its own part, too.
    Raises ShapeError for a network that does not lie in this many columns from its first layer on.
    """

    dtype = "float32"

    def __init__(self, layers: list[Layer], input: Shape, batch: int, places: list, *, seed: int = 0, fuse: bool = True,
                 overlap: bool = True, arenas: int = 3):
        if not layers or not isinstance(layers[-1], SoftmaxLoss):
            raise ShapeError("a net ends in a SoftmaxLoss layer: append SoftmaxLoss('loss')")
        self.places, self.ops, self.batch, self.seed, self.storage = places, places[0], batch, seed, places[0].storage(self.dtype)
        shapes, ends = check_columns(layers, input, len(places))
        self._ordinals = {layer.name: i for i, layer in enumerate(layers)}
        rules = self.ops.fused() if fuse else ()
        self.picture = input
        body, input = in_cells(fuse_apart(layers[:-1], shapes, rules), input, rules)
        self.layers, self.loss_layer = body, layers[-1]
        self.shapes = [input]
        for layer in body:
            self.shapes.append(layer.out_shape(self.shapes[-1]))
        self.classes = self.shapes[-1].C
        self.joint = [layer.joint(x) for layer, x in zip(body, self.shapes, strict=False)]
        self._last = next(i for i, layer in enumerate(body) if layer.name == ends)      # the row-parallel layer
        self.doing = ""                                             # what is being asked of the devices, for those who look on

        self.columns = [Column(ops, g) for g, ops in enumerate(places)]
        specs = {(layer.name, spec.name): spec for layer, x in zip(body, self.shapes, strict=False) for spec in layer.params(x)}
        local = [self._declare(column) for column in self.columns]
        self._shares = shared_memory(body)
        self._overlap = overlap
        self._check_room(arenas)
        self.exchange = Exchange(places, overlap=overlap)
        self._take_parameters(specs, local)
        for column in self.columns:
            self._take_memory(column)
        self.probabilities = self.ops.empty((batch, self.classes), self.dtype)
        self._losses = self.ops.empty((batch,), self.dtype)
        self.labels = self.ops.empty((batch,), "int32")            # of the last pass
        self.branches = [Branch(ops) for ops in places] if overlap else []

    # ---------------------------------------------------------------- planning
    def _count(self, g: int) -> int:
        """How many layers run on place g: those behind the row-parallel one run on place 0."""
        return len(self.layers) if g == 0 else self._last + 1

    def _declare(self, column: Column) -> dict:
        """The column's layers and shapes; returns its parameters: {(layer, local name): (spec of the block, parameter, index)}."""
        blocks = {}
        column.shapes = [self.shapes[0], *(shape._replace(columns=1) for shape in self.shapes[1:self._count(column.index) + 1])]
        for layer, x in zip(self.layers[:self._count(column.index)], self.shapes, strict=False):
            column.layers.append(layer.column())
            specs = {spec.name: spec for spec in layer.params(x)}
            for block in held(layer, x, column.index):
                spec = replace(specs[block.parameter], name=block.name, shape=block.shape)
                blocks[layer.name, block.name] = (spec, block.parameter, block.index)
        return blocks

    def _take_parameters(self, specs: dict, local: list[dict]) -> None:
        arenas = [Arena(ops, {key: spec for key, (spec, _, _) in blocks.items()}, self.dtype)
                  for ops, blocks in zip(self.places, local, strict=True)]
        where: dict = {key: [] for key in specs}
        for g, blocks in enumerate(local):
            for (layer, name), (_, parameter, index) in blocks.items():
                where[layer, parameter].append(Block(g, (layer, name), index))
        self.params = ShardedArena(specs, arenas, where)
        self.grads = self.params.like()
        for key, spec in specs.items():
            self.params.fill(key, initial(spec, key[0], self.seed))

    def _take_memory(self, column: Column) -> None:
        """Activations, gradients, and at joint layers what comes from and goes to the others."""
        ops, g, batch = column.ops, column.index, self.batch
        others = [h for h in range(len(self.places)) if h != g]
        params, grads = self.params.arenas()[g], self.grads.arenas()[g]
        count = len(column.shapes)
        kinds = storages(self.layers, self._shares, self.storage, self.dtype)
        column.activations = Buffers(ops, column.shapes, self._shares[:count], batch, kinds[:count])
        sizes = [batch * shape.size for layer, shape in zip(column.layers[1:], column.shapes[1:], strict=False) if not layer.in_place]
        sizes += [batch * column.shapes[-1].size] if g == 0 else []             # the logits', taken first
        column.gradients = Gradients(ops, sizes[::-1] if self._overlap else in_turn(sizes), self.storage)
        column.spare = ops.empty((max(shape.C for shape in column.shapes),), self.dtype)        # a bias gradient that is known already

        def arrays(shape: Shape, which, dtype: str = self.dtype) -> list:
            return [ops.empty((batch * shape.size,), dtype) if h in which else None for h in range(len(self.places))]

        for i, layer in enumerate(column.layers):
            keys = [key for key in params if key[0] == layer.name]
            scratch = {name: ops.empty(shape, self.dtype) for name, shape in layer.scratch(column.shapes[i]).items()}
            column.runs.append(Run(seed=self.seed, ordinal=self._ordinals[layer.name], column=g, columns=len(self.places), scratch=scratch,
                                   params={key[1]: params[key] for key in keys}, grads={key[1]: grads[key] for key in keys}))
            if not self.joint[i]:
                continue
            x, y = column.shapes[i], column.shapes[i + 1]
            summed = others if kinds[i + 1] == self.dtype else [*others, g]         # the own sum stands in y, where that can hold it
            if i == self._last:
                column.parts[i] = arrays(y, summed if g == 0 else [g])              # the sums that arrive, or the own that leaves
                column.received[i] = arrays(y, [] if g == 0 else [0], self.storage) # the gradient of all logits
            else:
                column.others[i], column.parts[i] = arrays(x, others, self.storage), arrays(y, summed)
                column.sent[i], column.received[i] = arrays(x, others), arrays(x, summed)

    def bytes(self, batch: int, g: int = 0, arenas: int = 3) -> int:
        """Device memory of place g for steps of `batch` images."""
        return device_bytes(self.layers, self.shapes[0], batch, g, arenas, np.dtype(self.storage).itemsize)

    def _check_room(self, arenas: int) -> None:
        """Refuses what a device has no room for before any of it is taken; places that share a device share its memory."""
        for name in dict.fromkeys(place.name() for place in self.places):
            here = [g for g, place in enumerate(self.places) if place.name() == name]
            free = self.places[here[0]].memory.free()
            needed, fixed = (sum(self.bytes(batch, g, arenas) for g in here) for batch in (self.batch, 0))
            most = (free - fixed) * self.batch // (needed - fixed)
            if needed > free:
                advice = f"use a batch of {most} (-b {most})" if most > 0 else "not even one image fits, use --device cpu"
                raise DeviceMemoryError(f"--device {name}: {len(here)} column{'s' * (len(here) > 1)} of this network at batch {self.batch} "
                                        f"need {needed:,} bytes, {free:,} are free; {advice}")

    # ---------------------------------------------------------------- passes
    def inputs(self, n: int | None = None, turn: int | None = None) -> list:
        """On each place the array that the next fprop reads, as Net's: the same pictures in all of them."""
        return [column.activations.views(n or self.batch, turn)[0] for column in self.columns]

    @property
    def turn(self) -> int:
        """As Net.turn."""
        return self.columns[0].activations.turn

    @turn.setter
    def turn(self, turn: int) -> None:
        for column in self.columns:
            column.activations.turn = turn

    def show(self, pictures: np.ndarray) -> None:
        """As Net.show."""
        show(self, pictures)

    def fprop(self, labels: np.ndarray | None = None, *, n: int | None = None, training: bool = False, step: int = 0, first: int = 0,
              total: int | None = None) -> float:
        """As Net.fprop."""
        n = n or (len(labels) if labels is not None else self.batch)
        self.begin(labels, n, training=training, steps=[step] * len(self.places), first=first, total=total)
        self.ops.from_host(np.ascontiguousarray(labels if labels is not None else np.zeros(n), np.int32), out=self.labels[:n])
        self.forward()
        return self.loss() if labels is not None else float("nan")

    def begin(self, labels: np.ndarray | None, n: int, *, training: bool, steps: list, first: int = 0, total: int | None = None) -> None:
        """As Net.begin."""
        check_labels(labels, n, self.batch, self.classes)
        self._n, self._total, self._training = n, total or n, training
        for column, step in zip(self.columns, steps, strict=True):
            column.runs = [replace(run, training=training, step=step, first=first) for run in column.runs]

    def forward(self) -> None:
        """As Net.forward."""
        n = self._n
        for i in range(len(self.layers)):
            self.doing = f"{self.layers[i].name} fprop"
            if self.joint[i]:
                (self._gather if i == self._last else self._fprop_joint)(i)
                continue
            for column in self._running(i):
                a = column.activations.views(n)
                column.layers[i].fprop(column.ops, a[i], a[i + 1], column.runs[i])
        self.doing = self.loss_layer.name
        logits = self.columns[0].activations.views(n)[-1]
        self._made = self._training
        dx = self._dlogits() if self._made else None
        self.loss_layer.loss(self.ops, logits, self.labels[:n], self.probabilities[:n], self._losses[:n], dx, 1.0 / self._total)

    def _dlogits(self):
        """As Net._dlogits."""
        top = self.columns[0]
        top.gradients.taken = 0
        return top.gradients.next(top.shapes[-1].array(self._n))

    def loss(self) -> float:
        """As Net.loss."""
        return float(self.ops.to_host(self._losses[:self._n]).astype(np.float64).mean())

    def bprop(self, done=None) -> None:
        """As Net.bprop; `done(place, start, stop, ops)` hears of each place's own flat gradients."""
        n = self._n
        for column in self.columns:
            column.gradients.taken = 0                              # each step writes the same gradients to the same places
            column.branch = self.branches[column.index] if self.branches else None
        dy: list[Any] = [None] * len(self.places)
        dy[0] = self._dlogits()
        if not self._made:                                          # together with the loss, or it has been overwritten since
            self.loss_layer.dlogits(self.ops, self.probabilities[:n], self.labels[:n], dy[0], scale=1.0 / self._total)
        self._made = False
        for i in range(len(self.layers) - 1, -1, -1):
            self.doing = f"{self.layers[i].name} bprop"
            if self.joint[i]:
                dy = self._spread(i, dy) if i == self._last else self._bprop_joint(i, dy)
            else:
                for column in self._running(i):
                    dy[column.index] = self._bprop_own(column, i, dy[column.index])
            if done is not None:
                for g, arena in enumerate(self.grads.arenas()):
                    start, stop = arena.range_of(self.layers[i].name)
                    if start < stop:
                        done(g, start, stop, self.columns[g].beside())
        for column in self.columns:
            if column.branch is not None:
                column.branch.join()

    def _running(self, i: int) -> list[Column]:
        return self.columns if i <= self._last else self.columns[:1]

    def _bprop_own(self, column: Column, i: int, dy):
        layer, a = column.layers[i], column.activations.views(self._n)
        dx = None if i == 0 else dy if layer.in_place else column.gradients.next(a[i].shape)
        layer.bprop(column.ops, a[i], a[i + 1], dy, dx, replace(column.runs[i], branch=column.branch))
        return dx

    def _of(self, array, shape: Shape):
        """The first n images of a flat exchange buffer."""
        return array[:shape.size * self._n].reshape(shape.array(self._n))

    # ---------------------------------------------------------------- joint layers: every column reads all
    def _pairs(self) -> list[tuple[Column, Column]]:
        return [(a, b) for a in self.columns for b in self.columns if a is not b]

    def _fprop_joint(self, i: int) -> None:
        """The others' activations travel while the product over the own is computed."""
        self.exchange.start([(source.index, source.activations.views(self._n)[i],
                              target.index, self._of(target.others[i][source.index], source.shapes[i]))
                             for source, target in self._pairs()])
        for column in self.columns:
            a, own = column.activations.views(self._n), column.parts[i][column.index]
            self._product(column, i, column.index, a[i], a[i + 1] if own is None else self._of(own, column.shapes[i + 1]))
        for source, target in self._pairs():
            self.exchange.finish(source.index, target.index)
        for column in self.columns:
            y = column.activations.views(self._n)[i + 1]
            parts = [y if part is None else self._of(part, column.shapes[i + 1]) for part in column.parts[i]]
            for h, part in enumerate(parts):
                if h != column.index:
                    self._product(column, i, h, self._of(column.others[i][h], column.shapes[i]), part)
            _sum(column, parts, column.index, column.runs[i].params["b"], y)

    def _product(self, column: Column, i: int, h: int, x, y) -> None:
        """y = the product over column h's channels x, without a bias."""
        run = column.runs[i]
        column.layers[i].fprop(column.ops, x, y, replace(run, params={"w": run.params[f"w{h}"], "b": None}))

    def _bprop_joint(self, i: int, dy: list) -> list:
        """The gradients of the others' activations are made first, and travel while weight gradients and the own are computed."""
        n = self._n
        for column in self.columns:
            for h, out in enumerate(column.sent[i]):
                if out is not None:
                    self._gradient(column, i, h, dy[column.index], self._of(out, column.shapes[i]))
        self.exchange.start([(source.index, self._of(source.sent[i][target.index], source.shapes[i]),
                              target.index, self._of(target.received[i][source.index], target.shapes[i]))
                             for source, target in self._pairs()])
        dx: list[Any] = []
        for column in self.columns:
            g, beside = column.index, column.beside()
            x = column.activations.views(n)[i]
            for h in range(len(self.places)):
                read = x if h == g else self._of(column.others[i][h], column.shapes[i])
                grads = {"w": column.runs[i].grads[f"w{h}"], "b": column.runs[i].grads["b"] if h == g else self._spare(column, i)}
                column.layers[i].wgrad(beside, read, dy[g], replace(column.runs[i], grads=grads))
            dx.append(column.gradients.next(x.shape))
            own = column.received[i][g]
            self._gradient(column, i, g, dy[g], dx[g] if own is None else self._of(own, column.shapes[i]))
        for source, target in self._pairs():
            self.exchange.finish(source.index, target.index)
        for column in self.columns:
            parts = [dx[column.index] if part is None else self._of(part, column.shapes[i]) for part in column.received[i]]
            _sum(column, parts, column.index, None, dx[column.index])
        return dx

    def _gradient(self, column: Column, i: int, h: int, dy, dx) -> None:
        """dx = the gradient of column h's activations through this column's maps."""
        run = column.runs[i]
        column.layers[i].dgrad(column.ops, dy, dx, replace(run, params={"w": run.params[f"w{h}"]}))

    def _spare(self, column: Column, i: int):
        return column.spare[:column.shapes[i + 1].C]

    # ---------------------------------------------------------------- the row-parallel layer: column 0 takes the sum
    def _gather(self, i: int) -> None:
        n, root = self._n, self.columns[0]
        y = root.activations.views(n)[i + 1]
        parts = [y if part is None else self._of(part, root.shapes[i + 1]) for part in root.parts[i]]
        for column in self.columns:
            out = parts[0] if column is root else self._of(column.parts[i][column.index], column.shapes[i + 1])
            run = column.runs[i]
            column.layers[i].fprop(column.ops, column.activations.views(n)[i], out,
                                   replace(run, params={"w": run.params["w"], "b": None}))
            if column is not root:
                self.exchange.start([(column.index, out, 0, parts[column.index])])
        for column in self.columns[1:]:
            self.exchange.finish(column.index, 0)
        _sum(root, parts, 0, root.runs[i].params["b"], y)

    def _spread(self, i: int, dy: list) -> list:
        """The gradient of the logits goes to all; each makes its own weights' gradient and its own column's."""
        n, root = self._n, self.columns[0]
        received = [dy[0], *(self._of(column.received[i][0], column.shapes[i + 1]) for column in self.columns[1:])]
        self.exchange.start([(0, dy[0], column.index, received[column.index]) for column in self.columns[1:]])
        dx = []
        for column in self.columns:
            if column is not root:
                self.exchange.finish(0, column.index)
            run, x = column.runs[i], column.activations.views(n)[i]
            grads = {"w": run.grads["w"], "b": run.grads["b"] if column is root else self._spare(column, i)}
            run = replace(run, grads=grads)
            column.layers[i].wgrad(column.beside(), x, received[column.index], run)
            dx.append(column.gradients.next(x.shape))
            column.layers[i].dgrad(column.ops, received[column.index], dx[column.index], run)
        return dx

    # ---------------------------------------------------------------- looking inside
    def activation(self, name: str) -> np.ndarray:
        """As Net.activation: a host copy (G, n, H, W, C) with all columns."""
        names = [layer.output() for layer in self.layers]
        if name not in names:
            raise MiniAlexError(f"no layer is called {name!r}; this net has {', '.join(names)}")
        return self._on_host(names.index(name) + 1)

    def _on_host(self, i: int) -> np.ndarray:
        columns = self._running(i - 1) if i and i - 1 != self._last else self.columns[:1]
        return np.concatenate([widen(column.ops.to_host(column.activations.views(self._n)[i])) for column in columns])

    def first_nonfinite(self) -> str | None:
        """Name of the first activation, gradient or weight with a NaN or infinity, in the order they are computed."""
        def named():
            yield "input", self._on_host(0)
            yield from ((f"weight {'.'.join(key)}", self.params.numpy(key)) for key in self.params)
            yield from ((f"activation {layer.name}", self._on_host(i)) for i, layer in enumerate(self.layers, start=1))
            yield from ((f"gradient {'.'.join(key)}", self.grads.numpy(key)) for key in self.grads)
        return next((name for name, array in named() if not np.isfinite(array).all()), None)


def _sum(column: Column, parts: list, own: int, b, y) -> None:
    """y = (parts[0] + parts[1] + ...) + b, in this order on every place; y may be parts[own]."""
    total, last = parts[0], len(parts) - 1
    for c in range(1, len(parts)):
        out = y if c == last else parts[own] if c >= own else parts[0]
        column.ops.joint_sum(total, parts[c], b if c == last else None, out)
        total = out
