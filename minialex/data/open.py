"""From what the user named (or nothing) to a prepared store."""

from __future__ import annotations

from pathlib import Path

from ..progress import reading
from . import synthetic
from .decode import VERSION
from .prepare import prepare
from .source import DataError, Source, open_source
from .store import Store

FOLDER = Path("stores")                 # beside where the program runs; nothing in it is precious


def is_store(path: str | Path) -> bool:
    return (Path(path) / "manifest.json").is_file()


def locate(data: str | Path | None, quiet: bool = False) -> Source | Store:
    """What `data` names: a prepared store, or a source still to be prepared.  None means the embedded pictures, which are drawn
    into archives of the official ILSVRC layout first and read through the same door as the real ones."""
    if data is None:
        return open_source(synthetic.make_if_absent(FOLDER / "embedded-archives"))
    if is_store(data):
        return Store(data)
    return open_source(data, progress=reading("MD5 of the archives", quiet=quiet), kept=FOLDER / "md5.json")


def count(found: Source | Store, *splits: str) -> int | None:
    """Pictures in the first of `splits` there is; None where only reading the source through would tell."""
    split = next((name for name in splits if name in found.splits), None)
    if split is None:
        return 0
    return len(found.split(split)) if isinstance(found, Store) else found.count(split)


def store_name(found: Source, record: int) -> str:
    """Of the folder where nobody names one: another source, size or version of the decoder has another."""
    return f"{Path(found.path).resolve().name}-{found.fingerprint()[:8]}-{record}-d{VERSION}"


def store_of(found: Source | Store, record: int, *, folder: str | Path | None = None, workers: int = 2, quiet: bool = False) -> Store:
    """A store as it is, if its pictures have `record` pixels a side; a source prepared (once), in `folder` or in
    stores/NAME as `store_name` says."""
    if isinstance(found, Store):
        if found.record != record:
            raise DataError(f"{found.path} holds pictures of {found.record} pixels a side, but this recipe is made for {record}: "
                            f"prepare them again with --record {record}, or choose another recipe")
        return found
    target = Path(folder) if folder else FOLDER / store_name(found, record)
    return prepare(found, target, record=record, workers=workers, progress=not quiet)


def open_store(data: str | Path | None, record: int, *, folder: str | Path | None = None, workers: int = 2, quiet: bool = False) -> Store:
    """`locate` and `store_of` in one call."""
    return store_of(locate(data, quiet), record, folder=folder, workers=workers, quiet=quiet)
