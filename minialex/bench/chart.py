"""The bench as a picture: for each layer and pass the share of the floor that the best variant reaches, and the peer's."""

from __future__ import annotations

from pathlib import Path

from ..files import atomic

OWN, PEER = "#3b6ea5", "#c8c8c8"


def best_rows(rows: list[dict]) -> list[dict]:
    """Of each (layer, op, precision) the fastest timed variant, in the order of the step."""
    best: dict[tuple, dict] = {}
    for row in rows:
        if "ms" in row:
            key = (row["layer"], row["op"], row["precision"])
            if key not in best or row["ms"] < best[key]["ms"]:
                best[key] = row
    return list(best.values())


def draw(table: dict, title: str, path: str | Path) -> None:
    """Horizontal bars, one for each row; the grey bar behind is the peer's share of the same floor."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    rows = best_rows(table["rows"])
    figure, axes = pyplot.subplots(figsize=(9, 1.6 + 0.24 * len(rows)), layout="constrained")
    labels = [f"{row['layer']}  {row['op']}  {row['variant'] or ''}" for row in rows]
    positions = range(len(rows))
    if any("peer_ms" in row for row in rows):
        peers = [100 * row["share_of_floor"] * row["ms"] / row["peer_ms"] if "peer_ms" in row else 0 for row in rows]
        axes.barh(positions, peers, height=0.85, color=PEER, label="PyTorch, the same op")
    axes.barh(positions, [100 * row["share_of_floor"] for row in rows], height=0.5, color=OWN, label="MiniAlex, its fastest variant")
    axes.set_yticks(positions, labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("% of the floor: bytes at the measured copy bandwidth, or products at the measured matrix rate")
    axes.set_title(title, fontsize=10)
    axes.axvline(100, color="black", linewidth=0.8)
    axes.legend(fontsize=8, loc="lower right")
    axes.margins(y=0.01)
    with atomic(path) as file:
        figure.savefig(file, format="png", dpi=110)
    pyplot.close(figure)
