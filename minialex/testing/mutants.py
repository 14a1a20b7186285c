"""Plausible wrong versions of ops.  A test that does not reject every one of them tests too little.

Each mutant is a complete function with the signature of the op it replaces, wrong in one way somebody once was.
`mutants_weights`, `mutants_learning`, `mutants_norm` and `mutants_pool` register theirs; `of` lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace


@dataclass(frozen=True)
class Mutant:
    """`function` stands in for the op `replaces` of the stem `stem`; `name` says what is wrong."""

    stem: str
    name: str
    replaces: str
    function: Callable[..., None]

    def __str__(self) -> str:
        return f"{self.replaces}-{self.name}"

    def ops(self, backend: ModuleType) -> SimpleNamespace:
        """`backend` with the one op replaced."""
        return SimpleNamespace(**{**vars(backend), self.replaces: self.function})


MUTANTS: list[Mutant] = []


def mutant(stem: str, replaces: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers the decorated function under its own name."""
    def register(function: Callable[..., None]) -> Callable[..., None]:
        MUTANTS.append(Mutant(stem, function.__name__, replaces, function))
        return function
    return register


def of(*stems: str) -> list[Mutant]:
    """All mutants of these stems."""
    if {"conv", "local", "linear"} & set(stems):            # imported late: they import this module
        from . import mutants_weights  # noqa: F401
    elif {"dropout", "loss", "sgd", "augment"} & set(stems):
        from . import mutants_learning  # noqa: F401
    else:
        from . import mutants_norm, mutants_pool  # noqa: F401
    found = [m for m in MUTANTS if m.stem in stems]
    missing = set(stems) - {m.stem for m in found}
    if missing:
        raise AssertionError(f"no mutant is registered for {', '.join(sorted(missing))}")
    return found
