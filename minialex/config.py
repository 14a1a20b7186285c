"""The resolved configuration of a run: what was asked, over what a checkpoint says, over what the recipe says."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields

from .nets import recipe as find_recipe
from .nets.recipe import Recipe
from .spec import MiniAlexError

# Fields that may differ between runs that must end in the same bits.
FREE = ("data", "workers", "output_dir", "limit_batches", "store", "device", "fuse", "overlap", "epochs", "init", "init_skip")


@dataclass(frozen=True)
class Config:
    """One run, every choice resolved.  Rates are per step, epochs counted from 0."""

    recipe: str
    data: str | None = None                 # None: the embedded pictures
    device: str = "cpu"
    precision: str = "float32"              # of products, and in bf16 of activations; sums and parameters are float32
    batch: int = 128
    epochs: int = 90
    rate: float = 0.01
    momentum: float = 0.9
    decay: float = 0.0005
    workers: int = 2
    seed: int = 0
    output_dir: str | None = None
    store: str | None = None
    limit_batches: int | None = None
    fuse: bool = True
    overlap: bool = True                    # of copies between devices and gradients of weights with what is computed beside
    init: str | None = None                 # the checkpoint or run that first weights were taken from,
    init_skip: str | None = None            # but for these layers,
    taken: dict | None = None               # and what was taken: its layers, and a digest of its numbers (initial.py)
    taken_rate: float | None = None         # what those layers' rate is multiplied by

    def hash(self) -> str:
        """Of the fields that decide the weights; one that is None decides nothing."""
        deciding = {k: v for k, v in asdict(self).items() if k not in FREE and v is not None}
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]

    def as_dict(self) -> dict:
        return asdict(self)

    @property
    def factors(self) -> dict[str, float]:
        """What the rates of single layers are multiplied by: of those taken from another network."""
        return dict.fromkeys(self.taken["layers"] if self.taken and self.taken_rate is not None else (), self.taken_rate)

    @property
    def backends(self) -> list[tuple[str, int]]:
        """The backend and the device number of each place that --device names: "cuda:0,cuda:1" -> [("cuda", 0), ("cuda", 1)]."""
        places = [self._place(word.strip()) for word in self.device.split(",")]
        names = list(dict.fromkeys(name for name, _ in places))
        if len(places) > 1 and len(names) > 1:
            raise MiniAlexError(f"--device {self.device}: the columns of a network cannot lie on {' and '.join(names)} at once; "
                                f"name devices of one kind, for example {names[0]}:0,{names[0]}:1")
        if len(places) > 1 and names[0] in ("cpu", "reference"):
            raise MiniAlexError(f"--device {self.device}: {names[0]} is one device and holds all columns; give --device {names[0]}")
        return places

    @property
    def device_names(self) -> list[str]:
        """The places of --device as they are called: ["cuda:0", "cuda:1"]."""
        return [name if name in ("cpu", "reference") else f"{name}:{number}" for name, number in self.backends]

    def _place(self, word: str) -> tuple[str, int]:
        name, colon, place = word.partition(":")
        if (colon and (name in ("cpu", "reference") or not place.isdecimal())) or not name:
            raise MiniAlexError(f"--device {self.device}: cpu and reference take no number, emulated and cuda one such as cuda:0; "
                                f"give --device {name or 'cpu'}" + ("" if name in ("cpu", "reference", "") else ":0"))
        return name, int(place or 0)


def resolve(asked: dict, saved: dict | None = None) -> tuple[Config, Recipe, list[str]]:
    """(configuration, recipe, lines that say what differs from the checkpoint).

    `asked` holds the flags given by the user (None: not given), `saved` the configuration in a checkpoint.
    """
    known = {f.name for f in fields(Config)}
    given = {k: v for k, v in asked.items() if v is not None and k in known}
    name = given.get("recipe") or (saved or {}).get("recipe") or ("paper" if given.get("data") else "tiny")
    recipe = find_recipe(name)
    given["recipe"] = name = recipe.name
    if saved and name != saved["recipe"]:
        raise MiniAlexError(f"--recipe {name}: the checkpoint was made by recipe {saved['recipe']}; "
                            "leave --recipe out or resume another checkpoint")
    base = {"recipe": name, "batch": recipe.batch, "epochs": recipe.epochs, "rate": recipe.rate, "momentum": recipe.momentum,
            "decay": recipe.decay}
    if saved:
        base |= {k: v for k, v in saved.items() if k in known}
    config = Config(**(base | given))
    for field, flag, low in (("batch", "-b", 1), ("epochs", "--epochs", 1), ("workers", "-j", 1), ("limit_batches", "--limit-batches", 1),
                             ("seed", "--seed", 0)):
        value = getattr(config, field)
        if value is not None and value < low:
            raise MiniAlexError(f"{flag} {value}: a whole number of at least {low} is needed")
    for field, flag, below in (("rate", "--lr", math.inf), ("momentum", "--momentum", 1), ("decay", "--wd", math.inf),
                               ("taken_rate", "--taken-rate", math.inf)):
        if getattr(config, field) is not None and not 0 <= getattr(config, field) < below:
            raise MiniAlexError(f"{flag} {getattr(config, field)}: a number of at least 0"
                                + (" and less than 1 is needed" if below == 1 else " is needed"))
    if saved and (asked.get("init") or asked.get("init_skip")):
        raise MiniAlexError("--init begins a new run, and --resume goes on with the weights of its own checkpoint: leave one of them out")
    if config.init is None and (config.init_skip or config.taken_rate is not None):
        flag = "--init-skip" if config.init_skip else "--taken-rate"
        raise MiniAlexError(f"{flag} is about layers taken from a checkpoint: name it with --init CHECKPOINT, or leave {flag} out")
    changed = [f"resume: {k} {saved[k]} -> {v} (command line)" for k, v in given.items() if saved and k in saved and saved[k] != v]
    return config, recipe, changed
