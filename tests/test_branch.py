"""Gradients of weights beside the chain: the bits of one stream in any order of streams, and what each wait is there for."""

from __future__ import annotations

import os

import numpy as np
import pytest
from conftest import load_or_skip
from test_graph import LAYERS, captured, direct, feed
from two_devices import forget_branch

from minialex import memory
from minialex.graph import StepGraph
from minialex.layers import LRN, Conv, Linear, MaxPool, ReLU, SoftmaxLoss
from minialex.memory import in_turn
from minialex.net import Net
from minialex.optim import SGD
from minialex.spec import Shape
from minialex.testing import assert_bits_equal

MODES = ("now", "lazy", "random:1", "random:2", "random:3", "random:4")
DEEP = [Conv("conv1", 4, kernel=3, std=0.3, pad=1), ReLU("relu1"), LRN("norm1"), MaxPool("pool1", 2, 1),
        Conv("conv2", 4, kernel=3, std=0.3, pad=1), ReLU("relu1b"), Conv("conv3", 4, kernel=3, std=0.3, pad=1), ReLU("relu1c"),
        *LAYERS[4:]]


@pytest.fixture
def kernels():
    """A device of the emulator, whose streams are as always again afterwards."""
    found = load_or_skip("emulated").kernels
    yield found.on(0)
    found.extension.configure("streams", os.environ.get("MINIALEX_EMULATED_STREAMS", "now"))


def made(kernels, layers=DEEP, **options):
    net = Net(list(layers), Shape(1, 8, 8, 3), 3, kernels, seed=4, **options)
    return net, SGD(net, momentum=0.9, decay=0.01)


def weights(kernels, mode, steps=3, *, graph=False, spoil=lambda net: None, **options):
    """What so many steps learn, no loss being read between them, so that no step waits for the one before."""
    net, sgd = made(kernels, **options)
    spoil(net)
    run = StepGraph(net, sgd) if graph else None
    kernels.extension.configure("streams", mode)
    for number in range(steps):
        labels = feed(net, number)
        if run is not None:
            run.step(labels, 0.05, number)
            continue
        net.begin(labels, 3, training=True, steps=[number])
        net.ops.from_host(labels, out=net.labels[:3])
        net.forward()
        net.bprop()
        sgd.step(0.05)
    return kernels.to_host(net.params.flat)


@pytest.fixture
def one_stream(kernels):
    return weights(kernels, "now", overlap=False)


@pytest.mark.parametrize("graph", [False, True], ids=["kernel by kernel", "graph"])
@pytest.mark.parametrize("mode", MODES)
def test_the_bits_are_those_of_one_stream(kernels, one_stream, mode, graph):
    assert_bits_equal(weights(kernels, mode, graph=graph), one_stream, "weights")
    assert_bits_equal(weights(kernels, mode, graph=graph, overlap=False), one_stream, "weights")


def shared(net):
    """Gradients in two buffers in turn, as one stream has them."""
    for buffers in (net._whole, *net._slots):
        sizes = in_turn([flat.size for flat in buffers.flats])
        buffers.flats = memory.Gradients(net.ops, sizes, net.dtype).flats


@pytest.mark.parametrize("what", ["fork", "join", "buffers"])
def test_what_is_left_out_shows(kernels, one_stream, what):
    spoil = shared if what == "buffers" else lambda net: forget_branch(net, what)
    found = [weights(kernels, mode, spoil=spoil) for mode in MODES]
    assert_bits_equal(found[0], one_stream, "weights where streams run at once")
    assert any((one != one_stream).any() for one in found)


def test_a_branch_has_its_own_memory(kernels):
    net, _ = made(kernels)
    assert net.branches[0].ops.memory.workspace(1) != kernels.memory.workspace(1)
    flats = [flat.memory_range for buffers in (net._whole, *net._slots) for flat in buffers.flats]
    assert len(flats) == len(set(flats)) == 6                   # of the logits, and of what each layer but conv1 reads


def test_who_is_told_of_gradients_has_them(kernels):
    """An exchange between processes may read what `done` names, though nobody has waited for the branch."""
    net, sgd = made(kernels)
    direct(net, sgd, feed(net, 1), 0.1, 1)
    kernels.extension.configure("streams", "lazy")
    seen = np.full(net.grads.size, np.nan, np.float32)
    net.fprop(feed(net, 2), training=True, step=2)

    def done(place, start, stop):
        seen[start:stop] = kernels.to_host(net.grads.flat[start:stop])
    net.bprop(done)
    want = kernels.to_host(net.grads.flat)
    assert_bits_equal(seen[~np.isnan(seen)], want[~np.isnan(seen)], "gradients")
    assert not np.isnan(seen[[net.grads.offsets[key] for key in net.grads]]).any()


def test_the_chain_is_shorter_than_the_step(kernels):
    """Without a branch every launch waits for the one before; with it the gradients of all weights but the first layer's are beside."""
    layers = [Linear("fc1", 4), Linear("fc2", 4), Linear("fc3", 4), Linear("fc4", 4), SoftmaxLoss("loss")]
    nets = [made(kernels, layers, overlap=overlap) for overlap in (False, True)]
    for net, sgd in nets:
        direct(net, sgd, feed(net, 1), 0.1, 1)
    one, two = (captured(StepGraph(net, sgd)) for net, sgd in nets)
    assert one.depth() == len(one) == len(two)
    assert two.depth() == len(two) - 3                           # fc1's dw behind fc2's dx, beside fc2's dw


def test_a_precision_is_that_of_the_chain(kernels):
    net, _ = made(kernels)
    kernels.set_precision("bf16")
    assert net.branches[0].fork().precision() == "bf16"
    net.branches[0].join()
