"""The measured results that are committed: tables of `python -m minialex.bench --json` and of tests/gpu_check.sh, by what they hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..spec import MiniAlexError


@dataclass(frozen=True)
class Table:
    """One table of a result, with the file it is in and where and how it was measured."""

    file: str
    where: dict
    table: dict

    @property
    def gpu(self) -> str | None:
        """The GPU's description, or None: measured on the host, or rehearsed on the emulator."""
        return self.where["devices"][0] if self.where.get("devices") and "--device cuda" in self.where["command"] else None

    @property
    def order(self) -> tuple[str, str]:
        """Later results behind earlier ones."""
        return self.where["date"], self.file

    def row(self, *words: str) -> dict | None:
        """The row whose name and note hold all words; the name must be the first."""
        name, *rest = words
        return next((row for row in self.table["rows"] if row["name"] == name and all(word in row["note"] for word in rest)), None)


def _read(path: Path) -> Iterator[dict]:
    """The results in a file: itself, or those that gpu_check.json has collected."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MiniAlexError(f"{path}: no result of the bench ({error})") from error
    yield from (part for part in (found, *found.values()) if isinstance(part, dict) and {"environment", "tables"} <= part.keys())


def tables(folder: Path) -> list[Table]:
    """Every table in a folder's JSON files, the oldest first."""
    found = [Table(path.name, result["environment"], table) for path in sorted(folder.glob("*.json")) for result in _read(path)
             for table in result["tables"]]
    return sorted(found, key=lambda table: table.order)


def latest(found: list[Table], what: str, **wanted) -> Table | None:
    """The last table of a kind whose fields are those wanted."""
    return next((table for table in reversed(found) if table.table["what"] == what
                 and all(table.table.get(key) == value for key, value in wanted.items())), None)
