"""The whole network against vectors that PyTorch's autograd made in float64 (tests/golden/make_golden.py).

Loss, every activation, every gradient and the weights after three steps of `paper` and `source2012`, in float64 on the
oracle, and in float32 on the oracle and on the fast path; and every row of the difference table, turned the other way, must not fit.
"""

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from minialex import backends
from minialex.layers import Conv, Linear, Run
from minialex.net import Net
from minialex.nets import recipe
from minialex.optim import SGD

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("paper", "source2012", "paper_strong", "source2012_strong")
# Largest error as a share of the array's largest value.  float64 against float64: sums of at most 400 terms in another order.
# float32: 2^-24 for each of some twenty layers, times what a sum of 400 terms collects.
WAYS = [("reference", "float64", 1e-13), ("reference", "float32", 5e-6), ("cpu", "float32", 5e-6)]
SIDE = 76


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def layers_of(name: str, **changes):
    """The recipe at 1/16 of the width, with 32 hidden values, ten classes and, for *_strong, large LRN constants."""
    base, _, strong = name.partition("_")
    settings = dict(width=1 / 16, hidden=(512, 512)) | (dict(lrn_alpha=0.5, spatial_alpha=0.2) if strong else {})
    return recipe(base).build(10, **settings | changes)


def shapes_of(layers):
    shapes = [recipe("paper").but(crop=SIDE).input]
    for layer in layers:
        shapes.append(layer.out_shape(shapes[-1]))
    return shapes


# --- from PyTorch's layout to ours ----------------------------------------------------------------------------------------

