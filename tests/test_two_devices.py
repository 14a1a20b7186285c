"""Columns on devices of their own: the bits of one device, whatever the streams do; and what a user can get wrong.

The network is the same, so nothing may differ: losses, outputs, gradients, momentum, weights after 50 steps.  The emulator runs the
devices' streams at once, as late as possible, or in a random order; what lacks an event then shows.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import compiled_backends, load_or_skip
from two_devices import INPUT, assert_equal, forget, layers, train

from minialex import backends, cli, placement
from minialex.column_net import ColumnNet
from minialex.columns import check_columns, device_bytes, exchange_points
from minialex.config import Config
from minialex.layers import Conv, Linear, Local, SoftmaxLoss
from minialex.net import Net
from minialex.nets import recipe
from minialex.nets.alexnet import alexnet
from minialex.spec import PRECISIONS, DeviceError, DeviceMemoryError, Shape, ShapeError

MODES = ("now", "lazy", "random:3", "random:11")
SEED, STEPS = 7, 50


@pytest.fixture
def kernels():
    """A device of the emulator, whose streams are as always again afterwards."""
    found = load_or_skip("emulated").kernels
    yield found
    found.extension.configure("streams", os.environ.get("MINIALEX_EMULATED_STREAMS", "now"))


def places(kernels, *devices: int) -> list:
    return [kernels.on(device) for device in devices]


def pair(kernels, devices=(0, 1), *, batch=3, columns=2, both=("conv3", "fc4"), **options) -> ColumnNet:
    return ColumnNet(layers(columns, both), INPUT, batch, places(kernels, *devices), seed=SEED, **options)


def alone(kernels, *, batch=3, columns=2, both=("conv3", "fc4")) -> Net:
    return Net(layers(columns, both), INPUT, batch, kernels.on(0), seed=SEED)


@pytest.fixture(scope="module")
def reference():
    """(losses, net) after 50 steps on one device."""
    net = alone(load_or_skip("emulated").kernels)
    return train(net, STEPS), net


# ---------------------------------------------------------------- the same bits
@pytest.mark.parametrize("overlap", [True, False], ids=["overlap", "no_overlap"])
@pytest.mark.parametrize("mode", MODES)
def test_fifty_steps_have_the_bits_of_one_device(kernels, reference, mode, overlap):
    losses, one = reference
    kernels.extension.configure("streams", mode)
    two = pair(kernels, overlap=overlap)
    assert train(two, STEPS) == losses
    assert_equal(one, two)


@pytest.mark.parametrize("devices", [(0, 0), (1, 0)], ids=["logical", "swapped"])
def test_which_devices_does_not_matter(kernels, reference, devices):
    losses, one = reference
    two = pair(kernels, devices)
    assert train(two, STEPS) == losses
    assert_equal(one, two)


@pytest.mark.parametrize("backend", compiled_backends())
def test_logical_devices_of_one(backend):
    """As --device makes them, on every backend that is here: two streams of one device."""
    both, single = (placement.places(Config("tiny", device=words)) for words in (f"{backend}:0,{backend}:0", f"{backend}:0"))
    assert both[0].memory.stream() != both[1].memory.stream()
    two, one = ColumnNet(layers(), INPUT, 3, both, seed=SEED), Net(layers(), INPUT, 3, single[0], seed=SEED)
    assert train(two, STEPS) == train(one, STEPS)
    assert_equal(one, two)


@pytest.mark.parametrize("columns, devices, both", [(4, (0, 1, 0, 1), ("conv3", "fc4")), (3, (1, 1, 0), ("conv3", "fc5")),
                                                    (2, (0, 1), ()), (2, (0, 1), ("conv3", "fc4", "fc5"))])
def test_other_columns_and_other_joints(kernels, columns, devices, both):
    """More than two products are added from the left on every place; without any joint layer but the last the columns never talk."""
    one, two = alone(kernels, columns=columns, both=both), pair(kernels, devices, columns=columns, both=both)
    assert train(two, 4) == train(one, 4)
    assert_equal(one, two)


@pytest.mark.parametrize("name", ["tiny", "talkless"])
def test_recipes(kernels, name):
    made = recipe(name)
    apart = dict(width=1 / 16, maps=(96, 320, 384, 384, 256), hidden=(2048, 1024), both=("fc8",))
    build = made.build(12) if name == "tiny" else alexnet(12, **apart)
    shape = made.input if name == "tiny" else Shape(1, 99, 99, 3)
    one, two = Net(build, shape, 4, kernels.on(0), seed=1), ColumnNet(build, shape, 4, places(kernels, 0, 1), seed=1)
    assert train(two, 3, rate=0.001) == train(one, 3, rate=0.001)
    assert_equal(one, two)


def test_the_paper_takes_the_same_step(kernels):
    made = recipe("paper")
    one, two = (make(made.build(1000), made.input, 1) for make in (
        lambda *a: Net(*a, kernels.on(0), seed=1), lambda *a: ColumnNet(*a, places(kernels, 0, 1), seed=1)))
    assert train(two, 1) == train(one, 1)
    for key in one.params:
        assert one.grads.numpy(key).any() and (two.grads.numpy(key) == one.grads.numpy(key)).all(), key


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_tensor_cores(kernels, precision):
    """Rounding or splitting operands is no sum: the bits are equal here, too.  Splitting takes the emulator long: a smaller network."""
    single, both = kernels.on(0), places(kernels, 0, 1)
    for ops in (single, *both):
        ops.set_precision(precision)
    made = recipe("tiny")
    net = (layers(), INPUT, 3) if "x" in precision else (made.build(12), made.input, 4)
    one, two = Net(*net, single, seed=1), ColumnNet(*net, both, seed=1)
    assert train(two, 2) == train(one, 2)
    assert_equal(one, two)


def test_without_fusion_and_with_fewer_images(kernels):
    one, two = alone(kernels, batch=5), pair(kernels, batch=5, fuse=False)
    for batch in (5, 2):
        assert train(two, 2, batch=batch) == train(one, 2, batch=batch)
    assert_equal(one, two)


def test_a_share_of_a_batch(kernels):
    """Images 4 and 5 of a batch of eight: their masks and the divisor of the mean are the whole batch's."""
    one, two = alone(kernels), pair(kernels)
    x, labels = np.random.default_rng(0).standard_normal(INPUT.array(2)).astype(np.float32), np.array([0, 2], np.int32)
    for net in (one, two):
        for ops, out in zip(net.places, net.inputs(2), strict=True):
            ops.from_host(x, out=out)
        net.fprop(labels, training=True, step=1, first=4, total=8)
        net.bprop()
    for key in one.params:
        assert (two.grads.numpy(key) == one.grads.numpy(key)).all(), key
    whole = two.grads.numpy(("fc6", "w"))
    two.fprop(labels, training=True, step=1, first=4)
    two.bprop()
    np.testing.assert_array_equal(two.grads.numpy(("fc6", "w")), 4 * whole)
    two.fprop(labels, training=True, step=1, first=0, total=8)
    two.bprop()
    assert (two.grads.numpy(("fc6", "w")) != whole).any()


