"""The nets against the numbers printed in the paper, and against what its authors' program did."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from minialex import backends
from minialex.layers import LRN, Conv, Dropout, Linear, MaxPool, Run, SoftmaxLoss, SpatialNorm
from minialex.memory import initial
from minialex.nets import RECIPES, Augmentation, Plateau, Steps, recipe
from minialex.nets.alexnet import ILSVRC2010, alexnet
from minialex.nets.table import describe, rows, table, totals, training_flop
from minialex.spec import MiniAlexError, Shape, ShapeError

IMAGE = Shape(1, 224, 224, 3)


def weighted(layers, image=IMAGE):
    return {row.name: row for row in rows(layers, image) if row.parameters}


def named(layers):
    return {layer.name: layer for layer in layers}


def kinds(layers):
    return [layer.name for layer in layers]


def sides(layers, image=IMAGE):
    """Extent after each convolution and pool."""
    return [row.y.H for row in rows(layers, image) if isinstance(row.layer, (Conv, MaxPool))]


# --- section 1: the network ---------------------------------------------------------------------------------------------

def test_order_of_the_paper():
    assert kinds(alexnet()) == [
        "conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2", "conv3", "relu3", "conv4", "relu4",
        "conv5", "relu5", "pool5", "fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "fc8", "loss"]


def test_parameters_of_each_layer_and_in_total():
    got = weighted(alexnet())
    assert {name: row.parameters for name, row in got.items()} == {
        "conv1": 34944, "conv2": 307456, "conv3": 885120, "conv4": 663936, "conv5": 442624,
        "fc6": 37752832, "fc7": 16781312, "fc8": 4097000}
    assert totals(rows(alexnet(), IMAGE))[0] == 60965224


def test_multiply_adds_and_training_work():
    lines = rows(alexnet(), IMAGE)
    assert totals(lines)[1] == 724406816            # 724.4 M
    assert f"{training_flop(lines) / 1e9:.3f}" == "4.136"


def test_onegpu_parameters_and_multiply_adds():
    one = recipe("onegpu")
    assert totals(rows(one.build(1000), one.input))[:2] == (59798312, 391514384)
    assert {layer.columns for layer in one.build(1000) if isinstance(layer, (Conv, Linear))} == {1}


def test_windows_and_columns_of_the_paper():
    got = weighted(alexnet())
    windows = {name: (row.layer.params(row.x)[0].shape, row.y.columns, row.y.C) for name, row in got.items()}
    assert windows == {
        "conv1": ((96, 11, 11, 3), 2, 48), "conv2": ((256, 5, 5, 48), 2, 128), "conv3": ((384, 3, 3, 256), 2, 192),
        "conv4": ((384, 3, 3, 192), 2, 192), "conv5": ((256, 3, 3, 192), 2, 128),
        "fc6": ((4096, 9216), 2, 2048), "fc7": ((4096, 4096), 2, 2048), "fc8": ((1000, 4096), 1, 1000)}


def test_conv2_sees_48_maps_not_96():
    row = weighted(alexnet())["conv2"]
    assert row.x.channels == 96 and row.layer.params(row.x)[0].shape[-1] == 48 and row.reads == "own"


def test_who_reads_both_columns():
    assert {row.name: row.reads for row in rows(alexnet(), IMAGE) if row.parameters} == {
        "conv1": "image", "conv2": "own", "conv3": "both", "conv4": "own", "conv5": "own", "fc6": "both", "fc7": "both", "fc8": "both"}


def test_55_not_54():
    assert sides(alexnet()) == [55, 27, 27, 13, 13, 13, 13, 6]
    assert sides(alexnet(pad1=0))[0] == 54
    assert sides(alexnet(pad1=0), Shape(1, 227, 227, 3))[0] == 55
    assert named(alexnet())["conv1"].pad == (0, 3)          # hangs over the right and bottom edge only


def test_neurons():
    lines = weighted(alexnet())
    assert [row.neurons for row in lines.values()] == [290400, 186624, 64896, 64896, 43264, 4096, 4096, 1000]
    assert sum(row.neurons for row in lines.values()) == 659272


def test_slip_253440_neurons_in_the_first_layer():
    """The paper prints 253,440 for the first layer: 55 x 48 x 96; one of the 55s is the 48 maps of a column."""
    y = weighted(alexnet())["conv1"].y
    assert y.H * y.C * y.channels == 253440 != y.size


def test_slip_sum_of_printed_neurons():
    """The printed list adds up to 622,312 and not to the abstract's 650,000, which is nearer the true 659,272."""
    neurons = [row.neurons for row in weighted(alexnet()).values()]
    printed = [253440, *neurons[1:]]
    assert sum(printed) == 622312
    assert abs(sum(neurons) - 650000) < abs(sum(printed) - 650000)


