"""What a layer makes of pictures, as rows of a file: one safetensors file, written in a stream and read through a memory map.

The file holds "features" (n, D) float32 and "labels" (n,) int32, in the order of the split; its metadata say which layer of which
network made them of which pictures.  D runs over column, row, place, map: column 0's values first.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import files
from ..data import Split, Store, views
from ..data.source import shown
from ..evaluate import on_each, seen
from ..predict import Trained
from ..spec import MiniAlexError

FORMAT, VERSION = "minialex-features", 1
HEADER_LIMIT = 64 << 20                 # bytes; a million classes fit


class FeatureError(MiniAlexError):
    """A feature file that is missing, damaged, or of another network; a layer that cannot be read."""


def layer_of(model: Trained, layer: str | None = None) -> str:
    """The layer asked for, or the last hidden one, as the classifier reads it at test.  Raises FeatureError where its values are gone."""
    net = model.net
    names = [one.output() for one in net.layers]
    if layer is None:
        return names[-2]
    if layer not in names:
        raise FeatureError(f"{model.path} has no layer {layer!r} to read; it has {', '.join(names)}")
    i = names.index(layer)
    if i + 1 < len(names) and net.layers[i + 1].in_place and "y" not in net.layers[i].bprop_reads:
        raise FeatureError(f"{layer}: its values are overwritten by {names[i + 1]}, which works in place; ask for {names[i + 1]}")
    return layer


def features_of(model: Trained, images: np.ndarray, layer: str | None = None) -> np.ndarray:
    """(n, D) float32 of pictures (n, H, W, 3) uint8 of the network's record size: their centre crops, at test."""
    name, net = layer_of(model, layer), model.net
    means, parts = on_each(net, model.mean), []
    for start in range(0, len(images), net.batch):
        part = images[start:start + net.batch]
        for _ in seen(net, part, means, model.recipe, views(part.shape[1], model.recipe.crop, "centre")):
            net.fprop(n=len(part))
            value = net.activation(name)                        # (G, n, H, W, C)
            parts.append(value.transpose(1, 0, 2, 3, 4).reshape(len(part), -1).astype(np.float32))
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def write_features(model: Trained, store: Store, split: Split, out: str | Path, layer: str | None = None, *,
                   progress: Callable[[int, int], None] = lambda done, total: None) -> FeatureFile:
    """Writes the features of a split, a batch in memory at a time; nothing is left where it fails."""
    name, n, out = layer_of(model, layer), len(split), Path(out)
    width = features_of(model, split.read([0]), name).shape[1]
    metadata = {"format": FORMAT, "version": str(VERSION), "layer": name, "recipe": model.config.recipe, "checkpoint": model.path.name,
                "config": model.config.hash(), "weights": _weights(model), "split": split.name, "fingerprint": store.fingerprint,
                "record": str(store.record), "store": str(store.path), "classes": json.dumps([c.id for c in store.classes]),
                "names": json.dumps([c.name for c in store.classes]), "crc32": "0" * 8}
    size, labels = 4 * n * width, split.labels.astype("<i4")
    entries = {"features": {"dtype": "F32", "shape": [n, width], "data_offsets": [0, size]},
               "labels": {"dtype": "I32", "shape": [n], "data_offsets": [size, size + 4 * n]}}
    total = 0
    with files.atomic(out) as temporary, open(temporary, "wb") as file:
        file.write(_header(metadata, entries))
        for start in range(0, n, model.net.batch):
            rows = features_of(model, split.read(np.arange(start, min(start + model.net.batch, n))), name)
            content = rows.astype("<f4").tobytes()
            total = zlib.crc32(content, total)
            file.write(content)
            progress(start + len(rows), n)
        file.write(labels.tobytes())
        total = zlib.crc32(labels.tobytes(), total)
        file.seek(0)
        file.write(_header(metadata | {"crc32": f"{total:08x}"}, entries))
    return FeatureFile.open(out)


