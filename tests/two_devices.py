"""Networks trained on one device and on several, for the proofs that nothing but their place differs."""

from __future__ import annotations

import numpy as np

from minialex.bf16 import narrow
from minialex.column_net import ColumnNet
from minialex.layers import LRN, AvgPool, Conv, Dropout, Linear, MaxPool, ReLU, Sigmoid, SoftmaxLoss, SpatialNorm, Tanh
from minialex.net import Net
from minialex.optim import SGD
from minialex.spec import BF16, Shape
from minialex.testing import assert_bits_equal

INPUT = Shape(1, 19, 17, 3)


def layers(columns: int = 2, both: tuple[str, ...] = ("conv3", "fc4")) -> list:
    """A small network with every kind of layer that may lie in columns; `both`: the layers that read all of them, besides the last."""
    def groups(name: str) -> int:
        return 1 if name in both else columns
    return [
        Conv("conv1", K=4 * columns, kernel=5, stride=2, pad=(0, 3), columns=columns, std=0.3), ReLU("relu1"),
        LRN("norm1", alpha=0.7), MaxPool("pool1", ties="all"),
        Conv("conv2", K=6 * columns, kernel=3, pad=1, groups=columns, columns=columns, std=0.3, bias=0.3),
        LRN("norm2", alpha=0.2), SpatialNorm("same2", n=3, alpha=0.1), MaxPool("pool2", 2, 2, "all"), ReLU("relu2"),
        Conv("conv3", K=4 * columns, kernel=3, pad=1, groups=groups("conv3"), columns=columns, std=0.3), Tanh("tanh3"),
        AvgPool("pool3", 2, 1),
        Linear("fc4", K=5 * columns, groups=groups("fc4"), columns=columns, std=0.5, bias=0.2), ReLU("relu4"), Dropout("drop4", keep=0.6),
        Linear("fc5", K=4 * columns, groups=groups("fc5"), columns=columns, std=0.5), Sigmoid("sigmoid5"),
        Linear("fc6", K=3, std=0.8), SoftmaxLoss("loss"),
    ]


def train(net: Net | ColumnNet, steps: int, *, first: int = 0, rate: float = 0.02, batch: int | None = None) -> list[float]:
    """Losses of steps `first`, `first` + 1, ... on pictures that are a function of the step."""
    sgd = SGD(net, momentum=0.9, decay=0.0005)
    losses, batch = [], batch or net.batch
    for step in range(first, first + steps):
        random = np.random.default_rng(step)
        labels = random.integers(0, 3, batch).astype(np.int32)
        x = random.standard_normal(net.shapes[0].array(batch)) + labels[:, None, None, None]
        for ops, out in zip(net.places, net.inputs(batch), strict=True):
            ops.from_host(narrow(x) if out.dtype == BF16 else x.astype(np.float32), out=out)
        losses.append(net.fprop(labels, training=True, step=step))
        net.bprop()
        sgd.step(rate)
    net.velocity = sgd.velocity                     # for those who compare
    return losses


def assert_equal(one: Net, several: ColumnNet) -> None:
    """Weights, gradients, momentum and every layer's output: the same bits."""
    for what in ("params", "grads", "velocity"):
        for key in one.params:
            assert_bits_equal(getattr(several, what).numpy(key), getattr(one, what).numpy(key), f"{what} {'.'.join(key)}")
    for name in kept(one) & kept(several):
        assert_bits_equal(several.activation(name), one.activation(name), name)


def kept(net: Net | ColumnNet) -> set[str]:
    """The layers over whose output nothing is written."""
    following = [*net.layers[1:], net.loss_layer]
    return {layer.output() for layer, above in zip(net.layers, following, strict=True) if not above.in_place}


class Without:
    """The extension behind an Exchange or a Branch, with the waits that `drop(stream, event)` names left out: programs that forget one."""

    def __init__(self, holder, drop):
        self._extension, self._drop, self.dropped = holder.extension, drop, 0
        holder.extension = self

    def __getattr__(self, name):
        return getattr(self._extension, name)

    def stream_wait(self, stream: int, event: int) -> None:
        if self._drop(stream, event):
            self.dropped += 1
        else:
            self._extension.stream_wait(stream, event)


def forget_branch(net: Net | ColumnNet, what: str) -> None:
    """Takes one kind of wait away: "fork" (gradients of weights do not wait for dy), "join" (nobody waits for them)."""
    for branch in net.branches:
        event = {"fork": branch._ready, "join": branch._done}[what]
        Without(branch, lambda stream, asked, event=event: asked == event)


def forget(net: ColumnNet, what: str) -> Without:
    """Takes one kind of wait away: "ready" (the copy starts before its source is made), "free" (it overwrites what is still read),
    "arrived" (its target is read before), "sent" (its source is overwritten before)."""
    e = net.exchange
    targets = {event: e._compute[pair[1]] for pair, event in e._arrived.items()}
    rules = {
        "ready": lambda stream, event: event in e._ready,
        "free": lambda stream, event: event in e._free,
        "arrived": lambda stream, event: targets.get(event) == stream,
        "sent": lambda stream, event: event in targets and stream in e._compute and targets[event] != stream,
    }
    return Without(e, rules[what])
