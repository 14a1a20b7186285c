"""Arms of an experiment side by side: curves of several seeds, and the differences they end in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .canvas import canvas, plain

# Okabe and Ito's colours, which people who are colour-blind tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


class Curve(NamedTuple):
    """An arm: `seeds` holds one list of figures a seed, the first behind epoch 1; runs may be of different lengths."""

    label: str
    seeds: Sequence[Sequence[float]]
    dashed: bool = False


class Difference(NamedTuple):
    """A mean with its 95 % interval (None: one seed), and what the paper's own runs gave."""

    label: str
    mean: float
    low: float | None
    high: float | None
    gold: float | None = None


def arms(curves: Sequence[Curve], path: str | Path, *, ylabel: str, title: str = "", level: float | None = None,
         differences: Sequence[Difference] = (), xlabel: str = "epoch", against: str = "") -> None:
    """Draws the mean of each arm over its seeds, every seed as a thin line behind it, a dotted line at `level`, and to the right
    `differences` in points, their zero meaning `against`."""
    with canvas(path, 9.6 if differences else 6.4, 3.7 + 0.22 * max(0, len(differences) - 6), dpi=120) as figure:
        figure.suptitle(plain(title), fontsize=10)
        panels = figure.subplots(1, 2 if differences else 1, squeeze=False, width_ratios=[3, 2] if differences else [1])[0]
        _curves(panels[0], curves, level)
        panels[0].set_xlabel(xlabel)
        panels[0].set_ylabel(ylabel)
        if differences:
            _differences(panels[1], differences)
            panels[1].set_xlabel(f"points of error{f', 0: {against}' if against else ''}")


def _curves(axes, curves: Sequence[Curve], level: float | None) -> None:
    for curve, colour in zip(curves, COLOURS * 3, strict=False):
        style = "--" if curve.dashed else "-"
        for seed in curve.seeds if len(curve.seeds) > 1 else ():
            axes.plot(range(1, len(seed) + 1), seed, style, color=colour, linewidth=0.7, alpha=0.35)
        # Where some seeds have stopped a mean would jump: it ends with the first that did.
        common = min(map(len, curve.seeds))
        if common:
            mean = np.mean([list(seed)[:common] for seed in curve.seeds], axis=0)
            axes.plot(range(1, common + 1), mean, style, color=colour, linewidth=2, label=plain(curve.label))
    if level is not None:
        axes.axhline(level, color="0.4", linestyle=":", linewidth=1)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=8)


def _differences(axes, differences: Sequence[Difference]) -> None:
    axes.axvline(0, color="0.3", linewidth=1)
    for row, one in enumerate(differences):
        if one.low is not None:
            axes.plot([one.low, one.high], [row, row], color=COLOURS[0], linewidth=2, solid_capstyle="butt")
        axes.plot(one.mean, row, "o", color=COLOURS[0], label="measured, 95 % interval" if row == 0 else None)
        if one.gold is not None:
            axes.plot(one.gold, row, "D", color=COLOURS[1], markersize=6, fillstyle="none", markeredgewidth=1.6)
    if any(one.gold is not None for one in differences):
        axes.plot([], [], "D", color=COLOURS[1], fillstyle="none", label="the paper's network")
    axes.set_yticks(range(len(differences)), [plain(one.label) for one in differences], fontsize=8)
    axes.set_ylim(len(differences) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=2, frameon=False)
