"""The step as one graph: a captured step may be replayed, and a run of replays has the bits of the same run launched kernel by kernel."""

from __future__ import annotations

import gc

import launches
import numpy as np
import pytest
from conftest import compiled_backends, load_or_skip

from minialex.backends import load
from minialex.column_net import ColumnNet
from minialex.graph import StepGraph
from minialex.layers import LRN, Conv, Dropout, Linear, MaxPool, ReLU, SoftmaxLoss
from minialex.net import Net
from minialex.optim import SGD
from minialex.spec import DeviceError, Shape
from minialex.testing import assert_bits_equal

on_each = pytest.mark.parametrize("backend", compiled_backends())
emulated = pytest.mark.parametrize("backend", [name for name in compiled_backends() if name == "emulated"])

LAYERS = [Conv("conv1", 8, kernel=3, std=0.1), ReLU("relu1"), LRN("norm1"), MaxPool("pool1", 3, 2), Linear("fc1", 8, std=0.1),
          ReLU("relu2"), Dropout("drop1"), Linear("fc2", 4, std=0.1), SoftmaxLoss("loss")]
ODD = [Linear("fc1", 4, std=0.1), Dropout("drop1"), Linear("fc2", 4, std=0.1), ReLU("relu"), Linear("fc3", 4, std=0.1), SoftmaxLoss("loss")]
INPUT, BATCH = Shape(1, 8, 8, 3), 3


def new(ops, layers=LAYERS, batch=BATCH):
    net = Net(list(layers), INPUT, batch, ops, seed=4)
    return net, SGD(net, momentum=0.9, decay=0.01)


def feed(net, number, n=BATCH):
    random = np.random.default_rng(number)
    net.ops.from_host(random.standard_normal(INPUT.array(n)).astype(np.float32), out=net.input(n))
    return random.integers(0, 4, n).astype(np.int32)


def direct(net, sgd, labels, rate, step, **rates):
    loss = net.fprop(labels, training=True, step=step)
    net.bprop()
    sgd.step(rate, **rates)
    return loss


def captured(graph):
    """All launches of a step as it stands, none of which runs."""
    return launches.whole(graph)


def warm(ops, layers):
    """A net that took a step, so that its workspaces are there."""
    net, sgd = new(ops, layers)
    direct(net, sgd, feed(net, 0), 0.01, 0)
    return net, sgd


# ---------------------------------------------------------------- what may be replayed
@emulated
@pytest.mark.parametrize("layers", [LAYERS, ODD], ids=["paper's kind", "odd number of gradients"])
def test_two_steps_launch_the_same_kernels_with_the_same_bytes(backend, layers):
    """Grids, shared memory and every byte of the arguments, pointers too; rate, step and labels differ."""
    net, sgd = warm(load_or_skip(backend), layers)
    graph = StepGraph(net, sgd)
    rows = []
    for number, rate in ((1, 0.01), (2, 0.02)):
        graph.step(feed(net, number), rate, number)
        rows += [captured(graph).kernels() for _ in range(2)]
    assert rows[0] == rows[1] == rows[2] == rows[3]
    names = [name.split("(")[0] for name, _ in rows[0]]
    dropped = "dropout_vector" if layers is ODD else "sum_slices<Out>"          # behind a ReLU in the last kernel of its product
    assert len(names) >= 10 and any(dropped in name for name in names) and any("sgd" in name for name in names)


@emulated
def test_the_launches_of_numbers_differ(backend):
    """What the test above would miss is seen here: a step and a rate that travel as arguments."""
    net, sgd = warm(load_or_skip(backend), LAYERS)

    def kernels(step, rate):
        def launch():
            net.begin(np.zeros(BATCH, np.int32), BATCH, training=True, steps=[step])
            net.forward()
            sgd.update(sgd.segments(rate))
        return net.ops.kernels.capture(launch).kernels()
    base, other_step, other_rate = kernels(1, 0.01), kernels(2, 0.01), kernels(1, 0.02)
    assert [row[0] for row in base] == [row[0] for row in other_step] == [row[0] for row in other_rate]
    assert [a[0].split()[0] for a, b in zip(base, other_step, strict=True) if a != b] == ["sum_slices<Out>"]
    assert [a[0].split("<")[0] for a, b in zip(base, other_rate, strict=True) if a != b] == ["sgd_update_kernel"]


