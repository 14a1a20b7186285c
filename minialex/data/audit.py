"""The end of a preparation: manifest and audit page from its journals, and the lines it shows while it runs."""

from __future__ import annotations

import io
import json
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import IO

import numpy as np
from tqdm import tqdm

from ..files import write, write_json
from ..progress import clock
from .record import DESCRIPTIONS, KINDS
from .shard import StoreError, open_shard
from .source import Source, shown
from .store import FORMAT, MANIFEST, MEAN, UNFINISHED, shard_name
from .sums import Sums, principal

AUDIT = "audit.txt"
WORRYING = 0.02                 # share of rejected pictures from which a warning is due
_EVERY = 10.0                   # seconds between plain lines


class Progress:
    """A bar on a terminal; elsewhere a line every ten seconds and one at the end, with rate and time left."""

    def __init__(self, title: str, total: int | None, start: int, show: bool, sure: bool = True):
        self.title, self.total, self.done, self.start, self.show = title, total, start, start, show
        self.of = "of" if sure else "of about"
        self.began = self.last = monotonic()
        self.bar = tqdm(desc=title, total=total, initial=start, unit="img") if show and sys.stderr.isatty() else None

    def step(self, by: int = 1) -> None:
        self.done += by
        if self.bar is not None:
            self.bar.update(by)
        elif self.show and monotonic() - self.last > _EVERY:
            self._line()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        elif self.show:
            self._line()

    def _line(self) -> None:
        self.last = monotonic()
        rate = (self.done - self.start) / max(self.last - self.began, 1e-9)
        of = "" if self.total is None else f" {self.of} {self.total:,} ({100 * self.done / max(self.total, 1):.0f} %)"
        left = "" if not self.total or not rate else f", {clock((self.total - self.done) / rate)} left"
        print(f"{self.title}: {self.done:,}{of}, {rate:.0f} images/s{left}", file=sys.stderr, flush=True)


def read_note(path: Path) -> dict:
    """The plan or a journal.  Raises StoreError where a fallen disk has left something else."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise StoreError(f"{path} is damaged; remove {path.parent.parent} and prepare the store anew") from error


def journals(out: Path, split: str) -> Iterator[dict]:
    """The journals of a finished split in order."""
    work = out / UNFINISHED
    number = 0
    while (path := work / f"{shard_name(split, number)}.json").exists():
        yield read_note(path)
        number += 1
    yield read_note(work / f"{split}-end.json")


def finish(source: Source, fingerprint: str, out: Path, measured: str, sums: Sums, decode: dict, kind: str,
           progress: bool) -> None:
    """Writes mean image, audit page and, last, the manifest that makes the folder a store; `measured` is the split of the sums."""
    shape = sums.pixels.shape
    splits, rules, warnings = {}, Counter(), []
    for split in source.splits:
        kept, items, rejected, split_rules = [], 0, 0, Counter()
        for journal in journals(out, split):
            kept.append(journal["kept"])
            items, rejected = journal["stop"], rejected + len(journal["rejected"])
            split_rules.update(rule for _, rule in journal["notes"])
        rules += split_rules
        shards = kept[:-1]                              # the last journal only ends the split
        per_class = np.zeros(len(source.classes), np.int64)
        for number in range(len(shards)):
            labels = open_shard(out / shard_name(split, number), shape).labels
            per_class += np.bincount(labels, minlength=len(source.classes))
        splits[split] = {"count": sum(shards), "items": items, "rejected": rejected, "shards": shards, "per_class": per_class.tolist()}
        if rejected > WORRYING * items:
            warnings.append(f"{rejected} of {items} {split} pictures ({100 * rejected / items:.1f} %) cannot be read and are left out; "
                            f"see what they are before you trust a result")
        if (missing := np.flatnonzero(per_class == 0)).size:
            first = source.classes[missing[0]].id
            warnings.append(f"{missing.size} of {len(source.classes)} classes have no {split} pictures, the first is {shown(first)}")
    covariance = sums.covariance()
    values, vectors = principal(covariance)
    buffer = io.BytesIO()
    np.save(buffer, sums.mean(), allow_pickle=False)
    mean = buffer.getvalue()
    write(out / MEAN, mean)
    manifest = {
        "format": FORMAT, "records": {"kind": kind, "description": DESCRIPTIONS[KINDS.index(kind)]},
        "shape": list(shape), "splits": splits, "decode": decode, "rules": dict(rules), "warnings": warnings,
        "classes": [{"id": c.id, "name": c.name, "devkit_id": c.devkit_id} for c in source.classes],
        "mean": {"file": MEAN, "crc32": zlib.crc32(mean), "rgb": sums.mean_rgb()},
        "colour": {"split": measured, "covariance": covariance.tolist(), "eigenvalues": values.tolist(), "eigenvectors": vectors.tolist()},
        "source": {"kind": source.kind, "path": shown(source.path), "fingerprint": fingerprint, "verified": source.verified,
                   "reason": source.reason},
    }
    summary = _summary(manifest, source)
    write(out / AUDIT, lambda file: _page(file, summary, manifest, out))
    write_json(out / MANIFEST, manifest)
    if progress:
        print(f"{summary}every file named in {out / AUDIT}", flush=True)


def _summary(manifest: dict, source: Source) -> str:
    H, W, C = manifest["shape"]
    values = manifest["colour"]["eigenvalues"]
    lines = [f"Store of {H} x {W} x {C} pictures ({manifest['records']['description']}), "
             f"{len(manifest['classes']):,} classes, from {manifest['source']['path']}",
             f"verified: {str(source.verified).lower()} ({source.reason})", manifest["decode"]["description"]]
    for split, of in manifest["splits"].items():
        lines.append(f"{split:5} {of['count']:>11,} pictures of {of['items']:,}, {of['rejected']:,} rejected")
    lines.append(f"mean RGB {_numbers(manifest['mean']['rgb'])}; standard deviations along the colour axes {_numbers(np.sqrt(values))}")
    if manifest["rules"]:
        lines.append("rules applied: " + ", ".join(f"{rule} {count:,}" for rule, count in sorted(manifest["rules"].items())))
    lines += [f"note: {note}" for note in source.notes] + [f"WARNING: {warning}" for warning in manifest["warnings"]]
    return "\n".join(lines) + "\n"


def _numbers(values) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _page(file: IO[bytes], summary: str, manifest: dict, out: Path) -> None:
    """Written as it is read, so that a million notes need no memory."""
    def line(text: str) -> None:
        file.write(text.encode("utf-8", "backslashreplace") + b"\n")

    line(summary)
    for split in manifest["splits"]:
        for journal in journals(out, split):
            for name, reason in journal["rejected"]:
                line(f"rejected  {split}  {shown(name)}  {shown(reason)}")
            for name, rule in journal["notes"]:
                line(f"rule      {split}  {shown(name)}  {shown(rule)}")
    line("")
    line("pictures per class: " + ", ".join(manifest["splits"]))
    columns = [split["per_class"] for split in manifest["splits"].values()]
    for entry, *counts in zip(manifest["classes"], *columns, strict=True):
        words = [shown(entry["id"])] + [shown(entry["name"])] * (entry["name"] != entry["id"])
        line("  ".join([f"{count:7,}" for count in counts] + words))