def test_slip_each_convolution_at_most_one_per_cent():
    """Section 1: "each of which contains no more than 1 % of the model's parameters"; two of the five contain more."""
    share = {name: 100 * row.parameters / 60965224 for name, row in weighted(alexnet()).items() if name.startswith("conv")}
    assert [name for name, percent in share.items() if percent > 1] == ["conv3", "conv4"]
    assert (round(share["conv3"], 2), round(share["conv4"], 2)) == (1.45, 1.09)


def test_pools_of_two_every_two():
    """Network 147: conv2 pads 1 and conv5 0, which keeps the end."""
    net = alexnet(pool=2)
    assert sides(net) == [55, 28, 26, 13, 13, 13, 11, 6]
    assert (named(net)["conv2"].pad, named(net)["conv5"].pad) == (1, 0)
    assert (named(alexnet())["conv2"].pad, named(alexnet())["conv5"].pad) == (2, 1)
    assert totals(rows(net, IMAGE))[0] == 60965224


# --- the difference table, row by row: paper on the left, source2012 on the right --------------------------------------------

@pytest.fixture
def both():
    return [(named(recipe(name).build(1000)), kinds(recipe(name).build(1000)), recipe(name)) for name in ("paper", "source2012")]


def stage(order, start, stop):
    return order[order.index(start) + 1:order.index(stop)]


def test_row_after_conv1(both):
    assert [stage(order, "conv1", "conv2") for _, order, _ in both] == [["relu1", "norm1", "pool1"], ["norm1", "pool1", "relu1"]]


def test_row_after_conv2(both):
    assert [stage(order, "conv2", "conv3") for _, order, _ in both] == [
        ["relu2", "norm2", "pool2"], ["relu2", "norm2", "spatial2", "pool2"]]
    assert both[1][0]["spatial2"] == SpatialNorm("spatial2", n=5, k=1.0, alpha=.001 / 25, beta=.75)


def test_row_after_conv5(both):
    assert [stage(order, "conv5", "fc6") for _, order, _ in both] == [["relu5", "pool5"], ["pool5", "relu5"]]


def test_row_lrn(both):
    norms = [net["norm1"] for net, _, _ in both]
    assert norms == [LRN("norm1", 5, 2.0, 1e-4, .75), LRN("norm1", 5, 2.0, 1e-4, .75, divide_by_n=True)]
    assert [round(norm.constants()["alpha"], 12) for norm in norms] == [1e-4, 2e-5]
    for net, _, _ in both:
        assert net["norm2"].constants() == net["norm1"].constants()


def test_row_weights(both):
    stds = [{name: layer.std for name, layer in net.items() if isinstance(layer, (Conv, Linear))} for net, _, _ in both]
    assert set(stds[0].values()) == {.01}
    assert {name: std for name, std in stds[1].items() if std != .01} == {"conv3": .03, "conv4": .03, "conv5": .03}


def test_row_biases(both):
    for net, _, _ in both:
        assert {name: layer.bias for name, layer in net.items() if isinstance(layer, (Conv, Linear))} == {
            "conv1": 0, "conv2": 1, "conv3": 0, "conv4": 1, "conv5": 1, "fc6": 1, "fc7": 1, "fc8": 0}