@on_each
def test_nothing_runs_while_it_is_captured(backend):
    net, sgd = warm(load_or_skip(backend), LAYERS)
    graph = StepGraph(net, sgd)
    graph.step(feed(net, 1), 0.01, 1)
    before = net.params.host()
    again = captured(graph)
    for name, array in net.params.host().items():
        assert_bits_equal(array, before[name], name)
    again.launch(net.ops.kernels.memory.stream())
    assert any((array != before[name]).any() for name, array in net.params.host().items())


# ---------------------------------------------------------------- replays
@on_each
@pytest.mark.parametrize("whole", [True, False], ids=["one graph", "two graphs"])
@pytest.mark.parametrize("layers", [LAYERS, ODD], ids=["paper's kind", "odd number of gradients"])
def test_replays_have_the_bits_of_direct_steps(backend, layers, whole):
    """Six steps, the rate changed twice, another one for biases and a layer frozen in the last two; dropout draws anew in each."""
    ops = load_or_skip(backend)
    nets = [new(ops, layers), new(ops, layers)]
    graph = StepGraph(*nets[1])
    plans = [(0.05, {}), (0.05, {}), (0.05, {}), (0.02, {}), (0.02, {"first_rate": 0.05}), (0.01, {"layer_rates": {"fc1": 0.0}})]
    losses = [[], []]
    for number, (rate, rates) in enumerate(plans):
        labels = feed(nets[0][0], number)
        losses[0].append(direct(*nets[0], labels, rate, 2**32 - 2 + number, **rates))
        labels = feed(nets[1][0], number)
        if whole:
            graph.step(labels, rate, 2**32 - 2 + number, **rates)
            losses[1].append(nets[1][0].loss())
        else:
            losses[1].append(graph.fprop(labels, step=2**32 - 2 + number))
            graph.learn(rate, **rates)
    assert losses[0] == losses[1] and len(set(losses[0])) == len(plans)
    for name, array in nets[0][0].params.host().items():
        assert_bits_equal(nets[1][0].params.host()[name], array, name)
    assert sum(len(part) for _, part in graph._graphs.values()) == len(captured(graph))


@on_each
def test_the_bits_change_with_the_step(backend):
    """The same pictures at the same rate, nothing learned: only the mask can differ."""
    net, sgd = new(load_or_skip(backend))
    graph, losses = StepGraph(net, sgd), []
    for step in (0, 0, 0, 5, 5):
        graph.step(feed(net, 0), 0.0, step)
        losses.append(net.loss())
    assert losses[0] == losses[1] == losses[2] != losses[3] == losses[4]


@on_each
def test_another_number_of_images_has_a_graph_of_its_own(backend):
    ops = load_or_skip(backend)
    (a, sgd_a), (b, sgd_b) = new(ops), new(ops)
    graph = StepGraph(b, sgd_b)
    for number, n in enumerate((3, 2, 3, 2, 3, 2)):
        direct(a, sgd_a, feed(a, number, n), 0.02, number)
        graph.step(feed(b, number, n), 0.02, number)
        assert a.loss() == b.loss()
    assert len(graph._graphs) == 2 and all(part is not None for _, part in graph._graphs.values())


@on_each
def test_a_larger_workspace_makes_a_new_graph(backend):
    """Another net on the same device asked for more: what a captured graph knows has been given back."""
    kernels = load_or_skip(backend).kernels
    ops = kernels.on(0)                                                     # a workspace of its own
    (a, sgd_a), (b, sgd_b) = new(ops), new(ops)
    graph = StepGraph(b, sgd_b)
    for number in range(6):
        if number == 3:
            keep = ops.memory.workspace(1)
            hold = ops.empty((1 << 20,), "float32")                         # so that the new one cannot lie where the old one was
            assert ops.memory.workspace(1 << 22) != keep
            del hold
        direct(a, sgd_a, feed(a, number), 0.02, number)
        graph.step(feed(b, number), 0.02, number)
        assert a.loss() == b.loss()


@on_each
def test_fprop_in_between_changes_nothing(backend):
    """Validation uses the same activations and labels."""
    ops = load_or_skip(backend)
    (a, sgd_a), (b, sgd_b) = new(ops), new(ops)
    graph = StepGraph(b, sgd_b)
    for number in range(4):
        direct(a, sgd_a, feed(a, number), 0.02, number)
        graph.step(feed(b, number), 0.02, number)
        assert a.fprop(feed(a, 9, 2)) == b.fprop(feed(b, 9, 2))


