"""When each device computes and when copies travel in a step of a network on several devices: a schedule from what was asked.

The recorder looks on while the host asks for a step: which kernel on which stream, which copy, which event is recorded and waited for.
From these and the arithmetic of a stated machine (multiply-adds and bytes at a rate) follows when everything could start.  Nothing is
measured here; with dry=True nothing is computed either, so that a batch of 128 takes a second on any machine.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..column_net import ColumnNet
from ..optim import SGD


class Machine(NamedTuple):
    """What a device does in a second, at best."""

    name: str
    flop: float                     # float32 operations; a multiply-add is two
    memory: float                   # bytes
    link: float                     # bytes from device to device, each way


GTX580 = Machine("two GeForce GTX 580: 1.58 TFLOP/s, 192 GB/s, 6 GB/s each way", 1.58e12, 192e9, 6e9)


class Asked(NamedTuple):
    """One thing the host asked for: work, or an event recorded or waited for."""

    place: int
    lane: str                       # "compute" or "copy"
    kind: str                       # "work", "record" or "wait"
    name: str = ""                  # "conv3 fprop"
    seconds: float = 0.0
    nbytes: int = 0                 # of a copy
    event: int = 0


class Span(NamedTuple):
    """Work at its time, in seconds from the start of the step."""

    place: int
    lane: str
    name: str
    start: float
    stop: float
    nbytes: int


def schedule(asked: list[Asked]) -> list[Span]:
    """Each lane works in the order of asking; it goes on where all it waits for has happened."""
    now: dict[tuple[int, str], float] = {}
    happened: dict[int, float] = {}
    spans = []
    for item in asked:
        lane = (item.place, item.lane)
        at = now.get(lane, 0.0)
        if item.kind == "record":
            happened[item.event] = at
        elif item.kind == "wait":
            now[lane] = max(at, happened.get(item.event, 0.0))
        else:
            spans.append(Span(*lane, item.name, at, at + item.seconds, item.nbytes))
            now[lane] = at + item.seconds
    return spans


def _work(op: str, dims: tuple, arguments: tuple, machine: Machine) -> float:
    """Seconds of one kernel: its multiply-adds or its bytes, whichever takes longer."""
    macs = 0
    if op.startswith(("conv_", "local_")):
        N, _, _, _, _, C, K, R, S, P, Q, *_, groups = dims
        macs = N * P * Q * K * R * S * C // groups
    elif op.startswith("linear_"):
        N, inputs, _, F, K, groups = dims
        macs = N * K * F * (inputs if groups == 1 else 1)
    return max(2 * macs / machine.flop, sum(getattr(a, "nbytes", 0) for a in arguments) / machine.memory)


class Recorder:
    """Looks on in a `with`; `asked` holds what it saw.  dry=True: kernels and copies are recorded and not run."""

    def __init__(self, net: ColumnNet, machine: Machine = GTX580, *, dry: bool = False):
        self.net, self.machine, self.dry = net, machine, dry
        self.asked: list[Asked] = []
        exchange = net.exchange
        self._extension = exchange.extension
        self._lanes = {stream: (g, kind) for kind, streams in (("compute", exchange._compute), ("copy", exchange._copies))
                       for g, stream in enumerate(streams)}

    def __enter__(self) -> Recorder:
        self.net.exchange.extension = self
        self._branches, self.net.branches = self.net.branches, []           # a device computes one thing at a time here
        for g, ops in enumerate(self.net.places):
            ops._ring = self._ring(g, ops._ring)
        return self

    def __exit__(self, *_: Any) -> None:
        self.net.exchange.extension, self.net.branches = self._extension, self._branches
        for ops in self.net.places:
            del ops._ring                                       # the method of its class again

    def __getattr__(self, name: str):
        return getattr(self._extension, name)

    def _ring(self, place: int, ring):
        def look(op: str, dims, *arguments, variant) -> None:
            dims = tuple(dims)
            self.asked.append(Asked(place, "compute", "work", self.net.doing, _work(op, dims, arguments, self.machine)))
            if not self.dry:
                ring(op, dims, *arguments, variant=variant)
        return look

    def event_record(self, event: int, stream: int) -> None:
        self.asked.append(Asked(*self._lanes[stream], "record", event=event))
        self._extension.event_record(event, stream)

    def stream_wait(self, stream: int, event: int) -> None:
        self.asked.append(Asked(*self._lanes[stream], "wait", event=event))
        self._extension.stream_wait(stream, event)

    def copy_peer(self, to: int, to_device: int, start: int, device: int, nbytes: int, stream: int) -> None:
        self._copied(nbytes, stream)
        if not self.dry:
            self._extension.copy_peer(to, to_device, start, device, nbytes, stream)

    def copy(self, to: int, start: int, nbytes: int, stream: int) -> None:
        self._copied(nbytes, stream)
        if not self.dry:
            self._extension.copy(to, start, nbytes, stream)

    def _copied(self, nbytes: int, stream: int) -> None:
        self.asked.append(Asked(*self._lanes[stream], "work", self.net.doing, nbytes / self.machine.link, nbytes))


def step(net: ColumnNet, machine: Machine = GTX580, *, dry: bool = True) -> list[Span]:
    """The schedule of one training step of a whole batch."""
    sgd = SGD(net)
    with Recorder(net, machine, dry=dry) as recorder:
        net.fprop(training=True)
        net.bprop()
        net.doing = "update"
        sgd.step(0.0)
    return schedule(recorder.asked)


def length(spans: list[Span]) -> float:
    """Seconds from the first start to the last end."""
    return max(span.stop for span in spans)


def exposed(spans: list[Span], place: int) -> float:
    """Seconds in which a place's copies travel and it computes nothing."""
    copies = [(s.start, s.stop) for s in spans if s.place == place and s.lane == "copy"]
    busy = sorted((s.start, s.stop) for s in spans if s.place == place and s.lane == "compute")
    total = 0.0
    for start, stop in copies:
        for a, b in busy:
            if b <= start or a >= stop:
                continue
            total += max(0.0, a - start)
            start = max(start, min(b, stop))
        total += max(0.0, stop - start)
    return total
