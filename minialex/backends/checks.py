"""The argument checks of every op, once for all backends: each raises the named error before anything is written.

Duck-typed: an array is anything with `shape`, `dtype` and either `memory_range` or NumPy's array interface.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from ..spec import BF16, DTypeError, LayoutError, ShapeError, out_extent, pair, pool_extent

FLOATS = ("float32", "float64")
ACTIVATIONS = ("x", "y", "dx", "dy", "gate", "p", "q")              # which may be bfloat16


class ConvDims(NamedTuple):
    """Geometry of one convolution.  C and K count all columns; Gx and Gy are the columns of x and y."""

    N: int
    Gx: int
    Gy: int
    H: int
    W: int
    C: int
    K: int
    R: int
    S: int
    P: int
    Q: int
    stride: int
    before: int
    after: int
    groups: int


def _fail(op: str, what: str) -> None:
    raise ShapeError(f"{op}: {what}")


def _extent(op: str, function, *geometry) -> int:
    """out_extent or pool_extent, whose errors do not know which op was called."""
    try:
        return function(*geometry)
    except ShapeError as error:
        raise ShapeError(f"{op}: {error}") from None


def shape(op: str, name: str, array, want: tuple[int, ...]) -> None:
    if tuple(array.shape) != tuple(want):
        _fail(op, f"{name} has shape {tuple(array.shape)}, but {tuple(want)} is needed")


def rank(op: str, **arrays_and_rank) -> None:
    want = arrays_and_rank.pop("want")
    for name, array in arrays_and_rank.items():
        if array.ndim != want:
            _fail(op, f"{name} has {array.ndim} axes, but {want} are needed (shape {tuple(array.shape)})")


_name = lru_cache(maxsize=64)(str)          # of a dtype; NumPy takes several microseconds for it, and every op asks for each array


def _on_host(array) -> bool:
    return hasattr(array, "__array_interface__") and not hasattr(array, "__cuda_array_interface__")


def floats(op: str, **arrays) -> None:
    """All arrays of one float type; on a device activations of float32 may be bfloat16 instead, of which `stored` has the rules."""
    first = None
    for name, array in arrays.items():
        if array is None:
            continue
        kind = _name(array.dtype)
        if kind == BF16 and name in ACTIVATIONS and not _on_host(array):
            kind = "float32"
        if kind not in FLOATS:
            raise DTypeError(f"{op}: {name} is {kind}, but ops compute in {' or '.join(FLOATS)}; convert it first")
        first = first or (name, kind)
        if kind != first[1]:
            raise DTypeError(f"{op}: {name} is {kind} and {first[0]} is {first[1]}; all arrays of a call have one type")


def stored(op: str, *alike, either: tuple = ()) -> None:
    """Arrays `alike` are all float32 or all bfloat16; those of `either`, outputs, may be float32 in both cases."""
    kinds = {_name(array.dtype) for array in alike if array is not None}
    if len(kinds) > 1:
        raise DTypeError(f"{op}: activations stored as {' and '.join(sorted(kinds))} (uint16: bfloat16); all of a call have one storage")
    if kinds == {"float32"} and any(_name(array.dtype) == BF16 for array in either):
        raise DTypeError(f"{op}: writes bfloat16 (uint16) only from bfloat16")


def dtype(op: str, name: str, array, want: str) -> None:
    if str(array.dtype) != want:
        raise DTypeError(f"{op}: {name} is {array.dtype}, but {want} is needed")


def _address(array) -> int:
    """Of a NumPy or a CuPy array."""
    facts = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return facts["data"][0]


def _range(array) -> tuple[int, int]:
    if hasattr(array, "memory_range"):
        return array.memory_range
    low = high = _address(array)
    for extent, step in zip(array.shape, array.strides, strict=True):
        if extent == 0:
            return (low, low)
        if step > 0:
            high += (extent - 1) * step
        else:
            low += (extent - 1) * step
    return (low, high + array.itemsize)


def _interleaved(a, b) -> bool:
    """Two blocks of images of one (G, N, ...) array: their address ranges cross, their elements do not."""
    if a.shape[2:] != b.shape[2:] or a.strides != b.strides or a.ndim < 3 or not a.strides[0] or not a.strides[1]:
        return False
    distance = abs(_address(a) - _address(b))
    images, rest = divmod(distance, a.strides[1])
    return rest == 0 and max(a.shape[1], b.shape[1]) <= images and (images + max(a.shape[1], b.shape[1])) * a.strides[1] <= a.strides[0]


def _owners_differ(a, b) -> bool:
    """True if each array is, or is a view of, an array with memory of its own, and not the same one: what every op of every block asks,
    answered ten times faster than by ranges."""
    try:
        own, other = a if a.base is None else a.base, b if b.base is None else b.base
        return own is not other and own.flags.owndata and other.flags.owndata
    except AttributeError:                          # arrays of the emulator, and what NumPy made of foreign memory
        return False


def separate(op: str, outputs: dict, inputs: dict, same_ok: bool = False) -> None:
    """No output overlaps an input or another output; `same_ok` lets an output be exactly an input."""
    out = [(n, a) for n, a in outputs.items() if a is not None]
    others = [(n, a) for n, a in inputs.items() if a is not None]
    for i, (name, a) in enumerate(out):
        for other, b in others + out[:i]:
            if _owners_differ(a, b):
                continue
            (low, high), (lo, hi) = _range(a), _range(b)
            if low < hi and lo < high:
                same = same_ok and other in inputs and (lo, hi) == (low, high) and a.shape == b.shape
                if not same and not (hasattr(a, "strides") and _interleaved(a, b)):
                    raise LayoutError(f"{op}: {name} overlaps {other} in memory; give it an array of its own")


def per_image(op: str, **arrays) -> None:
    """(H, W, C) of each image contiguous (axes 0 and 1 may be strided); rank-3 arrays: rows contiguous."""
    for name, a in arrays.items():
        if a is None or not hasattr(a, "strides"):
            continue
        step = a.itemsize
        for axis in range(a.ndim - 1, 1, -1):
            if a.shape[axis] > 1 and a.strides[axis] != step:
                raise LayoutError(f"{op}: {name} is not contiguous along axis {axis} (strides {a.strides}); pass a contiguous copy")
            step *= a.shape[axis]


def contiguous(op: str, **arrays) -> None:
    for name, a in arrays.items():
        if a is not None and not a.flags.c_contiguous:
            raise LayoutError(f"{op}: {name} is not contiguous; pass a contiguous copy")


def conv(op: str, *, x, w, y, b=None, stride, pad, groups, outputs, local=False) -> ConvDims:
    """x, y: the two activations' arrays (or their gradients); `outputs` names which arguments are written."""
    rank(op, x=x, y=y, want=5)
    rank(op, w=w, want=6 if local else 4)
    floats(op, x=x, w=w, b=b, y=y)
    Gx, N, H, W, Cx = x.shape
    Gy, Ny, P, Q, Ky = y.shape
    K, R, S, Cg = w.shape[2:] if local else w.shape
    C = Gx * Cx
    if N < 1:
        _fail(op, "a batch of 0 images; give at least one")
    if Ny != N:
        _fail(op, f"x holds {N} images and y {Ny}")
    if groups < 1 or C % groups or K % groups or (groups > 1 and (groups % Gx or groups % Gy)):
        _fail(op, f"groups={groups} does not divide {C} input channels in {Gx} columns and {K} maps in {Gy} columns")
    if Cg * groups != C:
        _fail(op, f"w reads {Cg} channels a group, but x has {C} channels in {groups} groups")
    if Ky * Gy != K:
        _fail(op, f"w makes {K} maps, but y holds {Gy} x {Ky}")
    before, after = pair(pad)
    want = (_extent(op, out_extent, H, R, stride, pad), _extent(op, out_extent, W, S, stride, pad))
    if want != (P, Q):
        _fail(op, f"y is {P} x {Q}, but {H} x {W} with window {R} x {S}, stride {stride}, pad ({before}, {after}) "
                  f"gives {want[0]} x {want[1]}")
    if local and w.shape[:2] != (P, Q):
        _fail(op, f"w has filters for {w.shape[0]} x {w.shape[1]} positions, but y has {P} x {Q}")
    if b is not None:
        shape(op, "b", b, (P, Q, K) if local else (K,))
    per_image(op, x=x, y=y)
    contiguous(op, w=w, b=b)
    named = {"x": x, "w": w, "b": b, "y": y}
    separate(op, {n: named[n] for n in outputs}, {n: a for n, a in named.items() if n not in outputs})
    return ConvDims(N, Gx, Gy, H, W, C, K, R, S, P, Q, stride, before, after, groups)


