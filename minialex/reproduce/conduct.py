"""Conducts experiments: asks each what it needs, has the runs carried out once, hands them back, and writes every result at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..spec import Interrupted, MiniAlexError
from .arms import Arm, Measured, Run
from .crew import Crew
from .experiment import Experiment, Steps
from .lab import Lab, Missing
from .result import Result


@dataclass
class Pending:
    """An experiment under way: its steps, and the arms they wait for."""

    experiment: Experiment
    steps: Steps
    arms: dict[str, Arm]

    @property
    def runs(self) -> list[Run]:
        return [run for arm in self.arms.values() for run in arm.runs]


def conduct(experiments: list[Experiment], lab: Lab, crew: Crew, say: Callable[[str], None]) -> list[Result]:
    """Runs `experiments`; writes NAME-SCALE.json and the picture of each into lab.folder as soon as it is known.

    Pictures that are not at hand make a result "not run".  Where a run fails the others go on, and its sentence is raised at the end.
    """
    pending: list[Pending] = []
    results: list[Result] = []
    failures: list[str] = []

    def advance(one: Pending | None, experiment: Experiment, send: dict[str, Measured] | None) -> None:
        steps = one.steps if one else experiment.steps(lab)
        try:
            arms = steps.send(send)
            pending.append(Pending(experiment, steps, arms))
        except StopIteration as end:
            finish(experiment.result(lab, end.value))
        except Missing as why:
            finish(experiment.not_run(lab, f"{experiment.name} {why}"))
        except Interrupted:
            raise
        except MiniAlexError as error:
            failures.append(f"{experiment.name}: {error}")
            say(f"{experiment.name} failed: {error}")

    def finish(result: Result) -> None:
        result.save(lab.folder)
        results.append(result)
        say(sentence(result))

    def served(run: Run | None = None) -> None:
        """Hands arms back to the experiments all of whose runs have finished, until none is."""
        while ready := next((one for one in pending if all(crew.outcome(run) for run in one.runs)), None):
            pending.remove(ready)
            advance(ready, ready.experiment,
                    {word: Measured(arm, [crew.outcome(run) for run in arm.runs]) for word, arm in ready.arms.items()})

    for experiment in experiments:
        if lab.scale not in experiment.scales:
            finish(experiment.not_run(lab, f"{experiment.name} has the scales {', '.join(experiment.scales)}, not {lab.scale}"))
        else:
            advance(None, experiment, None)
    served()
    crew.carry_out(lambda: [run for one in pending for run in one.runs], served)
    if failures:
        raise MiniAlexError(f"{len(failures)} of {len(experiments)} experiments failed, the others' results are in {lab.folder}: "
                            f"{failures[0]}")
    return results


def sentence(result: Result) -> str:
    """A result in a line."""
    if result.status == "not run":
        return f"{result.name}: not run; {result.why}"
    figures = [row for row in result.rows if row.measured]
    told = next((row for row in figures if row.verdict), figures[0] if figures else None)
    text = f"{result.name}: {result.status}"
    if told:
        one = told.measured
        spread = f" [{one.low:.3g}, {one.high:.3g}]" if one.low is not None else ""
        gold = f" (paper {told.gold:g})" if isinstance(told.gold, float) else ""
        text += f"; {told.what} {one.mean:.3g}{spread} {told.unit}{gold}"
    return text + (f"; {result.verdict}" if result.verdict else "")
