"""Small checkpoints for the tests, and headers of any content with a right checksum."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from minialex.checkpoint import CheckpointError, load

STATE = {"recipe": "tiny", "classes": ["n01", "n02"], "epoch": 3, "position": 7, "step": 31, "schedule": {"drops": 1}, "best": None,
         "metrics": [{"top1": 12.5}], "text": "é \u2603 \"quoted\" \\ \n"}


def arrays(seed: int = 0, size: int = 40) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {"w/conv1.w": draw.standard_normal((2, 3, 3, 1), np.float32), "v/conv1.w": draw.standard_normal(size),
            "labels": draw.integers(0, 9, 3, np.int32)}


def same(got: dict, want: dict) -> bool:
    return list(got) == list(want) and all(
        got[k].dtype == want[k].dtype and got[k].shape == want[k].shape and got[k].tobytes() == want[k].tobytes() for k in want)


def refused(path: Path, *words: str) -> str:
    """load refuses `path` in one line that names it."""
    with pytest.raises(CheckpointError) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and all(word in message for word in words), message
    return message


def sealed(entries: dict, metadata: dict | None = None) -> bytes:
    """Everything before the data for arrays of eight zero bytes, from the format's description and not by its writer; `metadata`
    replaces fields."""
    sums = {name: zlib.crc32(bytes(8)) for name in entries}
    head = {"format": "minialex-checkpoint", "version": "1", "sha256": "0" * 64, "crc32": json.dumps(sums), "state": "{}"}
    head |= metadata or {}
    text = json.dumps({"__metadata__": head, **entries}, separators=(",", ":")).encode()
    digest = hashlib.sha256(struct.pack("<Q", len(text)) + text).hexdigest()
    return struct.pack("<Q", len(text)) + text.replace(b"0" * 64, digest.encode(), 1)
