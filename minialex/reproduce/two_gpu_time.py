"""Does the network on two GPUs take less time than the half network on one (paper, section 3.2)?  Measured, or not run."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from .. import placement
from ..config import Config
from ..nets import recipe
from ..optim import SGD
from .experiment import Experiment, Found, Steps
from .lab import Lab, Missing
from .result import Interval, Row

BATCH, ROUNDS, STEPS = 128, 7, 10


def stepper(name: str, device: str, batch: int = BATCH) -> Callable[[], float]:
    """A function that takes one training step of recipe `name` on random pictures and returns its loss, on the host: so it has ended."""
    chosen = recipe(name)
    net = placement.network(chosen.build(chosen.classes), chosen.input, batch, placement.places(Config(name, device=device)), seed=0)
    sgd, rng = SGD(net), np.random.default_rng(0)
    pixels = rng.normal(0, 60, (1, batch, chosen.crop, chosen.crop, 3)).astype(np.float32)
    net.show(pixels)
    labels = rng.integers(0, chosen.classes, batch).astype(np.int32)
    number = 0

    def step() -> float:
        nonlocal number
        loss = net.fprop(labels, training=True, step=number)
        net.bprop()
        sgd.step(1e-6)
        number += 1
        return loss

    return step


def ratios(one: Callable[[], float], other: Callable[[], float], rounds: int = ROUNDS, steps: int = STEPS) -> list[float]:
    """Time of `one` over time of `other`, of `steps` each, in turn; the first round, in which memory is planned, is left out."""
    found = []
    for _ in range(rounds + 1):
        seconds = []
        for step in (one, other):
            began = time.perf_counter()
            for _ in range(steps):
                step()
            seconds.append(time.perf_counter() - began)
        found.append(seconds[0] / seconds[1])
    return found[1:]


def _steps(lab: Lab) -> Steps:
    names = Config("paper", device=lab.device).device_names
    if len(names) != 2 or not all(name.startswith("cuda") for name in names):
        raise Missing("needs two GPUs: --device cuda:0,cuda:1. Without them `python examples/two_columns.py` draws a step as computed from "
                      "its recorded order and arithmetic")
    yield {}
    found = ratios(stepper("paper", lab.device), stepper("onegpu", names[0]))
    return Found({"below": Interval.of([1 - ratio for ratio in found])}, {}, [], f"{ROUNDS} rounds of {STEPS} steps each in turn, batch "
                 f"{BATCH}, random pictures; paper on {lab.device}, onegpu on {names[0]}.", status="full")


EXPERIMENTS = (
    Experiment("two-gpu-time", "Training time of two GPUs", "3.2",
               "The network on two GPUs takes slightly less time to train than the one-GPU network with half as many kernels.",
               {"below": Row("share of onegpu's step that two GPUs save", "", "slightly above 0")}, _steps, expected={"below": +1}),
)
