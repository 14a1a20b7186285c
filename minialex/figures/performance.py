"""Where kernels stand under a roofline, how a step's time is made up, and contenders side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .arms import COLOURS
from .canvas import canvas, plain

KINDS = {"conv": COLOURS[0], "fc": COLOURS[2], "light": COLOURS[1], "update": COLOURS[3]}
MEANING = {"conv": "convolutions", "fc": "fully connected layers", "light": "norms, pools, ReLU, dropout, loss", "update": "update"}


class Point(NamedTuple):
    """A kernel: operations for each byte, operations a second."""

    label: str
    kind: str
    intensity: float
    rate: float
    measured: bool = False


def roofline(points: Sequence[Point], copy: float, ceilings: Mapping[str, float], path: str | Path, *, title: str = "") -> None:
    """Draws kernels under the roofs of a machine: `copy` bytes a second, `ceilings` operations a second by name.  Measured points are
    filled, those that arithmetic puts on the roof are rings."""
    from matplotlib.lines import Line2D
    low, high = 0.05, 2000
    with canvas(path, 9, 4.8) as figure:
        axes = figure.subplots()
        axes.set_title(plain(title), fontsize=10)
        for name, ceiling in ceilings.items():
            ridge = ceiling / copy
            axes.plot([low, ridge, high], [low * copy / 1e12, ceiling / 1e12, ceiling / 1e12], color="0.6", linewidth=1)
            axes.text(high * 1.08, ceiling / 1e12, f"{name}\n{ceiling / 1e12:,.0f}", va="center", fontsize=7, color="0.3")
        axes.text(low * 1.3, low * copy / 1e12 * 2.2, f"{copy / 1e12:.1f} TB/s", fontsize=7, color="0.3", rotation=33)
        taken: list[tuple[float, float]] = []                           # what has a name already
        for point in sorted(points, key=lambda point: -point.rate):
            colour = KINDS[point.kind]
            at = point.intensity, point.rate / 1e12
            axes.plot(*at, "o", color=colour, markerfacecolor=colour if point.measured else "white", markersize=5)
            if all(abs(point.intensity / x - 1) > 0.12 or abs(point.rate / y - 1) > 0.25 for x, y in taken):
                flat = point.rate < 0.98 * copy * point.intensity           # off the slope: names side by side, which go up
                axes.annotate(plain(point.label), at, xytext=(1, 4) if flat else (5, -8), rotation=60 if flat else 0,
                              textcoords="offset points", fontsize=6)
                taken.append((point.intensity, point.rate))
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low * copy / 1e12 * 0.8, 5 * max(ceilings.values()) / 1e12))
        axes.set_xlabel("operations for each byte")
        axes.set_ylabel("TFLOP/s")
        axes.grid(alpha=0.3)
        handles = [Line2D([], [], marker="o", linestyle="", color=KINDS[kind], markerfacecolor="white", label=text)
                   for kind, text in MEANING.items()]
        axes.legend(handles=handles, fontsize=7, loc="lower right")


def made_up(panels: Sequence[tuple[str, Sequence[tuple[str, str, float]]]], path: str | Path, *, title: str = "") -> None:
    """Draws steps as lanes on one axis of microseconds: (name, its kernels in order), a kernel (label, kind, seconds)."""
    from matplotlib.patches import Patch
    longest = max(sum(seconds for *_, seconds in kernels) for _, kernels in panels)
    with canvas(path, 12, 1.4 + 0.75 * len(panels)) as figure:
        axes = figure.subplots()
        axes.set_title(plain(title), fontsize=10)
        for row, (_, kernels) in enumerate(panels):
            start = 0.0
            for label, kind, seconds in kernels:
                axes.barh(row, 1e6 * seconds, left=1e6 * start, height=0.7, color=KINDS[kind], edgecolor="white", linewidth=0.5)
                if seconds > 0.0055 * len(label) * longest:
                    axes.text(1e6 * (start + seconds / 2), row, plain(label), ha="center", va="center", fontsize=6, color="white")
                start += seconds
            axes.text(1e6 * start, row, f" {1e6 * start:,.0f} us", va="center", fontsize=8)
        axes.set_yticks(range(len(panels)), [plain(name) for name, _ in panels], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, 1e6 * longest * 1.07)
        axes.set_xlabel("us")
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        figure.legend(handles=[Patch(color=KINDS[kind], label=text) for kind, text in MEANING.items()], loc="outside lower center", ncols=4,
                      fontsize=8, frameon=False)


def contenders(panels: Sequence[tuple[str, Sequence[tuple[str, bool, float, float, float]]]], path: str | Path, *, title: str = "") -> None:
    """Draws images a second as bars, a panel for each (name, rows); a row is (label, our own, median, lowest, highest)."""
    rows = max(len(entries) for _, entries in panels)
    with canvas(path, 4.2 * len(panels) + 0.8, 1.3 + 0.34 * rows) as figure:
        figure.suptitle(plain(title), fontsize=10)
        for axes, (name, entries) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for row, (_, own, median, low, high) in enumerate(entries):
                axes.barh(row, median, height=0.65, color=COLOURS[0] if own else "0.75")
                axes.plot([low, high], [row, row], color="0.15", linewidth=1.5)
                axes.text(0, row, f" {median:,.1f}", va="center", fontsize=7, color="white" if own else "0.1")
            axes.set_yticks(range(len(entries)), [plain(label) for label, *_ in entries], fontsize=7)
            axes.invert_yaxis()
            axes.set_title(plain(name), fontsize=9)
            axes.set_xlabel("images/s")
            axes.grid(axis="x", alpha=0.3)
            axes.set_axisbelow(True)
