"""The bench measures what it says: its peers compute the same network, and an op that is wrong is not timed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minialex import backends
from minialex.bench.__main__ import main
from minialex.bench.measure import Contender, paired_ratio, take_turns
from minialex.bench.ops import bench_ops
from minialex.bench.plain import Plain, channels_first
from minialex.bench.rows import rows
from minialex.layers import LRN, Conv, Dropout, Linear, Local, MaxPool, ReLU, Sigmoid, SoftmaxLoss, SpatialNorm
from minialex.net import Net
from minialex.nets import recipe as recipe_of
from minialex.optim import SGD
from minialex.spec import MiniAlexError, Shape
from minialex.testing import assert_within

BATCH = 3
ROOT = Path(__file__).resolve().parent.parent


def small(columns: int) -> list:
    return [Conv("conv1", 8, 5, 2, pad=(0, 3), columns=columns, std=0.2), ReLU("relu1"), LRN("norm1", alpha=0.3), MaxPool("pool1", 3, 2),
            Conv("conv2", 12, 3, pad=1, groups=columns, columns=columns, std=0.2), ReLU("relu2"), MaxPool("pool2", 3, 2),
            Linear("fc3", 10, columns=columns, std=0.2), ReLU("relu3"), Linear("fc4", 5, std=0.2), SoftmaxLoss("loss")]


def own(columns: int, seed: int) -> tuple[list, Net, np.ndarray, np.ndarray]:
    layers = small(columns)
    net = Net(layers, Shape(1, 30, 30, 3), BATCH, backends.load("reference"), seed=3)
    random = np.random.default_rng(seed)
    net.input()[...] = random.standard_normal(net.input().shape)
    return layers, net, random.integers(0, 5, BATCH).astype(np.int32), np.ascontiguousarray(net.input()[0].transpose(0, 3, 1, 2))


def compare(got: dict, layers: list, net: Net) -> None:
    """Every parameter of the peer, in its own layout, against the net's."""
    for name, both in channels_first(net, layers).items():
        for which, want, value in zip("wb", both, got[name], strict=True):
            assert_within(value, want, 2e-5 * np.abs(want).max(), f"{name}.{which}")


@pytest.mark.parametrize("columns", [1, 2])
def test_plain_takes_the_same_steps(columns, seed):
    layers, net, labels, x = own(columns, seed)
    plain = Plain(net, layers)
    before = plain.params["conv1"][0].copy()
    losses = [plain.step(x, labels, 0.1) for _ in range(2)]
    sgd = SGD(net)
    for _ in range(2):
        loss = net.fprop(labels, training=True)
        net.bprop()
        sgd.step(0.1)
    assert abs(losses[-1] - loss) < 1e-5 * max(1.0, loss)
    assert np.abs(plain.params["conv1"][0] - before).max() > 1e-4
    compare(plain.params, layers, net)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed: its peer cannot be compared")
@pytest.mark.parametrize("which", [0, 1])
def test_torch_computes_the_same_gradient(which, seed):
    from minialex.bench.torch_peer import ON_CPU, TorchPeer
    layers, net, labels, x = own(1, seed)
    peer = TorchPeer(net, layers, x, form=ON_CPU[which], threads=1, rate=0.0)
    peer_loss = peer.step(labels)
    loss = net.fprop(labels, training=True)
    net.bprop()
    assert abs(peer_loss - loss) < 1e-5 * max(1.0, loss)
    got = [parameter.grad.numpy() for parameter in peer.model.parameters()]
    net.params.flat[...] = net.grads.flat                       # so that channels_first turns gradients
    compare({name: got[2 * i:2 * i + 2] for i, name in enumerate(("conv1", "conv2", "fc3", "fc4"))}, layers, net)


def sharpened(recipe, seed: int) -> tuple[list, Net, np.ndarray, np.ndarray]:
    """A recipe's network whose first losses depend on all of it: weights and norms that are not small, as the recipe's are."""
    changes = {Conv: dict(std=0.1), Local: dict(std=0.1), Linear: dict(std=0.1), LRN: dict(alpha=2.0), SpatialNorm: dict(alpha=0.2)}
    layers = [replace(layer, **changes.get(type(layer), {})) for layer in recipe.build(recipe.classes)]
    net = Net(layers, recipe.input, 4, backends.load("cpu"), seed=3)
    random = np.random.default_rng(seed)
    net.input()[...] = random.standard_normal(net.input().shape)
    return layers, net, random.integers(0, recipe.classes, 4).astype(np.int32), np.ascontiguousarray(net.input()[0].transpose(0, 3, 1, 2))


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed: its peer cannot be compared")
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", ["cifar18", "cifar13", "cifar11"])
def test_torch_takes_the_same_steps_of_the_networks_of_cifar(name, which, seed):
    """Average pools with clipped windows, norms of both kinds, local layers, and rates and decays by layer."""
    from minialex.bench.torch_peer import ON_CPU, TorchPeer
    recipe = recipe_of(name)
    layers, net, labels, x = sharpened(recipe, seed)
    peer = TorchPeer(net, layers, x, form=ON_CPU[which], threads=1, rate=0.01, momentum=recipe.momentum, decay=0.1)
    sgd, before, losses = SGD(net, momentum=recipe.momentum, decay=0.1), net.params.flat.copy(), []
    for _ in range(3):
        losses.append(net.fprop(labels, training=True))
        net.bprop()
        sgd.step(0.01)
    assert_within(np.array([peer.step(labels) for _ in range(3)]), np.array(losses), 1e-4 * max(losses), "losses")
    assert max(losses) - min(losses) > 0.01 and np.abs(net.params.flat - before).max() > 0.01
    got = [parameter.detach().numpy() for parameter in peer.model.parameters()]
    for i, (key, both) in enumerate(channels_first(net, layers).items()):
        for part, want, value in zip("wb", both, got[2 * i:2 * i + 2], strict=True):
            assert_within(value, want, 1e-4 * np.abs(want).max(), f"{key}.{part}")


