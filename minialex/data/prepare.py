"""From a source of pictures to a prepared store: one pass, constant memory, resumable after a kill at any moment (paper, section 2).

While it runs, `out/preparing/` holds the plan, one journal per finished shard and the sums so far.  A shard counts as finished when its
journal is there; the manifest comes last.  Sums are integers, so neither the number of workers nor a resumed run changes a bit.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sys
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..files import make_folder, sweep, write_json
from .audit import Progress, finish, read_note
from .decode import DESCRIPTION, VERSION, decode_item
from .record import KINDS, LEAST, pack
from .shard import StoreError, kind_number, open_shard, write_shard
from .source import ImageError, Item, Source, shown
from .store import MANIFEST, UNFINISHED, Store, shard_name
from .sums import Sums, products

PER_SHARD = 1024                # records: 201 MB at 256 x 256
PLAN, LOCK, SUMS = "plan.json", "lock", "sums.bin"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NothingReadable(StoreError):
    """A split without one picture that can be decoded; preparing it again cannot help before the pictures change."""


class Outcome(NamedTuple):
    """What became of one item: the picture, or why there is none."""

    item: Item
    pixels: np.ndarray | None
    notes: list[str]                    # rules applied, or the reason of the rejection
    stored: bytes | np.ndarray = b""    # what goes into the shard
    total: int = 0                      # CRC-32 of that
    products: np.ndarray | None = None


@dataclass
class Journal:
    """What is known of the items that went into one shard; `stop` is the number of the next item."""

    stop: int
    kept: int = 0
    rejected: list[tuple[str, str]] = field(default_factory=list)       # (file, reason)
    notes: list[tuple[str, str]] = field(default_factory=list)          # (file, rule)


def prepare(source: Source, out: str | os.PathLike, record: int = 256, workers: int = 2, progress: bool = True,
            per_shard: int = PER_SHARD, kind: str = "raw") -> Store:
    """Makes the store of `source` at folder `out`, or goes on making it, or opens it when it is there already.

    Records have record x record pixels, stored as bytes ("raw") or as JPEG ("jpeg", about a tenth; record.py).  Pictures that cannot
    be read are left out and listed in audit.txt by name.  The bytes of the store depend on the source alone, not on workers, kills
    or time.

    Raises
    ------
    StoreError      no picture readable; another store, or other files, at `out`; disk full; a second preparation at work there
    DataError       from the source: a damaged archive, say
    """
    out = Path(out)
    plan = {"fingerprint": source.fingerprint(), "record": record, "decode": VERSION, "per_shard": per_shard,
            "kind": KINDS[kind_number(kind)]}
    if record < 1 or workers < 1 or per_shard < 1:
        raise StoreError(f"record {record}, {workers} workers, {per_shard} records a shard: all start at 1")
    if (out / MANIFEST).exists():
        store = _same(Store(out), plan)
        shutil.rmtree(out / UNFINISHED, ignore_errors=True)     # a kill between the manifest and this line left it
        if progress:
            print(f"{out}: already prepared from this source")
        return store
    created = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        with _locked(out, plan):
            try:
                _check_space(source, out, plan)
                _make(source, out, plan, workers, progress)
            except BaseException as error:
                # No shard finished, or none of any use: leave nothing behind.
                if isinstance(error, NothingReadable) or not list((out / UNFINISHED).glob("*-*.json")):
                    _remove(out, created)
                raise
    except OSError as error:
        raise StoreError(_disk_sentence(error, out)) from error
    return Store(out)


def _make(source: Source, out: Path, plan: dict, workers: int, progress: bool) -> None:
    """Everything between an empty or begun folder and a finished store."""
    record = plan["record"]
    measured = "train" if "train" in source.splits else source.splits[0]
    for split in source.splits:
        _prepare_split(source, split, out, plan, workers, progress, split == measured)
    decode = {"version": VERSION, "description": DESCRIPTION}
    finish(source, plan["fingerprint"], out, measured, _sums(out, measured, record), decode, plan["kind"], progress)
    shutil.rmtree(out / UNFINISHED)


def _same(store: Store, plan: dict) -> Store:
    """Raises StoreError where the finished store is not what the plan would make."""
    made = {"fingerprint": store.fingerprint, "record": store.record, "decode": store.manifest["decode"]["version"],
            "kind": KINDS[store.kind]}
    words = {"fingerprint": "another source, or this one before a change", "record": "another record size", "decode": "another decoder",
             "kind": "another kind of records"}
    for key, word in words.items():
        if made[key] != plan[key]:
            raise StoreError(f"{store.path} is a store of {word}: {key} {made[key]} there, {plan[key]} asked for; choose another folder")
    return store


@contextmanager
def _locked(out: Path, plan: dict) -> Iterator[None]:
    """The folder with its plan, for this process alone; the lock goes when the process does, however it ends."""
    work = out / UNFINISHED
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out} is a file; give a folder for the store")
    if out.exists() and not work.is_dir() and any(out.iterdir()):
        raise StoreError(f"{out} is a folder with other files in it; give a new or an empty folder for the store")
    make_folder(work)
    with open(work / LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"{out}: another preparation is at work here; wait until it has ended") from error
        if not (work / PLAN).exists():
            write_json(work / PLAN, plan)
        begun = read_note(work / PLAN)
        if begun != plan:
            other = ", ".join(f"{key} {begun.get(key)} there, {plan[key]} asked for" for key in plan if begun.get(key) != plan[key])
            raise StoreError(f"{out} is an unfinished preparation of something else ({other}); "
                             f"give the command that began it, or remove the folder to begin anew")
        sweep(out)
        sweep(work)
        yield


def _sums(out: Path, split: str, record: int) -> Sums:
    """The sums over the finished shards of the measured split: the saved ones, and what they lack from the shards themselves."""
    work, shape = out / UNFINISHED, (record, record, 3)
    finished = _finished(work, split)
    sums = Sums.load(work / SUMS, shape, at_most=finished)
    while sums.shards < finished:
        sums.add_shard(open_shard(out / shard_name(split, sums.shards), shape).pictures())
    return sums


def _finished(work: Path, split: str) -> int:
    """Number of finished shards of a split."""
    number = 0
    while _journal_path(work, split, number).exists():
        number += 1
    return number


def _journal_path(work: Path, split: str, number: int) -> Path:
    return work / f"{shard_name(split, number)}.json"


def _prepare_split(source: Source, split: str, out: Path, plan: dict, workers: int, progress: bool, measure: bool) -> None:
    """Writes the shards of one split that are not finished yet, each with its journal."""
    work, record, end = out / UNFINISHED, plan["record"], out / UNFINISHED / f"{split}-end.json"
    if end.exists():
        return
    finished = _finished(work, split)
    start = read_note(_journal_path(work, split, finished - 1))["stop"] if finished else 0
    sums = _sums(out, split, record) if measure else None
    journal, kind = Journal(start), kind_number(plan["kind"])
    if start and source.forward_only and progress:
        print(f"prepare {split}: a packed archive cannot be entered in the middle, so the {start:,} pictures that are done are read past",
              file=sys.stderr, flush=True)
    outcomes = _decoded(source.items(split, start), record, workers, measure, kind)
    first = list(islice(outcomes, 1))                           # the rate begins behind what is read past
    bar = Progress(f"prepare {split}", source.about(split), start, progress, source.count(split) is not None)

    def pictures() -> Iterator[tuple[np.ndarray | bytes, int, int]]:
        for outcome in chain(first, outcomes):
            bar.step()
            journal.stop += 1
            if outcome.pixels is None:
                journal.rejected.append((outcome.item.name, outcome.notes[0]))
                continue
            journal.kept += 1
            journal.notes.extend((outcome.item.name, note) for note in outcome.notes)
            if sums is not None:
                sums.add(outcome.pixels, outcome.products)
            yield outcome.stored, outcome.item.label, outcome.total

    try:
        kept = pictures()
        while (head := next(kept, None)) is not None:
            write_shard(out / shard_name(split, finished), chain([head], kept), (record, record, 3), plan["per_shard"], kind)
            write_json(_journal_path(work, split, finished), vars(journal))
            finished += 1
            if sums is not None:
                sums.shards = finished
                sums.save(work / SUMS)
            journal = Journal(journal.stop)
    finally:
        outcomes.close()
        bar.close()
    if not finished:
        why = f" (the first: {journal.rejected[0][1]})" if journal.rejected else ""
        raise NothingReadable(f"{shown(source.path)}: none of the {journal.stop} {split} pictures can be read{why}")
    write_json(end, vars(journal))


def _decoded(items: Iterator[Item], record: int, workers: int, measure: bool, kind: int) -> Iterator[Outcome]:
    """The outcomes of the items in their order, decoded by threads (Pillow and zlib let go of the interpreter), few at a time."""

    def make(item: Item) -> Outcome:
        try:
            pixels, notes = decode_item(item, record)
        except ImageError as error:
            return Outcome(item, None, [str(error)])
        stored, pixels = pack(pixels, kind)                     # the sums are of what comes out of the store again
        return Outcome(item, pixels, notes, stored, zlib.crc32(stored), products(pixels) if measure else None)

    waiting: deque[Future[Outcome]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="minialex-prepare") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _check_space(source: Source, out: Path, plan: dict) -> None:
    """Refuses to begin what cannot end: bytes still needed, at the least, against bytes free."""
    counts, sure = [source.about(split) for split in source.splits], source.count(source.splits[0]) is not None
    if None in counts:
        return
    there = sum(path.stat().st_size for path in out.glob("*.shard"))
    need = sum(counts) * plan["record"] ** 2 * 3 * LEAST[kind_number(plan["kind"])] // 100 - there
    have = shutil.disk_usage(out).free
    if need * (1 if sure else 0.8) > have:                      # ten archives may be a fifth off
        guess = "" if sure else f", for about {sum(counts):,} pictures, an estimate from the sizes of the archives"
        raise StoreError(f"{out}: the store needs {need:,} more bytes{guess}, but the disk has {have:,}; make room, "
                         f"choose another disk or a smaller record") from OSError(errno.ENOSPC, "it would not fit")


def _disk_sentence(error: OSError, out: Path) -> str:
    place = next(folder for folder in (out, *out.parents) if folder.exists())
    if error.errno in FULL:
        return (f"{out} cannot be written: {error.strerror}, {shutil.disk_usage(place).free:,} bytes are free; make room and give the "
                f"same command again, finished shards are kept")
    return (f"{error.filename or out} cannot be read or written ({error.strerror}); check the disk and permissions "
            f"and give the same command again")


def _remove(out: Path, created: list[Path]) -> None:
    """Removes the working folder, and the folders that this run made for it."""
    shutil.rmtree(out / UNFINISHED, ignore_errors=True)
    for shard in out.glob("*.shard"):
        shard.unlink()
    for folder in created:
        with suppress(OSError):
            folder.rmdir()
