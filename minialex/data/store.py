"""The prepared store: a folder of pictures of one size, decoded once, with the statistics of the training pixels (paper, section 2).

    manifest.json       classes, counts, colour statistics, how the pictures were decoded and from what; written last
    mean.npy            (H, W, 3) float64, mean of the training pictures, 0..255
    train-00000.shard   records (shard.py); val-..., test-... likewise
    audit.txt, .json    every picture that was rejected or needed a rule (prepare.py)
    preparing/          only while preparation is unfinished
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from threading import get_ident

import numpy as np

from .record import KINDS, RAW
from .shard import Handle, Shard, StoreError, kind_number, open_shard
from .source import ClassInfo

FORMAT = 1                      # of the manifest
MANIFEST, MEAN, UNFINISHED = "manifest.json", "mean.npy", "preparing"
SPLITS = ("train", "val", "test")
DAMAGES = 10                    # damaged records named in each shard
OPEN_FILES = 128                # shards of a split kept open; a system grants a process 1,024 files, and ImageNet has 1,300 shards


class Split:
    """The pictures of one split, in the order of the store."""

    def __init__(self, name: str, shards: list[Shard], shape: tuple[int, int, int]):
        self.name, self.shape, self._shards = name, shape, shards
        counts = [len(shard.labels) for shard in shards]
        self._first = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        # Eviction forgets a handle; it closes when the last thread that reads through it has let go.
        self._handle = lru_cache(maxsize=OPEN_FILES)(lambda number: Handle(shards[number].path))
        self.reading: dict[int, str] = {}       # thread -> where it reads or last read
        self.labels = np.concatenate([shard.labels for shard in shards]) if shards else np.empty(0, np.int32)
        self.labels.flags.writeable = False

    def __len__(self) -> int:
        return int(self._first[-1])

    def read(self, indices, out: np.ndarray | None = None, check: bool = True) -> np.ndarray:
        """Pictures `indices` as (n, H, W, C) uint8, into `out` if given.

        `check` compares each picture's CRC-32 (about 0.1 ms for 256 x 256).  Raises StoreError naming shard and record.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise StoreError(f"split {self.name}: pictures {indices.min()} to {indices.max()} asked for, but it holds 0 to {len(self) - 1}")
        want = (len(indices), *self.shape)
        if out is None:
            out = np.empty(want, np.uint8)
        elif out.shape != want or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise StoreError(f"split {self.name}: out is {out.dtype} {out.shape}, but a contiguous uint8 array of {want} is needed")
        numbers = np.searchsorted(self._first, indices, side="right") - 1
        for row in np.argsort(indices, kind="stable"):      # in the order of the disk
            number = int(numbers[row])
            self._read(number, int(indices[row] - self._first[number]), out[row], check)
        return out

    def place(self, index: int) -> tuple[Shard, int]:
        """(shard, record in it) of a picture."""
        number = int(np.searchsorted(self._first, index, side="right")) - 1
        return self._shards[number], int(index - self._first[number])

    def _read(self, number: int, record: int, out: np.ndarray, check: bool) -> None:
        shard = self._shards[number]
        self.reading[get_ident()] = f"{shard.path}, record {record}"
        try:
            handle = self._handle(number)
        except OSError as error:
            raise StoreError(f"{shard.path} cannot be read ({error.strerror}); if it is gone, prepare the store again") from error
        shard.read(record, out, handle, check)

    def verify(self, workers: int = 1) -> Iterator[tuple[int, list[str]]]:
        """Reads everything, `workers` shards at a time: yields (pictures checked so far, what is damaged in one shard) shard by shard."""
        done = 0
        with ThreadPoolExecutor(workers, thread_name_prefix="minialex-verify") as pool:
            try:
                for shard, damage in zip(self._shards, pool.map(self._damage, range(len(self._shards))), strict=True):
                    done += len(shard.labels)
                    yield done, damage
            finally:
                pool.shutdown(cancel_futures=True)

    def _damage(self, number: int) -> list[str]:
        """One sentence per record of a shard that cannot be had, at most DAMAGES."""
        pixels, found = np.empty(self.shape, np.uint8), []
        for record in range(len(self._shards[number].labels)):
            try:
                self._read(number, record, pixels, check=True)
            except StoreError as error:
                found.append(str(error))
                if len(found) == DAMAGES:
                    break
        return found


