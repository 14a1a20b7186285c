"""A network on one device: shapes -> arenas -> fprop -> bprop, three separate moments, no autograd.

Layers up to the first fully connected one work on each image alone.  The backend says in which ranges and blocks of
images it wants to run that part (`ops.image_ranges`): a NumPy backend carries a block that fits the cache through all
of them, a GPU takes the whole batch at once.  Gradients of weights belong to ranges and are added in a fixed tree, so
results never depend on the number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .bf16 import widen
from .branch import Branch
from .fuse import fuse as fuse_layers
from .fuse import in_cells
from .layers import Conv, Layer, Linear, Run, SoftmaxLoss
from .memory import ALIGN, Arena, Buffers, Gradients, host_room, in_turn, initial
from .spec import DeviceMemoryError, MiniAlexError, Shape, ShapeError


def shared_memory(layers: list[Layer]) -> list[int | None]:
    """For the input and each layer's output the index of the array whose memory it uses, or None: a layer in place writes over its
    input, unless the layer below still has to read that."""
    shares: list[int | None] = [None]
    for i, layer in enumerate(layers):
        allowed = layer.in_place and i > 0 and "y" not in layers[i - 1].bprop_reads
        shares.append(i if allowed else None)
    return shares


def check_labels(labels: np.ndarray | None, n: int, batch: int, classes: int) -> None:
    """Refuses more images than planned for, and labels that are no classes."""
    if n > batch:
        raise ShapeError(f"fprop: {n} images, but this net was planned for at most {batch}")
    if labels is not None and (len(labels) != n or labels.min() < 0 or labels.max() >= classes):
        raise ShapeError(f"fprop: labels must be {n} numbers from 0 to {classes - 1}; is this another data set's class list?")


def show(net, pictures: np.ndarray) -> None:
    """Net.show, of one place or several."""
    pictures = np.ascontiguousarray(pictures, net.dtype)
    for ops, x in zip(net.places, net.inputs(pictures.shape[1]), strict=True):
        if pictures.shape == x.shape and net.storage == net.dtype:
            ops.from_host(pictures, out=x)
        else:
            ops.cells_fprop(ops.from_host(pictures), x, cell=max(1, pictures.shape[2] // x.shape[2]))


def storages(body: list[Layer], shares: list[int | None], storage: str, dtype: str) -> list[str]:
    """For the input and each layer's output what it is stored as: `storage`, but logits that a product writes, and the loss reads, as they
    are summed."""
    logits = dtype if body and isinstance(body[-1], Conv | Linear) and shares[-1] is None else storage
    return [storage] * len(body) + [logits]


class Net:
    """`layers` ends in a SoftmaxLoss; `input` is the Shape of one image; at most `batch` images a pass.

    `net.input(n)` is the array to fill before `fprop`: (1, n, H, W, C), or cells of that where the first layer reads cells
    (layers/cells.py), which `augment_fprop` writes as well; `show` fills it with pictures of the host.  `arenas`: how many arrays of all
    parameters the device must have room for, 3 with SGD's velocity.  overlap=False: a device makes no gradients of weights beside the
    layers below (branch.py); the same bits.

    Activations and their gradients are stored as `ops.storage(dtype)` says when the net is made: as bfloat16 in precision "bf16" of a
    compiled backend.  All else is `dtype`, as are the logits.
    """

    def __init__(self, layers: list[Layer], input: Shape, batch: int, ops, *, seed: int = 0, dtype: str = "float32", fuse: bool = True,
                 overlap: bool = True, arenas: int = 3):
        if not layers or not isinstance(layers[-1], SoftmaxLoss):
            raise ShapeError("a net ends in a SoftmaxLoss layer: append SoftmaxLoss('loss')")
        self.ops, self.places, self.batch, self.dtype, self.seed = ops, [ops], batch, dtype, seed
        self.storage = ops.storage(dtype)
        self._ordinals = {layer.name: i for i, layer in enumerate(layers)}
        if len(self._ordinals) != len(layers):
            raise ShapeError("two layers of a net have the same name; give each its own")
        rules = ops.fused() if fuse else ()
        *body, self.loss_layer = fuse_layers(layers, rules)
        self.picture = input                                # as declared; shapes[0] may be cells of it
        body, input = in_cells(body, input, rules)
        self.layers: list[Layer] = body

        self.shapes = [input]                               # shapes[i] is read by layer i and shapes[i + 1] written by it
        for layer in [*body, self.loss_layer]:
            self.shapes.append(layer.out_shape(self.shapes[-1]))
        self.shapes.pop()                                   # the loss keeps its input's shape
        self.classes = self.shapes[-1].C

        specs = {(layer.name, spec.name): spec for layer, x in zip(body, self.shapes, strict=False) for spec in layer.params(x)}
        self._shares = shared_memory(body)
        self._split = next((i for i, layer in enumerate(body) if not layer.per_image), len(body))
        written = [0 if i == 0 or layer.in_place else x.size for i, (layer, x) in enumerate(zip(body, self.shapes, strict=False))]
        self._sizes = [[size for size in reversed(part) if size] for part in (written[self._split:], written[:self._split])]
        self._sizes[0].insert(0, self.shapes[-1].size)      # gradients of an image: from the logits to the first linear layer, and below
        beside = overlap and hasattr(ops, "kernels")
        if not beside:
            self._sizes = [in_turn(sizes) for sizes in self._sizes]
        filters = [spec.size for layer, x in zip(body[:self._split], self.shapes, strict=False) for spec in layer.params(x)]
        self._fixed = arenas * sum(spec.size + ALIGN for spec in specs.values()) + max(filters, default=0)     # numbers, of any batch
        self._fixed += sum(math.prod(shape) for layer, x in zip(body, self.shapes, strict=False) for shape in layer.scratch(x).values())
        self._fixed += 3 * input.size                                                                          # two mean pictures, larger
        self._check_room()
        self.params = Arena(ops, specs, dtype)
        self.grads = self.params.like()
        for key, spec in specs.items():
            self.params.fill(key, initial(spec, key[0], seed))

        self._activations = Buffers(ops, self.shapes, self._shares, batch, storages(body, self._shares, self.storage, dtype))
        self.probabilities = ops.empty((batch, self.classes), dtype)
        self._losses = ops.empty((batch,), dtype)
        self.labels = ops.empty((batch,), "int32")            # of the last pass
        self.branches = [Branch(ops.kernels)] if beside else []
        self._plan_gradients()

    # ---------------------------------------------------------------- planning
    def bytes(self, batch: int) -> int:
        """Memory for steps of `batch` images, from the shapes alone: parameters, activations, their gradients, two batches of records, a
        second input, and workspaces of the kernels (the largest output and filters).  On the host, where blocks of images share
        gradients, only the least it takes: parameters and activations."""
        sizes = [shape.size for shape in self.shapes]
        number, stored = np.dtype(self.dtype).itemsize, np.dtype(self.storage).itemsize
        image = stored * sum(size for size, share in zip(sizes, self._shares, strict=True) if share is None)
        if hasattr(self.ops, "kernels"):
            records, logits = sizes[0], (number - stored) * self.classes
            image += stored * (sum(map(sum, self._sizes)) + sizes[0])
            image += number * (records + max(sizes[1:], default=0) + self.classes + 2) + logits
        return number * self._fixed + batch * image

    def _check_room(self) -> None:
        """Refuses what the device has no room for before any of it is taken.  On the host the kernel would grant it all, and end the
        process without a word when it is used."""
        device, free = self.ops.kernels.room() if hasattr(self.ops, "kernels") else ("cpu", host_room())
        if free is None:
            return
        needed, fixed = self.bytes(self.batch), self.bytes(0)
        most = (free - fixed) * self.batch // (needed - fixed)
        if needed > free:
            other = "take a smaller recipe" if device == "cpu" else "use --device cpu"
            advice = f"use a batch of {most} (-b {most})" if most > 0 else f"not even one image fits, {other}"
            raise DeviceMemoryError(f"--device {device}: this network at batch {self.batch} needs {needed:,} bytes, "
                                    f"{free:,} are free; {advice}")

    def _plan_gradients(self) -> None:
        ops = self.ops
        self._largest = max((shape.size for shape in self.shapes[1:self._split + 1]), default=0)
        every = [ops.image_ranges(n, self._largest) for n in range(1, self.batch + 1)]     # fewer images may have more ranges: 60 than 100
        most = max(map(len, every))
        self._block = max(stop - start for ranges in every for blocks in ranges for start, stop in blocks)
        self._whole = Gradients(ops, [size * self.batch for size in self._sizes[0]], self.storage)
        self._slots = [Gradients(ops, [size * self._block for size in self._sizes[1]], self.storage) for _ in range(ops.workers())]

        lower = {layer.name for layer in self.layers[:self._split]}
        ends = (self.params.offsets[key] + spec.size for key, spec in self.params.specs.items() if key[0] in lower)
        self._lower_size = max(ends, default=0)
        self._partials = ops.from_host(np.zeros((most, self._lower_size), self.dtype)) if most > 1 else None
        self._runs = [self._run_of(i, None) for i in range(len(self.layers))]
        self._range_runs = [[self._run_of(i, self._partials[r]) for i in range(self._split)]
                            for r in range(most)] if most > 1 else [self._runs[:self._split]]

    def _run_of(self, i: int, flat_grads) -> Run:
        layer = self.layers[i]
        names = [key for key in self.params if key[0] == layer.name]
        grads = {key[1]: self.grads.view(key, flat_grads) for key in names}
        scratch = {name: self.ops.empty(shape, self.dtype) for name, shape in layer.scratch(self.shapes[i]).items()}
        return Run(seed=self.seed, ordinal=self._ordinals[layer.name], params={key[1]: self.params[key] for key in names}, grads=grads,
                   scratch=scratch)

    # ---------------------------------------------------------------- passes
    def input(self, n: int | None = None):
        """The array of n images (default: the whole batch) that the next fprop reads, in the form that its first layer reads."""
        return self._activations.views(n or self.batch)[0]

    def inputs(self, n: int | None = None, turn: int | None = None) -> list:
        """The input of each place: of the only one.  `turn` 0 or 1: the first or second of two, of which `turn` says which is read."""
        return [self._activations.views(n or self.batch, turn)[0]]

    @property
    def turn(self) -> int:
        """Which of two inputs the next pass reads, 0 until somebody sets 1."""
        return self._activations.turn

    @turn.setter
    def turn(self, turn: int) -> None:
        self._activations.turn = turn

    def show(self, pictures: np.ndarray) -> None:
        """Fills the input of each place with pictures (1, n, H, W, C) of the host, in the form that the first layer reads."""
        show(self, pictures)

    def fprop(self, labels: np.ndarray | None = None, *, n: int | None = None, training: bool = False, step: int = 0, first: int = 0,
              total: int | None = None) -> float:
        """Runs n images already in `input(n)` through the net; returns the mean loss (nan without labels).

        `labels` is (n,) int32 on the host.  `training` turns dropout's mask on; `step` is part of its key.  Where several processes
        share a batch of `total` images, these are number `first` and the following: masks know it, and bprop divides by `total`.
        Probabilities stay in `probabilities[:n]`.
        """
        n = n or (len(labels) if labels is not None else self.batch)
        self.begin(labels, n, training=training, steps=[step], first=first, total=total)
        self.ops.from_host(np.ascontiguousarray(labels if labels is not None else np.zeros(n), np.int32), out=self.labels[:n])
        self.forward()
        return self.loss() if labels is not None else float("nan")

    def begin(self, labels: np.ndarray | None, n: int, *, training: bool, steps: list, first: int = 0, total: int | None = None) -> None:
        """Says what the next pass is, as fprop's arguments do; `steps`: one for each place, or an array there (graph.py)."""
        check_labels(labels, n, self.batch, self.classes)
        self._n, self._total, self._first = n, total or n, first
        self._pass = dict(training=training, step=steps[0])

    def forward(self) -> None:
        """fprop's kernels alone, on what `input` and `labels` hold."""
        n, first = self._n, self._first
        a = self._activations.views(n)

        def lower(slot: int, block) -> None:
            start, stop = block
            views = a if stop - start == n else [y[:, start:stop] for y in a[:self._split + 1]]
            for i in range(self._split):
                run = replace(self._runs[i], first=first + start, **self._pass)
                self.layers[i].fprop(self.ops, views[i], views[i + 1], run)

        self.ops.parallel(lower, [block for blocks in self.ops.image_ranges(n, self._largest) for block in blocks])
        for i in range(self._split, len(self.layers)):
            self.layers[i].fprop(self.ops, a[i], a[i + 1], replace(self._runs[i], first=first, **self._pass))
        self._made = self._pass["training"]
        dx = self._dlogits() if self._made else None
        self.loss_layer.loss(self.ops, a[-1], self.labels[:n], self.probabilities[:n], self._losses[:n], dx, 1.0 / self._total)

    def _dlogits(self):
        """The first of the gradients: each step writes the same ones to the same places."""
        self._whole.taken = 0
        return self._whole.next(self.shapes[-1].array(self._n))

    def loss(self) -> float:
        """The mean loss of the last pass, when all that was asked for before is done."""
        return float(self.ops.to_host(self._losses[:self._n]).astype(np.float64).mean())

    def bprop(self, done: Callable[[int, int, int, Any], None] | None = None) -> None:
        """Overwrites every gradient of `grads` with that of the mean loss of the last fprop.

        `done(0, start, stop, ops)` is called as soon as grads.arenas()[0].flat[start:stop] is final for what `ops` are asked from then on,
        and this pass reads the weights there no more; the top layers' first.
        """
        self._branch = self.branches[0] if self.branches else None
        n, a, ops = self._n, self._activations.views(self._n), self.ops
        for buffers in self._slots:
            buffers.taken = 0
        dy = self._dlogits()
        if not self._made:                                  # together with the loss, or it has been overwritten since
            self.loss_layer.dlogits(ops, self.probabilities[:n], self.labels[:n], dy, scale=1.0 / self._total)
        self._made = False
        for i in range(len(self.layers) - 1, self._split - 1, -1):
            dy = self._bprop_layer(i, self._runs[i], a[i], a[i + 1], dy, self._whole, first=0, accumulate=False)
            start, stop = self.grads.range_of(self.layers[i].name)
            if done is not None and start < stop:
                done(0, start, stop, ops if self._branch is None else self._branch.fork())
        top = dy
        ranges = ops.image_ranges(n, self._largest)
        runs = self._range_runs if len(ranges) > 1 else [self._runs[:self._split]]

        def lower(slot: int, item) -> None:
            r, blocks = item
            for index, (start, stop) in enumerate(blocks):
                whole = stop - start == n
                d = top if whole else top[:, start:stop]
                for i in range(self._split - 1, -1, -1):
                    x, y = (a[i], a[i + 1]) if whole else (a[i][:, start:stop], a[i + 1][:, start:stop])
                    d = self._bprop_layer(i, runs[r][i], x, y, d, self._slots[slot], first=start, accumulate=index > 0)

        if self._split:
            ops.parallel(lower, list(enumerate(ranges)))
            if len(ranges) > 1:
                ops.sum_partials(self._partials[:len(ranges)], self.grads.flat[:self._lower_size])
        if self._branch is not None:
            self._branch.join()
        if done is not None and self._lower_size:
            done(0, 0, self._lower_size, ops)

    def _bprop_layer(self, i: int, run: Run, x, y, dy, buffers: Gradients, *, first: int, accumulate: bool):
        layer = self.layers[i]
        dx = None if i == 0 else dy if layer.in_place else buffers.next(x.shape)
        run = replace(run, first=self._first + first, accumulate=accumulate, branch=self._branch, **self._pass)
        layer.bprop(self.ops, x, y, dy, dx, run)
        return dx

    # ---------------------------------------------------------------- looking inside
    def activation(self, name: str) -> np.ndarray:
        """A host copy (G, n, H, W, C) of what layer `name` wrote in the last fprop.  Behind a layer in place that memory
        holds the later value: build with fuse=False and ask for the later layer, or read `in_place` in the plan."""
        names = [layer.output() for layer in self.layers]
        if name not in names:
            raise MiniAlexError(f"no layer is called {name!r}; this net has {', '.join(names)}")
        return widen(self.ops.to_host(self._activations.views(self._n)[names.index(name) + 1]))

    def first_nonfinite(self) -> str | None:
        """Name of the first activation, gradient or weight with a NaN or infinity, in the order they are computed."""
        views = self._activations.views(self._n)
        named = [("input", views[0])]
        named += [(f"weight {k[0]}.{k[1]}", v) for k, v in self.params.items()]
        named += [(f"activation {layer.name}", y) for layer, y in zip(self.layers, views[1:], strict=True)]
        named += [(f"gradient {k[0]}.{k[1]}", v) for k, v in self.grads.items()]
        return next((name for name, array in named if not np.isfinite(widen(self.ops.to_host(array))).all()), None)
