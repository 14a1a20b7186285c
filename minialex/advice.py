"""What a run that does not learn is told: first what can be measured of it, then what cannot.  Nothing here changes a bit of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .bf16 import widen
from .layers import ConvReLU, LinearReLU, ReLU
from .statistics import measure

AFTER = 300                 # steps; before, many a network that learns has not left the loss of guessing
NEAR = 0.02                 # nats below the loss of guessing


def guessing(shares: np.ndarray) -> float:
    """The loss of a network that knows how often each class comes, `shares` (their sum is 1), and nothing of the pictures."""
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def stuck(net: Any, sgd: Any, loss: float, chance: float) -> list[str]:
    """Lines about a network behind a step and a forward pass, whose training loss is no better than that of guessing."""
    return [f"the training loss {loss:.3f} is no better than that of guessing ({chance:.3f}).  Seen in the run:",
            *(f"  - {line}" for line in (_units(net), _updates(net, sgd), _pictures(net))),
            "and not to be seen from here:",
            "  - labels that belong to other pictures, or count the classes in another order: look at some with minialex store show",
            "  - a batch too small for its rate: try a larger -b",
            "  - weights that begin too large or too small: the paper's have a deviation of 0.01, and some biases are 1 (section 5)"]


def _units(net: Any) -> str:
    """The ReLU layer of which most is zero."""
    units = [layer.output() for layer in net.layers if isinstance(layer, (ReLU, ConvReLU, LinearReLU))]
    silent = {name: float((net.activation(name) <= 0).mean()) for name in units}
    if not silent:
        return "no layer has ReLUs that could have died"
    name = max(silent, key=silent.get)
    text = f"{100 * silent[name]:.0f} % of what {name} says is 0"
    if silent[name] < 0.98:
        return f"{text}, the most of any ReLU layer: as it should be"
    return f"{text}: its ReLUs have died behind biases that a few large steps threw below zero; begin again with a third of the --lr"


def _updates(net: Any, sgd: Any) -> str:
    """How far the last step moved the weights; a thousandth of them is usual."""
    ratios = [row["ratio"] or 0.0 for name, row in measure(net, sgd).items() if name.endswith(".w")]
    text = f"the last step moved the weights of a layer by {min(ratios):.1g} to {max(ratios):.1g} of their size"
    if max(ratios) < 1e-5:
        return f"{text}: the rate is far too low; try ten times the --lr"
    if max(ratios) > 0.1:
        return f"{text}: the rate is far too high; try a tenth of the --lr"
    return f"{text}: as it should be"


def _pictures(net: Any) -> str:
    """Whether the pictures of the last pass differ from each other."""
    x = widen(net.ops.to_host(net.inputs()[0]))
    spread = float(x.std(axis=1).mean())
    text = f"pixels of the last pictures differ by {spread:.0f} of 255 from picture to picture"
    return f"{text}: as they should" if spread > 5 else f"{text}: they are all alike; look at them with minialex store show"