def columns(array: np.ndarray, count: int) -> np.ndarray:
    """(N, G*C, H, W) as (G, N, H, W, C)."""
    N, C, H, W = array.shape
    return np.ascontiguousarray(array.reshape(N, count, C // count, H, W).transpose(1, 0, 3, 4, 2))


def parameter(array: np.ndarray, x) -> np.ndarray:
    """Filters (K, C, R, S) as (K, R, S, C); the inputs of a linear layer from (C, H, W) to each column's (H, W, C)."""
    if array.ndim == 4:
        array = array.transpose(0, 2, 3, 1)
    elif array.ndim == 2:
        array = array.reshape(-1, x.columns, x.C, x.H, x.W).transpose(0, 1, 3, 4, 2).reshape(array.shape)
    return np.ascontiguousarray(array)


def parameters(name: str, layers, which: str) -> dict[tuple[str, str], np.ndarray]:
    """All parameters of one kind: "w0", "w3" or "d"."""
    shapes = shapes_of(layers)
    return {(layer.name, key): parameter(golden(name)[f"{which}/{layer.name}.{key}"], x)
            for layer, x in zip(layers, shapes, strict=False) if isinstance(layer, (Conv, Linear)) for key in "wb"}


def error(got: np.ndarray, want: np.ndarray) -> float:
    """Largest difference as a share of the largest value."""
    assert got.shape == want.shape
    return float(np.abs(got - want).max() / np.abs(want).max())


# --- every activation and gradient, layer by layer ------------------------------------------------------------------------

@dataclass
class Walk:
    """Each layer run by itself, with arrays of its own, so that nothing is overwritten."""

    ys: dict[str, np.ndarray]
    dys: dict[str, np.ndarray]
    grads: dict[str, np.ndarray]
    losses: np.ndarray


def walk(name: str, layers, ops, dtype: str) -> Walk:
    stored, shapes, N = golden(name), shapes_of(layers), 2
    params = {key: value.astype(dtype) for key, value in parameters(name, layers, "w0").items()}
    x = columns(stored["image"], 1).astype(dtype)
    ys, runs = [x], []
    for ordinal, layer in enumerate(layers[:-1]):
        own = {key[1]: value for key, value in params.items() if key[0] == layer.name}
        run = Run(training=True, seed=int(stored["seed"]), step=0, ordinal=ordinal, params=own,
                  grads={key: np.full_like(value, np.nan) for key, value in own.items()})
        ys.append(np.full(shapes[ordinal + 1].array(N), np.nan, dtype))
        layer.fprop(ops, ys[-2], ys[-1], run)
        runs.append(run)
    p, losses = np.full((N, 10), np.nan, dtype), np.full(N, np.nan, dtype)
    layers[-1].loss(ops, ys[-1], stored["labels"], p, losses)
    dys = [np.full_like(y, np.nan) for y in ys]
    layers[-1].dlogits(ops, p, stored["labels"], dys[-1], scale=1 / N)
    for i in range(len(runs) - 1, -1, -1):
        layers[i].bprop(ops, ys[i], ys[i + 1], dys[i + 1], dys[i] if i else None, runs[i])
    names = [layer.name for layer in layers[:-1]]
    return Walk(dict(zip(names, ys[1:], strict=True)), dict(zip(names, dys[1:], strict=True)),
                {f"{layer}.{key}": grad for layer, run in zip(names, runs, strict=True) for key, grad in run.grads.items()}, losses)


def errors_of(name: str, layers, done: Walk) -> dict[str, float]:
    """Error of everything the file holds of the first step; nothing of it may be missing."""
    stored = golden(name)
    assert {f"y/{key}" for key in done.ys} == {key for key in stored if key.startswith("y/")}
    shapes = {layer.name: shape for layer, shape in zip(layers, shapes_of(layers)[1:], strict=True)}
    wanted = {("y", key): columns(stored[f"y/{key}"], shapes[key].columns) for key in done.ys}
    wanted |= {("dy", key): columns(stored[f"dy/{key}"], shapes[key].columns) for key in done.dys}
    wanted |= {("d", f"{layer}.{key}"): value for (layer, key), value in parameters(name, layers, "d").items()}
    got = {"y": done.ys, "dy": done.dys, "d": done.grads}
    result = {f"{kind}/{key}": error(got[kind][key], value) for (kind, key), value in wanted.items()}
    result["loss"] = abs(float(done.losses.astype(np.float64).mean()) - stored["loss"][0])
    return result


@pytest.mark.parametrize("backend, dtype, bound", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_every_activation_and_gradient(name, backend, dtype, bound):
    layers = layers_of(name)
    errors = errors_of(name, layers, walk(name, layers, backends.load(backend), dtype))
    assert len(errors) == 1 + 2 * (len(layers) - 1) + 16
    assert {key: one for key, one in errors.items() if not one <= bound} == {}


@pytest.mark.parametrize("name", NAMES)
def test_ties_are_in_the_vectors(name):
    """The flat squares of the images give windows of pool1 in which several inputs are the positive maximum."""
    stored = golden(name)
    x = stored["y/norm1"]
    window = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    y = window.max((-1, -2))
    assert (((window == y[..., None, None]).sum((-1, -2)) > 1) & (y > 0)).sum() >= 10


# Rows of the difference table and traps, each as the one word that gets it wrong.
WRONG = [
    ("paper", dict(lrn_divide_by_n=True)), ("source2012", dict(lrn_divide_by_n=False)),
    ("paper_strong", dict(lrn_divide_by_n=True)), ("source2012_strong", dict(lrn_divide_by_n=False)),
    ("paper", dict(ties="all")), ("source2012", dict(ties="first")),
    ("paper", dict(lrn_k=1.0)), ("source2012", dict(spatial_alpha=0.001)), ("source2012_strong", dict(spatial_alpha=0.001)),
    ("paper", dict(inverted_dropout=True)), ("source2012_strong", dict(inverted_dropout=True)),
]


@pytest.mark.parametrize("name, change", WRONG, ids=[f"{name}-{'-'.join(map(str, *change.items()))}" for name, change in WRONG])
def test_a_wrong_choice_does_not_fit(name, change):
    layers = layers_of(name, **change)
    errors = errors_of(name, layers, walk(name, layers, backends.load("reference"), "float64"))
    assert max(errors.values()) > 1e-6


@pytest.mark.parametrize("name, change", [
    ("paper", dict(order1="lrn-pool-relu")), ("paper", dict(order1="relu-pool-lrn")), ("source2012", dict(order1="relu-lrn-pool")),
    ("paper_strong", dict(columns=1, groups=2)),                                       # LRN windows cross the columns' border
])
def test_a_wrong_order_changes_the_loss(name, change):
    layers = layers_of(name, **change)
    done = walk(name, layers, backends.load("reference"), "float64")
    assert abs(float(done.losses.mean()) - golden(name)["loss"][0]) > 1e-6


@pytest.mark.parametrize("name, order5", [("paper", "pool-relu"), ("source2012", "relu-pool")])
def test_pool5_and_relu5_may_change_places(name, order5):
    """After conv5 the two orders give the same values and conv5 the same gradients: where they differ the ReLU's slope is 0."""
    layers = layers_of(name, order5=order5)
    done = walk(name, layers, backends.load("reference"), "float64")
    assert abs(float(done.losses.mean()) - golden(name)["loss"][0]) < 1e-12
    assert error(done.grads["conv5.w"], parameters(name, layers, "d")["conv5", "w"]) < 1e-12


# --- three steps of the net -------------------------------------------------------------------------------------------------

class LibrarySGD(SGD):
    """The usual library form: decay and gradient are gathered at full size and the rate is applied outside."""

    def step(self, rate: float, *, first_rate: float | None = None, layer_rates=None) -> None:
        w, v, dw = self.net.params.flat, self.velocity.flat, self.net.grads.flat
        for start, stop, epsilon, decay in self._segments(self.net.params, rate, first_rate, {}):
            v[start:stop] = self.momentum * v[start:stop] + decay * w[start:stop] + dw[start:stop]
            w[start:stop] -= epsilon * v[start:stop]


def three_steps(name: str, backend: str, dtype: str, learner=SGD, rates=None, fuse: bool = True, **changes):
    """(net, mean loss of each step) from the file's first weights."""
    stored, layers = golden(name), layers_of(name, **changes)
    net = Net(layers, recipe("paper").but(crop=SIDE).input, 2, backends.load(backend), seed=int(stored["seed"]), dtype=dtype, fuse=fuse)
    for key, value in parameters(name, layers, "w0").items():
        net.params.fill(key, value)
    rates = stored["rates"] if rates is None else rates
    sgd = learner(net, momentum=float(stored["momentum"]), decay=float(stored["decay"]))
    losses = []
    for step, rate in enumerate(rates):
        net.input(2)[...] = columns(stored["image"], 1)
        losses.append(net.fprop(stored["labels"], training=True, step=step))
        net.bprop()
        sgd.step(float(rate), first_rate=float(rates[0]))
    return net, np.array(losses)


def drift(name: str, net: Net) -> float:
    """Largest error of any parameter after three steps, as a share of how far that parameter moved."""
    first, last = (parameters(name, net.layers, which) for which in ("w0", "w3"))
    return max(float(np.abs(np.asarray(net.params[key], np.float64) - last[key]).max() / np.abs(last[key] - first[key]).max())
               for key in last)


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("backend, dtype, bound", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_three_steps(name, backend, dtype, bound, fuse):
    net, losses = three_steps(name, backend, dtype, fuse=fuse)
    assert np.abs(losses - golden(name)["loss"]).max() <= bound
    assert drift(name, net) <= 40 * bound           # a weight's own rounding counts against how far it moved, some hundredths of it


@pytest.mark.parametrize("name", ["paper", "source2012"])
def test_the_library_form_of_momentum_does_not_fit(name):
    net, losses = three_steps(name, "reference", "float64", LibrarySGD)
    assert drift(name, net) > 0.01
    assert abs(losses[1] - golden(name)["loss"][1]) < 1e-10         # the first update is the same: only then does the rate change


def test_the_library_form_is_the_same_while_the_rate_stays():
    ours, ours_losses = three_steps("paper", "reference", "float64", rates=(0.01, 0.01, 0.01))
    theirs, their_losses = three_steps("paper", "reference", "float64", LibrarySGD, rates=(0.01, 0.01, 0.01))
    assert np.abs(np.asarray(ours.params.flat) - np.asarray(theirs.params.flat)).max() < 1e-12
    assert np.abs(ours_losses - their_losses).max() < 1e-12


@pytest.mark.parametrize("name, change", [
    ("paper", dict(bias_rate=2.0)), ("source2012", dict(bias_rate=1.0)),
    ("paper", dict(bias_anneal=False)), ("source2012", dict(bias_anneal=True)),
])
def test_wrong_rules_for_biases_do_not_fit(name, change):
    net, _ = three_steps(name, "reference", "float64", **change)
    assert drift(name, net) > 0.01


# --- the vectors themselves ---------------------------------------------------------------------------------------------------

def test_the_script_makes_these_vectors():
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed: the vectors are used as they are, not made again")
    done = subprocess.run([sys.executable, str(GOLDEN / "make_golden.py"), "--check", "source2012", "paper_strong"],
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "source2012: the same\npaper_strong: the same\n"), done.stdout + done.stderr


def test_the_script_shares_no_code_with_us():
    text = (GOLDEN / "make_golden.py").read_text()
    assert "import minialex" not in text and "from minialex" not in text


def test_the_vectors_are_small():
    assert sum(path.stat().st_size for path in GOLDEN.glob("*.npz")) < 3_000_000