def test_row_bias_rate(both):
    for (net, order, _), rate, anneal in zip(both, (1.0, 2.0), (True, False), strict=True):
        specs = [spec for row in rows([net[name] for name in order], IMAGE) for spec in row.layer.params(row.x)]
        assert {(spec.rate, spec.anneal, spec.decay) for spec in specs if spec.name == "b"} == {(rate, anneal, 0.0)}
        assert {(spec.rate, spec.anneal, spec.decay) for spec in specs if spec.name == "w"} == {(1.0, True, 1.0)}


def test_rows_of_augmentation(both):
    paper, source = (one.augmentation for _, _, one in both)
    assert paper == Augmentation(inclusive=False, chunk=1, mean_at="crop", noisy_scale=1.0, colour_until=None, order="shuffled")
    assert source == Augmentation(inclusive=True, chunk=32, mean_at="centre", noisy_scale=1 / 1.1, colour_until=67, order="fixed")


def test_row_conv1_stops_learning(both):
    paper, source = (one for _, _, one in both)
    assert paper.schedule == Plateau(patience=3, gain=.1, drops=3, divisor=10)
    assert source.schedule == Steps(at=(25, 51, 79), layer_rates=((67, "conv1", 1e-5), (72, "conv1", 0.0)))
    assert (paper.epochs, source.epochs) == (90, 91)


def test_row_ties_of_pools(both):
    assert [{layer.ties for layer in net.values() if isinstance(layer, MaxPool)} for net, _, _ in both] == [{"first"}, {"all"}]


def test_row_ties_of_top_k(both):
    assert [one.ties for _, _, one in both] == ["index", "fractional"]


def test_learning_of_section_5(both):
    for _, _, one in both:
        assert (one.batch, one.rate, one.momentum, one.decay) == (128, .01, .9, .0005)


def test_schedule_of_2010():
    one = recipe("source2012").but(**ILSVRC2010)
    assert (one.schedule.at, one.augmentation.colour_until, one.epochs) == ((23, 51, 78), 68, 93)
    assert one.augmentation.chunk == 32


# --- relatives and ablations --------------------------------------------------------------------------------------------------

def test_talkless_columns_never_talk_before_fc8():
    lines = weighted(recipe("talkless").build(1000))
    assert [name for name, row in lines.items() if row.reads == "both"] == ["fc8"]
    assert [(lines[name].y.columns, lines[name].y.C) for name in ("conv2", "fc6", "fc7")] == [(2, 160), (2, 4096), (2, 2048)]
    assert lines["fc6"].layer.params(lines["fc6"].x)[0].shape == (8192, 4608)


@pytest.mark.parametrize("classes", [1000, 10184, 21841])
def test_conv6_and_its_heads(classes):
    net = recipe("conv6").build(classes)
    lines = weighted(net)
    six = lines["conv6"]
    assert (six.x, six.y, six.reads) == (Shape(2, 6, 6, 128), Shape(2, 6, 6, 128), "both")
    assert (six.layer.kernel, six.layer.pad, six.layer.std, six.layer.bias) == (3, 1, .03, 1.0)
    assert kinds(net)[kinds(net).index("pool5") + 1:][:3] == ["conv6", "conv6_relu", "fc6"]
    assert lines["fc8"].y == Shape(1, 1, 1, classes)


