"""A trained network from its checkpoint, and what it says of a picture (the paper's figure 4, left)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from . import placement
from .checkpoint import candidates, load
from .column_net import ColumnNet
from .config import Config, resolve
from .data import decode
from .data.source import read_file, shown
from .evaluate import on_each, probabilities
from .net import Net
from .nets.recipe import Recipe
from .spec import MiniAlexError


@dataclass(frozen=True)
class Trained:
    """A net with its weights and all that turns a picture into its input."""

    net: Net | ColumnNet
    recipe: Recipe
    config: Config              # of the run that made it, on this device
    classes: list[str]          # ids in label order
    names: list[str]            # what to show a person
    mean: np.ndarray            # (record, record, 3) float32
    path: Path


def chosen(checkpoint: str | Path) -> Path:
    """The file that is meant by a checkpoint's own path, or by a run directory: its best checkpoint, else the newest."""
    folder = Path(checkpoint)
    found = candidates(folder / "best" if (folder / "best").is_file() else folder)
    if not found or not found[0].exists():
        why = "it holds no checkpoint" if folder.exists() else "there is no such file or folder"
        raise MiniAlexError(f"{checkpoint}: {why}; name a checkpoint-<step>.safetensors or a run directory such as runs/tiny-1")
    return found[0]


def trained(checkpoint: str | Path, *, device: str = "cpu", batch: int = 16, workers: int = 2, expected: str | None = None) -> Trained:
    """The network of a checkpoint file or of a run directory's best (else newest) checkpoint; `expected`: the recipe it must have."""
    path = chosen(checkpoint)
    arrays, state = load(path)
    config, recipe, _ = resolve({"device": device, "recipe": expected}, state["config"])
    places = placement.places(replace(config, workers=workers))
    net = placement.network(recipe.build(len(state["classes"])), recipe.input, batch, places, seed=config.seed, arenas=2)
    for key, spec in net.params.specs.items():
        value = arrays.get("w/" + ".".join(key))
        if value is None or value.shape != spec.shape:
            raise MiniAlexError(f"{path}: it has no {'.'.join(key)} of shape {spec.shape}, "
                                f"so it is not of recipe {recipe.name} as this version builds it")
        net.params.fill(key, value)
    return Trained(net, recipe, config, state["classes"], _unique(state["classes"], state["class_names"]), arrays["mean"], path)


Ranked = list[tuple[str, float]]            # (class name, probability), most probable first


def predict(model: Trained, pictures: list[Path], *, views: str = "centre", top: int = 5) -> list[tuple[np.ndarray, Ranked]]:
    """For each picture (its decoded pixels, the `top` most probable (name, probability))."""
    results = []
    means = on_each(model.net, model.mean)
    for start in range(0, len(pictures), model.net.batch):
        images = pictures_of(model, pictures[start:start + model.net.batch])
        for image, p in zip(images, probabilities(model.net, images, means, model.recipe, views), strict=True):
            order = np.argsort(-p, kind="stable")[:top]
            results.append((image, [(model.names[k], float(p[k])) for k in order]))
    return results


def pictures_of(model: Trained, paths: list[Path]) -> np.ndarray:
    """Picture files decoded as the network's training pictures were, (n, record, record, 3) uint8.  Raises MiniAlexError by name."""
    return np.stack([decode(_bytes(Path(path)), model.mean.shape[0], shown(path))[0] for path in paths])


def _bytes(path: Path) -> bytes:
    if path.is_dir():
        raise MiniAlexError(f"{path} is a folder; name the pictures in it, for example {path}/*.jpg")
    if not path.exists():
        raise MiniAlexError(f"{path} does not exist; name a JPEG or PNG picture")
    return read_file(path, shown(path))


def _unique(ids: list[str], names: list[str]) -> list[str]:
    """Names to show, with the id where two classes share one (ImageNet has two cranes, a bird and a machine)."""
    several = Counter(names)
    return [name if several[name] == 1 else f"{name} ({id})" for id, name in zip(ids, names, strict=True)]


def bars(ranked: Ranked, width: int = 40, mark: str = "█") -> str:
    """The most probable labels as lines of text; a bar is up to `width` marks long."""
    longest = max(len(name) for name, _ in ranked)
    return "\n".join(f"  {name:<{longest}}  {100 * p:5.1f} %  {mark * round(width * p)}" for name, p in ranked)