# ---------------------------------------------------------------- how many launches a step has
@emulated
@pytest.mark.parametrize("precision, most, chain", [("float32", 47, 35), ("bf16", 41, 32)])
def test_a_step_has_no_more_launches_than_it_had(backend, precision, most, chain):
    """Of the paper's shape at an eighth of the width, in all and one behind the other; a fusion lowers the numbers here.  `python
    tests/launches.py` lists them."""
    load_or_skip(backend)
    graph = launches.step("tiny", 32, precision)
    found, whole = launches.launches(graph), launches.whole(graph)
    assert 30 <= sum(map(len, found.values())) == len(whole) <= most
    assert 20 <= whole.depth() <= chain
    assert [[sum(word in name for name in names) for names in found.values()] for word in ("loss", "sgd")] == [[1, 0], [0, 2]]


# ---------------------------------------------------------------- columns on devices of their own
COLUMNS = [Conv("conv1", 8, kernel=3, std=0.1, columns=2), ReLU("relu1"), LRN("norm1"), MaxPool("pool1", 3, 2),
           Conv("conv2", 8, kernel=3, std=0.1, columns=2, pad=1), ReLU("relu2"), Linear("fc1", 8, std=0.1, columns=2), ReLU("relu3"),
           Dropout("drop1"), Linear("fc2", 4, std=0.1), SoftmaxLoss("loss")]


def column_nets(backend, devices, count=2):
    kernels = load_or_skip(backend).kernels
    if kernels.extension.device_count() <= max(devices):
        pytest.skip("needs two devices")
    places = [kernels.on(device) for device in devices]
    for place in places:
        place.memory.own_stream()
    nets = [ColumnNet(COLUMNS, INPUT, BATCH, places, seed=4) for _ in range(count)]
    return [(net, SGD(net, momentum=0.9, decay=0.01)) for net in nets]


def feed_columns(net, number):
    random = np.random.default_rng(number)
    pictures = random.standard_normal(net.inputs(BATCH)[0].shape).astype(np.float32)
    for ops, x in zip(net.places, net.inputs(BATCH), strict=True):
        ops.from_host(pictures, out=x)
    return random.integers(0, 4, BATCH).astype(np.int32)