def test_caffe():
    one = recipe("caffe")
    net = named(one.build(1000))
    lines = rows(net.values(), one.input)
    assert (one.crop, one.input.H, net["conv1"].pad) == (227, 227, 0)
    assert {row.y.columns for row in lines} == {1}
    assert [net[name].groups for name in ("conv1", "conv2", "conv3", "conv4", "conv5")] == [1, 2, 1, 2, 2]
    assert next(row.y.C for row in lines if row.name == "norm1") == 96
    assert net["norm1"] == LRN("norm1", 5, 1.0, 1e-4, .75, divide_by_n=True)
    assert stage(kinds(net.values()), "conv1", "conv2") == ["relu1", "norm1", "pool1"]       # pool before norm is CaffeNet
    assert net["drop6"] == Dropout("drop6", .5, inverted=True)
    assert {net[name].bias for name in ("conv2", "conv4", "conv5", "fc6", "fc7")} == {.1}
    assert totals(lines)[:2] == (60965224, 724406816)


def test_tiny_is_the_paper_at_an_eighth():
    paper, tiny = recipe("paper").build(1000), recipe("tiny").build(1000)
    assert kinds(tiny) == kinds(paper)
    for wide, narrow in zip(paper, tiny, strict=True):
        if isinstance(wide, (Conv, Linear)) and wide.name != "fc8":
            assert narrow.K * 8 == wide.K
            assert (narrow.groups, narrow.columns, narrow.bias) == (wide.groups, wide.columns, wide.bias)
    stds = {layer.name: layer.std for layer in tiny if isinstance(layer, (Conv, Linear))}
    assert stds.pop("conv1") == .01
    assert {round(std, 4) for std in stds.values()} == {.0283}


def image_dependent(layers, images):
    """For each layer with weights, the standard deviation of what differs between the images, before any ReLU."""
    ops, x, shape, sizes = backends.load("reference"), images, Shape(1, *images.shape[2:]), {}
    for layer in layers[:-1]:
        params = {spec.name: initial(spec, layer.name, 0) for spec in layer.params(shape)}
        shape = layer.out_shape(shape)
        y = np.empty(shape.array(images.shape[1]), np.float32)
        layer.fprop(ops, x, y, Run(training=False, params=params))
        if params:
            sizes[layer.name] = float((y - y.mean(1, keepdims=True)).std())
        x = y
    return sizes


def test_tiny_has_pre_activations_of_the_papers_size():
    """Layer by layer on the same pictures.  With .01 everywhere the logits' image-dependent part nearly vanishes."""
    random = np.random.default_rng(0)
    images = random.normal(0, 60, (1, 2, 7, 7, 3)).repeat(16, 2).repeat(16, 3) + random.normal(0, 20, (1, 2, 112, 112, 3))
    images = images.astype(np.float32)
    paper, tiny = (image_dependent(recipe(name).build(12), images) for name in ("paper", "tiny"))
    ratios = {name: tiny[name] / paper[name] for name in paper}
    assert all(0.5 < ratio < 2 for ratio in ratios.values()), ratios
    small = image_dependent(alexnet(12, width=1 / 8), images)
    assert small["fc8"] < 2e-3 * paper["fc8"]


@pytest.mark.parametrize("layer", ["conv2", "conv3", "conv4", "conv5"])
def test_without_a_convolution(layer):
    lost = set(kinds(alexnet())) - set(kinds(alexnet(without=layer)))
    assert lost == {layer, layer.replace("conv", "relu")}
    assert [row.y.H for row in rows(alexnet(without=layer), IMAGE) if row.name == "pool5"] == [6]


def test_without_conv1():
    net = alexnet(without="conv1")
    assert kinds(net)[:4] == ["conv2", "relu2", "norm2", "pool2"]
    assert rows(net, IMAGE)[0].y == Shape(2, 27, 27, 128)


def test_other_ablations_are_one_word():
    assert not [layer for layer in alexnet(lrn=False) if isinstance(layer, LRN)]
    assert not [layer for layer in alexnet(lrn=False, order2="relu-lrn-spatial-pool") if isinstance(layer, (LRN, SpatialNorm))]
    assert not [layer for layer in alexnet(keep=1.0) if isinstance(layer, Dropout)]
    assert {layer.bias for layer in alexnet(bias=0.0) if isinstance(layer, (Conv, Linear))} == {0.0}
    assert len(alexnet(lrn=False)) == len(alexnet()) - 2 == len(alexnet(keep=1.0))


