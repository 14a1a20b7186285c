"""Experiments as commands: what they ask for, how their runs are carried out, and what becomes of them when pictures or runs fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import finished, refused
from conftest import load_or_skip

from minialex.checkpoint import candidates, load
from minialex.data import synthetic
from minialex.nets import recipe
from minialex.nets.alexnet import ILSVRC2010, SOURCE2012
from minialex.reproduce import ablations, cifar_nets, tables, two_gpu_time
from minialex.reproduce.arms import FINISHED, Arm, Measured, Outcome, Run, work
from minialex.reproduce.catalogue import CATALOGUE, ORDER, experiments
from minialex.reproduce.cifar_nets import best_rate, epochs_to
from minialex.reproduce.conduct import conduct
from minialex.reproduce.crew import Crew
from minialex.reproduce.experiment import Experiment, Found
from minialex.reproduce.lab import Lab, Missing, paired
from minialex.reproduce.pictures import gap_beyond_chance
from minialex.reproduce.result import Interval, Row
from minialex.reproduce.result import load as load_result
from minialex.spec import Interrupted, MiniAlexError

NARROW = "figure1(width=0.1)"


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """12 x 4 training and 12 x 2 validation pictures."""
    return synthetic.make(tmp_path_factory.mktemp("few") / "archives", 4, val_per_class=2, size=64)


@pytest.fixture
def lab(archives, tmp_path):
    return Lab("quick", tmp_path / "out", pictures=str(archives), cifar=str(archives), quiet=True)


@pytest.fixture(scope="module")
def asking(archives, tmp_path_factory):
    """A lab whose stores several tests may share: nothing is run in it."""
    return Lab("quick", tmp_path_factory.mktemp("asking"), pictures=str(archives), cifar=str(archives), quiet=True)


def crew(lab: Lab, jobs: int = 2) -> Crew:
    return Crew(lab.folder / "runs", jobs=jobs, device="cpu", quiet=True)


def outcome(*errors: float, rate: float = 0.1, diverged: str | None = None) -> Outcome:
    rows = [{"train": {"top1": e, "loss": e / 10}, "validation": {"top1": e + 5, "loss": 1.0}} for e in errors]
    return Outcome(Run("small", "x", len(errors), 0, rate=rate), Path("x"), rows, None if diverged else {"top1": 1.0}, diverged)


# ---------------------------------------------------------------- the catalogue
def test_every_experiment_of_the_paper_has_a_name():
    assert list(CATALOGUE) == list(ORDER) and len(ORDER) == 25
    assert all(one.title and one.section and one.claim.endswith(".") for one in CATALOGUE.values())
    assert all(set(one.expected) <= set(one.rows) for one in CATALOGUE.values())


def test_gold_numbers_are_the_run_notes():
    """Digit for digit, and differences that add up."""
    assert CATALOGUE["table1"].rows["t1"].gold == 37.4727 and CATALOGUE["table1"].rows["t5"].gold == 16.9987
    for name, d1, d5 in (("onegpu", 1.6953, 1.23), ("talkless", 1.164, 1.12), ("lrn", 1.37, 1.152)):
        rows = CATALOGUE[name].rows
        assert rows["d1"].gold == pytest.approx(d1, abs=1e-6) and rows["d5"].gold == pytest.approx(d5, abs=1e-6)
        assert rows["other"].gold - rows["base"].gold == pytest.approx(rows["d1"].gold)


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name != "two-gpu-time"])
def test_an_experiment_asks_for_networks_that_can_be_built(name, asking):
    arms = next(CATALOGUE[name].steps(asking))
    assert arms
    for arm in arms.values():
        assert recipe(arm.recipe).build(12) and Path(arm.data).is_dir() and arm.epochs >= 1 and arm.seeds[0] == 0
        assert work(arm.runs[0], 100) > 0


def test_at_full_the_schedule_of_2010_is_that_of_the_program(archives, tmp_path):
    """table 1 and the one-GPU network were run on the 2010 pictures."""
    folder = synthetic.make(tmp_path / "archives", 2, val_per_class=1, size=64)
    lab = Lab("full", tmp_path / "out", pictures=str(folder), quiet=True)
    told = SOURCE2012.but(**ILSVRC2010)
    for name, word in (("table1", "base"), ("onegpu", "base")):
        asked = next(CATALOGUE[name].steps(lab))[word]
        found = recipe(asked.recipe)
        assert (asked.epochs, found.epochs, found.schedule, found.augmentation) == (93, told.epochs, told.schedule, told.augmentation)
    assert next(CATALOGUE["lrn"].steps(lab))["base"].recipe == "source2012"


@pytest.mark.parametrize("name", [name for name, one in CATALOGUE.items() if "full" in one.scales])
def test_without_imagenet_nothing_is_run_at_full(name, tmp_path):
    lab = Lab("full", tmp_path)
    (found,) = conduct([CATALOGUE[name]], lab, crew(lab), lambda text: None)
    assert found.status == "not run" and not any(row.measured for row in found.rows) and found.why.startswith(f"{name} needs")
    assert load_result(tmp_path / f"{name}-full.json") == found


def test_the_names_are_told_and_a_wrong_one_is_answered_with_the_nearest(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = finished(capsys, "reproduce", "--list")
    assert all(f"{name} " in listed for name in CATALOGUE)
    assert "did you mean pooling?" in refused(capsys, tmp_path, ["reproduce", "poling"])
    assert "minialex reproduce --list" in refused(capsys, tmp_path, ["reproduce"])
    assert [one.name for one in experiments(["lrn", "fig1"])] == ["fig1", "lrn"] and len(experiments(["all"])) == 25


# ---------------------------------------------------------------- judgements
def test_epochs_to_a_level_lie_between_two_epochs():
    assert epochs_to(outcome(50, 30, 20, 10)) == 2.5
    assert epochs_to(outcome(24)) == 1.0 and epochs_to(outcome(50, 25)) == 2.0
    assert epochs_to(outcome(50, 26)) is None and epochs_to(outcome()) is None


def test_the_best_rate_is_that_of_the_least_loss_and_none_that_diverged():
    found = {f"relu at {rate}": Measured(Arm("small", "x", 1, (0,), rate=rate), [one]) for rate, one in
             ((0.1, outcome(50)), (0.2, outcome(40)), (0.3, outcome(90)), (0.4, outcome(10, diverged="the loss became nan")))}
    assert best_rate(found, "relu") == 0.2


def test_a_colour_column_and_a_grey_one_are_told_from_chance():
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.normal(size=(48, 7, 7, 1)), 3, axis=3)
    colour = rng.normal(size=(48, 7, 7, 3)) * (1, -1, 0)
    means, beyond = gap_beyond_chance(np.concatenate([grey, colour]))
    assert means[0] == pytest.approx(0, abs=1e-12) and means[1] > 0.3 and beyond > 0.3
    mixed = np.concatenate([grey[:24], colour[:24], grey[24:], colour[24:]])
    assert gap_beyond_chance(mixed)[1] < 0.1


def test_kernels_without_columns_of_their_own_show_no_gap_beyond_chance():
    """Few kernels always differ a little between two halves: on average that is what chance shows, and no more."""
    rng = np.random.default_rng(1)
    several = [rng.normal(size=(12, 5, 5, 3)) * rng.uniform(0.2, 1, (12, 1, 1, 3)) for _ in range(60)]
    judged = [gap_beyond_chance(w) for w in several]
    assert abs(np.mean([beyond for _, beyond in judged])) < 0.01 < 0.02 < np.mean([np.ptp(means) for means, _ in judged])


def test_differences_are_other_less_base_seed_by_seed():
    base, other = (Measured(Arm("small", "x", 1, (0, 1)), [outcome(a), outcome(b)]) for a, b in ((50, 40), (53, 47)))
    assert paired(base, other, "top1").values == [3, 7] and paired(base, other, "top1", "train").mean == 5
    longer = Measured(base.arm, [*base.outcomes, outcome(10)])
    assert paired(longer, other, "top1").values == [3, 7]


def test_a_diverged_run_has_no_figures():
    with pytest.raises(MiniAlexError, match="seed 0: the loss became nan"):
        Measured(Arm("small", "x", 1, (0,)), [outcome(diverged="the loss became nan")]).values("top1")


# ---------------------------------------------------------------- the crew
def test_runs_are_carried_out_once_and_share_what_they_begin_with(lab):
    data, people = lab.cifar10(), crew(lab)
    first = Arm(NARROW, data, 2, (0,), 16)
    then = Arm(NARROW, data, 1, (0,), 16, init=first)
    ended = []
    people.carry_out(lambda: then.runs, lambda run: ended.append(run.init is None))
    assert ended == [True, False]
    found = people.outcome(then.runs[0])
    assert len(found.rows) == 1 and found.fitted["images"] == 48 and found.diverged is None
    assert candidates(found.folder)[0].is_file() and len(candidates(found.folder)) == 1
    config = json.loads((found.folder / "config.json").read_text())
    assert config["init"] == str(people.folder_of(first.runs[0])) and config["taken"]["layers"]
    again = crew(lab)
    again.carry_out(lambda: [*first.runs, *then.runs], lambda run: pytest.fail("a finished run was repeated"))


def test_a_run_stops_behind_the_level_it_was_to_reach(lab):
    people = crew(lab)
    run = Run(NARROW, lab.cifar10(), 5, 0, 16, until=99.0)
    people.carry_out(lambda: [run], lambda run: None)
    assert len(people.outcome(run).rows) == 1


def test_a_run_that_is_killed_goes_on_to_the_same_bits(lab):
    people = crew(lab, 1)
    run, other = (Run(NARROW, lab.cifar10(), epochs, 0, 8) for epochs in (3, 4))
    people.carry_out(lambda: [run], lambda run: None)
    whole = load(candidates(people.folder_of(run))[0])[0]

    order = {"asked": run.asked(lab.folder / "killed", "cpu"), "until": None, "init": None}
    script = ("import os, sys, json, minialex.train as t; from minialex.reproduce import worker; save = t.Trainer.validate\n"
              "def validate(self, epoch):\n    found = save(self, epoch)\n    epoch or os.kill(os.getpid(), 9)\n    return found\n"
              "t.Trainer.validate = validate; worker.main()")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", script, json.dumps(order)], env=environment, capture_output=True)
    assert ended.returncode == -signal.SIGKILL and not (lab.folder / "killed" / FINISHED).exists()
    subprocess.run([sys.executable, "-m", "minialex.reproduce.worker", json.dumps(order)], env=environment, check=True, capture_output=True)
    resumed = load(candidates(lab.folder / "killed")[0])[0]
    assert whole.keys() == resumed.keys() and all(np.array_equal(whole[key], resumed[key]) for key in whole)
    assert len(json.loads((lab.folder / "killed" / FINISHED).read_text())["rows"]) == 3
    assert other.name != run.name


def test_a_run_that_fails_is_named(lab):
    run = Run("figure1(width=0.1)", lab.cifar10(), 1, 0, 1000)
    with pytest.raises(MiniAlexError, match=r"the run figure1\(width=0.1\), seed 0, .* failed: minialex: -b 1000"):
        crew(lab).carry_out(lambda: [run], lambda run: None)


def test_a_stop_ends_the_workers_and_says_how_to_go_on(lab):
    people = crew(lab, 1)
    run = Run(NARROW, lab.cifar10(), 500, 0, 16)
    seen = []

    def wanted():
        if (people.folder_of(run) / "metrics.jsonl").exists():
            seen.append(1)
            raise KeyboardInterrupt
        return [run]

    with pytest.raises(Interrupted, match="the same command goes on"):
        people.carry_out(wanted, lambda run: None)
    assert seen and candidates(people.folder_of(run))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and subprocess.run(["pgrep", "-f", run.name], capture_output=True).returncode == 0:
        time.sleep(0.1)
    assert subprocess.run(["pgrep", "-f", run.name], capture_output=True).returncode != 0


def test_a_worker_whose_program_is_killed_saves_and_ends(lab):
    """The program dies at once (kill -9); its worker must not learn on alone, nor lose what it has learnt."""
    run = Run(NARROW, lab.cifar10(), 500, 0, 16)
    folder = crew(lab).folder_of(run)
    order = json.dumps({"asked": run.asked(folder, "cpu"), "until": None, "init": None})
    script = ("import subprocess, sys, time\np = subprocess.Popen([sys.executable, '-m', 'minialex.reproduce.worker', sys.argv[1]], "
              "stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)\nwhile True: time.sleep(1)")
    program = subprocess.Popen([sys.executable, "-c", script, order], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    deadline = time.monotonic() + 60
    while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    program.kill()
    program.wait()
    while time.monotonic() < deadline and subprocess.run(["pgrep", "-f", folder.name], capture_output=True).returncode == 0:
        time.sleep(0.1)
    assert subprocess.run(["pgrep", "-f", folder.name], capture_output=True).returncode != 0
    _, state = load(candidates(folder)[0])
    assert state["step"] > 0 and not (folder / FINISHED).exists()


# ---------------------------------------------------------------- conducting
def made_up(name: str, steps) -> Experiment:
    return Experiment(name, "made up", "0", "It is so.", {"d": Row("difference", "points", 1.0)}, steps, expected={"d": +1})


def test_an_experiment_may_ask_again_and_others_go_on_without_one_that_fails(lab):
    data = lab.cifar10()

    def twice(lab):
        found = yield {"short": Arm(NARROW, data, 1, (0,), 16)}
        assert len(found["short"].outcomes[0].rows) == 1
        found = yield {"long": Arm(NARROW, data, 2, (0,), 16)}
        error = found["long"].values("top1")[0]
        return Found({"d": Interval.of([error, error + 1])}, {"long": found["long"].arm}, [data], "seen")

    def failing(lab):
        yield {"short": Arm(NARROW, data, 1, (0,), 16)}
        raise MiniAlexError("it cannot be")

    def missing(lab):
        raise Missing("needs more")
        yield {}

    said = []
    with pytest.raises(MiniAlexError, match=r"1 of 3 experiments failed.*failing: it cannot be"):
        conduct([made_up("failing", failing), made_up("missing", missing), made_up("twice", twice)], lab, crew(lab), said.append)
    found = load_result(lab.folder / "twice-quick.json")
    assert found.status == "subset" and found.rows[0].verdict in ("supported", "inconclusive")
    assert found.note == "seen" and found.seeds == [0]
    assert "48 training" in found.data and not found.publishable
    assert load_result(lab.folder / "missing-quick.json").why == "missing needs more"
    assert not (lab.folder / "failing-quick.json").exists() and any("it cannot be" in text for text in said)


def test_an_ablation_from_the_command_line(archives, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ablations, "PHOTOGRAPHS", ablations.Budget(4, 2, 60))
    out = finished(capsys, "reproduce", "pooling", "--seeds", "2", "--data", str(archives), "--remark", "drawn", "--out", "here")
    found = load_result(tmp_path / "here" / "pooling-quick.json")
    assert "pooling: subset; difference with pools of 2 every 2" in out and "minialex report here" in out
    assert found.picture and (tmp_path / "here" / found.picture).stat().st_size > 10_000
    assert found.seeds == [0, 1] and found.data.endswith("; drawn")
    assert found.configuration["pools of 2 every 2"]["recipe"] == "small(pool=2, steps=(1,))"
    d1 = next(row for row in found.rows if row.gold == 0.394)
    levels = {row.what: row.measured.values for row in found.rows if row.measured}
    base, other = levels["top-1 error of the base network"], levels["top-1 error with pools of 2 every 2"]
    assert d1.measured.values == pytest.approx(np.subtract(other, base))


def test_steps_of_two_networks_are_timed_in_turn():
    asked = []
    found = two_gpu_time.ratios(lambda: asked.append("one"), lambda: asked.append("other"), rounds=2, steps=3)
    assert asked == (["one"] * 3 + ["other"] * 3) * 3 and len(found) == 2 and min(found) > 0
    load_or_skip("emulated")
    step = two_gpu_time.stepper("tiny", "emulated:0,emulated:1", batch=2)
    assert 0 < step() < 10 and 0 < step() < 10


def test_the_halves_of_table_2_share_no_class(asking):
    arms = tables.contestants(asking)
    one, other = (set(asking.classes(arms[word].data)) for word in ("CNN", "pre-training"))
    assert len(one) == len(other) == 6 and not one & other
    assert arms["CNN*"].init == arms["pre-training"] and arms["CNN*"].data == arms["CNN"].data


def test_figure_1_at_quick_is_what_the_issue_of_5000_pictures_says():
    assert cifar_nets.PER_CLASS * 10 == 5000 and cifar_nets.LEVEL == 25
