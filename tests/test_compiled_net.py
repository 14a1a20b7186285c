"""Whole networks on the compiled backends: the same losses and gradients as on the oracle, and the paper's own network takes a step."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import compiled_backends, load_or_skip

from minialex.backends import load
from minialex.backends.cpu import winograd
from minialex.bf16 import narrow, widen
from minialex.net import Net
from minialex.nets import recipe as recipe_of
from minialex.optim import SGD
from minialex.spec import BF16
from minialex.testing import assert_bits_equal

on_each = pytest.mark.parametrize("backend", compiled_backends())


def train(ops, name: str, batch: int, steps: int, *, dtype: str = "float32", rate: float = 0.01, fuse: bool = True, seed: int = 5):
    """(losses, net) after `steps` steps on fixed random pictures of three classes that differ in brightness."""
    recipe = recipe_of(name)
    net = Net(recipe.build(recipe.classes), recipe.input, batch, ops, seed=seed, dtype=dtype, fuse=fuse)
    sgd = SGD(net, momentum=recipe.momentum, decay=recipe.decay)
    random = np.random.default_rng(seed)
    losses = []
    for step in range(steps):
        labels = random.integers(0, 3, batch).astype(np.int32)
        x = (40 * random.standard_normal(recipe.input.array(batch)) + 30 * labels[:, None, None, None]).astype(dtype)
        net.show(x)
        losses.append(net.fprop(labels, training=True, step=step))
        net.bprop()
        sgd.step(rate)
    return np.array(losses), net


@on_each
def test_tiny_trains_to_the_losses_of_the_oracle(backend):
    """Float32 against float64: 2^-24 for each of some twenty roundings in a row gives 1e-6 of a loss near ln 12; every step
    multiplies what the steps before it left by a factor near one.  A rate that is wrong by a hundredth leaves the bound."""
    ops, oracle = load_or_skip(backend), load("reference")
    want, _ = train(oracle, "tiny", 6, 6, dtype="float64")
    got, _ = train(ops, "tiny", 6, 6)
    bound = 1e-5 * np.abs(want)
    assert (np.abs(got - want) <= bound).all(), (got, want)
    other, _ = train(oracle, "tiny", 6, 6, dtype="float64", rate=0.0101)
    assert (np.abs(other - want) > bound).any()


@on_each
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_fused_and_plain_nets_have_the_same_bits(backend, precision, monkeypatch):
    """But for conv1 in cells, which adds in another order."""
    ops = load_or_skip(backend).kernels.on(0)
    rules = [rule for rule in ops.fused() if rule != "cells"]
    monkeypatch.setattr(ops, "fused", lambda: rules)
    ops.set_precision(precision)
    (a, fused), (b, plain) = (train(ops, "tiny", 5, 2, fuse=fuse) for fuse in (True, False))
    assert len(fused.layers) < len(plain.layers)
    assert a.tolist() == b.tolist()
    assert_bits_equal(ops.to_host(fused.params.flat), ops.to_host(plain.params.flat), "weights after two steps")


@on_each
def test_activations_of_half_the_bytes_train_to_nearly_the_same_losses(backend):
    """Eight bits of each number are kept: a hundredth of the losses, which a step more leaves."""
    ops, cpu = load_or_skip(backend).kernels.on(0), load("cpu")
    ops.set_precision("bf16")
    (got, net), (want, other) = (train(which, "tiny", 6, 3, rate=0.05) for which in (ops, cpu))
    assert (np.abs(got - want) <= 0.01 * want).all(), (got, want)
    assert (np.abs(got[:-1] - want[1:]) > 0.01 * want[1:]).all(), "these losses cannot tell one step from the next"
    assert net.storage == BF16 != other.storage and net.input().nbytes == other.input().nbytes // 2
    seen, wide = net.activation("pool2"), other.activation("pool2")
    assert seen.dtype == np.float32 and (widen(narrow(seen)) == seen).all() and 0 < np.abs(seen - wide).mean() < 0.03 * wide.mean()
    assert net.first_nonfinite() is None
    net.show(np.full(net.picture.array(6), np.nan, np.float32))
    assert net.first_nonfinite() == "input"


@on_each
def test_paper_takes_a_whole_step(backend, monkeypatch):
    """724 million multiply-adds an image and 61 million parameters, in the launches of a real step, beside the cpu backend's direct form,
    whose pools decide near-ties as these kernels do more often than evaluation at points."""
    monkeypatch.setattr(winograd, "enabled", False)
    ops, cpu = load_or_skip(backend), load("cpu")
    (got, net), (want, other) = (train(which, "paper", 2, 1) for which in (ops, cpu))
    assert abs(got[0] - want[0]) <= 1e-5 * want[0]
    for key in net.params:
        mine, theirs = ops.to_host(net.grads[key]), cpu.to_host(other.grads[key])
        largest = np.abs(theirs).max()
        assert largest > 0 and np.abs(mine - theirs).max() <= 1e-3 * largest, key      # one near-tie of a pool moves a gradient by 1e-4
        assert np.median(np.abs(mine - theirs)) <= 5e-5 * largest, key


@on_each
def test_a_smaller_batch_than_planned(backend):
    ops = load_or_skip(backend)
    recipe = recipe_of("tiny")
    net = Net(recipe.build(12), recipe.input, 7, ops, seed=1)
    small = Net(recipe.build(12), recipe.input, 3, ops, seed=1)
    x = np.random.default_rng(0).standard_normal(recipe.input.array(3)).astype(np.float32)
    labels = np.array([1, 0, 2], np.int32)
    losses = []
    for each in (net, small):
        each.show(x)
        losses.append(each.fprop(labels, training=False))
        each.bprop()
    assert losses[0] == losses[1]
    assert_bits_equal(ops.to_host(net.grads.flat), ops.to_host(small.grads.flat), "gradients")
    assert net.first_nonfinite() is None