@pytest.mark.parametrize("width", [Fraction(1, 2), 0.125, 1 / 16])
def test_width_is_exact(width):
    net = named(alexnet(width=width))
    got = [net[name].K for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")]
    assert got == [width * count for count in (96, 256, 384, 384, 256, 4096, 4096)]


def test_width_may_be_a_rounding_away():
    assert [layer.K for layer in alexnet(maps=(96, 3, 384, 384, 6), hidden=(3, 3), width=1 / 3, columns=1) if hasattr(layer, "K")] == [
        32, 1, 128, 128, 2, 1, 1, 1000]


def test_width_that_leaves_a_fraction_is_refused():
    with pytest.raises(ShapeError, match=r"conv2: 0\.333333 of 256 maps is 85\.3333, not a whole number"):
        alexnet(width=1 / 3)


def test_wrong_words_are_refused():
    with pytest.raises(MiniAlexError, match="order1='relu-norm-pool': 'norm' is none of relu, lrn, spatial, pool"):
        alexnet(order1="relu-norm-pool")
    with pytest.raises(MiniAlexError, match="without='fc6'"):
        alexnet(without="fc6")


# --- names and tables -----------------------------------------------------------------------------------------------------------

def test_recipes_in_order():
    assert list(RECIPES) == ["paper", "source2012", "onegpu", "talkless", "conv6", "caffe", "cifar13", "cifar11", "cifar18", "figure1",
                             "small", "tiny"]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_for_any_number_of_classes(name):
    one = recipe(name)
    layers = one.build(7)
    assert one.name == name and isinstance(layers[-1], SoftmaxLoss)
    assert rows(layers, one.input)[-1].y == Shape(1, 1, 1, 7)
    assert len({layer.name for layer in layers}) == len(layers)
    assert one.differs


@pytest.mark.parametrize("wrong,near", [("papre", "paper"), ("Source2012", "source2012"), ("cifar-18", "cifar18"), ("tinny", "tiny")])
def test_did_you_mean(wrong, near):
    with pytest.raises(MiniAlexError, match=f"no recipe is called '{wrong}': did you mean '{near}'"):
        recipe(wrong)


def test_a_name_like_no_other_gets_the_list():
    with pytest.raises(MiniAlexError, match="no recipe is called 'zzzzzz': there are paper, source2012") as caught:
        recipe("zzzzzz")
    assert "did you mean" not in str(caught.value)


def test_the_table_says_what_the_paper_says():
    lines = {line.split()[0]: line.split() for line in table(alexnet(), IMAGE).splitlines() if line and not line.startswith("-")}
    assert lines["conv1"] == ["conv1", "Conv", "48+48", "11x11", "/", "4", "/", "0,3", "55x55", "34,944", "105,415,200", "image"]
    assert lines["conv3"][-1] == "both" and lines["conv4"][-1] == "own"
    assert lines["fc6"] == ["fc6", "Linear", "2048+2048", "4096", "37,752,832", "37,748,736", "both"]
    assert lines["total"] == ["total", "60,965,224", "724,406,816"]
    assert lines["659,272"][1] == "neurons;"


def test_the_description_lists_every_difference():
    text = describe(recipe("source2012"))
    assert all(line in text for line in recipe("source2012").differs)
    assert "differs from the paper:" in text and "left open by the paper" in describe(recipe("paper"))


def test_command_line():
    def run(*arguments):
        return subprocess.run([sys.executable, "-W", "error", "-m", "minialex.nets.alexnet", *arguments], capture_output=True, text=True)
    done = run("onegpu")
    assert (done.returncode, done.stderr) == (0, "") and "59,798,312" in done.stdout
    wrong = run("onegpus")
    assert (wrong.returncode, wrong.stdout) == (2, "") and "did you mean 'onegpu'" in wrong.stderr
    assert run("paper", "none").returncode == 2
