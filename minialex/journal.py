"""The written record of a run: config.json and metrics.jsonl, one line an epoch."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

from . import files
from .config import Config
from .evaluate import Metrics


class Journal:
    """Appends to metrics.jsonl; a torn last line (power cut) is dropped, and a resumed run drops what came after its checkpoint."""

    def __init__(self, folder: Path, config: Config, done: int):
        """`done`: epochs behind the run; rows of later ones belong to a course it has left, or were not followed by a checkpoint."""
        self.path = folder / "metrics.jsonl"
        files.sweep(folder)
        files.write_json(folder / "config.json", config.as_dict() | {"hash": config.hash()})
        kept = [row for row in read(self.path) if row["epoch"] < done]
        files.write(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def epoch(self, epoch: int, step: int, train: Metrics, validation: Metrics, rate: float, seconds: float) -> None:
        row = {"epoch": epoch, "step": step, "rate": rate, "train": asdict(train), "validation": asdict(validation),
               "seconds": round(seconds, 3), "time": round(time.time(), 3)}
        files.append(self.path, json.dumps(row) + "\n")                 # safe before the checkpoint that says the epoch is done

    def epochs(self) -> list[dict]:
        return read(self.path)


def read(path: Path) -> list[dict]:
    """The readable rows of a metrics.jsonl, [] where there is none."""
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:     # a torn line may hold any byte
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict) or "epoch" not in row:
            break
        rows.append(row)
    return rows
