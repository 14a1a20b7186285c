"""The command line itself: its help, which choice wins, and each verb once."""

import argparse
import json
import os
import re
import runpy
import sys
from dataclasses import asdict

import pytest
from commands import finished, said
from pictures import tree
from runs import ROOT, small_store

from minialex import data, train
from minialex.backends import NAMES
from minialex.cli import build_parser
from minialex.config import Config, resolve
from minialex.nets import RECIPES, recipe
from minialex.spec import MiniAlexError

EXAMPLE = ROOT / "examples" / "train_imagenet.py"


def parsers() -> dict[str, argparse.ArgumentParser]:
    """"" for the program, and each verb."""
    top = build_parser()
    verbs = next(action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    return {"": top, **verbs.choices}


VERBS = tuple(parsers())


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("pictures"), per_class=4, val_per_class=2)


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    train.run({"data": str(store), "recipe": "tiny", "batch": 24, "epochs": 1, "output_dir": str(folder)}, quiet=True)
    return folder


# ------------------------------------------------------------------------------------------------------------------------------ help


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_the_terminal(verb, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    out = finished(capsys, *filter(None, [verb]), "--help")
    assert out.startswith(f"usage: minialex {verb}".rstrip()) and max(map(len, out.splitlines())) <= width


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_says_its_default(verb):
    parser = parsers()[verb]
    actions = [action for action in parser._actions if not isinstance(action, (argparse._HelpAction, argparse._VersionAction,
                                                                               argparse._SubParsersAction))]
    for action in actions:
        words = action.help or ""
        name = action.option_strings or action.dest
        assert words, f"{name} has no help"
        if action.option_strings or action.nargs == "?":
            assert re.search(r"\((default: \S|no default)", words), f"{name}: {words}"
            assert ("no default" in words) == action.required, name
        if action.default not in (None, False) and action.option_strings:
            assert f"(default: {action.default:g}" in words if isinstance(action.default, (int, float)) else action.default in words, name
    assert len(actions) <= 40


def test_help_is_in_groups(capsys):
    wanted = {"train": ("what to train on:", "learning:", "machine:", "run:", "recipes:"),
              "evaluate": ("what to evaluate:", "how:", "machine:", "output:"), "predict": ("what to look at:", "machine:", "output:"),
              "prepare": ("what and where:", "machine:")}
    for verb, titles in wanted.items():
        out = finished(capsys, verb, "--help").splitlines()
        assert [line for line in out if line in titles] == list(titles)
    out = finished(capsys, "train", "--help")
    assert all(f"  {name:<12}{RECIPES[name].about}" in out for name in RECIPES)
    out = finished(capsys, "--help")
    assert all(re.search(rf"^    {verb}\s", out, re.MULTILINE) for verb in VERBS[1:])


def test_defaults_in_the_help_are_those_of_a_run():
    """Said in words there, kept as values here."""
    config, found, _ = resolve({})
    help_of = {action.dest: action.help for action in parsers()["train"]._actions}
    assert config.recipe == "tiny" and "default: tiny without DATA, paper with" in help_of["recipe"]
    assert resolve({"data": "somewhere"})[0].recipe == "paper"
    for name in ("seed", "device", "workers"):
        assert f"(default: {getattr(config, name)})" in help_of[name]
    for name in ("epochs", "batch", "rate", "momentum", "decay"):
        assert "(default: recipe)" in help_of[name] and getattr(config, name) == getattr(found, name)
    assert config.fuse and config.limit_batches is None


def test_flags_are_spelled_as_in_the_imagenet_example():
    words = ["photos", "-b", "7", "--epochs", "3", "--lr", "0.1", "--momentum", "0.8", "--wd", "1e-3", "-j", "4", "--resume", "auto",
             "--seed", "5", "-e", "--recipe", "onegpu", "--device", "cpu", "--output-dir", "out", "--limit-batches", "9"]
    options = vars(parsers()["train"].parse_args(words))
    assert {"data": "photos", "batch": 7, "epochs": 3, "rate": 0.1, "momentum": 0.8, "decay": 1e-3, "workers": 4, "resume": "auto",
            "seed": 5, "evaluate": True, "recipe": "onegpu", "device": "cpu", "output_dir": "out",
            "limit_batches": 9}.items() <= options.items()
    long = ["--batch-size", "7", "--learning-rate", "0.1", "--weight-decay", "1e-3", "--workers", "4", "--evaluate"]
    options = vars(parsers()["train"].parse_args(long))
    assert {"batch": 7, "rate": 0.1, "decay": 1e-3, "workers": 4, "evaluate": True}.items() <= options.items()


# ----------------------------------------------------------------------------------------------------------------------------- config


def test_asked_over_checkpoint_over_recipe():
    """Each field from the first that names it, and what was overridden is said."""
    saved = asdict(Config(recipe="cifar18", batch=64, rate=0.5, epochs=7, seed=3, workers=1))
    config, found, said_so = resolve({"rate": 0.25, "epochs": 9, "seed": None, "quiet": True}, saved)
    assert (config.recipe, config.rate, config.epochs) == ("cifar18", 0.25, 9)                          # asked
    assert (config.batch, config.seed, config.workers) == (64, 3, 1)                                   # checkpoint
    assert found == recipe("cifar18") and found.batch != 64
    assert said_so == ["resume: rate 0.5 -> 0.25 (command line)", "resume: epochs 7 -> 9 (command line)"]
    config, found, said_so = resolve({"recipe": "source2012", "batch": 16})
    assert (config.batch, config.epochs, config.rate) == (16, 91, found.rate) and said_so == []         # recipe
    assert resolve({"rate": 0.5}, saved)[2] == []                                                      # the same is no change


def test_the_hash_is_of_what_decides_the_weights():
    """Where the data lies, how long, and on what a run goes may differ between runs that end in the same bits."""
    free = {"data", "workers", "output_dir", "limit_batches", "store", "device", "fuse", "overlap", "epochs", "init",
            "init_skip"}
    base = Config(recipe="tiny")
    other = {"data": "x", "workers": 5, "output_dir": "x", "limit_batches": 3, "store": "x", "device": "reference", "fuse": False,
             "overlap": False, "epochs": 3, "precision": "bf16", "recipe": "paper", "batch": 3, "rate": 0.3, "momentum": 0.3,
             "decay": 0.3, "seed": 3, "init": "x", "init_skip": "x", "taken": {"layers": ["conv1"], "sha256": "0"}, "taken_rate": 0.1}
    assert other.keys() == base.as_dict().keys()
    for name, value in other.items():
        changed = Config(**(base.as_dict() | {name: value}))
        assert (changed.hash() == base.hash()) == (name in free), name
    assert re.fullmatch("[0-9a-f]{16}", base.hash())


@pytest.mark.parametrize("asked, flag", [
    ({"batch": 0}, "-b 0"), ({"epochs": 0}, "--epochs 0"), ({"workers": 0}, "-j 0"), ({"limit_batches": 0}, "--limit-batches 0"),
    ({"seed": -1}, "--seed -1"), ({"rate": float("nan")}, "--lr nan"), ({"rate": float("inf")}, "--lr inf"), ({"decay": -1.0}, "--wd -1"),
    ({"momentum": 1.0}, "--momentum 1.0"),
])
def test_programs_get_the_same_refusals(asked, flag):
    """Trainer is called without the command line too."""
    with pytest.raises(MiniAlexError, match=rf"^{flag}.* is needed$"):
        resolve(asked)


# ------------------------------------------------------------------------------------------------------------------------------ verbs


def test_limit_batches(store, tmp_path, capsys):
    words = ("train", store, "--recipe", "tiny", "-b", "6", "--epochs", "2", "--limit-batches", "3", "--output-dir", tmp_path / "run", "-q")
    assert finished(capsys, *words) == ""
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["train"]["images"], row["validation"]["images"]) for row in rows] == [(3, 18, 18), (6, 18, 18)]
    got = json.loads(finished(capsys, "evaluate", tmp_path / "run", store, "-b", "5", "--limit-batches", "2", "--json"))
    assert got["images"] == 10


