"""Who owns which bytes: one flat array per purpose, named views into it (ownership without autograd)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .spec import ParamSpec, Shape, ShapeError

ALIGN = 64                                  # elements: parameters start at multiples of 256 bytes, for vector loads
FINITE_EVERY = 64                           # steps: 2 % of one for 61 M weights over PCIe

Key = tuple[str, str]                       # (layer, "w" or "b")


def host_room() -> int | None:
    """Bytes that this machine, or the limit of this process's container, has left for it; None where nobody says."""
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":") for line in file)
        free = 1024 * sum(int(fields[name].split()[0]) for name in ("MemAvailable", "SwapFree"))
        limit = Path("/sys/fs/cgroup/memory.max")
        word = limit.read_text().strip() if limit.exists() else "max"
        return free if word == "max" else min(free, int(word))
    except (OSError, ValueError, KeyError):
        return None


class Arena:
    """A flat float array with one view per parameter: arena["conv2", "w"].  All arenas of a net share keys and offsets."""

    def __init__(self, ops, specs: dict[Key, ParamSpec], dtype: str = "float32"):
        self.specs = specs
        self.offsets: dict[Key, int] = {}
        end = 0
        for key, spec in specs.items():
            self.offsets[key] = end
            end += -(-spec.size // ALIGN) * ALIGN
        self.ops, self.size, self.dtype = ops, end, dtype
        self.flat = ops.from_host(np.zeros(end, dtype))     # the gaps stay zero for ever

    def like(self) -> Arena:
        """An arena of zeros with the same keys."""
        return Arena(self.ops, self.specs, self.dtype)

    def view(self, key: Key, flat=None):
        """The array of `key` inside this arena, or inside another flat array with the same offsets."""
        start, spec = self.offsets[key], self.specs[key]
        return (self.flat if flat is None else flat)[start:start + spec.size].reshape(spec.shape)

    def __getitem__(self, key: Key):
        return self.view(key)

    def __iter__(self) -> Iterator[Key]:
        return iter(self.specs)

    def items(self) -> Iterator[tuple[Key, object]]:
        return ((key, self.view(key)) for key in self.specs)

    def fill(self, key: Key, value: np.ndarray) -> None:
        """Copies a host array into the parameter `key`."""
        self.ops.from_host(np.ascontiguousarray(value, self.dtype), out=self.view(key))

    def numpy(self, key: Key) -> np.ndarray:
        """A copy of the parameter `key` on the host."""
        return self.ops.to_host(self.view(key))

    def arenas(self) -> list[Arena]:
        """The flat arrays behind it: itself."""
        return [self]

    def finite(self, step: int = 0) -> bool:
        """False if any number is NaN or infinite (their sum is, then).  On a device, where a pass over all of them is a noticeable part
        of a step, only every FINITE_EVERY-th step looks."""
        if isinstance(self.flat, np.ndarray):
            with np.errstate(all="ignore"):
                return bool(np.isfinite(self.flat.sum()))
        return step % FINITE_EVERY > 0 or bool(np.isfinite(self.ops.to_host(self.flat)).all())

    def range_of(self, layer: str) -> tuple[int, int]:
        """Where a layer's parameters lie in the flat array; (0, 0) for one without."""
        keys = [key for key in self.specs if key[0] == layer]
        return (self.offsets[keys[0]], self.offsets[keys[-1]] + self.specs[keys[-1]].size) if keys else (0, 0)

    def host(self) -> dict[str, np.ndarray]:
        """Copies of all parameters, named "conv2.w", as a checkpoint keeps them."""
        return _host(self)


def _host(arena: Arena | ShardedArena) -> dict[str, np.ndarray]:
    return {f"{layer}.{name}": arena.numpy((layer, name)) for layer, name in arena}


class Block(NamedTuple):
    """A part of a parameter: where it lies, and which part it is."""

    place: int                              # which arena
    key: Key                                # its name there
    index: tuple[slice, ...]                # what it is of the whole


class ShardedArena:
    """Parameters that lie in blocks in the arenas of several places, each number in exactly one: the face of an Arena."""

    def __init__(self, specs: dict[Key, ParamSpec], arenas: list[Arena], blocks: dict[Key, list[Block]]):
        self.specs, self.blocks, self._arenas = specs, blocks, arenas
        for key, spec in specs.items():
            held = sum(arenas[b.place].specs[b.key].size for b in blocks[key])
            if held != spec.size:
                raise ShapeError(f"{'.'.join(key)}: the places hold {held} of its {spec.size} numbers")

    def arenas(self) -> list[Arena]:
        """One for each place."""
        return self._arenas

    def like(self) -> ShardedArena:
        """Zeros in the same blocks."""
        return ShardedArena(self.specs, [arena.like() for arena in self._arenas], self.blocks)

    def __iter__(self) -> Iterator[Key]:
        return iter(self.specs)

    def fill(self, key: Key, value: np.ndarray) -> None:
        """Hands out a host array of the whole parameter."""
        for block in self.blocks[key]:
            self._arenas[block.place].fill(block.key, value[block.index])

    def numpy(self, key: Key) -> np.ndarray:
        """The whole parameter on the host."""
        whole = np.empty(self.specs[key].shape, self._arenas[0].dtype)
        for block in self.blocks[key]:
            whole[block.index] = self._arenas[block.place].numpy(block.key)
        return whole

    def host(self) -> dict[str, np.ndarray]:
        """As Arena's: a checkpoint does not know where columns lived."""
        return _host(self)


def initial(spec: ParamSpec, layer: str, seed: int) -> np.ndarray:
    """The parameter's first value: N(0, std^2) from a stream of its own (so no layer's draw depends on another's), or a constant."""
    if spec.std == 0:
        return np.full(spec.shape, spec.value, np.float32)
    name = int.from_bytes(hashlib.blake2b(f"{layer}.{spec.name}".encode(), digest_size=8).digest(), "little")
    generator = np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), name]))
    return generator.standard_normal(spec.shape, np.float32) * np.float32(spec.std)


