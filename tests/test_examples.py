"""The short programs of examples/, each at its smallest scale: they end well, say what is true, and draw what they promise."""

import math
import os
import re
import runpy
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from runs import ROOT

from minialex.layers import LRN

EXAMPLES = ROOT / "examples"


def ran(name: str, folder, *words) -> str:
    """What `python examples/NAME WORDS` prints when called in `folder`; nothing may be complained of."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, str(EXAMPLES / name), *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=120,
                          env=os.environ | {"PYTHONPATH": path})
    said = [line for line in done.stderr.splitlines() if not line.startswith("prepare ")]          # the bar of a preparation
    assert done.returncode == 0 and not said, done.stderr
    return done.stdout


# ---------------------------------------------------------------------------------------------------------------------- lrn_by_hand


def columns_of(out: str) -> np.ndarray:
    """The ten lines of its table: the map, minialex, over the border, elsewhere."""
    rows = re.findall(r"^ *(\d+) +(\d+\.\d{4}) +(\d+\.\d{4}) +(\d+\.\d{4})", out, re.MULTILINE)
    assert len(rows) == 10
    return np.array(rows, float).T


def test_lrn_by_hand_is_the_formula(tmp_path):
    """Against the sums written out: each map by its neighbours, in columns of five and in one of ten."""
    out = ran("lrn_by_hand.py", tmp_path)
    a, ours, over, elsewhere = columns_of(out)
    for i in range(10):
        near = range(max(0, i - 2), min(10, i + 3))
        own, all_ = (math.fsum(a[j] ** 2 for j in near if j // 5 == i // 5 or not column) for column in (True, False))
        assert ours[i] == pytest.approx(a[i] / (2 + 1e-4 * own) ** 0.75, abs=1e-4)
        assert over[i] == pytest.approx(a[i] / (2 + 1e-4 * all_) ** 0.75, abs=1e-4)
        assert elsewhere[i] == pytest.approx(a[i] / (1 + 2e-5 * all_) ** 0.75, abs=1e-4)
    assert [i for i in range(10) if ours[i] != over[i]] == [3, 4, 5, 6]
    assert re.search(r"20 / 2\.1935 +9\.1179\n", out) and ours[4] == 9.1179 and "minialex says what the hand said" in out
    assert list(tmp_path.iterdir()) == []


def test_the_last_way_is_that_of_another_library(tmp_path):
    torch = pytest.importorskip("torch")
    a, _, _, elsewhere = columns_of(ran("lrn_by_hand.py", tmp_path))
    theirs = torch.nn.functional.local_response_norm(torch.tensor(a, dtype=torch.float64).reshape(1, 10, 1), 5)     # its defaults
    assert theirs.reshape(-1).numpy() == pytest.approx(elsewhere, abs=1e-4)


def test_a_wrong_formula_would_show(monkeypatch, capsys):
    """The example compares: a layer that divides alpha by n ends it with status 1."""
    monkeypatch.setattr(LRN, "constants", lambda layer: dict(n=5, k=2.0, alpha=2e-5, beta=0.75))
    monkeypatch.setattr(sys, "argv", ["lrn_by_hand.py"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLES / "lrn_by_hand.py"), run_name="__main__")
    assert end.value.code == 1 and "DIFFER" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------------------------- relu_vs_tanh


def test_relu_vs_tanh_compares_and_draws(tmp_path):
    """Two epochs on 48 pictures: every rate of either unit is said, no ratio is made up, and both curves are in the picture."""
    out = ran("relu_vs_tanh.py", tmp_path, "--per-class", "4", "--epochs", "2", "--picture", "x.png")
    said = re.findall(r"^(\w+) at rate (\S+): (\S+) % training error after 2 epochs$", out, re.MULTILINE)
    assert [line[:2] for line in said] == [("relu", "0.001"), ("relu", "0.002"), ("relu", "0.003"),
                                           ("tanh", "0.01"), ("tanh", "0.02"), ("tanh", "0.03")]
    assert all(25 < float(error) <= 100 for _, _, error in said) and "no ratio" in out
    with Image.open(tmp_path / "x.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()
        assert picture.width > 500 and all(pixels.count(colour) > 100 for colour in ([0, 114, 178], [213, 94, 0]))
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_relu_vs_tanh_says_the_ratio_of_epochs(monkeypatch, tmp_path, capsys):
    """Of each unit's best rate, whatever the training was: here made up."""
    module = runpy.run_path(str(EXAMPLES / "relu_vs_tanh.py"))
    curves = {0.001: [90, 20], 0.002: [80, 30, 3], 0.003: [60, 50, 40, 30], 0.01: [90] * 4, 0.02: [*[90] * 5, 25], 0.03: [*[40] * 6, 9]}
    monkeypatch.setitem(module["main"].__globals__, "errors", lambda unit, rate, *rest: curves[rate])
    monkeypatch.setattr(sys, "argv", ["relu_vs_tanh.py", "--per-class", "4", "--picture", str(tmp_path / "x.png")])
    module["main"]()
    assert "25 % after 2 epochs with ReLU and 6 with tanh, 3.0 times as many" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------------------------- nearest_pictures


def test_nearest_pictures_are_drawn_and_counted(tmp_path):
    """A run of two batches knows nothing: what counts is that the shares are those of the network's own features."""
    out = ran("nearest_pictures.py", tmp_path, "--batches", "2", "--picture", "near.png")
    shares = [float(share) for share in re.findall(r"of the 6 nearest by .*?(\d+\.\d) % are of the query's class", out)]
    assert len(shares) == 2 and min(shares) > 100 / 12 - 5 and shares[1] > 90          # drawn forms of one colour are alike in pixels too
    with Image.open(tmp_path / "near.png") as drawn:
        assert drawn.size[0] > 600 and np.asarray(drawn).std() > 20
