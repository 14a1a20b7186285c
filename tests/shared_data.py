"""Real photographs for tests that want them: the npz files of ../shared/data unpacked into folder trees.  Tests skip without them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared(name: str) -> Path:
    """A file of the shared data, or a skip that says what is missing."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"{name} is not beside this checkout (../shared/data); only real photographs are untested")
    return path


def unpack(name: str, folder: Path, train: int | None = None, val: int | None = None) -> Path:
    """`folder`/train/CLASS/NUMBER.jpg and val/..., the files' own bytes; at most `train` and `val` pictures of each class.

    name    "cifar10_jpeg" (its test split becomes val; lossy) or "tiny_imagenet12_jpeg"
    """
    with np.load(shared(f"{name}.npz"), allow_pickle=False) as store:
        names = [str(text) for text in store["wnids" if "wnids" in store else "class_names"]]
        for split, found, limit in (("train", "train", train), ("val", "val" if "val_data" in store else "test", val)):
            data, offsets, labels = store[f"{found}_data"], store[f"{found}_offsets"], store[f"{found}_labels"]
            heads, which = _heads(store, found, len(labels))
            done = np.zeros(len(names), int)
            for i, label in enumerate(labels):
                if limit is not None and done[label] >= limit:
                    continue
                done[label] += 1
                target = folder / split / names[label]
                target.mkdir(parents=True, exist_ok=True)
                (target / f"{i:05d}.jpg").write_bytes(heads[which[i]] + data[offsets[i] : offsets[i + 1]].tobytes())
    return folder


def _heads(store, split: str, count: int) -> tuple[list[bytes], np.ndarray]:
    """The JPEG headers the files share, and which of them each file has."""
    if "jpeg_head" in store:
        return [store["jpeg_head"].tobytes()], np.zeros(count, int)
    ends = store["jpeg_head_offsets"]
    return [store["jpeg_heads"][a:b].tobytes() for a, b in pairwise(ends)], store[f"{split}_head"]