def cells(op: str, *, cell, outputs, **arrays) -> None:
    """Two arrays of rank 5: pixels first, cells second."""
    rank(op, want=5, **arrays)
    floats(op, **arrays)
    (_, x), (name, y) = arrays.items()
    G, N, H, W, C = x.shape
    if N < 1:
        _fail(op, "a batch of 0 images; give at least one")
    if cell < 1:
        _fail(op, f"cells of {cell} pixels a side; 1 is the least")
    shape(op, name, y, (G, N, -(-H // cell), -(-W // cell), cell * cell * C))
    per_image(op, **arrays)
    separate(op, {n: arrays[n] for n in outputs}, {n: a for n, a in arrays.items() if n not in outputs})


def linear(op: str, *, x, w, y, b=None, groups, outputs) -> None:
    rank(op, x=x, y=y, want=3)
    rank(op, w=w, want=2)
    floats(op, x=x, w=w, b=b, y=y)
    if x.shape[1] != y.shape[1] or x.shape[1] < 1:
        _fail(op, f"x holds {x.shape[1]} images and y {y.shape[1]}; both need the same, at least one")
    K, F = w.shape
    if groups < 1 or (groups > 1 and not groups == x.shape[0] == y.shape[0]):
        _fail(op, f"groups={groups} needs as many columns, but x has {x.shape[0]} and y {y.shape[0]}")
    if F * groups != x.shape[0] * x.shape[2]:
        _fail(op, f"w reads {F} inputs in {groups} groups, but x has {x.shape[0]} x {x.shape[2]}")
    if y.shape[0] * y.shape[2] != K:
        _fail(op, f"w makes {K} outputs, but y holds {y.shape[0]} x {y.shape[2]}")
    if b is not None:
        shape(op, "b", b, (K,))
    per_image(op, x=x, y=y)
    contiguous(op, w=w, b=b)
    named = {"x": x, "w": w, "b": b, "y": y}
    separate(op, {n: named[n] for n in outputs}, {n: a for n, a in named.items() if n not in outputs})


def gate(op: str, gate, dx) -> None:
    """Of dx's shape and apart from it, or None."""
    if gate is not None:
        floats(op, dx=dx, gate=gate)
        stored(op, dx, gate)
        shape(op, "gate", gate, dx.shape)
        per_image(op, gate=gate)
        separate(op, {"dx": dx}, {"gate": gate})


def elementwise(op: str, *, outputs, in_place=True, **arrays) -> None:
    """Equal shapes; an output may be an input when `in_place`."""
    floats(op, **arrays)
    first = next(iter(arrays.values()))
    if 0 in first.shape:
        _fail(op, f"the arrays are empty (shape {tuple(first.shape)}); give at least one image")
    for name, array in arrays.items():
        shape(op, name, array, first.shape)
    per_image(op, **arrays)
    separate(op, {n: arrays[n] for n in outputs}, {n: a for n, a in arrays.items() if n not in outputs}, same_ok=in_place)


def norm(op: str, *, n, outputs, **arrays) -> None:
    rank(op, want=5, **arrays)
    if n < 1 or n % 2 == 0:
        _fail(op, f"a window of n={n} has no centre; n must be odd")
    elementwise(op, outputs=outputs, in_place=False, **arrays)


def pool(op: str, *, x, y, window, stride, outputs, **more) -> None:
    """`more`: arrays of x's shape called d...x or of y's shape called d...y."""
    rank(op, x=x, y=y, want=5, **more)
    floats(op, x=x, y=y, **more)
    G, N, H, W, C = x.shape
    if N < 1:
        _fail(op, "a batch of 0 images; give at least one")
    shape(op, "y", y, (G, N, _extent(op, pool_extent, H, window, stride), _extent(op, pool_extent, W, window, stride), C))
    for name, array in more.items():
        shape(op, name, array, x.shape if name.endswith("x") else y.shape)
    named = {"x": x, "y": y, **more}
    per_image(op, **named)
    separate(op, {n: named[n] for n in outputs}, {n: a for n, a in named.items() if n not in outputs})


def norm_pool(op: str, *, n, x, y, window, stride, outputs, **more) -> None:
    """A norm across channels with the pool behind it."""
    if n < 1 or n % 2 == 0:
        _fail(op, f"a window of n={n} has no centre; n must be odd")
    pool(op, x=x, y=y, window=window, stride=stride, outputs=outputs, **more)


def joint(op: str, *, p, q, b, y) -> None:
    """Equal shapes of rank 3 or 5; y may be p or q."""
    elementwise(op, p=p, q=q, y=y, outputs=("y",))
    if p.ndim not in (3, 5):
        _fail(op, f"p has {p.ndim} axes, but (G, N, F) or (G, N, H, W, C) is needed")
    if b is not None:
        floats(op, p=p, b=b)
        shape(op, "b", b, (p.shape[0] * p.shape[-1],))
        contiguous(op, b=b)
        separate(op, {"y": y}, {"b": b})


def ties(op: str, value) -> None:
    if value not in ("first", "all"):
        _fail(op, f"ties={value!r}; choose 'first' or 'all'")


def keep(op: str, value) -> None:
    if not 0.0 < value <= 1.0:
        _fail(op, f"keep={value}; a probability above 0, at most 1, is needed")


def columns(op: str, x, column: int, of: int | None) -> int:
    """How many columns the network has of which x holds number `column` and the following; None: no more than these."""
    last = column + x.shape[0]
    of = last if of is None else of
    if not 0 <= column <= last <= of:
        _fail(op, f"columns {column} to {last - 1} of {of}; the first is 0, the last {of - 1}")
    return of


def loss(op: str, *, x, p, labels, outputs, per_image_loss=None, dx=None) -> None:
    rank(op, x=x, p=p, want=2)
    floats(op, x=x, p=p, loss=per_image_loss, dx=dx)
    if x.shape[0] < 1:
        _fail(op, "a batch of 0 images; give at least one")
    shape(op, "p", p, x.shape)
    dtype(op, "labels", labels, "int32")
    shape(op, "labels", labels, (x.shape[0],))
    if per_image_loss is not None:
        shape(op, "loss", per_image_loss, (x.shape[0],))
    if dx is not None:
        shape(op, "dx", dx, x.shape)
    named = {"x": x, "p": p, "labels": labels, "loss": per_image_loss, "dx": dx}
    separate(op, {n: named[n] for n in outputs}, {n: a for n, a in named.items() if n not in outputs})


def sgd(op: str, *, w, v, dw, segments) -> None:
    floats(op, w=w, v=v, dw=dw)
    rank(op, w=w, v=v, dw=dw, want=1)
    for name, array in (("v", v), ("dw", dw)):
        shape(op, name, array, w.shape)
    last = 0
    for start, stop, *_ in segments:
        if start < last or stop < start or stop > w.shape[0]:
            _fail(op, f"segment ({start}, {stop}) is out of order or beyond the {w.shape[0]} parameters")
        last = stop
    contiguous(op, w=w, v=v, dw=dw)
    separate(op, {"w": w, "v": v}, {"dw": dw})


def augment(op: str, *, images, mean, offsets, flips, noise, y, mean_at) -> int:
    """Returns how many pixels a side the cells have that y is kept in: 1 for a plain picture."""
    rank(op, images=images, want=4)
    rank(op, y=y, want=5)
    dtype(op, "images", images, "uint8")
    dtype(op, "offsets", offsets, "int32")
    dtype(op, "flips", flips, "bool")
    floats(op, y=y, mean=mean, noise=noise)
    N, H0, W0, C = images.shape
    G, Ny, H, W, Cy = y.shape
    if N < 1:
        _fail(op, "a batch of 0 images; give at least one")
    cell = max(1, math.isqrt(Cy // C))
    if (G, Ny, Cy) != (1, N, cell * cell * C):
        _fail(op, f"y has shape {tuple(y.shape)}, but one column of {N} images with {C} channels, or cells of them, is needed")
    H, W = H * cell, W * cell
    if H > H0 or W > W0:
        _fail(op, f"a crop of {H} x {W} is larger than the images of {H0} x {W0}; prepare larger records or use a smaller crop")
    shape(op, "mean", mean, (H0, W0, C))
    shape(op, "offsets", offsets, (N, 2))
    shape(op, "flips", flips, (N,))
    shape(op, "noise", noise, (N, C))
    if mean_at not in ("crop", "centre"):
        _fail(op, f"mean_at={mean_at!r}; choose 'crop' or 'centre'")
    separate(op, {"y": y}, {"images": images, "mean": mean, "offsets": offsets, "flips": flips, "noise": noise})
    return cell


def offsets_inside(op: str, offsets, images, y, cell: int) -> None:
    """Host arrays only: each crop lies within its image."""
    for axis in (0, 1):
        low, high = int(offsets[:, axis].min()), int(offsets[:, axis].max())
        room = images.shape[1 + axis] - y.shape[2 + axis] * cell
        if low < 0 or high > room:
            _fail(op, f"crop offsets run from {low} to {high}, but only 0 to {room} fit")


def labels_inside(op: str, labels, classes: int) -> None:
    """Host arrays only: each label names a class."""
    if labels.shape[0] and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        _fail(op, f"labels run from {labels.min()} to {labels.max()}, but {classes} classes are numbered 0 to {classes - 1}")
