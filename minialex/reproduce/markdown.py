"""Results as a table for docs/REPRODUCTION.md."""

from __future__ import annotations

from pathlib import Path

from .. import files
from ..data.source import shown
from ..spec import MiniAlexError
from .result import Interval, Result, Row

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
HEAD = ("| experiment | section | what | paper | measured: mean (95 % interval; seeds) | pictures | status | verdict |\n"
        "|---|---|---|--:|--:|---|---|---|\n")


def number(value: float) -> str:
    """Three figures, or as many as stand before the point: 37.5, 1.37, 0.394, 1200."""
    if value == 0:
        return "0"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def gold(row: Row) -> str:
    """As the paper prints it, with its unit."""
    if row.gold is None:
        return ""
    text = f"{row.gold:.6g}" if isinstance(row.gold, (int, float)) else row.gold
    return f"{text} {row.unit}".strip() if isinstance(row.gold, (int, float)) else text


def measured(one: Interval | None, unit: str = "") -> str:
    """Mean, interval and seeds; "not run" where nothing was measured."""
    if one is None:
        return "not run"
    spread = f" ({number(one.low)} to {number(one.high)}; {len(one.values)})" if one.low is not None else " (1)"
    return f"{number(one.mean)} {unit}".strip() + spread


def table(results: list[Result]) -> str:
    """One line a row of every result, in the order given."""
    lines = []
    for result in results:
        for i, row in enumerate(result.rows):
            figures = "as printed" if row.measured is None and result.status != "not run" else measured(row.measured, row.unit)
            first = [f"`{result.name}`", result.section] if i == 0 else ["", ""]
            last = [result.data if result.status != "not run" else result.why, result.status] if i == 0 else ["", ""]
            lines.append(_line([*first, row.what, gold(row), figures, *last, row.verdict or ""]))
    return HEAD + "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(shown(cell).replace("|", "\\|") for cell in cells) + " |"


def write(results: list[Result], path: str | Path) -> None:
    """Replaces what stands between the markers of a file, or makes the file.  Raises MiniAlexError for one without markers."""
    path, text = Path(path), f"# What was measured beside what the paper prints\n\n{BEGIN}\n{END}\n"
    if path.exists():
        text = path.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise MiniAlexError(f"--markdown {shown(path)}: it has no lines {BEGIN} and {END} for the table to stand between; add them, "
                            "or name a new file")
    files.write(path, f"{before}{BEGIN}\n{table(results)}{END}{after}")