@on_each
@pytest.mark.parametrize("devices", [(0, 1), (0, 0)], ids=["two devices", "two on one"])
@pytest.mark.parametrize("reach", ["1", "0"], ids=["direct", "through the host"])
def test_columns_are_one_graph(backend, devices, reach, monkeypatch):
    monkeypatch.setenv("MINIALEX_PEER_ACCESS", reach)
    (a, sgd_a), (b, sgd_b) = column_nets(backend, devices)
    graph = StepGraph(b, sgd_b)
    for number in range(5):
        rate = 0.05 / (1 + number // 3)
        loss = direct(a, sgd_a, feed_columns(a, number), rate, number)
        graph.step(feed_columns(b, number), rate, number)
        assert b.loss() == loss
    assert graph.refusal is None and [len(part) for _, part in graph._graphs.values()] == [len(captured(graph))]
    for name, array in a.params.host().items():
        assert_bits_equal(b.params.host()[name], array, name)


@emulated
@pytest.mark.parametrize("mode", ["lazy", "random:1", "random:2"])
def test_columns_wait_for_each_other_in_a_graph_too(backend, mode):
    """Work that starts late finds a missing event between streams."""
    kernels = load_or_skip(backend).kernels
    (a, sgd_a), (b, sgd_b) = column_nets(backend, (0, 1))
    graph = StepGraph(b, sgd_b)
    kernels.extension.configure("streams", mode)
    try:
        for number in range(4):
            direct(a, sgd_a, feed_columns(a, number), 0.05, number)
            graph.step(feed_columns(b, number), 0.05, number)
            for place in (1, 0):                                            # the second first: nobody has waited for the first yet
                own, other = (net.places[place].to_host(net.params.arenas()[place].flat) for net in (b, a))
                assert_bits_equal(own, other, f"weights of place {place}")
    finally:
        kernels.extension.configure("streams", "now")


@emulated
def test_two_steps_of_columns_launch_the_same_kernels_with_the_same_bytes(backend):
    net, sgd = column_nets(backend, (0, 1), 1)[0]
    graph, rows = StepGraph(net, sgd), []
    for number, rate in ((1, 0.01), (2, 0.02)):
        graph.step(feed_columns(net, number), rate, number)
        rows += [captured(graph).kernels() for _ in range(2)]
    assert rows[0] == rows[1] == rows[2] == rows[3]


# ---------------------------------------------------------------- where there is none
def test_the_host_takes_plain_steps():
    ops = load("cpu")
    (a, sgd_a), (b, sgd_b) = new(ops), new(ops)
    graph = StepGraph(b, sgd_b)
    assert "host" in graph.refusal
    for number in range(2):
        direct(a, sgd_a, feed(a, number), 0.02, number)
        graph.step(feed(b, number), 0.02, number)
    assert_bits_equal(a.params.flat, b.params.flat, "weights")


@on_each
def test_a_device_that_refuses_to_capture_takes_plain_steps(backend, monkeypatch):
    ops = load_or_skip(backend)
    (a, sgd_a), (b, sgd_b) = new(ops), new(ops)
    graph = StepGraph(b, sgd_b)

    def refuse(kernels, launch):
        raise DeviceError("no more graphs")
    monkeypatch.setattr(type(ops.kernels), "capture", refuse)
    for number in range(4):
        direct(a, sgd_a, feed(a, number), 0.02, number)
        graph.step(feed(b, number), 0.02, number)
        assert (graph.refusal is None) == (number == 0)
    assert "no more graphs" in graph.refusal
    assert_bits_equal(ops.to_host(b.params.flat), ops.to_host(a.params.flat), "weights")


@on_each
def test_graphs_can_be_switched_off(backend, monkeypatch):
    monkeypatch.setenv("MINIALEX_GRAPH", "0")
    assert "MINIALEX_GRAPH" in StepGraph(*new(load_or_skip(backend))).refusal
    monkeypatch.setenv("MINIALEX_GRAPH", "1")
    assert StepGraph(*new(load_or_skip(backend))).refusal is None


def test_several_processes_add_their_gradients_between():
    """One of two that learn from half of a batch each, and one that has no image in this step."""
    ops = load("cpu")
    (a, sgd_a), (b, sgd_b) = new(ops), new(ops)
    asked = []

    def double(arena, zero):
        asked.append(zero)
        arena.flat *= 2
    graph = StepGraph(b, sgd_b, double)
    for net, idle in ((a, False), (a, True)):
        if not idle:
            net.fprop(feed(net, 1), training=True, step=1)
            net.bprop()
        net.grads.flat *= 2
        sgd_a.step(0.01)
    graph.step(feed(b, 1), 0.01, 1)
    graph.learn(0.01, idle=True)
    assert asked == [False, True]
    assert_bits_equal(a.params.flat, b.params.flat, "weights")


@emulated
@pytest.mark.parametrize("what", ["allocates", "waits", "copies from the host", "copies to the host", "waits for the device",
                                  "waits for an event from before", "leaves a stream alone", "nests"])
def test_a_capture_refuses_what_cuda_refuses(backend, what):
    ops = load_or_skip(backend)
    kernels, extension, x = ops.kernels, ops.kernels.extension, ops.from_host(np.ones(8, np.float32))
    host = np.ones(8, np.float32)
    before, fork, other = extension.event_create(0), extension.event_create(0), extension.stream_create(0)
    extension.event_record(before, other)

    def leave(stream):
        extension.event_record(fork, stream)
        extension.stream_wait(other, fork)
        extension.fill(x.pointer, 0, x.nbytes, other)
    calls = {"allocates": lambda stream: ops.empty((4,)),
             "waits": extension.stream_synchronize,
             "copies from the host": lambda stream: extension.upload(x.pointer, host, host.nbytes, stream),
             "copies to the host": lambda stream: extension.download(host, x.pointer, host.nbytes, stream),
             "waits for the device": lambda stream: extension.device_synchronize(0),
             "waits for an event from before": lambda stream: extension.stream_wait(stream, before),
             "leaves a stream alone": leave,
             "nests": lambda stream: extension.capture(0, calls["waits"])}
    with pytest.raises(DeviceError, match="nobody waits" if what == "leaves a stream alone" else "graph"):
        extension.capture(0, calls[what])
    extension.stream_destroy(other)
    gc.collect()
    assert len(kernels.capture(lambda: ops.relu_fprop(x.reshape(1, 1, 1, 1, 8), x.reshape(1, 1, 1, 1, 8)))) == 1     # all is well again


@emulated
def test_a_graph_whose_memory_is_gone_says_so(backend):
    ops = load_or_skip(backend)
    arrays = [ops.from_host(np.ones((1, 1, 1, 1, 4096), np.float32))]
    graph = ops.kernels.capture(lambda: ops.relu_fprop(arrays[0], arrays[0]))
    arrays.clear()
    gc.collect()
    with pytest.raises(DeviceError, match="relu"):
        graph.launch(ops.kernels.memory.stream())
