"""The whole training step as one graph of the device: one launch in place of Python's, kernel by kernel (CUDA graphs).

Columns on several devices are one graph too: their streams fork from one and join it again.

A graph repeats its kernels with the very arguments of its capture.  What changes from step to step therefore stands in device memory:
`_ints` holds the step, which is part of dropout's key, and the labels, and is copied before each launch; `_rates` holds the rates and
is copied when they change.  All other memory was planned before: nothing is allocated or waited for in a step.
"""

from __future__ import annotations

import os
import weakref
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
    None, or says why kernels are always launched one by one (MINIALEX_GRAPH=0 asks for it).  `exchange(arena, zero=idle)` adds the
    gradients of several processes.
    """

    def __init__(self, net: Net | ColumnNet, sgd: SGD, exchange: Callable[..., None] | None = None):
        self.net, self.sgd, self.exchange, self.refusal = net, sgd, exchange, None
        if not hasattr(net.ops, "kernels"):
            self.refusal = "the host has no graphs"
        elif os.environ.get("MINIALEX_GRAPH") == "0":
            self.refusal = "MINIALEX_GRAPH is 0"
        elif exchange is not None:
            self.refusal = "processes add their gradients between bprop and the update"
        else:
            self._places = [ops.kernels for ops in net.places]
            self._extension = self._places[0].extension
            self._events = [self._extension.event_create(place.memory.device) for place in self._places]
            self._graphs: dict[tuple, tuple[list, Any]] = {}         # what is done -> addresses of its workspaces, graph
            self._host = np.zeros(LABELS_AT + net.batch, np.int32)
            self._ints = [place.from_host(self._host) for place in self._places]
            self._segments = sgd.segments(0.0)
            self._rates = [place.from_host(np.zeros((len(rows), 2), np.float32))
                           for place, rows in zip(self._places, self._segments, strict=True)]
            self._said: list[tuple] | None = None
            net.labels = self._ints[0][LABELS_AT:]
            weakref.finalize(self, _release, self._extension, self._events).atexit = False

    def step(self, labels: np.ndarray, rate: float, step: int, *, first: int = 0, total: int | None = None, **rates: Any) -> None:
        """One step on what `net.input(n)` holds; arguments are those of fprop and SGD.step."""
        if self.refusal:
            self.fprop(labels, step=step, first=first, total=total)
            self.learn(rate, **rates)
            return
        self._begin(labels, step, first, total)
        self._at(rate, **rates)
        self._run("step", self.net.forward, self._learn)

    def fprop(self, labels: np.ndarray, *, step: int, first: int = 0, total: int | None = None) -> float:
        """Net.fprop in training."""
        if self.refusal:
            return self.net.fprop(labels, training=True, step=step, first=first, total=total)
        self._begin(labels, step, first, total)
        self._run("fprop", self.net.forward)
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

    def _learn(self) -> None:
        self.net.bprop(self.sgd.early(self._segments, self._rates))

    def _run(self, name: str, *parts: Callable[[], None]) -> None:
        def launch() -> None:
            for part in parts:
                part()
        kind, planned = (name, self.net.turn, *self._images, self._places[0].precision()), self._workspaces()
        before, graph = self._graphs.get(kind, (None, None))
        if before != planned:                               # never done, or with a workspace that has been given back
            launch()
            self._graphs[kind] = (self._workspaces(), None)
            return
        try:
            graph = self.capture(launch) if graph is None else graph
        except DeviceError as error:                        # a driver's limits; what is wrong with a kernel, its launch tells
            self.refusal = f"the device does not capture it: {error}"
            launch()
            return
        self._graphs[kind] = (planned, graph)
        first = self._places[0].memory.stream()
        self._join(first)
        graph.launch(first)
        self._fork(first)

    def capture(self, launch: Callable[[], None]) -> Any:
        """What `launch` asks of all places, as one graph, which does not run."""
        if len(self._places) == 1:
            return self._places[0].capture(launch)

        def body(stream: int) -> None:
            self._fork(stream)
            launch()
            self._join(stream)
        return self._extension.capture(self._places[0].memory.device, body)

    def _fork(self, stream: int) -> None:
        """Puts what the places are asked next behind what `stream`, of the first place's device, was asked before."""
        for place in self._places if len(self._places) > 1 else ():
            self._extension.event_record(self._events[0], stream)
            self._extension.stream_wait(place.memory.stream(), self._events[0])

    def _join(self, stream: int) -> None:
        """And the other way round."""
        for place, event in zip(self._places, self._events, strict=True) if len(self._places) > 1 else ():
            self._extension.event_record(event, place.memory.stream())
            self._extension.stream_wait(stream, event)

    def _workspaces(self) -> list[int]:
        return [ops.memory.workspace(1) for ops in (*self._places, *(branch.ops for branch in self.net.branches))]

    def _begin(self, labels: np.ndarray, step: int, first: int, total: int | None) -> None:
        self._images = (len(labels), first, total)
        self.net.begin(labels, len(labels), training=True, steps=[ints[:1] for ints in self._ints], first=first, total=total)
        self._host[0] = np.uint32(step & 0xFFFFFFFF).astype(np.int32)
        self._host[LABELS_AT:LABELS_AT + len(labels)] = labels
        for place, array in zip(self._places, self._ints, strict=True):
            self._upload(place, self._host, array)

    def _at(self, rate: float, **rates: Any) -> None:
        said = self.sgd.segments(rate, **rates)
        if self._said is said:                              # SGD keeps the list as long as its rates stay
            return
        for place, array, rows in zip(self._places, self._rates, said, strict=True):
            self._upload(place, np.array([(base, decay * base) for _, _, base, decay in rows]).astype(np.float32), array)
        self._said = said

    def _upload(self, place: Any, host: np.ndarray, array: Any) -> None:
        self._extension.upload(place.memory.address(array), host, host.nbytes, place.memory.stream())


def _release(extension: Any, events: list[int]) -> None:
    for event in events:
        extension.event_destroy(event)
