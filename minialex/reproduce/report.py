"""Which results stand for which experiment."""

from __future__ import annotations

from pathlib import Path

from .catalogue import CATALOGUE
from .result import Result, load

SCALES = ("full", "cifar", "quick")             # the greater stands for an experiment that has several


def gather(folder: Path) -> list[Result]:
    """A result for every experiment, in the catalogue's order: the one of the greatest scale that has figures, else one that says
    not run.  Raises MiniAlexError for a file that is no result."""
    found = []
    for name, experiment in CATALOGUE.items():
        there = [load(path) for scale in SCALES if (path := folder / f"{name}-{scale}.json").is_file()]
        ran = [one for one in there if one.status != "not run"]
        blank = Result(name, experiment.title, experiment.section, experiment.claim, experiment.scales[0], "not run", experiment.gold_rows,
                       why=f"minialex reproduce {name} runs it")
        found.append((ran or there or [blank])[0])
    return found