class Store:
    """A finished store, opened and checked: lengths and tables now, pictures when they are read.

    Attributes: path, manifest (as in the file), classes (label = place), shape (H, W, C), kind (RAW or JPEG), verified,
    fingerprint (of the source), mean (H, W, 3) float32, colour_directions (3, 3) float64.  Raises StoreError.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.manifest = _read_manifest(self.path)
        try:
            self.shape: tuple[int, int, int] = tuple(int(extent) for extent in self.manifest["shape"])
            self.classes = tuple(ClassInfo(str(c["id"]), str(c["name"]), c["devkit_id"]) for c in self.manifest["classes"])
            self.kind = kind_number(self.manifest.get("records", {"kind": KINDS[RAW]})["kind"])
            self.verified = bool(self.manifest["source"]["verified"])
            self.fingerprint = str(self.manifest["source"]["fingerprint"])
            colour = self.manifest["colour"]
            self.eigenvalues = np.array(colour["eigenvalues"], np.float64).reshape(3)
            self.eigenvectors = np.array(colour["eigenvectors"], np.float64).reshape(3, 3)
            plan = {name: [int(n) for n in split["shards"]] for name, split in self.manifest["splits"].items()}
            mean_sum = int(self.manifest["mean"]["crc32"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(f"{self.path / MANIFEST} lacks or garbles a field ({error!r}); prepare the store again") from error
        self.mean = _read_mean(self.path / MEAN, self.shape, mean_sum)
        self._splits = {name: self._open_split(name, counts) for name, counts in plan.items()}

    def _open_split(self, name: str, counts: list[int]) -> Split:
        shards = []
        for number, count in enumerate(counts):
            shard = open_shard(self.path / shard_name(name, number), self.shape)
            if shard.kind != self.kind:
                raise StoreError(f"{shard.path} holds {KINDS[shard.kind]} records, but the manifest says {KINDS[self.kind]}; "
                                 f"the files of two stores are mixed")
            if len(shard.labels) != count:
                raise StoreError(f"{shard.path} holds {len(shard.labels)} records, but the manifest says {count}; "
                                 f"the files of two stores are mixed")
            if count and not 0 <= shard.labels.min() <= shard.labels.max() < len(self.classes):
                raise StoreError(f"{shard.path} has labels up to {shard.labels.max()}, but the manifest lists {len(self.classes)} classes; "
                                 f"the files of two stores are mixed")
            shards.append(shard)
        return Split(name, shards, self.shape)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that hold pictures."""
        return tuple(name for name in SPLITS if len(self._splits.get(name, ())))

    @property
    def record(self) -> int:
        """Pixels a side."""
        return self.shape[0]

    @property
    def colour_directions(self) -> np.ndarray:
        """P diag(s), (3, 3) float64: columns are the eigenvectors of the RGB covariance of the training pixels (0..255), each times
        the STANDARD DEVIATION along it, the square root of its eigenvalue (in the 2012 program 121.78, 37.09, 19.72 on ImageNet)."""
        return self.eigenvectors * np.sqrt(self.eigenvalues)

    def split(self, name: str) -> Split:
        if name not in self.splits:
            raise StoreError(f"{self.path} has no {name} pictures; it has {', '.join(self.splits)}")
        return self._splits[name]

    def verify(self) -> list[str]:
        """Reads every picture of every split; one sentence per damaged record, at most DAMAGES of a shard."""
        return [problem for name in self.splits for _, damage in self.split(name).verify() for problem in damage]

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.split(name)):,} {name}" for name in self.splits)
        return f"Store({str(self.path)!r}: {counts}, {len(self.classes):,} classes, {' x '.join(map(str, self.shape))}, {KINDS[self.kind]})"


def shard_name(split: str, number: int) -> str:
    return f"{split}-{number:05d}.shard"


def _read_manifest(path: Path) -> dict:
    try:
        text = (path / MANIFEST).read_text()
        manifest = json.loads(text)
    except (FileNotFoundError, NotADirectoryError) as error:
        if (path / UNFINISHED).is_dir():
            raise StoreError(f"{path} is an unfinished preparation; give the command again that began it, "
                             f"minialex prepare SOURCE --out {path}, and it goes on where it stopped") from error
        raise StoreError(f"{path} is not a prepared store (no {MANIFEST}); make one with minialex prepare SOURCE --out {path}") from error
    except OSError as error:
        raise StoreError(f"{path / MANIFEST} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path / MANIFEST} is not valid JSON ({type(error).__name__}); prepare the store again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise StoreError(f"{path / MANIFEST} has format {found!r}, and this program reads {FORMAT}; prepare the store again")
    return manifest


def _read_mean(path: Path, shape: tuple[int, int, int], want: int) -> np.ndarray:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); prepare the store again") from error
    if zlib.crc32(content) != want:
        raise StoreError(f"{path} is damaged (its check sum differs); prepare the store again")
    mean = np.load(io.BytesIO(content), allow_pickle=False)
    if mean.shape != shape:
        raise StoreError(f"{path} is a mean image of {mean.shape}, but the manifest says {shape}; the files of two stores are mixed")
    return mean.astype(np.float32)
