"""The whole training step as one graph of the device: one launch in place of Python's, kernel by kernel (CUDA graphs).

A graph repeats its kernels with the very arguments of its capture.  What changes from step to step therefore stands in device memory:
`_ints` holds the step, which is part of dropout's key, and the labels, and is copied before each launch; `_rates` holds the rates and
is copied when they change.  All other memory was planned before: nothing is allocated or waited for in a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .column_net import ColumnNet
from .net import Net
from .optim import SGD
from .spec import DeviceError

LABELS_AT = 4                           # numbers: vectors of 16 bytes


class StepGraph:
    """Training steps of a net: `step` is fprop, bprop and SGD.step with their bits, `net.loss()` reads the loss, if wanted.  Who must see
    the loss before weights change calls `fprop` and `learn`, a graph each.

    What is done for the first time is launched kernel by kernel, which plans workspaces; the second time it is captured.  `refusal` is
    None, or says why kernels are always launched one by one.  `exchange(arena, zero=idle)` adds the gradients of several processes.
    """

    def __init__(self, net: Net | ColumnNet, sgd: SGD, exchange: Callable[..., None] | None = None):
        self.net, self.sgd, self.exchange, self.refusal = net, sgd, exchange, None
        if not hasattr(net.ops, "kernels"):
            self.refusal = "the host has no graphs"
        elif exchange is not None:
            self.refusal = "processes add their gradients between bprop and the update"
        elif isinstance(net, ColumnNet):
            self.refusal = "columns on several devices wait for each other's activations; a graph is captured on one device"
        else:
            self._kernels = net.ops.kernels
            self._graphs: dict[tuple, tuple[int, Any]] = {}          # what is done -> address of its workspace, graph
            self._host = np.zeros(LABELS_AT + net.batch, np.int32)
            self._ints = net.ops.from_host(self._host)
            self._segments = sgd.segments(0.0)
            self._rates = net.ops.from_host(np.zeros((len(self._segments[0]), 2), np.float32))
            self._said: tuple | None = None
            net.labels = self._ints[LABELS_AT:]

    def step(self, labels: np.ndarray, rate: float, step: int, *, first: int = 0, total: int | None = None, **rates: Any) -> None:
        """One step on what `net.input(n)` holds; arguments are those of fprop and SGD.step."""
        if self.refusal:
            self.fprop(labels, step=step, first=first, total=total)
            self.learn(rate, **rates)
            return
        self._begin(labels, step, first, total)
        self._at(rate, **rates)
        self._run("step", self._forward, self._learn)

    def fprop(self, labels: np.ndarray, *, step: int, first: int = 0, total: int | None = None) -> float:
        """Net.fprop in training."""
        if self.refusal:
            return self.net.fprop(labels, training=True, step=step, first=first, total=total)
        self._begin(labels, step, first, total)
        self._run("fprop", self._forward)
        return self.net.loss()

    def learn(self, rate: float, *, idle: bool = False, **rates: Any) -> None:
        """bprop and SGD.step; `idle`: this process had no image, and takes the gradients of the others."""
        if self.refusal:
            if not idle:
                self.net.bprop()
            if self.exchange is not None:
                for arena in self.net.grads.arenas():
                    self.exchange(arena, zero=idle)
            self.sgd.step(rate, **rates)
            return
        self._at(rate, **rates)
        self._run("learn", self._learn)

    def _forward(self) -> None:
        self.net.forward()

    def _learn(self) -> None:
        self.net.bprop()
        self.sgd.update(self._segments, rates=self._rates)

    def _run(self, name: str, *parts: Callable[[], None]) -> None:
        def launch() -> None:
            for part in parts:
                part()
        memory = self._kernels.memory
        kind, planned = (name, *self._images, self._kernels.precision()), memory.workspace(1)
        before, graph = self._graphs.get(kind, (None, None))
        if before != planned:                               # never done, or with a workspace that has been given back
            launch()
            self._graphs[kind] = (memory.workspace(1), None)
            return
        try:
            graph = self._kernels.capture(launch) if graph is None else graph
        except DeviceError as error:                        # a driver's limits; what is wrong with a kernel, its launch tells
            self.refusal = f"the device does not capture it: {error}"
            launch()
            return
        self._graphs[kind] = (planned, graph)
        graph.launch(memory.stream())

    def _begin(self, labels: np.ndarray, step: int, first: int, total: int | None) -> None:
        self._images = (len(labels), first, total)
        self.net.begin(labels, len(labels), training=True, step=self._ints[:1], first=first, total=total)
        self._host[0] = np.uint32(step & 0xFFFFFFFF).astype(np.int32)
        self._host[LABELS_AT:LABELS_AT + len(labels)] = labels
        self._upload(self._host, self._ints)

    def _at(self, rate: float, **rates: Any) -> None:
        rows = self.sgd.segments(rate, **rates)[0]
        if self._said is not rows:                          # SGD keeps the tuple as long as its rates stay
            self._upload(np.array([(base, decay * base) for _, _, base, decay in rows]).astype(np.float32), self._rates)
            self._said = rows

    def _upload(self, host: np.ndarray, array: Any) -> None:
        memory = self._kernels.memory
        self._kernels.extension.upload(memory.address(array), host, host.nbytes, memory.stream())