def test_the_numpy_peer_steps_aside_where_it_lacks_a_layer():
    from minialex.bench.plain import unknown
    assert unknown(recipe_of("paper").build(10)) is None and type(unknown(recipe_of("cifar18").build(10))) is SpatialNorm


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed: its peers cannot be compared")
def test_torch_ops_compute_what_the_row_asks():
    """Each peer of `bench ops`, on a small net without grouped norms, against the oracle's float64 answer."""
    from minialex.bench import torch_ops
    oracle, seen = backends.load("reference"), set()
    for row in rows("tiny", 2):
        want = row.run(oracle, convert=lambda a: a.astype(np.float64))
        for got in torch_ops.answers(row, "float32", "cpu"):
            name, value = got
            seen.add((row.op, name))
            assert_within(value, want[name], 64 * 2.0 ** -23 * max(1.0, np.abs(want[name]).max()), f"{row.layer} {row.op} {name}")
    assert {op for op, _ in seen} >= {"conv_fprop", "conv_relu_fprop", "conv_dgrad", "conv_wgrad", "linear_fprop", "linear_dgrad",
                                      "linear_wgrad", "relu_bprop", "maxpool_fprop"}


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed: its peer cannot be compared")
def test_a_convolution_in_halves_is_the_grouped_one():
    import torch

    from minialex.bench.torch_peer import _Halves
    torch.manual_seed(0)
    halves = _Halves(8, 6, 3, 1, 1, groups=2)
    whole = torch.nn.Conv2d(8, 6, 3, 1, 1, groups=2)
    whole.load_state_dict(halves.state_dict())
    x = torch.randn(2, 8, 5, 5)
    assert torch.allclose(halves(x), whole(x), atol=1e-6) and not torch.allclose(halves(x), whole(x.flip(1)), atol=1e-2)


def test_peers_refuse_a_layer_they_lack():
    layers = [Conv("conv1", 4, 3), Sigmoid("squash"), Dropout("drop"), Linear("fc", 3), SoftmaxLoss("loss")]
    net = Net(layers, Shape(1, 8, 8, 3), 2, backends.load("reference"))
    with pytest.raises(MiniAlexError, match="squash"):
        Plain(net, layers)


class Wrong:
    """A backend whose ReLU forgets the kink."""

    def __init__(self, ops):
        self.ops = ops

    def __getattr__(self, name):
        return getattr(self.ops, name)

    def relu_fprop(self, x, y):
        y[...] = x


def test_an_op_that_is_wrong_is_not_timed(capsys):
    ops = backends.load("cpu")
    tables, failed = bench_ops("tiny", ops, [2], 1)
    assert failed == 0 and all(row["ms"] > 0 for row in tables[0]["rows"])
    timed = {row["op"] for row in tables[0]["rows"]}
    assert timed >= {"conv_fprop", "conv_relu_fprop", "conv_dgrad", "conv_wgrad", "linear_wgrad", "lrn_bprop", "maxpool_bprop",
                     "dropout_fprop", "loss_fprop", "sgd_update", "augment_fprop"}
    tables, failed = bench_ops("tiny", Wrong(ops), [2], 1)
    wrong = [row for row in tables[0]["rows"] if "error" in row]
    assert failed == len(wrong) > 0 and {row["op"] for row in wrong} == {"relu_fprop"} and not any("ms" in row for row in wrong)


def test_first_layer_needs_no_dgrad():
    calls = [(row.layer, row.op) for row in rows("tiny", 2)]
    assert ("conv1", "conv_dgrad") not in calls and ("conv2", "conv_dgrad") in calls


def test_biases_of_local_layers_are_no_batch():
    """They have three axes (P, Q, K), as the activations of linear layers."""
    own = [row for row in rows("cifar13", 4) if row.op.startswith("local")]
    assert {row.op for row in own} == {"local_fprop", "local_dgrad", "local_wgrad"}
    assert [row.error(backends.load("cpu"), backends.load("reference")) for row in own] == [None] * len(own)