def _header(metadata: dict, entries: dict) -> bytes:
    header = json.dumps({"__metadata__": metadata, **entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header


def _weights(model: Trained) -> str:
    """A sum over all weights: which network this is, whatever its file is called."""
    total = 0
    for array in model.net.params.host().values():
        total = zlib.crc32(np.ascontiguousarray(array), total)
    return f"{total:08x}"


def pictures_behind(index: FeatureFile) -> tuple[Split, np.ndarray]:
    """The split a feature file was made from, and the store's mean image.  Raises FeatureError where the store is gone or another."""
    try:
        store = Store(index.metadata["store"])
        if store.fingerprint != index.metadata["fingerprint"]:
            raise MiniAlexError("it was prepared from other pictures since")
        split = store.split(index.metadata["split"])
    except MiniAlexError as error:
        raise FeatureError(f"{shown(index.path)}: the pictures it was made from, the store {shown(index.metadata['store'])}, cannot be "
                           f"shown ({error}); leave --figure out, or write the features again") from error
    return split, store.mean


@dataclass(frozen=True)
class FeatureFile:
    """An open feature file: features (n, D) float32 through a memory map, labels (n,) int32, metadata as text."""

    path: Path
    features: np.ndarray
    labels: np.ndarray
    metadata: dict[str, str]

    @property
    def names(self) -> list[str]:
        return json.loads(self.metadata["names"])

    @classmethod
    def open(cls, path: str | Path) -> FeatureFile:
        """Checks lengths and shapes before anything is mapped.  Raises FeatureError for what is no feature file, or no longer one."""
        path = Path(path)
        if not path.is_file():
            raise FeatureError(f"{shown(path)}: {'that is a folder' if path.is_dir() else 'there is no such file'}; "
                               "minialex features CHECKPOINT --out FILE writes one")
        size = path.stat().st_size
        with open(path, "rb") as file:
            count = int.from_bytes(file.read(8), "little")
            text = file.read(count) if 2 <= count <= min(size - 8, HEADER_LIMIT) else b""
        try:
            header = json.loads(text)
            metadata = {str(key): str(value) for key, value in header["__metadata__"].items()}
            if metadata["format"] != FORMAT or int(metadata["version"]) > VERSION:
                raise ValueError(f"format {metadata['format']} {metadata['version']}")
            (n, width), (labelled,) = header["features"]["shape"], header["labels"]["shape"]
            names, classes = json.loads(metadata["names"]), json.loads(metadata["classes"])
            whole = (header["features"]["dtype"], header["labels"]["dtype"]) == ("F32", "I32") and n == labelled and min(n, width) >= 0
            if not whole or len(names) != len(classes) or 8 + count + 4 * n * (width + 1) != size:
                raise ValueError(f"{size:,} bytes for {n} rows of {width}")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise FeatureError(f"{shown(path)}: no feature file, or cut short ({error}); write it again with minialex features CHECKPOINT "
                               "--out FILE") from error
        features = np.memmap(path, "<f4", "r", 8 + count, (n, width)) if n * width else np.empty((n, width), np.float32)
        labels = np.fromfile(path, "<i4", n, offset=8 + count + 4 * n * width)
        if n and not 0 <= labels.min() <= labels.max() < max(1, len(names)):
            raise FeatureError(f"{shown(path)}: it has labels that are no classes; write it again with minialex features")
        return cls(path, features, labels, metadata)

    def intact(self) -> bool:
        """Whether every byte is as it was written; reads the whole file."""
        total, step = 0, max(1, (8 << 20) // max(4, 4 * self.features.shape[1]))
        for start in range(0, len(self.features), step):
            total = zlib.crc32(np.ascontiguousarray(self.features[start:start + step]), total)
        return f"{zlib.crc32(self.labels, total):08x}" == self.metadata["crc32"]

    def must_be_of(self, model: Trained) -> str:
        """The layer to ask of `model` so that its features can be compared with these.  Raises FeatureError for another network's file."""
        if self.metadata["weights"] != _weights(model):
            raise FeatureError(f"{shown(self.path)} is of another network ({self.metadata['recipe']}, {self.metadata['checkpoint']}) than "
                               f"{model.path} ({model.config.recipe}); name its checkpoint, or write the features anew: "
                               f"minialex features {model.path} --out {shown(self.path)}")
        return self.metadata["layer"]
