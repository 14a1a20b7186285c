"""Backends: modules that implement the ops of signatures.py.  `load(name)` once, at the edge; nothing below compares a name."""

from __future__ import annotations

import difflib
import importlib

from ..spec import BackendUnavailable, MiniAlexError

NAMES = ("reference", "cpu", "emulated", "cuda")


def load(name: str, place: int | None = None):
    """The backend called `name`, on device number `place` (cuda and emulated; default 0).

    Raises BackendUnavailable with the original reason; never falls back to another."""
    if name not in NAMES:
        near = ["cuda"] if name in ("gpu", "nvidia") else difflib.get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise MiniAlexError(f"no backend (--device) is called {name!r}: {hint}there are {', '.join(NAMES)}")
    try:
        module = importlib.import_module(f".{name}", __name__)
    except ImportError as error:
        raise BackendUnavailable(f"{name}: {error}") from error
    if not place:
        return module
    if not hasattr(module, "kernels"):
        raise MiniAlexError(f"--device {name}:{place}: {name} has no numbered devices; give --device {name}")
    return module.kernels.on(place)


def available() -> dict[str, str | None]:
    """For each backend None if it loads here, else the reason why not."""
    reasons: dict[str, str | None] = {}
    for name in NAMES:
        try:
            load(name)
            reasons[name] = None
        except BackendUnavailable as error:
            reasons[name] = str(error).removeprefix(f"{name}: ")
    return reasons


def best() -> str:
    """The device a run takes when none is named: the first GPU where there is one, else the CPU."""
    return "cuda:0" if available()["cuda"] is None else "cpu"
