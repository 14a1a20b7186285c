"""Pictures on their way to the devices while these compute: pinned memory, a stream of its own, events (paper, section 4.1).

    reading threads    read batch k+2 into pinned memory
    copies             batch k+1 to the device, and the net's input from it      | arrived
    compute            step k, from the batch that arrived                       | used: its place may be overwritten

One record of 196,608 bytes a picture is all that moves; crops are made on the device.  Only for places with a memory of their own.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

SLOTS = 2                               # batches on a device: one in use, one on its way


class _Buffer:
    """Pinned memory as NumPy takes it; free again when no array refers to it any more.  It keeps its owner, who keeps the memory."""

    def __init__(self, owner: Uploads, address: int, size: int, shape: tuple[int, ...]):
        self.owner, self.piece = owner, (address, size)
        self.__array_interface__ = {"shape": shape, "typestr": "|u1", "data": (address, False), "version": 3}

    def __del__(self):
        self.owner.free.append(self.piece)


class Uploads:
    """`places`: ops of the devices, each of which gets every picture (backends/compiled.py), of one extension."""

    def __init__(self, places: list[Any]):
        self.places, self.extension = places, places[0].extension
        devices = [place.memory.device for place in places]
        self._compute = [place.memory.stream() for place in places]
        self._lanes = [place.on(place.memory.device) for place in places]        # ops on the streams that copy
        for lane in self._lanes:
            lane.memory.own_stream()
        self._copies = [lane.memory.stream() for lane in self._lanes]
        self._kept: list[list[Any]] = [[None] * SLOTS for _ in places]            # what _begin's work reads besides the pictures
        self._arrived, self._used = ([[self.extension.event_create(device) for _ in range(SLOTS)] for device in devices] for _ in range(2))
        self._arrays: list[list[Any]] = [[None] * SLOTS for _ in places]
        self.free: list[tuple[int, int]] = []                    # pinned memory: (address, bytes)
        self._pinned: list[int] = []
        events = [event for row in (*self._arrived, *self._used) for event in row]
        weakref.finalize(self, _release, self.extension, events, self._pinned).atexit = False

    def room(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of uint8 in pinned memory, for any thread."""
        need = math.prod(shape)
        try:
            address, size = self.free.pop()
        except IndexError:
            address, size = 0, 0
        if size < need:                                          # a short batch may have come first
            if address:
                self._pinned.remove(address)
                self.extension.release_pinned(address)
            address, size = self.extension.allocate_pinned(need), need
            self._pinned.append(address)
        return np.asarray(_Buffer(self, address, size, shape))

    def ahead(self, batches: Iterator[Any], show: Callable[[int, Any, Any], Any] | None = None) -> Iterator[Any]:
        """The batches, `sent` their pictures on each place; the next one is on its way meanwhile.  What the caller asks the places to do
        before it takes the next may read them.

        `show(place, ops, batch)` is called when a batch's pictures have been asked for, and with `ops` asks for what shall be made of them
        beside the step before: the one of two inputs that batch.turn says, which that step does not read.  What it returns is kept.
        """
        before = None
        for g, stream in enumerate(self._compute):               # whoever read or wrote an input last has done so
            for event in self._used[g]:
                self.extension.event_record(event, stream)
        try:
            for number, batch in enumerate(batches):
                coming = self._begin(batch, number % SLOTS, show)
                if before is not None:
                    yield from self._hand(before, (number - 1) % SLOTS)
                before = coming
            if before is not None:
                yield from self._hand(before, number % SLOTS)
        finally:
            for stream in self._copies:                          # with a batch, perhaps, that nobody takes: its memory is free now
                self.extension.stream_synchronize(stream)

    def _begin(self, batch: Any, slot: int, show: Callable[[int, Any, Any], Any] | None) -> Any:
        pictures, ext, sent = batch.images, self.extension, []
        for g, place in enumerate(self.places if len(pictures) else []):
            array = self._arrays[g][slot]
            if array is None or len(array) < len(pictures):
                array = self._arrays[g][slot] = place.empty(pictures.shape, "uint8")
                ext.event_record(self._used[g][slot], self._compute[g])
            sent.append(array[:len(pictures)])
            ext.stream_wait(self._copies[g], self._used[g][slot])
            ext.upload(place.memory.address(sent[g]), pictures, pictures.nbytes, self._copies[g])
            if show is not None:
                self._kept[g][slot] = show(g, self._lanes[g], replace(batch, sent=tuple(sent), turn=slot))
            ext.event_record(self._arrived[g][slot], self._copies[g])
        return replace(batch, sent=tuple(sent), turn=slot if show is not None and sent else None)

    def _hand(self, batch: Any, slot: int) -> Iterator[Any]:
        for g in range(len(batch.sent)):
            self.extension.stream_wait(self._compute[g], self._arrived[g][slot])
        yield batch
        for g in range(len(batch.sent)):
            self.extension.event_record(self._used[g][slot], self._compute[g])
            self.extension.event_synchronize(self._arrived[g][slot])     # long past; the pinned memory may go


def _release(extension, events: list[int], pinned: list[int]) -> None:
    for event in events:
        extension.event_destroy(event)
    for address in pinned:
        extension.release_pinned(address)
