"""Run directories: which one is meant, what can be gone on from in it, and whether a run may write there."""

from __future__ import annotations

import os
from pathlib import Path

from .checkpoint import candidates, load, match
from .config import Config
from .data import Source, Store
from .spec import MiniAlexError


def newest(asked_by: str) -> Path:
    """The run directory that is meant when none is named: the one under runs/ written to last.  `asked_by` is the flag to blame."""
    runs = [p.parent for p in Path("runs").glob("*/config.json") if any(p.parent.glob("checkpoint-*.safetensors"))]
    if not runs:
        raise MiniAlexError(f"{asked_by}: there is no run with a checkpoint under {Path('runs').absolute()}; "
                            "name a checkpoint or a run directory, or train one first")
    return max(runs, key=lambda folder: max(p.stat().st_mtime for p in folder.glob("checkpoint-*.safetensors")))


def restore(resume: str | None, folder: str | None) -> tuple[dict, dict | None, list[str], Path | None]:
    """(arrays, state, notes, path) of the checkpoint to go on from; the newest readable one of a folder."""
    if resume is None:
        return {}, None, [], None
    place = Path(folder if resume == "auto" else resume)
    notes: list[str] = []
    for path in candidates(place):
        try:
            arrays, state = load(path)
            return arrays, state, notes, path
        except MiniAlexError as error:
            if place == path:
                raise
            notes.append(f"resume: {error}; trying the one before")
    if not place.exists():
        raise MiniAlexError(f"--resume {resume}: {place} does not exist; name a checkpoint-<step>.safetensors or a run directory, "
                            "or leave --resume out to begin a new run")
    why = f"none of its {len(notes)} checkpoints can be read ({notes[0]})" if notes else "it holds no checkpoint"
    where = "" if resume == str(place) else f"{place}: "
    raise MiniAlexError(f"--resume {resume}: {where}{why}; name another run directory, or begin a new run without --resume")


def same_classes(path: Path, state: dict, found: Source | Store) -> None:
    """Refuses data of other classes than the checkpoint's, before anything is decoded."""
    try:
        match(state, {"classes": [c.id for c in found.classes]})
    except MiniAlexError as error:
        raise MiniAlexError(f"{path} does not fit {found.path}: {error}") from error


def run_folder(config: Config, resumed: Path | None) -> Path:
    """Where the run writes: refused where it could not, or would write over another run.  `resumed` is the checkpoint it goes on from."""
    if config.output_dir:
        folder = Path(config.output_dir)
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not there.is_dir():
            raise MiniAlexError(f"--output-dir {folder}: {there} is a file; name a folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise MiniAlexError(f"--output-dir {folder}: {there} is not writable; name another folder")
        if any(folder.glob("checkpoint-*.safetensors")) and (resumed is None or resumed.parent.resolve() != folder.resolve()):
            raise MiniAlexError(f"--output-dir {folder}: it holds a run already; add --resume auto to go on with it, or name another")
        return folder
    number = 1
    while (folder := Path("runs") / f"{config.recipe.partition('(')[0]}-{number}").exists():
        number += 1
    return folder
