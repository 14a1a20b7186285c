"""Backends: modules that implement the ops of signatures.py.  `load(name)` once, at the edge; nothing below compares a name."""

from __future__ import annotations

import difflib
import importlib
from types import ModuleType

from ..spec import BackendUnavailable, MiniAlexError

NAMES = ("reference", "cpu", "emulated", "cuda")


def load(name: str) -> ModuleType:
    """The backend called `name`.  Raises BackendUnavailable with the original reason; never falls back to another."""
    if name not in NAMES:
        near = ["cuda"] if name in ("gpu", "nvidia") else difflib.get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise MiniAlexError(f"no backend (--device) is called {name!r}: {hint}there are {', '.join(NAMES)}")
    try:
        return importlib.import_module(f".{name}", __name__)
    except ModuleNotFoundError as error:
        if error.name == f"{__name__}.{name}":
            raise BackendUnavailable(f"{name}: this version of MiniAlex has no {name} backend yet; use --device cpu") from error
        raise BackendUnavailable(f"{name}: {error}") from error
    except ImportError as error:
        raise BackendUnavailable(f"{name}: {error}") from error


def available() -> dict[str, str | None]:
    """For each backend None if it loads here, else the reason why not."""
    reasons: dict[str, str | None] = {}
    for name in NAMES:
        try:
            load(name)
            reasons[name] = None
        except BackendUnavailable as error:
            reasons[name] = str(error)
    return reasons
