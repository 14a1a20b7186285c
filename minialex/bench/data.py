"""Preparation and loading: pictures a second, each beside what it is measured by, in turn in one process.

Decoding beside plain Pillow, preparation with two threads beside one, reading records beside reading the file from end to end, the whole
loader with augmentation beside PyTorch's DataLoader over the JPEG files, where PyTorch is installed.
"""

from __future__ import annotations

import io
import shutil
import statistics
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ..backends import load
from ..data import open_source, prepare
from ..data.decode import decode
from ..data.loader import Loader, transform
from ..data.store import Store
from ..nets import recipe as recipe_of
from .measure import once
from .steps import finish, own_step, start

SIZE = (500, 375)               # a usual ILSVRC picture
PICTURES = 256                  # of each of two classes
BATCH, WORKERS = 64, 2
BLOCK = 1 << 20                 # bytes a read of the file from end to end
# What each ratio should reach at the least.
LIMITS = {"prepare, one thread / Pillow": 0.9, "prepare, two threads / twice one": 0.9, "raw records / end to end": 0.8,
          "loader, raw / DataLoader": 3.0}


def _jpeg(seed: int) -> bytes:
    """A picture with the soft shapes and the grain of a photograph, so that decoding costs what it usually costs."""
    random = np.random.default_rng(seed)
    soft = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    grain = random.normal(0, 8, (SIZE[1], SIZE[0], 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(soft) + grain, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _pillow(data: bytes, record: int) -> np.ndarray:
    """Open, resize the shorter side to `record`, crop the centre: the least anybody does."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        image = image.convert("RGB")
        share = record / min(image.size)
        image = image.resize([max(record, round(side * share)) for side in image.size], Image.Resampling.BICUBIC)
        left, top = ((side - record) // 2 for side in image.size)
        return np.asarray(image.crop((left, top, left + record, top + record)))


def _folder(place: Path, pictures: list[bytes]) -> Path:
    for split in ("train", "val"):
        for kind in ("first", "second"):
            (place / split / kind).mkdir(parents=True)
            for number in range(PICTURES if split == "train" else 2):
                (place / split / kind / f"{number:04}.jpg").write_bytes(pictures[number % len(pictures)])
    return place


def _sequential(store: Store, check: bool) -> None:
    """Every byte of the training shards, block by block, as `dd` reads them."""
    block = bytearray(BLOCK)
    for path in sorted(store.path.glob("train-*.shard")):
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(block):
                if check:
                    zlib.crc32(memoryview(block)[:count])


def _torch_epoch(folder: Path, record: int, crop: int, mean: np.ndarray) -> Callable[[], None] | None:
    """An epoch of PyTorch's DataLoader over the JPEG files with what training needs of each; None without PyTorch."""
    try:
        import torch
        from torch.utils.data import DataLoader, Dataset
    except ImportError:
        return None
    paths = sorted((folder / "train").rglob("*.jpg"))
    middle = np.ascontiguousarray(mean[(record - crop) // 2:, (record - crop) // 2:][:crop, :crop])

    class Files(Dataset):
        def __len__(self):
            return len(paths)

        def __getitem__(self, index):
            pixels = _pillow(paths[index].read_bytes(), record)
            top, left, flip = (int(number) for number in torch.randint(0, record - crop, (3,)))
            view = pixels[top:top + crop, left:left + crop].astype(np.float32) - middle
            return torch.from_numpy(np.ascontiguousarray((view[:, ::-1] if flip % 2 else view).transpose(2, 0, 1))), 0

    loader = DataLoader(Files(), batch_size=BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)

    def epoch() -> None:
        for _ in loader:
            pass
    return epoch


def bench_data(rounds: int, ops=None, device: str = "cpu") -> list[dict]:
    """Prints and returns medians of pictures a second, the ratios that loading is judged by, and what keeps what waiting.  On a `device`
    with a memory of its own also the upload of records, and crops are made there."""
    ops, recipe = ops or load("cpu"), recipe_of("paper")
    pictures, record = [_jpeg(seed) for seed in range(16)], recipe.record
    n = 2 * PICTURES
    with tempfile.TemporaryDirectory() as place:
        source, stores = open_source(_folder(Path(place) / "pictures", pictures)), {}
        for kind in ("raw", "jpeg"):
            stores[kind] = prepare(source, Path(place) / kind, record, WORKERS, False, kind=kind)
        mean, out = ops.from_host(stores["raw"].mean), ops.empty((1, BATCH, recipe.crop, recipe.crop, 3))
        buffer = np.empty((BATCH, record, record, 3), np.uint8)
        order = np.random.default_rng(0).permutation(n)

        def prepared(workers: int) -> None:
            shutil.rmtree(Path(place) / "again", ignore_errors=True)
            prepare(source, Path(place) / "again", record, workers, False)

        def read(kind: str, check: bool = True) -> None:
            for start in range(0, n, BATCH):
                stores[kind].split("train").read(order[start:start + BATCH], buffer[:min(BATCH, n - start)], check)

        def loaded(kind: str, augment: bool) -> None:
            loader = Loader(stores[kind].split("train"), stores[kind], augmentation=recipe.augmentation, crop=recipe.crop, batch=BATCH,
                            workers=WORKERS)
            for batch in loader.batches(0):
                if augment:
                    transform(ops, batch, mean, out[:, :len(batch)])

        batch = next(Loader(stores["raw"].split("train"), stores["raw"], augmentation=recipe.augmentation, crop=recipe.crop,
                            batch=BATCH).batches(0))
        # name: (what is done, pictures in it, whether processor time counts and not the clock)
        contenders: dict[str, tuple[Callable[[], object], int, bool]] = {
            "Pillow open + resize, one core": (lambda: [_pillow(data, record) for data in pictures], len(pictures), True),
            "decode, one core": (lambda: [decode(data, record, "picture") for data in pictures], len(pictures), True),
            "prepare, one thread": (lambda: prepared(1), n + 4, False),
            "prepare, two threads": (lambda: prepared(2), n + 4, False),
            "read end to end": (lambda: _sequential(stores["raw"], False), n, False),
            "read raw records at random": (lambda: read("raw", False), n, False),
            "read end to end, summed": (lambda: _sequential(stores["raw"], True), n, False),
            "read raw records at random, summed": (lambda: read("raw"), n, False),
            "read JPEG records at random, summed": (lambda: read("jpeg"), n, False),
            "crop, flip, mean, colour": (lambda: transform(ops, batch, mean, out), BATCH, False),
            f"training step of {recipe.name}, batch {BATCH // 2}": (own_step(*_network(ops)), BATCH // 2, False),
            "loader of raw records": (lambda: loaded("raw", False), n, False),
            "loader and augmentation, raw": (lambda: loaded("raw", True), n, False),
            "loader and augmentation, JPEG": (lambda: loaded("jpeg", True), n, False),
        }
        if hasattr(ops, "kernels"):
            contenders["upload of raw records"] = (lambda: _uploaded(ops, batch.images), BATCH, False)
        if epoch := _torch_epoch(source.path, record, recipe.crop, stores["raw"].mean):
            contenders["PyTorch DataLoader of JPEG files"] = (epoch, n, False)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for lap in range(rounds + 1):                                   # in turn: a busy machine slows all alike
            for name, (work, count, processor) in contenders.items():
                wall, cpu = once(work)
                if lap:                                                 # the first warms caches and starts PyTorch's workers
                    rates[name].append(count / (cpu if processor else wall))
    ratios = {"decode / Pillow": _ratio(rates, "decode, one core", "Pillow open + resize, one core"),
              "prepare, one thread / Pillow": _ratio(rates, "prepare, one thread", "Pillow open + resize, one core"),
              "prepare, two threads / twice one": _ratio(rates, "prepare, two threads", "prepare, one thread") / 2,
              "raw records / end to end": _ratio(rates, "read raw records at random", "read end to end"),
              "raw records / end to end, summed": _ratio(rates, "read raw records at random, summed", "read end to end, summed")}
    if epoch:
        for kind in ("raw", "JPEG"):
            ratios[f"loader, {kind} / DataLoader"] = _ratio(rates, f"loader and augmentation, {kind}", "PyTorch DataLoader of JPEG files")
    print(f"\npictures of {SIZE[0]} x {SIZE[1]} to records of {record}, {rounds} rounds, {WORKERS} threads or processes unless it says one")
    for name, each in rates.items():
        print(f"{name:<38}{statistics.median(each):>10.0f} pictures/s")
    for name, ratio in ratios.items():
        limit = LIMITS.get(name)
        print(f"{name:<38}{ratio:>10.2f}" + (f"   {'met' if ratio >= limit else 'MISSED'}: at least {limit:g}" if limit else ""))
    waits = waiting({name: statistics.median(each) for name, each in rates.items()}, device)
    print("", *waits, sep="\n")
    return [{"what": "data", "device": device, "waiting": waits,
             "picture": list(SIZE), "record": record, "rounds": rounds, "workers": WORKERS,
             "pictures_per_second": {name: round(statistics.median(each), 1) for name, each in rates.items()},
             "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()}}]


def _network(ops) -> tuple:
    recipe, _, net, labels = start("paper", ops, BATCH // 2)
    return recipe, net, labels


def _uploaded(ops, images: np.ndarray) -> None:
    ops.from_host(images)
    finish(ops)


def waiting(rates: dict[str, float], device: str) -> list[str]:
    """Who keeps whom waiting, from pictures a second: the parts of the loader, and then loader and network."""
    parts = {name: rates[name] for name in ("read raw records at random, summed", "crop, flip, mean, colour", "upload of raw records")
             if name in rates}
    slow, fast = min(parts, key=parts.get), max(parts, key=parts.get)
    step, = (rate for name, rate in rates.items() if name.startswith("training step"))
    lines = [f"in the loader \"{slow}\" keeps the others waiting: \"{fast}\" alone would be {parts[fast] / parts[slow]:.1f} times as fast"]
    for kind in ("raw", "JPEG"):
        share = step / rates[f"loader and augmentation, {kind}"]
        who = f"keeps up {1 / share:.1f} times over: the network waits for nothing" if share <= 1 else (
            f"is the slower: the network waits {100 - 100 / share:.0f} % of its time; give more workers (-j), or raw records in memory")
        lines.append(f"from {kind} records, of which {step:.0f} a second are trained on {device}, the loader {who}")
    return lines


def _ratio(rates: dict[str, list[float]], own: str, other: str) -> float:
    """Median over the rounds of own / other: above 1, own is faster."""
    return statistics.median(a / b for a, b in zip(rates[own], rates[other], strict=True))
