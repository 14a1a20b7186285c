"""An experiment: what the paper says, the numbers it prints, and the steps that measure them here."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace

from .arms import Arm, Measured
from .lab import Lab, Missing, circumstances
from .result import Interval, Result, Row, direction

Steps = Generator[dict[str, Arm], dict[str, Measured], "Found"]


@dataclass
class Found:
    """What an experiment's steps return.

    measured    {key of Experiment.rows: figures}: what is left out was not measured
    more        rows the paper has no number for
    stores      the prepared pictures it used, the first of them decides what is said about the data
    picture     draws the picture to a path; publishable says whether it may be passed on
    status      where it is not simply that of the scale
    """

    measured: dict[str, Interval]
    arms: dict[str, Arm]
    stores: list[str]
    note: str
    more: list[Row] = field(default_factory=list)
    picture: Callable | None = None
    publishable: bool = True
    status: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Experiment:
    """rows     {key: Row without figures}, with the numbers of the paper and of its run notes
    expected    {key: +1 or -1}: the rows whose sign the paper claims
    scales      at which it can be run; cifar only where the paper used CIFAR-10
    """

    name: str
    title: str
    section: str
    claim: str
    rows: dict[str, Row]
    steps: Callable[[Lab], Steps]
    expected: dict[str, int] = field(default_factory=dict)
    scales: tuple[str, ...] = ("quick", "full")

    @property
    def gold_rows(self) -> list[Row]:
        return list(self.rows.values())

    def result(self, lab: Lab, found: Found) -> Result:
        """The result of its steps; draws the picture beside where it will be saved."""
        rows = []
        for key, row in self.rows.items():
            interval = found.measured.get(key)
            verdict = direction(interval, self.expected[key]) if interval and key in self.expected else None
            rows.append(replace(row, measured=interval, verdict=verdict))
        picture = None
        if found.picture:
            picture = f"{self.name}-{lab.scale}.png"
            found.picture(lab.folder / picture)
        seeds = sorted({seed for arm in found.arms.values() for seed in arm.seeds})
        return Result(self.name, self.title, self.section, self.claim, lab.scale, found.status or ("subset" if lab.quick else "full"),
                      rows=rows + found.more, note=found.note, data="; ".join(dict.fromkeys(map(lab.described, found.stores))), seeds=seeds,
                      configuration={word: arm.words() for word, arm in found.arms.items()}, picture=picture,
                      publishable=found.publishable and all(map(lab.publishable, found.stores)), seconds=round(found.seconds, 1),
                      **circumstances())

    def not_run(self, lab: Lab, why: Missing | str) -> Result:
        return Result(self.name, self.title, self.section, self.claim, lab.scale, "not run", rows=self.gold_rows, why=str(why),
                      **circumstances())
