"""The net as a whole: planning, sharing of memory, blocks, fusion, gradients."""

import numpy as np
import pytest

from minialex import backends
from minialex.fuse import fuse
from minialex.layers import LRN, AvgPool, Conv, Dropout, Linear, MaxPool, ReLU, Sigmoid, SoftmaxLoss, SpatialNorm, Tanh
from minialex.layers.conv_relu import ConvReLU
from minialex.layers.linear_relu import LinearReLU
from minialex.layers.lrn_maxpool import LRNMaxPool
from minialex.net import Net
from minialex.nets import recipe
from minialex.optim import SGD
from minialex.spec import MiniAlexError, Shape, ShapeError

INPUT = Shape(1, 19, 17, 3)


def layers(ties="all"):
    """Two columns, every kind of layer, joint and own convolutions, ceil pools, three classes."""
    return [
        Conv("conv1", K=8, kernel=5, stride=2, pad=(0, 3), columns=2, std=0.3), ReLU("relu1"),
        LRN("norm1", alpha=0.7), MaxPool("pool1", ties=ties),
        Conv("conv2", K=12, kernel=3, pad=1, groups=2, columns=2, std=0.3, bias=0.3),
        LRN("norm2", alpha=0.2), SpatialNorm("same2", n=3, alpha=0.1), MaxPool("pool2", 2, 2, ties), ReLU("relu2"),
        Conv("conv3", K=8, kernel=3, pad=1, columns=2, std=0.3), Tanh("tanh3"), AvgPool("pool3", 2, 1),
        Linear("fc4", K=10, columns=2, std=0.5, bias=0.2), ReLU("relu4"), Dropout("drop4", keep=0.6, inverted=True),
        Linear("fc5", K=6, groups=2, columns=2, std=0.5), Sigmoid("sigmoid5"), Linear("fc6", K=3, std=0.8), SoftmaxLoss("loss"),
    ]