def test_gradients_are_announced_once_they_are_final(kernels):
    """Every number of every place's gradients, once, from the top; each is what it is at the end."""
    for net in (alone(kernels), pair(kernels)):
        train(net, 1)
        seen = []

        def done(place, start, stop, ops, net=net, seen=seen):
            seen.append((place, start, stop, ops.to_host(net.grads.arenas()[place].flat[start:stop])))
        net.bprop(done)
        for place, arena in enumerate(net.grads.arenas()):
            flat, covered = arena.ops.to_host(arena.flat), np.zeros(arena.size, int)
            for where, start, stop, values in seen:
                if where == place:
                    covered[start:stop] += 1
                    np.testing.assert_array_equal(values, flat[start:stop])
            assert covered.max() == 1 and not flat[covered == 0].any()


# ---------------------------------------------------------------- programs that are wrong
@pytest.mark.parametrize("what", ["ready", "arrived"])
@pytest.mark.parametrize("mode", ["lazy", "random"])
def test_a_missing_event_is_seen(kernels, reference, what, mode):
    """A copy before its producer; a product before its copy.  (What "free" and "sent" guard, the checker sees: test_checked.py.)"""
    losses, _ = reference
    wrong = []
    for streams in ["lazy"] if mode == "lazy" else [f"random:{seed}" for seed in range(8)]:
        kernels.extension.configure("streams", streams)
        two = pair(kernels)
        forgetful = forget(two, what)
        wrong.append(train(two, 3) != losses[:3])
        assert forgetful.dropped
    assert any(wrong)