def test_prepare_then_evaluate_and_predict_by_default(store, run, tmp_path, capsys, monkeypatch):
    """A fresh store of the same pictures, what --split chooses, and the newest run under runs/ for predict."""
    out = finished(capsys, "prepare", store.parent / "archives", "--out", tmp_path / "store", "--record", "128")
    assert "48 train, 24 val, 12 classes, 128 x 128 x 3" in out
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(run)
    line = re.escape(f"{run / 'checkpoint-2.safetensors'}: centre view(s), ") + "{} pictures: top-1 error [0-9.]+ %, .* \\({} images\\)\n"
    assert re.fullmatch(line.format("val", 24), finished(capsys, "evaluate", run, "store", "-q"))
    assert re.fullmatch(line.format("train", 48), finished(capsys, "evaluate", run, "--split", "train", "-q"))
    out = finished(capsys, "predict", tree(tmp_path, {"x.png": 9}) / "x.png", "--top", "3", "-b", "1")
    assert out.startswith(f"{tmp_path / 'x.png'}\n") and out.count(" %") == 3
    assert finished(capsys, "prepare", store.parent / "archives", "--out", tmp_path / "quiet", "--record", "16", "-q") == ""


def test_evaluation_subtracts_the_mean_of_training(store, run, capsys, monkeypatch):
    """Darker or brighter pictures of the same classes have a mean of their own, which would hide the difference."""
    store_of = data.store_of

    def with_another_mean(*args, **kwargs):
        opened = store_of(*args, **kwargs)
        opened.mean = opened.mean + 100
        return opened

    want = json.loads(finished(capsys, "evaluate", run, store, "--json"))
    monkeypatch.setattr(data, "store_of", with_another_mean)
    assert json.loads(finished(capsys, "evaluate", run, store, "--json")) == want


