"""An arm of an experiment: one network with its training, and the runs it takes, one for each seed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..nets import recipe as find_recipe
from ..nets.table import rows, totals
from ..spec import MiniAlexError

FINISHED = "outcome.json"


@dataclass(frozen=True)
class Run:
    """One training: everything that decides its figures.

    data        a prepared store
    until       stop behind the first epoch whose training error (in per cent, as met while learning) is not above this
    init        the run whose weights it begins with (fine-tuning)
    """

    recipe: str
    data: str
    epochs: int
    seed: int
    batch: int | None = None
    rate: float | None = None
    until: float | None = None
    init: Run | None = None

    @property
    def name(self) -> str:
        """Of its folder: the recipe, the seed, and a sum over all that decides the figures."""
        deciding = json.dumps(asdict(self), sort_keys=True)
        return f"{self.recipe.partition('(')[0]}-{self.seed}-{hashlib.sha256(deciding.encode()).hexdigest()[:10]}"

    def asked(self, folder: Path, device: str) -> dict:
        """What the trainer is asked for."""
        return {"recipe": self.recipe, "data": self.data, "epochs": self.epochs, "seed": self.seed, "batch": self.batch, "rate": self.rate,
                "output_dir": str(folder), "workers": 1, "device": device}


@dataclass(frozen=True)
class Arm:
    """A network trained in several seeds."""

    recipe: str
    data: str
    epochs: int
    seeds: tuple[int, ...]
    batch: int | None = None
    rate: float | None = None
    until: float | None = None
    init: Arm | None = None

    @property
    def runs(self) -> list[Run]:
        return [Run(self.recipe, self.data, self.epochs, seed, self.batch, self.rate, self.until,
                    next(run for run in self.init.runs if run.seed == seed) if self.init else None) for seed in self.seeds]

    def words(self) -> dict:
        """What a reader needs to run it again."""
        words = {"recipe": find_recipe(self.recipe).name, "epochs": self.epochs, "batch": self.batch, "rate": self.rate,
                 "until training error": self.until, "init": self.init and self.init.recipe}
        return {key: value for key, value in words.items() if value is not None}


@dataclass(frozen=True)
class Outcome:
    """What became of a run.  Errors in per cent; `rows` are those of metrics.jsonl.

    fitted      of the finished network on its training pictures, without dropout and augmentation: {"top1", "top5", "loss", "images"}
    diverged    the sentence, where the loss became infinite; then rows may be empty and fitted is None
    """

    run: Run
    folder: Path
    rows: list[dict]
    fitted: dict | None = None
    diverged: str | None = None
    seconds: float = 0.0

    def last(self, field: str, part: str = "validation") -> float:
        """Of the last epoch: "top1", "top5" or "loss" of "validation" or "train"."""
        return float(self.rows[-1][part][field])

    def curve(self, field: str, part: str = "validation") -> list[float]:
        return [float(row[part][field]) for row in self.rows]


@dataclass
class Measured:
    """An arm and what became of its runs, in the order of its seeds."""

    arm: Arm
    outcomes: list[Outcome] = field(default_factory=list)

    def values(self, field: str, part: str = "validation") -> list[float]:
        """The last epoch's figure of each seed; part "fitted" is the finished network on its training pictures."""
        self._refuse_diverged()
        return [float(o.fitted[field]) if part == "fitted" else o.last(field, part) for o in self.outcomes]

    def _refuse_diverged(self) -> None:
        if bad := next((o for o in self.outcomes if o.diverged), None):
            raise MiniAlexError(f"{bad.run.recipe}, seed {bad.run.seed}: {bad.diverged}")


def work(run: Run, images: int) -> float:
    """Multiply-adds, about, of a run over `images` training pictures: what time left is told by.  A stop before the end is not foreseen."""
    recipe = find_recipe(run.recipe)
    table = rows(recipe.build(recipe.classes), recipe.input)
    touched = recipe.input.size + sum(row.y.size for row in table)      # layers without products cost as much as their values
    return run.epochs * images * (3.0 * totals(table)[1] + 30.0 * touched)
