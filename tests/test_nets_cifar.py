"""The CIFAR-10 networks against the example files they come from: shapes, first weights, rates, decays, norms, schedules."""

import pytest

from minialex.layers import LRN, Conv, SpatialNorm
from minialex.nets import Steps, recipe
from minialex.nets.cifar import cifar11
from minialex.nets.table import rows


def named(layers):
    return {layer.name: layer for layer in layers}


def kinds(layers):
    return [layer.name for layer in layers]


@pytest.mark.parametrize("name,extents,decays", [
    ("cifar13", [24, 12, 12, 6, 6, 6], [0, 0, .004, .004, .004]),
    ("cifar11", [24, 12, 12, 6, 6, 6], [0, 0, .004, .004, .01]),
    ("cifar18", [32, 16, 16, 8, 8, 4], [.004, .004, .004, 1.0]),
])
def test_cifar_shapes_rates_and_decays(name, extents, decays):
    one = recipe(name)
    lines = rows(one.build(10), one.input)
    assert [row.y.H for row in lines if hasattr(row.layer, "window") or isinstance(row.layer, Conv)] == extents
    assert (one.record, one.rate, one.momentum, one.batch) == (32, .001, .9, 128)
    specs = [row.layer.params(row.x) for row in lines if row.parameters]
    assert [w.decay * one.decay for w, _ in specs] == pytest.approx(decays)
    assert {one.rate * b.rate for _, b in specs} == {.002}


def test_cifar_stds_and_maps():
    def facts(name):
        return [(layer.K, layer.kernel, layer.std) for layer in recipe(name).build(10) if isinstance(layer, Conv)]
    assert facts("cifar13") == [(64, 5, 1e-4), (64, 5, .01), (32, 3, .04), (32, 3, .04)]
    assert facts("cifar11") == [(64, 5, 1e-4), (64, 5, .01), (64, 3, .04), (32, 3, .04)]
    assert facts("cifar18") == [(32, 5, 1e-4), (32, 5, .01), (64, 5, .01)]


def test_cifar_norms_and_schedules():
    eleven, eighteen = named(recipe("cifar11").build(10)), named(recipe("cifar18").build(10))
    assert eleven["norm1"].constants() == dict(n=9, k=1.0, alpha=.001 / 9, beta=.75)
    assert eighteen["norm1"] == SpatialNorm("norm1", n=3, k=1.0, alpha=5e-5 / 9, beta=.75)
    order = kinds(recipe("cifar11").build(10))
    assert order.index("pool1") < order.index("norm1") and order.index("norm2") < order.index("pool2")
    assert (recipe("cifar11").schedule, recipe("cifar11").epochs) == (Steps(at=(500, 510)), 520)
    assert (recipe("cifar18").schedule, recipe("cifar18").epochs) == (Steps(at=(120, 130)), 140)
    assert not recipe("cifar18").augmentation.crops and recipe("cifar11").augmentation.crops
    assert not [layer for layer in cifar11(lrn=False) if isinstance(layer, LRN)]