def test_names_shared_by_two_classes_are_told_apart():
    from minialex.predict import _unique
    assert _unique(["n1", "n2", "n3"], ["crane", "maillot", "crane"]) == ["crane (n1)", "maillot", "crane (n3)"]


def test_plan_and_the_table_of_the_paper(capsys, monkeypatch):
    out = finished(capsys, "plan", "--recipe", "onegpu", "-b", "32")
    assert out.startswith("onegpu: ") and "conv5" in out and "1 column, batch 32" in out
    assert "2 columns, batch 128" in finished(capsys, "plan") and "batch 32, float32" in finished(capsys, "plan", "--recipe", "tiny")
    monkeypatch.setattr(sys, "argv", ["alexnet", "paper"])
    with pytest.warns(RuntimeWarning, match="found in sys.modules"), pytest.raises(SystemExit) as end:
        runpy.run_module("minialex.nets.alexnet", run_name="__main__")
    assert not end.value.code
    assert "60,965,224" in capsys.readouterr().out


def test_doctor(capsys):
    out = finished(capsys, "doctor").splitlines()
    assert re.match(r"minialex \d+\.\d+\.\d+, Python 3\.\d+", out[0])
    lines = {name: next(line for line in out if line.split()[0] == name) for name in NAMES}
    assert all(lines[name].split()[1:] == ["ready"] for name in ("reference", "cpu"))
    assert finished(capsys, "--version").startswith("minialex ")


# --------------------------------------------------------------------------------------------------------------------------- example


def example(capsys, monkeypatch, *words) -> tuple[int, str, str]:
    """What `python examples/train_imagenet.py WORDS` does, in this process."""
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *map(os.fspath, words)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    return (end.value.code, *capsys.readouterr())


def test_the_example_trains_and_evaluates(store, run, tmp_path, capsys, monkeypatch):
    """-e says what `minialex evaluate` says; auto is the run in --output-dir; training leaves what `minialex train` leaves."""
    words = (store, "--recipe", "tiny", "-b", "24", "--epochs", "1", "--output-dir", tmp_path / "run", "-q")
    assert example(capsys, monkeypatch, *words) == (0, "", "")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(path.name for path in run.iterdir())
    want = finished(capsys, "evaluate", tmp_path / "run", store)
    for where in (("--resume", tmp_path / "run"), ("--resume", "auto", "--output-dir", tmp_path / "run")):
        assert example(capsys, monkeypatch, store, "-e", *where) == (0, want, "")
        assert said(capsys, "train", store, "-e", *where) == (0, want, "")
    before = sorted(tmp_path.rglob("*"))
    for words, part in (((store, "-e"), "--evaluate needs a network"), (("nowhere",), "nowhere does not exist"),
                        ((store, "--reciep", "tiny"), "did you mean --recipe?"), ((store, "--recipe", "tny"), "did you mean 'tiny'?")):
        status, out, err = example(capsys, monkeypatch, *words)
        assert status == 2 and out == "" and part in err and len(err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before