def test_swapped_halves_are_seen(kernels, reference):
    """Weights of the other column's inputs where the own belong."""
    losses, _ = reference
    two = pair(kernels)
    run = two.columns[1].runs[two.layers.index(next(layer for layer in two.layers if layer.name == "conv3"))]
    run.params["w0"], run.params["w1"] = run.params["w1"], run.params["w0"]
    assert train(two, 1) != losses[:1]


def test_a_window_across_the_columns_is_another_network(kernels):
    """Caffe's arrangement, one column in two groups, normalises over the border of 48 | 48: it must not pass for the paper's."""
    two = ColumnNet(alexnet(12, width=1 / 8, lrn_alpha=1.0), Shape(1, 99, 99, 3), 2, places(kernels, 0, 1), seed=1)
    across = Net(alexnet(12, width=1 / 8, lrn_alpha=1.0, columns=1, groups=2, both=("conv3", "fc6", "fc7", "fc8")), Shape(1, 99, 99, 3), 2,
                 kernels.on(0), seed=1)
    for key in two.params:
        if key[0] not in ("fc6",):                              # its inputs lie in another order
            across.params.fill(key, two.params.numpy(key))
    train(two, 1, rate=0)
    train(across, 1, rate=0)
    a, b = two.activation("pool1"), across.activation("pool1")
    halves = np.concatenate(np.split(b, 2, axis=-1))
    assert (a[..., 2:4] == halves[..., 2:4]).all() or (a[0, ..., :4] == halves[0, ..., :4]).all()
    assert (a != halves).any()


# ---------------------------------------------------------------- what lies where
def test_a_column_lies_on_its_device_alone(kernels):
    two = pair(kernels)
    for column in two.columns:
        arenas = [which.arenas()[column.index] for which in (two.params, two.grads)]
        assert all(arena.flat.device == column.index for arena in arenas) and column.activations.views(1)[0].device == column.index
    assert sum(arena.specs[key].size for arena in two.params.arenas() for key in arena) == sum(s.size for s in two.params.specs.values())


def test_what_travels_is_what_the_plan_says(kernels):
    two = pair(kernels)
    train(two, 1)
    sent = []
    copy = two.exchange.extension.copy_peer

    class Counting:
        def __getattr__(self, name):
            return getattr(kernels.extension, name)

        def copy_peer(self, to, to_device, start, device, nbytes, stream):
            sent.append((device, to_device, nbytes))
            copy(to, to_device, start, device, nbytes, stream)
    two.exchange.extension = Counting()
    two.fprop(np.zeros(3, np.int32))
    points = exchange_points(layers(), INPUT)
    each_way = [point.bytes(3) for point in points if not point.row_parallel]
    last = points[-1].partial_bytes(3)
    assert [n for device, _, n in sent if device == 0] == each_way and [n for device, _, n in sent if device == 1] == [*each_way, last]
    sent.clear()
    two.bprop()
    assert [n for device, _, n in sent if device == 1] == each_way[::-1]
    assert [n for device, _, n in sent if device == 0] == [last, *each_way[::-1]]


