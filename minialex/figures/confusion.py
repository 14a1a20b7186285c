"""Which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .canvas import canvas, plain

LABELLED = 40                       # classes whose names fit beside the matrix


def confused(counts: np.ndarray, n: int) -> list[tuple[int, int, int]]:
    """The n most frequent mistakes of counts (K, K), as (right class, answer, how often); equally frequent ones by class."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:n]
    return [(int(i // len(wrong)), int(i % len(wrong)), int(wrong.flat[i])) for i in order if wrong.flat[i]]


def confusion(counts: np.ndarray, names: Sequence[str], path: str | Path, *, title: str = "", pairs: int = 15) -> None:
    """Draws counts (K, K), a row for each right class, as shares of the row, and lists the most confused pairs."""
    K = len(counts)
    of = counts.sum(axis=1)
    shares = 100 * counts / np.where(of, of, 1)[:, None]
    found = confused(counts, pairs)
    with canvas(path, 10.4, 5.4, dpi=120) as figure:
        figure.suptitle(plain(title), fontsize=10)
        axes, text = figure.subplots(1, 2, width_ratios=[5.6, 4.4])
        shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
        figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.02, label="% of the row's pictures")
        axes.set_xlabel("answer")
        axes.set_ylabel("right class")
        if K <= LABELLED:
            small = 8 if K <= 20 else 5.5
            short = [plain(name if len(name) <= 20 else name[:19] + "…") for name in names]
            axes.set_xticks(range(K), short, rotation=90, fontsize=small)
            axes.set_yticks(range(K), short, fontsize=small)
        if K <= 20:
            for (row, column), count in np.ndenumerate(counts):
                if count:
                    axes.text(column, row, str(count), ha="center", va="center", fontsize=6.5,
                              color="white" if shares[row, column] > 55 else "0.2")
        text.axis("off")
        text.set_title("most confused: right class → answer", fontsize=9, loc="left")
        for i, (right, answer, count) in enumerate(found):
            at = 0.97 - i * 0.95 / pairs
            line = f"{_cut(names[right])} → {_cut(names[answer])}"
            text.text(0.0, at, line, fontsize=8, va="top", transform=text.transAxes)
            text.text(1.0, at, f"{count} of {of[right]}", fontsize=8, va="top", ha="right", transform=text.transAxes)
        if not found:
            text.text(0.0, 0.97, "no mistakes", fontsize=8, va="top", transform=text.transAxes)


def _cut(name: str) -> str:
    return plain(name if len(name) <= 22 else name[:21] + "…")
