"""What an experiment found, as one JSON file beside its picture: the only thing the report reads.

A number that was not measured stands nowhere in it: `measured` is None then, and `status` and `why` say the reason.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .. import files
from ..spec import MiniAlexError

STATUSES = ("full", "subset", "not run")                    # full: the paper's data and size; subset: the same on less
VERDICTS = ("supported", "inconclusive", "contradicted")

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom; 1.96 from 31 on would be 4 % too narrow at most.
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101,
       2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)


@dataclass(frozen=True)
class Interval:
    """The mean of `values`, one for each seed, and its 95 % interval (Student's t; None for a single value)."""

    values: list[float]
    mean: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        values = [float(value) for value in values]
        n = len(values)
        if n == 0 or not all(map(math.isfinite, values)):
            raise ValueError(f"an interval needs finite values, got {values}")
        mean = math.fsum(values) / n
        if n == 1:
            return cls(values, mean)
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
        half = (T95[n - 2] if n - 2 < len(T95) else 1.96) * spread / math.sqrt(n)
        return cls(values, mean, mean - half, mean + half)


@dataclass(frozen=True)
class Row:
    """One quantity: what the paper or the run notes print beside what was measured here.

    gold      number, text ("6 epochs") or None where the paper prints none        unit   "%", "points", "epochs", "ms", "" ...
    measured  None: not measured
    verdict   of a row that states a direction: of VERDICTS; None for one that only reports a size
    """

    what: str
    unit: str = ""
    gold: float | str | None = None
    measured: Interval | None = None
    verdict: str | None = None


@dataclass(frozen=True)
class Result:
    """One experiment at one scale."""

    name: str                               # as in `minialex reproduce NAME`
    title: str
    section: str                            # of the paper: "3.1, figure 1"
    claim: str                              # one sentence: what the paper says
    scale: str                              # quick | cifar | full
    status: str
    rows: list[Row]
    why: str = ""                           # of "not run": what is missing, where to get it, what runs without it
    note: str = ""                          # what was seen, and what limits it; one paragraph
    data: str = ""                          # which pictures, how many
    seeds: list[int] = field(default_factory=list)
    configuration: dict = field(default_factory=dict)       # recipes of the arms, epochs, rates: all that decides the figures
    picture: str | None = None              # file name beside the JSON file
    publishable: bool = True                # False: the picture shows photographs that may be looked at, not passed on
    seconds: float = 0.0                    # of computing
    commit: str = ""
    date: str = ""                          # ISO
    machine: str = ""

    def __post_init__(self):
        if self.status not in STATUSES or any(row.verdict not in (None, *VERDICTS) for row in self.rows):
            raise ValueError(f"{self.name}: status {self.status!r} or a verdict is none of {STATUSES}, {VERDICTS}")
        if self.status == "not run" and any(row.measured for row in self.rows):
            raise ValueError(f"{self.name}: what was not run has no measured figures")

    @property
    def verdict(self) -> str | None:
        """Of the whole: the worst of its rows'."""
        found = [row.verdict for row in self.rows if row.verdict]
        return max(found, key=VERDICTS.index) if found else None

    def save(self, folder: str | Path) -> Path:
        """Writes NAME-SCALE.json into `folder`."""
        path = Path(folder) / f"{self.name}-{self.scale}.json"
        files.make_folder(path.parent)
        files.write_json(path, asdict(self))
        return path


def load(path: str | Path) -> Result:
    """The result in a file.  Raises MiniAlexError, naming the file, where it is none."""
    path = Path(path)
    try:
        found = json.loads(path.read_text())
        rows = [Row(**row | {"measured": row["measured"] and Interval(**row["measured"])}) for row in found.pop("rows")]
        return Result(rows=rows, **found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise MiniAlexError(f"{path} is no result of an experiment ({type(error).__name__}: {error}); "
                            "remove it and run the experiment again: minialex reproduce NAME") from error


def direction(difference: Interval, expected: int) -> str:
    """Whether a difference between arms supports a claim about its sign (`expected` +1 or -1): inconclusive where its interval holds 0,
    and where a single seed leaves no interval."""
    if difference.low is None or difference.low <= 0 <= difference.high:
        return "inconclusive"
    return "supported" if difference.mean * expected > 0 else "contradicted"