@pytest.mark.parametrize("batch, precision", [(2, "float32"), (32, "float32"), (8, "bf16")])
def test_the_plan_covers_a_step(kernels, batch, precision):
    gc.collect()                                                # networks of other tests
    made, both = recipe("tiny"), places(kernels, 0, 1)
    for ops in both:
        ops.set_precision(precision)
    free = [ops.memory.free() for ops in both]
    net = ColumnNet(made.build(made.classes), made.input, batch, both)
    train(net, 1, batch=batch)
    records = [ops.empty((batch, made.record, made.record, 3), "uint8") for ops in both for _ in range(2)]
    records += net.inputs(batch, 1)
    for g, ops in enumerate(both):
        used = free[g] - ops.memory.free()
        planned = device_bytes(made.build(made.classes), made.input, batch, g, stored=np.dtype(net.storage).itemsize)
        assert records and used <= net.bytes(batch, g) < 1.4 * used and used <= planned < 1.5 * used


def test_what_does_not_fit_is_refused(kernels, monkeypatch):
    made, both = recipe("paper"), places(kernels, 0, 1)
    monkeypatch.setattr(both[1].memory, "free", lambda: 1 << 29)
    monkeypatch.setattr(both[0].memory, "empty", lambda *_: pytest.fail("memory was taken before it was counted"))
    with pytest.raises(DeviceMemoryError, match=r"--device emulated:1: 1 column of this network at batch 128 .* use a batch of \d+"):
        ColumnNet(made.build(1000), made.input, 128, both)


# ---------------------------------------------------------------- peers
def test_copies_that_do_not_arrive_are_found_at_the_start(kernels, monkeypatch):
    """As on machines whose bridges lose them in silence."""
    both = places(kernels, 0, 1)

    class Lossy:
        def __getattr__(self, name):
            return getattr(kernels.extension, name)

        def copy_peer(self, *_):
            pass
    both[0].extension = Lossy()
    with pytest.raises(DeviceError, match=r"a copy from emulated:0 to emulated:1 arrives with .* bytes wrong.*MINIALEX_PEER_ACCESS=0"):
        ColumnNet(layers(), INPUT, 3, both)


def test_through_the_host_the_bits_are_the_same(kernels, reference, monkeypatch):
    losses, one = reference
    monkeypatch.setenv("MINIALEX_PEER_ACCESS", "0")
    kernels.extension.configure("streams", "random:5")
    two = pair(kernels)
    assert two.exchange.notes == ["no peer access between emulated:0 and emulated:1: their exchanges are staged through the host's memory"]
    assert len(two.exchange.staged) == 2 and train(two, STEPS) == losses
    assert_equal(one, two)


def test_a_machine_without_peer_access_says_so_once(tmp_path):
    load_or_skip("emulated")
    words = ["train", "--device", "emulated:0,emulated:1", "--epochs", "1", "--limit-batches", "1", "-b", "8",
             "--output-dir", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-m", "minialex", *words], env={**os.environ, "MINIALEX_EMULATED_PEERS": "0"},
                          capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("no peer access between emulated:0 and emulated:1") == 1, done.stderr


@pytest.mark.parametrize("peers, line", [("1", "all devices reach each other's memory"),
                                         ("0", "no peer access between emulated:0 and emulated:1")])
def test_the_doctor_says_who_reaches_whom(peers, line):
    load_or_skip("emulated")
    done = subprocess.run([sys.executable, "-m", "minialex", "doctor"], env={**os.environ, "MINIALEX_EMULATED_PEERS": peers},
                          capture_output=True, text=True)
    assert line in done.stdout


# ---------------------------------------------------------------- runs
def weights(folder) -> dict:
    from minialex.checkpoint import candidates, load
    arrays, _ = load(candidates(folder)[0])
    return arrays


def test_a_run_goes_on_from_placement_to_placement(tmp_path, monkeypatch):
    """One epoch each on one device, two, and two logical ones: the checkpoint of three epochs on one, to the bit."""
    load_or_skip("emulated")
    monkeypatch.chdir(tmp_path)
    common = ["-b", "8", "--limit-batches", "2", "--store", "store", "-q"]
    assert cli.main(["train", "--device", "emulated:0", "--epochs", "3", "--output-dir", "one", *common]) == 0
    for epochs, device in enumerate(("emulated:0", "emulated:0,emulated:1", "emulated:0,emulated:0"), start=1):
        resume = ["--resume", "auto", "--no-overlap"] if epochs > 1 else []
        assert cli.main(["train", "--device", device, "--epochs", str(epochs), "--output-dir", "moved", *resume, *common]) == 0
    one, moved = weights(tmp_path / "one"), weights(tmp_path / "moved")
    assert set(one) == set(moved) and all(one[key].tobytes() == moved[key].tobytes() for key in one)


def test_evaluate_on_two_devices(tmp_path, monkeypatch, capsys):
    load_or_skip("emulated")
    monkeypatch.chdir(tmp_path)
    common = ["-b", "8", "--limit-batches", "1", "-q"]
    assert cli.main(["train", "--device", "emulated:0", "--epochs", "1", "--output-dir", "run", *common]) == 0
    lines = []
    for device in ("emulated:0", "emulated:0,emulated:1"):
        capsys.readouterr()
        assert cli.main(["evaluate", "run", "--device", device, "-b", "8", "--limit-batches", "2", "--json"]) == 0
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1]


