"""Training curves: loss and error against epochs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from .arms import COLOURS
from .canvas import canvas, plain


def curves(rows: list[dict], path: str | Path, *, title: str = "") -> None:
    """Draws rows of metrics.jsonl: loss, top-1 error of training (solid) and validation (dashed), rate changes as grey lines."""
    epochs = [row["epoch"] + 1 for row in rows]
    with canvas(path, 9, 3.6) as figure:
        figure.suptitle(plain(title))
        for axes, field, label in zip(figure.subplots(1, 2), ("loss", "top1"), ("mean loss", "top-1 error, %"), strict=True):
            axes.plot(epochs, [row["train"][field] for row in rows], color="tab:blue", label="training (dropout and augmentation on)")
            axes.plot(epochs, [row["validation"][field] for row in rows], color="tab:red", linestyle="--", label="validation")
            for before, after in pairwise(rows):
                if after["rate"] != before["rate"]:
                    axes.axvline(after["epoch"] + 0.5, color="0.7", linewidth=1)
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize=8)


def overlaid(runs: Sequence[tuple[str, list[dict]]], path: str | Path) -> None:
    """Draws several runs (name, rows of metrics.jsonl) over each other: a colour a run, training solid, validation dashed."""
    from matplotlib.lines import Line2D
    with canvas(path, 9, 3.6 + 0.2 * len(runs), dpi=120) as figure:
        for axes, field, label in zip(figure.subplots(1, 2), ("loss", "top1"), ("mean loss", "top-1 error, %"), strict=True):
            for i, (_, rows) in enumerate(runs):
                for part, style in (("train", "-"), ("validation", "--")):
                    axes.plot([row["epoch"] + 1 for row in rows], [row[part][field] for row in rows], style,
                              color=COLOURS[i % len(COLOURS)], marker="." if len(rows) < 3 else None)
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            axes.xaxis.get_major_locator().set_params(integer=True)
        lines = [Line2D([], [], color=COLOURS[i % len(COLOURS)], label=plain(name)) for i, (name, _) in enumerate(runs)]
        lines += [Line2D([], [], color="0.4", linestyle=style, label=name) for name, style in (("training", "-"), ("validation", "--"))]
        figure.legend(handles=lines, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