def test_contenders_take_turns():
    order = []
    both = [Contender(name, "", lambda name=name: order.append(name)) for name in "ab"]
    take_turns(both, 2, pause=0)
    assert order == ["a", "b", "a", "b", "b", "a"]              # a warm-up each, then rounds to and fro
    assert [len(one.wall) for one in both] == [2, 2]
    both[0].wall, both[1].wall = [1.0, 2.0, 3.0], [2.0, 4.0, 3.0]
    assert paired_ratio(both[1], both[0]) == 2.0
    sleeper = Contender("c", "", lambda: [time.sleep(1e-4) for _ in range(5)])
    take_turns([sleeper], 1, pause=0)
    assert sleeper.waits[0] >= 5 and sleeper.result(1)["waits"] >= 5


def test_step_writes_what_is_needed_to_repeat_it(tmp_path, capsys):
    out = tmp_path / "step.json"
    assert main(["--recipe", "tiny", "--batch", "2", "--rounds", "1", "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert {"command", "commit", "date", "processor", "versions", "workers", "load_average"} <= set(result["environment"])
    table = result["tables"][0]
    assert [row["name"] for row in table["rows"]] == ["minialex cpu", "plain numpy"]
    assert table["rows"][0]["ratio"] == 1.0 and 1 << 20 < table["peak_memory_bytes"] < 4 << 30
    assert "ms/image" in capsys.readouterr().out


def test_bad_arguments(capsys):
    assert main(["--recipe", "papper"]) == 2
    assert "paper" in capsys.readouterr().err
    assert main(["--recipe", "tiny", "--json", "nowhere/step.json"]) == 2        # said before, not after, the measurement
    assert "there is no folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--batch", "0"])


def test_torch_is_imported_for_its_peer_only():
    program = ("import sys; from minialex.bench.__main__ import main; "
               "assert main(['ops', '--recipe', 'tiny', '--batch', '1', '--rounds', '1']) == 0; assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_data_rates_and_their_ratios(monkeypatch, capsys):
    from minialex.bench import data
    monkeypatch.setattr(data, "PICTURES", 8)
    monkeypatch.setattr(data, "BATCH", 8)
    monkeypatch.setattr(data, "_torch_epoch", lambda *arguments: None)      # starts processes; where PyTorch is, the bench itself does
    table, = data.bench_data(1)
    rates, ratios = table["pictures_per_second"], table["ratios"]
    assert ratios["decode / Pillow"] == pytest.approx(rates["decode, one core"] / rates["Pillow open + resize, one core"], rel=0.01)
    assert table["waiting"] and table["device"] == "cpu"
    assert ratios["prepare, two threads / twice one"] == pytest.approx(
        rates["prepare, two threads"] / rates["prepare, one thread"] / 2, rel=0.01)
    assert rates["read JPEG records at random, summed"] < rates["read raw records at random"] and "DataLoader" not in str(ratios)
    said = capsys.readouterr().out
    for name, limit in data.LIMITS.items():
        if name in ratios:
            word = "met" if ratios[name] >= limit else "MISSED"
            assert f"{word}: at least {limit:g}" in said


def test_who_keeps_whom_waiting():
    from minialex.bench.data import waiting
    rates = {"read raw records at random, summed": 4000.0, "crop, flip, mean, colour": 1000.0, "training step of paper, batch 2": 500.0,
             "loader and augmentation, raw": 2000.0, "loader and augmentation, JPEG": 400.0}
    parts, raw, jpeg = waiting(rates, "cpu")
    assert '"crop, flip, mean, colour" keeps the others waiting' in parts and "4.0 times as fast" in parts
    assert "keeps up 4.0 times over: the network waits for nothing" in raw
    assert "the network waits 20 % of its time; give more workers" in jpeg
    assert '"upload of raw records" keeps' in waiting(rates | {"upload of raw records": 9.0}, "cuda:0")[0]


def test_the_page_of_scale_is_that_of_the_committed_rates():
    from minialex.bench import scale
    from minialex.spec import MiniAlexError
    rates, where = scale.rates_of(ROOT / "benchmarks" / "results" / "cpu_data.json")
    page = scale.page(rates, where)
    assert (ROOT / "docs/SCALE.md").read_text() == page, "write it again: python -m minialex.bench.scale"
    row = next(line for line in page.splitlines() if line.startswith("| 2 |"))      # of preparation
    assert f"| {(1_281_167 + 50_000) / rates['prepare, two threads'] / 60:.1f} min |" in row
    with pytest.raises(MiniAlexError, match=r"no rates of data in it .*measure them with python -m minialex\.bench data --json"):
        scale.rates_of(ROOT / "benchmarks" / "results" / "cpu_retrieval.json")