# ---------------------------------------------------------------- what a user can get wrong
@pytest.mark.parametrize("device, words, sentence", [
    ("emulated:0,emulated:7", [], "--device emulated:0,emulated:7: there is no device 7: this backend has"),
    ("cuda:0,emulated:0", [], "the columns of a network cannot lie on cuda and emulated at once"),
    ("cpu,cpu", [], "cpu is one device and holds all columns; give --device cpu"),
    ("emulated:0,emulated:1", ["--recipe", "cifar18"], "--device names 2 devices, but this network lies in one column: name 1 device"),
    ("emulated:0,emulated:1,emulated:0", [], "--device names 3 devices, but this network lies in 2 columns: name 2 devices"),
    ("emulated:0,", [], "cpu and reference take no number"),
    ("emulated:0,emulated:x", [], "emulated and cuda one such as cuda:0"),
    ("gpu:0,gpu:1", [], "no backend (--device) is called 'gpu'"),
])
def test_bad_devices(capsys, tmp_path, device, words, sentence):
    load_or_skip("emulated")
    assert cli.main(["train", "--device", device, *words, "--output-dir", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert sentence in err and len(err.splitlines()) == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong, sentence", [
    ([Conv("conv", K=7, kernel=3, columns=2), Linear("fc", K=3), SoftmaxLoss("loss")], "7 maps do not divide into 2 columns"),
    ([Conv("one", K=4, kernel=3), Conv("two", K=4, kernel=3, columns=2), Linear("fc", K=3), SoftmaxLoss("loss")],
     "one: from 1 column to 1: on several devices a network is in columns from its first layer on"),
    ([Conv("conv", K=4, kernel=3, columns=2), Local("local", K=4, kernel=3, columns=2), Linear("fc", K=3), SoftmaxLoss("loss")],
     "local: a locally connected layer that reads several columns runs on one device only"),
    ([Linear("fc", K=4, columns=2), Linear("fc2", K=4, groups=2, columns=2), SoftmaxLoss("loss")], "no layer of this network brings"),
])
def test_networks_that_do_not_lie_in_columns(wrong, sentence):
    with pytest.raises(ShapeError, match=sentence):
        check_columns(wrong, Shape(1, 9, 9, 3), 2)


def test_a_plan_of_devices_that_are_not_here(capsys):
    assert cli.main(["plan", "--device", "cuda:0,cuda:1"]) == 0
    out = capsys.readouterr().out
    assert "15.53 MB" in out and "a: cuda:0" in out and "the paper's cards held 3 GB" in out and "0.51 MB cross to cuda:0" in out
    held = [float(line.split()[-2]) for line in out.splitlines() if line.startswith(("a: ", "b: "))]
    assert len(held) == 2 and all(1 < gigabytes < 3 for gigabytes in held)


def test_backends_of_numpy_are_one_place():
    assert Net(layers(), INPUT, 1, backends.load("cpu")).places == [backends.load("cpu")]
