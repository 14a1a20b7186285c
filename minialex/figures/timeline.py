"""A step of a network on several devices: what each computes, what travels between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .canvas import canvas, plain

# Okabe and Ito's colours, which people who are colour-blind tell apart; the lighter tone is the backward pass.
COLOURS = {"own": ("#0072B2", "#8DC3E3"), "joint": ("#D55E00", "#F2AE84"), "copy": ("#009E73", "#7FD1BB"), "other": ("#999999", "#CCCCCC")}
LEGEND = {"own": "layers that read their own column (light: backward)", "joint": "layers that read both", "copy": "copies between devices",
          "other": "update, loss"}


def timeline(panels: Sequence[tuple[str, Sequence[Any]]], joint: Sequence[str], path: str | Path, *, title: str = "") -> None:
    """Draws spans (bench/timeline.py) as lanes, one panel for each (title, spans), all on one time axis in milliseconds.

    `joint` names the layers that read all columns.  Dark is the forward pass, light the backward one.
    """
    from matplotlib.patches import Patch

    longest = 1e3 * max(span.stop for _, spans in panels for span in spans)
    with canvas(path, 13, 1.1 + 2.1 * len(panels), dpi=120) as figure:
        figure.suptitle("\n".join(map(plain, title.splitlines())), fontsize=10)
        for axes, (name, spans) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
            lanes = [(place, lane) for place in sorted({span.place for span in spans}) for lane in ("compute", "copy")]
            for span in spans:
                layer, _, direction = span.name.partition(" ")
                kind = "copy" if span.lane == "copy" else "joint" if layer in joint else "own" if direction else "other"
                row = lanes.index((span.place, span.lane))
                start, width = 1e3 * span.start, 1e3 * (span.stop - span.start)
                axes.barh(row, width, left=start, height=0.72, color=COLOURS[kind][direction == "bprop"], linewidth=0)
            _labels(axes, spans, lanes, longest)
            does = {"compute": "computes", "copy": "receives"}
            axes.set_yticks(range(len(lanes)), [f"{'abcdefgh'[place]} {does[lane]}" for place, lane in lanes])
            axes.invert_yaxis()
            axes.set_xlim(0, longest * 1.01)
            axes.set_title(plain(name), fontsize=9, loc="left")
            axes.grid(axis="x", alpha=0.3)
            axes.set_axisbelow(True)
        axes.set_xlabel("ms")
        figure.legend(handles=[Patch(color=COLOURS[kind][0], label=text) for kind, text in LEGEND.items()], loc="outside lower center",
                      ncols=4, fontsize=8, frameon=False)


def _labels(axes, spans: Sequence[Any], lanes: list, longest: float) -> None:
    """The names of the layers over the first device's lane, where there is room for them."""
    runs: list[list] = []
    for span in (span for span in spans if (span.place, span.lane) == lanes[0]):
        layer = span.name.partition(" ")[0]
        if runs and runs[-1][0] == layer:
            runs[-1][2] = span.stop
        else:
            runs.append([layer, span.start, span.stop])
    for layer, start, stop in runs:
        if 1e3 * (stop - start) > longest * 0.0085 * len(layer):
            axes.text(1e3 * (start + stop) / 2, 0, layer, ha="center", va="center", fontsize=7)
