"""Every experiment of the paper, in its order."""

from __future__ import annotations

import difflib

from ..spec import MiniAlexError
from . import ablations, cifar_nets, nearest, pictures, tables, two_gpu_time
from .experiment import Experiment

ORDER = ("fig1", "sigmoid", "table1", "table2", "onegpu", "two-gpu-time", "talkless", "bias1", "lrn", "pooling", "augmentation", "colour",
         "dropout", "weight-decay", "depth", "fig3", "fig4-predictions", "fig4-retrieval", "codes", "imagenet2009", "pretrain-finetune",
         "ensemble", "cifar13", "cifar11", "cifar18")

_FOUND = {one.name: one for part in (ablations, cifar_nets, tables, pictures, nearest, two_gpu_time) for one in part.EXPERIMENTS}
CATALOGUE: dict[str, Experiment] = {name: _FOUND[name] for name in ORDER if name in _FOUND}


def experiments(names: list[str]) -> list[Experiment]:
    """Those named, in the catalogue's order; "all" is all of them.  Raises MiniAlexError, with the nearest name, where there is none."""
    for name in names:
        if name != "all" and name not in CATALOGUE:
            near = difflib.get_close_matches(name, CATALOGUE, n=1)
            raise MiniAlexError(f"no experiment is called {name!r}" + (f"; did you mean {near[0]}?" if near else "")
                                + " See minialex reproduce --list")
    return [one for name, one in CATALOGUE.items() if name in names or "all" in names]