class Buffers:
    """Activations of a net for up to `batch` images in one flat array, contiguous for any smaller number of images too.

    `dtypes[i]` is what activation i is stored as; one that is not stored as the input is has an array of its own.  `shares[i]` is the index
    of the earlier activation whose memory activation i uses (layers in place), or None.  Activation 0, the input, has two memories: while
    one is read the other may be filled (upload.py).  `turn` says which one is read; the second, number 1, is made when it is first asked
    for.
    """

    def __init__(self, ops, shapes: list[Shape], shares: list[int | None], batch: int, dtypes: list[str]):
        self.shapes, self.starts, self.turn = shapes, [], 0
        end, own = 0, [kind != dtypes[0] for kind in dtypes]
        for shape, share, apart in zip(shapes, shares, own, strict=True):
            self.starts.append(self.starts[share] if share is not None else 0 if apart else end)
            if share is None and not apart:
                end += -(-shape.size * batch // ALIGN) * ALIGN
        whole, self._second = ops.empty((end,), dtypes[0]), None
        self._flats = [ops.empty((shape.size * batch,), kind) if apart else whole
                       for shape, kind, apart in zip(shapes, dtypes, own, strict=True)]
        self._make_second = lambda: ops.empty((shapes[0].size * batch,), dtypes[0])
        self._views: dict[tuple[int, int], list] = {}

    def views(self, n: int, turn: int | None = None) -> list:
        """Each activation's array for n images; `turn` chooses the input (None: the one that is read)."""
        turn = self.turn if turn is None else turn
        if (n, turn) not in self._views:
            if len(self._views) > 8:                       # a run uses four: the batch and the last, smaller one, with either input
                self._views.clear()
            made = self._views[n, turn] = [flat[start:start + shape.size * n].reshape(shape.array(n))
                                           for flat, start, shape in zip(self._flats, self.starts, self.shapes, strict=True)]
            if turn:
                self._second = self._make_second() if self._second is None else self._second
                made[0] = self._second[:made[0].size].reshape(made[0].shape)
        return self._views[n, turn]


class Gradients:
    """Flat buffers of these sizes for the gradients of activations, taken in turn: each layer reads one and writes the next.

    With as many as there are gradients each has its own, as it must where weights' gradients are made beside the layers below and still
    read theirs (branch.py).  Two of the largest are enough where a layer is done before the next one begins (`in_turn`).
    """

    def __init__(self, ops, sizes: list[int], dtype: str):
        self.flats = [ops.empty((size,), dtype) for size in sizes]
        self.taken = 0                                      # in this pass

    def next(self, shape: tuple[int, ...]):
        flat = self.flats[self.taken % len(self.flats)]
        self.taken += 1
        return flat[:math.prod(shape)].reshape(shape)


def in_turn(sizes: list[int]) -> list[int]:
    """Sizes of the two buffers that gradients of these sizes need where each is read before the next but one is written."""
    return [max(sizes, default=0)] * 2
