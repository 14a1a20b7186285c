"""Copies between the devices of a placement: the only file that knows a second device (paper, section 3.2).

A copy travels in a stream of its own beside the stream that computes, ordered by events alone:

    compute of the source   ... makes x | ready ------------------------------- | goes on to overwrite x
    copies of the target        behind ready, and behind the last reader of out | copy | arrived
    compute of the target   ... work that needs no copy ...                       behind arrived | reads out

`start` begins copies of what the sources have been asked to compute so far, `finish` puts both devices' later work behind one.  What is
asked of a device between the two runs while the copies travel.  No call here waits for a device, but for the self-test.
"""

from __future__ import annotations

import os
import weakref
from typing import Any

import numpy as np

from .spec import DeviceError

TEST_BYTES = 1 << 20


class Exchange:
    """`places` are the ops of one device each (backends/compiled.py), of one extension; two may share a device (logical devices).

    overlap=False finishes copies where they start, for comparison.  `notes` says what a user should know, once.
    Raises DeviceError where copies do not arrive as they were sent (the self-test, each way between every two places).
    MINIALEX_PEER_ACCESS=0 sends everything through the host, as between devices that cannot reach each other's memory.
    """

    def __init__(self, places: list, *, overlap: bool = True):
        self.places, self.overlap = places, overlap
        self.extension = places[0].extension
        self.notes: list[str] = []
        devices = [place.memory.device for place in places]
        self._compute = [place.memory.stream() for place in places]
        self._copies = [self.extension.stream_create(device) for device in devices]
        self._ready, self._free = ([self.extension.event_create(device) for device in devices] for _ in range(2))
        self._pairs = [(s, t) for s in range(len(places)) for t in range(len(places)) if s != t]
        self._arrived = {pair: self.extension.event_create(devices[pair[1]]) for pair in self._pairs}
        self.staged = {pair for pair in self._pairs if not self._reach(devices[pair[1]], devices[pair[0]])}
        self._on_host = {pair: self.extension.event_create(devices[pair[0]]) for pair in self.staged}
        self._buffers: dict[tuple[int, int], tuple[int, int]] = {}          # pinned: (address, bytes)
        events = [*self._ready, *self._free, *self._arrived.values(), *self._on_host.values()]
        weakref.finalize(self, _release, self.extension, self._copies, events, self._buffers).atexit = False
        if self.staged:
            between = " and ".join(dict.fromkeys(places[i].name() for pair in sorted(self.staged) for i in pair))
            self.notes.append(f"no peer access between {between}: their exchanges are staged through the host's memory")
        self._test()

    def _reach(self, device: int, other: int) -> bool:
        """Lets `device` touch the memory of `other`, where the machine can."""
        if os.environ.get("MINIALEX_PEER_ACCESS") == "0":
            return False
        if device == other:
            return True
        if not self.extension.can_access_peer(device, other):
            return False
        self.extension.enable_peer(device, other)
        return True

    def _test(self) -> None:
        """Some drivers and virtual machines lose copies between devices in silence."""
        random = np.random.default_rng(len(self.places))
        for source, target in self._pairs:
            pattern = random.integers(0, 256, TEST_BYTES, np.uint8)
            sent, out = self.places[source].from_host(pattern), self.places[target].from_host(np.zeros_like(pattern))
            self.begin(source, sent, target, out)
            self.finish(source, target)
            wrong = int((self.places[target].to_host(out) != pattern).sum())
            self.places[source].finish()
            if wrong:
                names = f"{self.places[source].name()} to {self.places[target].name()}"
                advice = "name one device" if (source, target) in self.staged else "set MINIALEX_PEER_ACCESS=0, or name one device"
                raise DeviceError(f"a copy from {names} arrives with {wrong:,} of {TEST_BYTES:,} bytes wrong: the driver or the machine "
                                  f"loses copies between devices; {advice}")

    def begin(self, source: int, array: Any, target: int, out: Any) -> None:
        """Starts a copy of `array` of place `source` into `out` of place `target`: contiguous, of one size."""
        ext, pair = self.extension, (source, target)
        to, start, nbytes = self.places[target].memory.address(out), self.places[source].memory.address(array), array.nbytes
        ext.event_record(self._ready[source], self._compute[source])
        ext.event_record(self._free[target], self._compute[target])
        ext.stream_wait(self._copies[target], self._free[target])
        if pair in self.staged:
            buffer = self._pinned(pair, nbytes)
            ext.stream_wait(self._copies[source], self._ready[source])
            ext.copy(buffer, start, nbytes, self._copies[source])
            ext.event_record(self._on_host[pair], self._copies[source])
            ext.stream_wait(self._copies[target], self._on_host[pair])
            ext.copy(to, buffer, nbytes, self._copies[target])
        else:
            ext.stream_wait(self._copies[target], self._ready[source])
            devices = [self.places[i].memory.device for i in (target, source)]
            ext.copy_peer(to, devices[0], start, devices[1], nbytes, self._copies[target])
        ext.event_record(self._arrived[pair], self._copies[target])

    def start(self, copies: list[tuple[int, Any, int, Any]]) -> None:
        """Begins copies that travel at the same time, arguments of `begin` each; without overlap finishes them, too."""
        for copy in copies:
            self.begin(*copy)
        if not self.overlap:
            for source, _, target, _ in copies:
                self.finish(source, target)

    def finish(self, source: int, target: int) -> None:
        """What both places are asked from now on comes behind their last copy: the target may read it, the source overwrite what was
        sent."""
        for place in (target, source):
            self.extension.stream_wait(self._compute[place], self._arrived[source, target])
        if (source, target) in self.staged:                     # the next copy may write the buffer
            self.extension.stream_wait(self._copies[source], self._arrived[source, target])

    def _pinned(self, pair: tuple[int, int], nbytes: int) -> int:
        address, size = self._buffers.get(pair, (0, 0))
        if nbytes > size:
            if address:
                self.extension.release_pinned(address)
            address = self.extension.allocate_pinned(nbytes)
            self._buffers[pair] = (address, nbytes)
        return address


def _release(extension, streams: list[int], events: list[int], buffers: dict[tuple[int, int], tuple[int, int]]) -> None:
    for stream in streams:
        extension.stream_destroy(stream)
    for event in events:
        extension.event_destroy(event)
    for address, _ in buffers.values():
        extension.release_pinned(address)
