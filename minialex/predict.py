"""A trained network from its checkpoint, and what it says of a picture (the paper's figure 4, left)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from . import backends
from .checkpoint import candidates, load
from .config import resolve
from .data import decode
from .evaluate import probabilities
from .net import Net
from .nets.recipe import Recipe
from .spec import MiniAlexError


@dataclass(frozen=True)
class Trained:
    """A net with its weights and all that turns a picture into its input."""

    net: Net
    recipe: Recipe
    classes: list[str]          # ids in label order
    names: list[str]            # what to show a person
    mean: np.ndarray            # (record, record, 3) float32
    path: Path


def trained(checkpoint: str | Path, *, device: str = "cpu", batch: int = 16, workers: int = 2) -> Trained:
    """The network of a checkpoint file or of a run directory's best (else newest) checkpoint."""
    folder = Path(checkpoint)
    found = candidates(folder / "best" if (folder / "best").is_file() else folder)
    if not found:
        raise MiniAlexError(f"{checkpoint}: it is neither a checkpoint nor a folder of them; name a run directory such as runs/tiny-1")
    path = found[0]
    arrays, state = load(path)
    config, recipe, _ = resolve({"device": device}, state["config"])
    ops: ModuleType = backends.load(config.backend)
    ops.set_workers(workers)
    net = Net(recipe.build(len(state["classes"])), recipe.input, batch, ops, seed=config.seed)
    for key, spec in net.params.specs.items():
        value = arrays.get("w/" + ".".join(key))
        if value is None or value.shape != spec.shape:
            raise MiniAlexError(f"{path}: it has no {'.'.join(key)} of shape {spec.shape}, "
                                f"so it is not of recipe {recipe.name} as this version builds it")
        net.params.fill(key, value)
    return Trained(net, recipe, state["classes"], state["class_names"], arrays["mean"], path)


Ranked = list[tuple[str, float]]            # (class name, probability), most probable first


def predict(model: Trained, pictures: list[Path], *, views: str = "centre", top: int = 5) -> list[tuple[np.ndarray, Ranked]]:
    """For each picture (its decoded pixels, the `top` most probable (name, probability))."""
    record = model.mean.shape[0]
    results = []
    mean = model.net.ops.from_host(model.mean.astype(model.net.dtype))
    for start in range(0, len(pictures), model.net.batch):
        part = pictures[start:start + model.net.batch]
        images = np.stack([decode(_bytes(path), record, str(path))[0] for path in part])
        for image, p in zip(images, probabilities(model.net, images, mean, model.recipe, views), strict=True):
            order = np.argsort(-p, kind="stable")[:top]
            results.append((image, [(model.names[k], float(p[k])) for k in order]))
    return results


def _bytes(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise MiniAlexError(f"{path}: {error.strerror or error}; name an existing JPEG or PNG picture") from error


def bars(ranked: Ranked, width: int = 40) -> str:
    """The most probable labels as lines of text."""
    longest = max(len(name) for name, _ in ranked)
    return "\n".join(f"  {name:<{longest}}  {100 * p:5.1f} %  {'█' * round(width * p)}" for name, p in ranked)
