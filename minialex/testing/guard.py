"""Arrays that notice what an op must not do: outputs between guard bands and full of NaN, inputs remembered.

`call` runs one op of a backend under all these watches; tests use it instead of calling ops bare.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

BAND = 64               # guard elements before and after an array
SENTINEL = -1.2345e30   # a value no test computes (integer arrays take 93, bool arrays True)


class Guarded:
    """`array` (contiguous, filled with NaN or a copy of `content`) between two bands of sentinels."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype | type | str = np.float32, content: np.ndarray | None = None) -> None:
        size = int(np.prod(shape))
        dtype = np.dtype(dtype)
        self._sentinel = dtype.type(SENTINEL) if dtype.kind == "f" else dtype.type(1 if dtype.kind == "b" else 93)
        self._whole = np.full(size + 2 * BAND, self._sentinel, dtype)
        self.array = self._whole[BAND:BAND + size].reshape(shape)
        if content is not None:
            self.array[...] = content
        elif dtype.kind == "f":
            self.array.fill(np.nan)

    def check(self, what: str) -> None:
        """Raises AssertionError where a band was written."""
        size = self.array.size
        bands = np.concatenate([self._whole[:BAND], self._whole[BAND + size:]])
        touched = np.flatnonzero(bands != self._sentinel)
        if touched.size:
            first = int(touched[0])
            place = f"{BAND - first} before the start" if first < BAND else f"{first - BAND + 1} after the end"
            raise AssertionError(f"{what}: an element {place} of the array was written (now {bands[first]!r})")


def call(ops: ModuleType, op: str, outputs: dict, /, *, whole: bool = True, **arguments) -> dict[str, np.ndarray]:
    """Runs `ops.<op>` and returns its outputs by name.

    outputs     name -> shape (starts as NaN) or array (its copy is the start, for accumulate and updates)
    arguments   arrays are copied between guard bands, everything else is passed on
    whole       demands that no NaN is left in any output

    Raises AssertionError where a band or an input was written, or an output was left unwritten.
    """
    arrays = {name: value for name, value in arguments.items() if isinstance(value, np.ndarray)}
    floats = next((a.dtype for a in arrays.values() if a.dtype.kind == "f"), np.dtype(np.float32))
    watched = {name: Guarded(a.shape, a.dtype, a) for name, a in arrays.items()}
    results = {}
    for name, start in outputs.items():
        results[name] = Guarded(start.shape, start.dtype, start) if isinstance(start, np.ndarray) else Guarded(start, floats)
    passed = {**arguments, **{n: g.array for n, g in watched.items()}, **{n: g.array for n, g in results.items()}}
    getattr(ops, op)(**passed)
    for name, guarded in (*watched.items(), *results.items()):
        guarded.check(f"{op}: {name}")
    for name, guarded in watched.items():
        if guarded.array.tobytes() != arrays[name].tobytes():
            raise AssertionError(f"{op}: wrote its input {name}")
    for name, guarded in results.items():
        if whole and np.isnan(guarded.array).any():
            where = tuple(int(i) for i in np.argwhere(np.isnan(guarded.array))[0])
            raise AssertionError(f"{op}: {name} is NaN or was left unwritten at {where}")
    return {name: guarded.array for name, guarded in results.items()}


def refused(ops: ModuleType, op: str, error: type[Exception], outputs: tuple[str, ...], /, **arguments) -> str:
    """Asserts that the call raises `error`, with one line of text that begins with the op's name, before it writes
    anything; returns the line.

    `outputs` names the arrays among `arguments` that the op would write.  A compiled backend is handed the NumPy arrays as they
    are: its checks come before it asks where an array lives."""
    ops = getattr(ops, "device_ops", ops)
    before = {name: a.tobytes() for name, a in arguments.items() if isinstance(a, np.ndarray)}
    try:
        getattr(ops, op)(**arguments)
    except error as raised:
        message = str(raised)
    else:
        raise AssertionError(f"{op}: accepted a call that must raise {error.__name__}")
    for name, content in before.items():
        if arguments[name].tobytes() != content:
            kind = "output" if name in outputs else "input"
            raise AssertionError(f"{op}: wrote its {kind} {name} before it refused the call")
    if not message.startswith(f"{op}: ") or "\n" in message:
        raise AssertionError(f"{op}: the message is not one line that begins with the op's name: {message!r}")
    return message
