"""Schedules and the segments the update works on; the update itself is proved in test_sgd.py and test_golden.py."""

import numpy as np
import pytest

from minialex import backends
from minialex.layers import Conv, Linear, ReLU, SoftmaxLoss
from minialex.net import Net
from minialex.nets import recipe
from minialex.nets.recipe import Constant, Plateau, Steps
from minialex.optim import SGD, Schedule
from minialex.spec import Shape


def small_net():
    layers = [Conv("conv1", K=4, kernel=3, std=0.1, decay=2.0, bias_rate=2.0, bias_anneal=False), ReLU("relu1"), Linear("fc", K=3, std=0.1),
              SoftmaxLoss("loss")]
    net = Net(layers, Shape(1, 6, 6, 2), 2, backends.load("reference"), dtype="float64")
    net.input(2)[...] = np.random.default_rng(0).standard_normal((1, 2, 6, 6, 2))
    net.fprop(np.int32([0, 2]), training=True)
    net.bprop()
    return net


def test_each_parameter_learns_at_its_own_rate_and_decay():
    """Weights rate and decay; biases twice the *first* rate and no decay (source2012); a layer with a rate of its own."""
    net = small_net()
    sgd = SGD(net, momentum=0.9, decay=0.01)
    before = {key: value.copy() for key, value in net.params.items()}
    sgd.step(0.1, first_rate=1.0)
    g = net.grads
    want = {("conv1", "w"): -0.1 * g["conv1", "w"] - 0.1 * 0.02 * before["conv1", "w"], ("conv1", "b"): -2.0 * g["conv1", "b"],
            ("fc", "w"): -0.1 * g["fc", "w"] - 0.1 * 0.01 * before["fc", "w"], ("fc", "b"): -0.1 * g["fc", "b"]}
    for key, velocity in want.items():
        np.testing.assert_allclose(sgd.velocity[key], velocity, rtol=1e-12)
        np.testing.assert_allclose(net.params[key], before[key] + velocity, rtol=1e-12)


def test_a_frozen_layer_only_coasts():
    """conv1 at rate 0 (source2012 from epoch 72): no gradient, no decay; what velocity it had dies away by the momentum."""
    net = small_net()
    sgd = SGD(net, momentum=0.5)
    sgd.step(0.1)
    velocity = sgd.velocity["conv1", "w"].copy()
    sgd.step(0.1, layer_rates={"conv1": 0.0})
    np.testing.assert_allclose(sgd.velocity["conv1", "w"], 0.5 * velocity)


def test_plateau_divides_by_ten_three_times_then_ends():
    schedule = Schedule(Plateau(patience=3, gain=0.1), 0.01)
    rates = []
    for error in [50, 45, 44.95, 45.2, 44.99, 40, 40, 40, 39.95, *[40] * 6]:
        rates.append(schedule.rate(len(rates)))
        assert not schedule.finished
        schedule.observe(error)
    assert rates[:5] == [0.01] * 5, "44.95 gains less than .1 point on 45"
    assert rates[5:9] == pytest.approx([1e-3] * 4)
    assert rates[9:12] == pytest.approx([1e-4] * 3) and rates[12:15] == pytest.approx([1e-5] * 3)
    assert schedule.finished, "the fourth plateau ends training"


def test_plateau_state_survives_a_checkpoint():
    errors = [50, 45, 45, 44.99, 45, 44, 44, 44, 44, 43]
    one = Schedule(Plateau(), 0.01)
    for cut in range(len(errors)):
        one, two = Schedule(Plateau(), 0.01), Schedule(Plateau(), 0.01)
        for error in errors[:cut]:
            one.observe(error)
        two.restore(one.state())
        for error in errors[cut:]:
            one.observe(error)
            two.observe(error)
        assert one.state() == two.state()


def test_steps_of_the_2012_program():
    """Epochs 25, 51, 79; conv1 at 1e-5 from 67 and not at all from 72."""
    schedule = Schedule(recipe("source2012").schedule, 0.01)
    assert [schedule.rate(e) for e in (0, 24, 25, 50, 51, 78, 79, 90)] == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
    assert [schedule.layer_rates(e) for e in (66, 67, 71, 72, 90)] == [{}, {"conv1": 1e-5}, {"conv1": 1e-5}, {"conv1": 0.0}, {"conv1": 0.0}]


def test_constant_never_changes():
    schedule = Schedule(Constant(), 0.3)
    for _ in range(20):
        schedule.observe(99.0)
    assert schedule.rate(1000) == 0.3 and not schedule.finished and schedule.layer_rates(5) == {}


def test_a_changed_first_rate_scales_the_steps():
    schedule = Schedule(Steps(at=(2,)), 0.5)
    assert (schedule.rate(1), schedule.rate(2)) == (0.5, 0.05)
