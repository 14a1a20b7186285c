"""The whole training step as one graph of the device: one launch in place of Python's, kernel by kernel (CUDA graphs).

A graph repeats its kernels with the very arguments of its capture.  What changes from step to step therefore stands in device memory:
`_ints` holds the step, which is part of dropout's key, and the labels, and is copied before each launch; `_rates` holds the rates and
is copied when they change.  All other memory was planned before: nothing is allocated or waited for in a step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .column_net import ColumnNet
from .net import Net
from .optim import SGD

LABELS_AT = 4                           # numbers: vectors of 16 bytes


class StepGraph:
    """Training steps of a net: the bits of fprop, bprop and SGD.step.  `net.loss()` reads the loss, if wanted.

    The first step of a kind is launched kernel by kernel, which plans workspaces; the second is captured.  `refusal` is None, or says why
    every step is launched kernel by kernel.
    """

    def __init__(self, net: Net | ColumnNet, sgd: SGD):
        self.net, self.sgd, self.refusal = net, sgd, None
        if not hasattr(net.ops, "kernels"):
            self.refusal = "the host has no graphs"
        elif isinstance(net, ColumnNet):
            self.refusal = "columns on several devices wait for each other's activations; a graph is captured on one device"
        else:
            self._kernels, self._graphs = net.ops.kernels, {}
            self._host = np.zeros(LABELS_AT + net.batch, np.int32)
            self._ints = net.ops.from_host(self._host)
            self._segments = sgd.segments(0.0)
            self._rates = net.ops.from_host(np.zeros((len(self._segments[0]), 2), np.float32))
            self._said: np.ndarray | None = None
            net.labels = self._ints[LABELS_AT:]

    def step(self, labels: np.ndarray, rate: float, step: int, *, first: int = 0, total: int | None = None, **rates: Any) -> None:
        """One step on what `net.input(n)` holds; `rates` are SGD.step's other ones."""
        net, segments = self.net, self.sgd.segments(rate, **rates)
        if self.refusal:
            net.fprop(labels, training=True, step=step, first=first, total=total)
            net.bprop()
            self.sgd.update(segments)
            return
        net.begin(labels, len(labels), training=True, step=self._ints[:1], first=first, total=total)
        self._write(labels, step, segments[0])
        memory = self._kernels.memory
        kind = (len(labels), first, total, self._kernels.precision())
        planned = memory.workspace(1)                       # its address: a graph that was captured with another is of no use
        before, graph = self._graphs.get(kind, (None, None))
        if before != planned:
            self._launch()
            self._graphs[kind] = (memory.workspace(1), None)
            return
        if graph is None:
            graph = self._kernels.capture(self._launch)
            self._graphs[kind] = (planned, graph)
        graph.launch(memory.stream())

    def _launch(self) -> None:
        self.net.forward()
        self.net.bprop()
        self.sgd.update(self._segments, rates=self._rates)

    def _write(self, labels: np.ndarray, step: int, segments: tuple) -> None:
        extension, memory = self._kernels.extension, self._kernels.memory
        self._host[0] = np.uint32(step & 0xFFFFFFFF).astype(np.int32)
        self._host[LABELS_AT:LABELS_AT + len(labels)] = labels
        extension.upload(memory.address(self._ints), self._host, self._host.nbytes, memory.stream())
        if self._said is not segments:                      # SGD keeps the tuple as long as its rates stay
            said = np.array([(rate, decay * rate) for _, _, rate, decay in segments]).astype(np.float32)
            extension.upload(memory.address(self._rates), said, said.nbytes, memory.stream())
            self._said = segments
