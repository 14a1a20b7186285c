"""From what the user named (or nothing) to a prepared store."""

from __future__ import annotations

from pathlib import Path

from . import synthetic
from .prepare import prepare
from .source import open_source
from .store import Store

FOLDER = Path("stores")                 # beside where the program runs; nothing in it is precious


def is_store(path: str | Path) -> bool:
    return (Path(path) / "manifest.json").is_file()


def open_store(data: str | Path | None, record: int, *, folder: str | Path | None = None, workers: int = 2, quiet: bool = False) -> Store:
    """The store of `data`: a prepared store as it is, anything else prepared (once) at `record` pixels a side.

    `data` None means the embedded pictures: drawn into archives of the official ILSVRC layout and read through the same
    door as the real ones.  `folder` says where the store goes, else stores/<name>-<fingerprint>-<record>.
    """
    if data is not None and is_store(data):
        return Store(data)
    if data is None:
        data = FOLDER / "embedded-archives"
        synthetic.make_if_absent(data)
    source = open_source(data)
    target = Path(folder) if folder else FOLDER / f"{Path(data).resolve().name}-{source.fingerprint()[:8]}-{record}"
    return prepare(source, target, record=record, workers=workers, progress=not quiet)