def pictures(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(INPUT.array(n)), rng.integers(0, 3, n).astype(np.int32)


def run(net, x, labels, step=5, n=None):
    n = n or len(labels)
    net.ops.from_host(np.ascontiguousarray(x, net.dtype), out=net.input(n))
    loss = net.fprop(labels, n=n, training=True, step=step)
    net.bprop()
    return loss


def test_gradient_of_the_whole_net_by_finite_differences():
    """Float64, a random direction in each parameter; the step is small enough that no kink is crossed."""
    net = Net(layers(), INPUT, 4, backends.load("reference"), dtype="float64", seed=3)
    x, labels = pictures(4)
    run(net, x, labels)
    rng, wrong = np.random.default_rng(1), []
    for key in net.params:
        gradient, w = net.grads[key].copy(), net.params[key]
        direction, kept, h = rng.standard_normal(w.shape), w.copy(), 1e-7
        losses = []
        for sign in (1, -1):
            w[...] = kept + sign * h * direction
            losses.append(net.fprop(labels, training=True, step=5))
        w[...] = kept
        numeric, analytic = (losses[0] - losses[1]) / (2 * h), (gradient * direction).sum()
        if abs(numeric - analytic) > 1e-5 * max(1e-2, abs(numeric)):
            wrong.append((key, numeric, analytic))
        assert abs(numeric - analytic * 1.001) > abs(numeric - analytic) or analytic == 0       # the check can see a thousandth
    assert not wrong


RULES = [("conv_relu",), ("lrn_maxpool",), ("linear_relu",), ("lrn_maxpool", "linear_relu", "conv_relu")]


def forced(monkeypatch, ops, rules):
    """Every net on `ops` is fused by these rules, whether they pay there or not."""
    monkeypatch.setattr(ops, "fused", lambda: rules)


def step(net, x, labels):
    """What a fused net must not change."""
    loss = run(net, x, labels)
    return loss, net.ops.to_host(net.probabilities), net.ops.to_host(net.grads.flat)


@pytest.mark.parametrize("rules", RULES, ids="+".join)
def test_fused_and_plain_nets_have_the_same_bits(ops, monkeypatch, rules):
    forced(monkeypatch, ops, rules)
    x, labels = pictures(6)
    nets = [Net(layers(), INPUT, 6, ops, seed=3, fuse=fuse) for fuse in (True, False)]
    gone = len(rules) + ("linear_relu" in rules)
    assert len(nets[0].layers) == len(nets[1].layers) - gone, "each rule has one place in this net"
    for fused, plain in zip(step(nets[0], x, labels), step(nets[1], x, labels), strict=True):
        np.testing.assert_array_equal(fused, plain)


def test_the_papers_net_fused_and_plain_has_the_same_bits(ops, monkeypatch):
    """Each ReLU's backward pass is done by the layer above, which has its output at hand."""
    forced(monkeypatch, ops, RULES[-1])
    paper = recipe("paper").but(crop=67)
    body = paper.build(10, width=1 / 8, hidden=(64, 32))
    nets = [Net(body, paper.input, 5, ops, seed=3, fuse=fuse) for fuse in (True, False)]
    rng = np.random.default_rng(0)
    x, labels = 100 * rng.standard_normal(paper.input.array(5)), np.arange(5, dtype=np.int32)
    for fused, plain in zip(step(nets[0], x, labels), step(nets[1], x, labels), strict=True):
        np.testing.assert_array_equal(fused, plain)
    lower = {layer.name: layer for layer in nets[0].layers}
    assert [name for name, layer in lower.items() if isinstance(layer, (LRNMaxPool, MaxPool)) and layer.relu] == ["pool1", "pool2", "pool5"]
    assert [name for name, layer in lower.items() if getattr(layer, "below", None) == 1] == ["conv4", "conv5", "fc7", "fc8"]
    assert [name for name, layer in lower.items() if isinstance(layer, LinearReLU) and layer.masked] == ["fc6", "fc7"]
    assert np.array_equal(*(net.activation("drop6") for net in nets))
    assert [name for name, layer in lower.items() if isinstance(layer, ConvReLU) and layer.masked] == [f"conv{i}" for i in range(1, 6)]
    with pytest.raises(MiniAlexError, match="no layer is called 'norm1'"):
        nets[0].activation("norm1")


def test_rules_of_fusion():
    """A backend's own list decides; a layer between two, or of another kind, keeps them apart."""
    body = layers()
    assert fuse(body, ()) == body
    names = [type(layer).__name__ for layer in fuse(body, RULES[-1])]
    assert names[:3] == ["ConvReLU", "LRNMaxPool", "Conv"] and "SpatialNorm" in names and names.count("LRNMaxPool") == 1
    alone = fuse(body, ("lrn_maxpool",))[2]
    assert alone == LRNMaxPool("pool1", body[2], body[3]) and not alone.relu, "the ReLU below keeps its own backward pass"
    with pytest.raises(MiniAlexError, match="no rule conv_tanh; there are conv_relu, linear_relu, lrn_maxpool"):
        fuse(body, ("conv_tanh",))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_number_of_workers_changes_no_bit(workers):
    """37 images: several ranges, an uneven last block."""
    ops = backends.load("cpu")
    before = ops.workers()
    x, labels = pictures(37)
    results = []
    try:
        for count in (workers, 1):
            ops.set_workers(count)
            net = Net(layers(), INPUT, 37, ops, seed=3)
            sgd = SGD(net)
            losses = []
            for step in range(3):
                losses.append(run(net, x, labels, step))
                sgd.step(0.01)
            results.append((losses, ops.to_host(net.params.flat)))
    finally:
        ops.set_workers(before)
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


@pytest.mark.parametrize("ties", ["first", "all"])
def test_cpu_agrees_with_the_oracle(ties):
    """Float64 on both, so that no maximum changes hands: forward and every gradient."""
    x, labels = pictures(21)
    nets = [Net(layers(ties), INPUT, 21, backends.load(name), dtype="float64", seed=3) for name in ("reference", "cpu")]
    losses = [run(net, x, labels) for net in nets]
    assert abs(losses[0] - losses[1]) < 1e-12
    for key in nets[0].params:
        want, got = nets[0].grads[key], nets[1].grads[key]
        assert np.abs(got - want).max() <= 1e-11 * np.abs(want).max(), key


def test_fewer_images_than_planned(ops):
    """A last, smaller batch gives what a net planned for it gives, and leaves nothing of the larger one behind."""
    x, labels = pictures(9)
    large, small = Net(layers(), INPUT, 9, ops, seed=3), Net(layers(), INPUT, 5, ops, seed=3)
    run(large, x, labels)
    losses = [run(net, x[:, :5], labels[:5]) for net in (large, small)]
    assert losses[0] == losses[1]
    np.testing.assert_array_equal(ops.to_host(large.grads.flat), ops.to_host(small.grads.flat))


def test_fewer_images_in_more_ranges():
    """31 images have more ranges on the cpu backend than 40: partial gradients need room for both."""
    ops, small = backends.load("cpu"), Shape(1, 5, 5, 3)
    assert len(ops.image_ranges(31)) > len(ops.image_ranges(40))
    net, alone = (Net([Conv("conv1", K=4, kernel=3), Linear("fc", K=3), SoftmaxLoss("loss")], small, batch, ops) for batch in (40, 31))
    x, labels = np.random.default_rng(0).standard_normal(small.array(31)), np.arange(31, dtype=np.int32) % 3
    assert run(net, x, labels) == run(alone, x, labels)
    np.testing.assert_array_equal(net.grads.flat, alone.grads.flat)


def test_layers_in_place_share_memory_only_where_nobody_reads():
    """ReLU behind a convolution works in place; behind a pool it must not, the pool's backward pass reads its own output."""
    net = Net(layers(), INPUT, 2, backends.load("reference"), seed=3, fuse=False)
    views = dict(zip(["input", *(layer.name for layer in net.layers)], net._activations.views(2), strict=True))
    assert np.shares_memory(views["relu1"], views["conv1"])
    assert not np.shares_memory(views["relu2"], views["pool2"])
    assert not np.shares_memory(views["drop4"], views["relu4"])       # relu's backward pass reads its output


def test_dropout_mask_follows_step_and_test_time_has_none(ops):
    x, labels = pictures(4)
    net = Net(layers(), INPUT, 4, ops, seed=3)
    losses = [run(net, x, labels, step) for step in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    quiet = [net.fprop(labels, step=step) for step in (1, 2)]
    assert quiet[0] == quiet[1]


def test_initial_weights_are_drawn_per_parameter():
    """Another layer in front changes no other layer's draw; the seed changes all; std is what was declared."""
    ops = backends.load("reference")
    tail = [Linear("fc", K=500, std=0.01), SoftmaxLoss("loss")]
    nets = [Net([Conv("conv1", K=3, kernel=1, std=0.2), *tail], INPUT, 1, ops), Net(tail, INPUT, 1, ops), Net(tail, INPUT, 1, ops, seed=1)]
    first = [net.params["fc", "w"] for net in nets]
    np.testing.assert_array_equal(first[0], first[1])
    assert not (first[1] == first[2]).any()
    assert abs(first[0].std() / 0.01 - 1) < 4 / np.sqrt(2 * first[0].size)


def test_nan_is_named():
    net = Net(layers(), INPUT, 2, backends.load("reference"), seed=3)
    x, labels = pictures(2)
    run(net, x, labels)
    assert net.first_nonfinite() is None
    net.params["conv2", "w"][0, 0, 0, 0] = np.nan
    net.fprop(labels, training=True)
    assert net.first_nonfinite() == "weight conv2.w"


def test_bad_calls():
    ops = backends.load("reference")
    with pytest.raises(ShapeError, match="ends in a SoftmaxLoss"):
        Net([ReLU("relu")], INPUT, 1, ops)
    with pytest.raises(ShapeError, match="same name"):
        Net([ReLU("a"), ReLU("a"), SoftmaxLoss("loss")], Shape(1, 1, 1, 3), 1, ops)
    with pytest.raises(ShapeError, match="one column of logits"):
        Net([ReLU("a"), SoftmaxLoss("loss")], INPUT, 1, ops)
    net = Net(layers(), INPUT, 2, ops)
    with pytest.raises(ShapeError, match="another data set's class list"):
        net.fprop(np.int32([0, 3]))
    with pytest.raises(ShapeError, match="planned for at most 2"):
        net.fprop(n=3)
    net.fprop()
    with pytest.raises(MiniAlexError, match="no layer is called 'conv9'"):
        net.activation("conv9")
