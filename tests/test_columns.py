"""Columns: where they must talk, what that costs, and what each of them owns."""

from collections import defaultdict

import pytest

from minialex.columns import exchange_points, loads, plan, print_plan, shard
from minialex.layers import Conv, Local
from minialex.nets import RECIPES, recipe
from minialex.nets.alexnet import alexnet
from minialex.nets.table import rows
from minialex.spec import MiniAlexError, Shape

IMAGE = Shape(1, 224, 224, 3)


def test_exchange_points_of_the_paper_come_out_of_the_declaration():
    assert [(point.layer, point.source) for point in exchange_points(alexnet(), IMAGE)] == [
        ("conv3", "pool2"), ("fc6", "pool5"), ("fc7", "fc6"), ("fc8", "fc7")]


@pytest.mark.parametrize("name,points", [
    ("source2012", ["conv3", "fc6", "fc7", "fc8"]), ("talkless", ["fc8"]), ("conv6", ["conv3", "conv6", "fc6", "fc7", "fc8"]),
    ("onegpu", []), ("caffe", []), ("cifar11", []), ("tiny", ["conv3", "fc6", "fc7", "fc8"])])
def test_exchange_points_of_the_relatives(name, points):
    one = recipe(name)
    assert [point.layer for point in exchange_points(one.build(one.classes), one.input)] == points


def test_another_network_has_other_points():
    assert [point.layer for point in exchange_points(alexnet(both=("conv4", "fc7")), IMAGE)] == ["conv4", "fc7", "fc8"]


def test_bytes_exchanged_at_batch_128():
    """Section 3.2 on two devices: 15.5 MB in each direction in fprop, and again in bprop."""
    points = exchange_points(alexnet(), IMAGE)
    assert [round(point.bytes(128) / 1e6, 2) for point in points] == [11.08, 2.36, 1.05, 1.05]
    assert sum(point.bytes(128) for point in points) == 15532032
    assert sum(point.bytes(128, itemsize=2) for point in points) == 15532032 // 2


def test_fc8_alone_is_row_parallel():
    points = {point.layer: point for point in exchange_points(alexnet(), IMAGE)}
    assert [name for name, point in points.items() if point.row_parallel] == ["fc8"]
    assert points["fc8"].partial_bytes(128) == 128 * 1000 * 4
    assert points["fc7"].partial_bytes(128) == 0


def test_pieces_of_fc6_and_fc8():
    shapes = {row.name: row for row in rows(alexnet(), IMAGE)}
    six = {(piece.parameter, piece.column): (piece.axis, piece.start, piece.stop) for piece in shard(shapes["fc6"].layer, shapes["fc6"].x)}
    assert six == {("w", 0): (0, 0, 2048), ("w", 1): (0, 2048, 4096), ("b", 0): (0, 0, 2048), ("b", 1): (0, 2048, 4096)}
    eight = {(piece.parameter, piece.column): (piece.axis, piece.start, piece.stop)
             for piece in shard(shapes["fc8"].layer, shapes["fc8"].x)}
    assert eight == {("w", 0): (1, 0, 2048), ("w", 1): (1, 2048, 4096), ("b", 0): (0, 0, 1000), ("b", 1): (0, 0, 0)}


def test_pieces_of_a_local_layer_in_columns():
    layer = Local("local", K=8, kernel=3, pad=1, groups=2, columns=2)
    pieces = shard(layer, Shape(2, 5, 5, 3))
    assert [(piece.parameter, piece.axis, piece.start, piece.stop, piece.size) for piece in pieces] == [
        ("w", 2, 0, 4, 5 * 5 * 4 * 27), ("w", 2, 4, 8, 5 * 5 * 4 * 27), ("b", 2, 0, 4, 100), ("b", 2, 4, 8, 100)]


def test_pieces_of_a_convolution_into_one_column():
    pieces = shard(Conv("join", K=6, kernel=1), Shape(2, 4, 4, 5))
    assert [(piece.parameter, piece.column, piece.axis, piece.start, piece.stop) for piece in pieces] == [
        ("w", 0, 3, 0, 5), ("w", 1, 3, 5, 10), ("b", 0, 0, 0, 6), ("b", 1, 0, 0, 0)]


@pytest.mark.parametrize("name", RECIPES)
def test_pieces_are_every_parameter_exactly_once(name):
    one = recipe(name)
    for row in rows(one.build(one.classes), one.input):
        owned = defaultdict(list)
        for piece in shard(row.layer, row.x):
            owned[piece.parameter].append(piece)
        for spec in row.layer.params(row.x):
            pieces = [piece for piece in owned[spec.name] if piece.size]
            assert sum(piece.size for piece in pieces) == spec.size
            edges = [edge for piece in pieces for edge in (piece.start, piece.stop)]
            assert edges[0] == 0 and edges[-1] == spec.shape[pieces[0].axis] and edges[1:-1:2] == edges[2::2]


def test_loads_of_the_paper():
    a, b = loads(alexnet(), IMAGE, 128)
    assert a.parameters + b.parameters == 60965224
    assert a.parameters - b.parameters == 1000              # fc8's biases
    assert a.macs == b.macs == 724406816 // 2
    # image, conv1, norm1, pool1, conv2, norm2, pool2, conv3, conv4, conv5, pool5, fc6, fc7: ReLU and dropout work in place
    one = 224 * 224 * 3 + 55 * 55 * 96 + 27 * 27 * 48 + 27 * 27 * 256 + 13 * 13 * 128 + 13 * 13 * (192 + 192 + 128) + 36 * 128 + 4096
    assert b.activations == 128 * one
    assert a.activations == 128 * (one + 1000 + 1000)       # logits and probabilities


def test_plan_text():
    lines = plan(alexnet(), IMAGE, 128).splitlines()
    assert next(line for line in lines if line.startswith("conv3")).split() == ["conv3", "pool2", "13x13x128", "11.08", "MB", "11.08", "MB"]
    assert next(line for line in lines if line.startswith("total")).split()[1] == "15.53"
    assert any(line.startswith("fc8 writes one column") and "0.51 MB" in line for line in lines)
    assert "nothing is exchanged" in plan(alexnet(columns=1, groups=2), IMAGE, 1)


def test_print_plan_is_the_table_and_the_exchange(capsys):
    print_plan(recipe("paper"))
    text = capsys.readouterr().out
    assert "60,965,224" in text and "15.53 MB" in text and "batch 128, float32" in text
    print_plan(recipe("tiny"), batch=7, classes=3)
    text = capsys.readouterr().out
    assert "batch 7, float32" in text and [line.split()[3] for line in text.splitlines() if line.startswith("fc8 ")][:1] == ["3"]
    with pytest.raises(MiniAlexError, match="a batch of 0 images"):
        print_plan(recipe("paper"), batch=0)
