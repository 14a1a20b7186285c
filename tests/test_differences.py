"""Claims of docs/PAPER_TO_CODE.md that no test of one layer decides: the paper against the 2012 program, or against a usual mistake."""

import io
import itertools
import math

import numpy as np
import pytest
from PIL import Image

from minialex import backends
from minialex.bench.timeline import GTX580
from minialex.data import View, decode, draw, views
from minialex.evaluate import evaluate, probabilities
from minialex.layers import LRN, Conv, Dropout, Linear, MaxPool, ReLU, Run, Sigmoid, SoftmaxLoss, SpatialNorm, Tanh
from minialex.memory import initial
from minialex.net import Net
from minialex.nets import recipe
from minialex.nets.alexnet import BOTH, ILSVRC2010, alexnet
from minialex.nets.table import rows, training_flop
from minialex.optim import SGD, Schedule
from minialex.spec import Shape

SMALL = Shape(1, 76, 76, 3)                             # ends in 1 x 1 behind pool5
NAMES = ("paper", "source2012")


@pytest.fixture
def cpu():
    return backends.load("cpu")


def small_net(ops, name: str, **changes) -> Net:
    """A recipe's net for ten classes at 1/16 of the width, one op a layer."""
    return Net(recipe(name).build(10, **dict(width=1 / 16, hidden=(512, 512)) | changes), SMALL, 4, ops, fuse=False)


def run(net: Net, seed: int = 0, **options) -> float:
    rng = np.random.default_rng(seed)
    net.input()[...] = rng.normal(0, 60, SMALL.array(4))
    return net.fprop(np.int32([0, 3, 7, 9]), **options)


# --- who reads what ---------------------------------------------------------------------------------------------------------

def changed_in_column_a(net: Net, layers) -> list[str]:
    """Those of `layers` whose values in column a follow the first-layer kernels of column b."""
    run(net)
    before = {name: net.activation(name)[0] for name in layers}
    w = net.params["conv1", "w"]
    w[len(w) // 2:] *= -1
    run(net)
    return [name for name in layers if not np.array_equal(net.activation(name)[0], before[name])]


def test_conv2_sees_48_maps(cpu):
    """Figure 2: conv2 reads the 48 maps of its own column.  A conv2 over all 96 is another network, and would show here."""
    layers = ["relu1", "relu2", "relu3", "relu5", "relu6", "relu7", "fc8"]
    assert changed_in_column_a(small_net(cpu, "paper"), layers) == ["relu3", "relu5", "relu6", "relu7", "fc8"]
    assert changed_in_column_a(small_net(cpu, "paper", both=(*BOTH, "conv2")), layers) == layers[1:]
    assert changed_in_column_a(small_net(cpu, "talkless"), layers) == ["fc8"]


def test_three_pixels_after_are_not_two_around(cpu, rng):
    """Padding by 2 on every side makes 55 of 224 too, but other values; the paper's are those of a 227 picture that ends in zeros."""
    def conv1(image, pad):
        layer = Conv("conv1", K=2, kernel=11, stride=4, pad=pad)
        y = cpu.empty(layer.out_shape(Shape(1, *image.shape[2:])).array(1))
        layer.fprop(cpu, image, y, Run(params={"w": w, "b": np.zeros(2, np.float32)}))
        return y[0, 0]

    w, image = rng.normal(size=(2, 11, 11, 3)).astype(np.float32), rng.normal(size=(1, 1, 224, 224, 3)).astype(np.float32)
    larger = np.zeros((1, 1, 227, 227, 3), np.float32)
    larger[:, :, :224, :224] = image
    ours, around = conv1(image, (0, 3)), conv1(image, 2)
    assert ours.shape == around.shape == (55, 55, 2)
    assert np.abs(ours - conv1(larger, 0)).max() < 1e-4 and np.abs(ours - around).max() > 1
    first = np.einsum("rsc,krsc->k", image[0, 0, :11, :11], w)             # the first window lies wholly inside the picture
    assert np.abs(ours[0, 0] - first).max() < 1e-3 < np.abs(around[0, 0] - first).max()


@pytest.mark.parametrize("ties", ["first", "all"])
def test_pool5_and_relu5_change_places_without_a_trace(ops, ties, rng):
    """The program pools before the ReLU behind conv5.  Neither values nor gradients of conv5 differ, not even at ties or zeros."""
    shape, N = Shape(2, 13, 13, 3), 3
    x = rng.integers(-2, 3, shape.array(N)).astype(np.float32)              # 5 values: nearly every window has a tie
    pool, relu = MaxPool("pool5", ties=ties), ReLU("relu5")
    dy = rng.integers(-3, 4, pool.out_shape(shape).array(N)).astype(np.float32)
    results = []
    for layers in ((relu, pool), (pool, relu)):
        middle, y, dmiddle, dx = (ops.empty(s.array(N)) for s in (
            layers[0].out_shape(shape), pool.out_shape(shape), layers[0].out_shape(shape), shape))
        layers[0].fprop(ops, x, middle, Run())
        layers[1].fprop(ops, middle, y, Run())
        layers[1].bprop(ops, middle, y, dy, dmiddle, Run())
        layers[0].bprop(ops, x, middle, dmiddle, dx, Run())
        results.append((y, dx))
    for one, other in zip(*results, strict=True):
        assert one.any() and np.array_equal(one, other)


# --- first weights and what moves them ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, middle", [("paper", 0.01), ("source2012", 0.03)])
def test_first_weights_and_biases(name, middle):
    """Drawn, not only declared: conv3 to conv5 are .03 in the program, all the rest .01; biases 1 in the same five layers."""
    for row in rows(recipe(name).build(10, width=1 / 8), Shape(1, 224, 224, 3)):
        for spec in row.layer.params(row.x):
            value = initial(spec, row.name, 0)
            if spec.name == "b":
                assert (value == (row.name in ("conv2", "conv4", "conv5", "fc6", "fc7"))).all(), row.name
            else:
                std = middle if row.name in ("conv3", "conv4", "conv5") else 0.01
                assert abs(value.std() / std - 1) < 5 / math.sqrt(2 * value.size), row.name
                assert abs(value.mean()) < 5 * std / math.sqrt(value.size), row.name


def test_bias_one_gives_relus_positive_inputs(cpu):
    """Section 5: "accelerates the early stages of learning by providing the ReLUs with positive inputs"; with 0 half are.
    conv2 reads what grey levels became, so a bias of 1 does not lift all of it; behind it values are small against 1."""
    positive = {}
    for bias in (0.0, 1.0):
        net = small_net(cpu, "paper", bias=bias)
        run(net)
        positive[bias] = [float((net.activation(name) > 0).mean()) for name in ("relu2", "relu4", "relu5", "relu6", "relu7")]
    assert positive[1.0][0] > 0.8 and min(positive[1.0][1:]) > 0.99
    assert min(positive[0.0]) > 0.3 and max(positive[0.0]) < 0.7


def test_dead_relus_leave_the_loss_at_ln_classes_for_ever(cpu):
    """What becomes of a net whose biases of 1 were thrown below zero by a few large steps: the loss is that of guessing, and no
    gradient comes back to lift them.  Only weight decay still moves anything, and biases have none."""
    net = small_net(cpu, "paper")
    sgd = SGD(net)
    net.params["fc7", "b"][...] = -1.0
    before = {key: value.copy() for key, value in net.params.items()}
    for step in range(5):
        assert run(net, seed=step, training=True, step=step) == pytest.approx(math.log(10), abs=0.02)
        net.bprop()
        assert [key for key, gradient in net.grads.items() if gradient.any()] == [("fc8", "b")]
        sgd.step(0.01)
    assert np.array_equal(net.params["fc7", "b"], before["fc7", "b"])
    alive = small_net(cpu, "paper")
    run(alive, training=True)
    alive.bprop()
    assert all(gradient.any() for _, gradient in alive.grads.items())


def moved(name: str, ops, epochs) -> dict[int, dict[str, float]]:
    """By how much a gradient of 1 moves each parameter in these epochs, momentum and decay left out."""
    net, one = small_net(ops, name), recipe(name)
    sgd, schedule, result = SGD(net, momentum=0.0, decay=0.0), Schedule(one.schedule, one.rate), {}
    for key in net.grads:
        net.grads.fill(key, np.ones(net.grads[key].shape))
    for epoch in range(max(epochs) + 1):
        if epoch in epochs:
            for key in net.params:
                net.params.fill(key, np.zeros(net.params[key].shape))
            sgd.step(schedule.rate(epoch), first_rate=schedule.first_rate, layer_rates=schedule.layer_rates(epoch))
            result[epoch] = {".".join(key): -float(value.flat[0]) for key, value in net.params.items()}
        schedule.observe(50.0)                              # never a gain after the first epoch: a plateau every third
    return result


def test_conv1_stops_learning_at_epoch_72_and_biases_keep_their_first_rate(cpu):
    """The program's rates, epoch by epoch.  In the paper one rate holds for all layers and biases, and falls for all of them."""
    source = moved("source2012", cpu, (0, 24, 25, 66, 67, 71, 72, 90))
    weights = {0: 1e-2, 24: 1e-2, 25: 1e-3, 66: 1e-4, 67: 1e-4, 71: 1e-4, 72: 1e-4, 90: 1e-5}
    first = {**weights, 67: 1e-5, 71: 1e-5, 72: 0.0, 90: 0.0}
    for epoch, rates in source.items():
        assert rates["conv2.w"] == pytest.approx(weights[epoch]) and rates["conv1.w"] == pytest.approx(first[epoch]), epoch
        assert {rates[f"{layer}.b"] for layer in ("conv2", "conv5", "fc6", "fc8")} == {np.float32(0.02)}, epoch
    paper = moved("paper", cpu, (0, 3, 4, 7, 12))
    for epoch, rate in {0: 1e-2, 3: 1e-2, 4: 1e-3, 7: 1e-4, 12: 1e-5}.items():
        assert set(paper[epoch].values()) == {np.float32(rate)}, epoch


# --- pictures -------------------------------------------------------------------------------------------------------------------

def test_colour_noise_is_switched_off_at_epoch_67(rng):
    """Of the recipes themselves: epoch 67 in the program's run of 2012, 68 in that of 2010, never in the paper."""
    for one, epochs in ((recipe("paper"), []), (recipe("source2012"), [67, 68, 90]), (recipe("source2012").but(**ILSVRC2010), [68, 90])):
        noisy = {epoch: draw(one.augmentation, 0, epoch, [0, 1], [0, 1], 256, 224, np.eye(3)) for epoch in (0, 66, 67, 68, 90)}
        assert [epoch for epoch, drawn in noisy.items() if not drawn.noise.any()] == epochs
        on = 1.0 if one.name == "paper" else 1 / 1.1
        assert [drawn.scale for drawn in noisy.values()] == [1.0 if epoch in epochs else on for epoch in noisy]


def judge(ops, name: str, record: int = 8, crop: int = 6):
    """A linear classifier of ten classes behind the recipe's way of cutting pictures: (net, recipe, weights)."""
    one = recipe(name).but(crop=crop, record=record)
    net = Net([Linear("fc", K=10, std=0.003), SoftmaxLoss("loss")], one.input, 3, ops, dtype="float64")
    return net, one, np.asarray(net.params["fc", "w"])


def softmax(z):
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


@pytest.mark.parametrize("name", NAMES)
def test_ten_crops_average_softmax_outputs_each_with_the_mean_of_its_recipe(name, oracle, rng):
    """Section 4.1.  The mean image's part under the crop (paper), or its centre for all ten (program); averages of logits,
    or the other recipe's mean, are other numbers."""
    net, one, w = judge(oracle, name)
    images, mean = rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8), rng.uniform(0, 255, (8, 8, 3))
    got = probabilities(net, images, [mean], one, "ten")
    logits = {"paper": [], "source2012": []}
    for top, left, flip in views(8, 6, "ten"):
        there, turn = (slice(top, top + 6), slice(left, left + 6)), -1 if flip else 1
        pixels = images[:, *there].astype(float)
        logits["paper"].append((pixels - mean[there])[:, :, ::turn].reshape(3, -1) @ w.T)
        logits["source2012"].append((pixels[:, :, ::turn] - mean[1:7, 1:7]).reshape(3, -1) @ w.T)
    other = next(n for n in NAMES if n != name)
    assert np.abs(got - softmax(np.array(logits[name])).mean(0)).max() < 1e-12
    assert np.abs(got - softmax(np.mean(logits[name], axis=0))).max() > 1e-3
    assert np.abs(got - softmax(np.array(logits[other])).mean(0)).max() > 1e-3
    centre = probabilities(net, images, [mean], one, "centre")
    assert views(8, 6) == [View(1, 1, False)] and np.abs(got - centre).max() > 1e-3


class Blanks:
    """A store and its only split: ten black pictures, one of each class."""

    path, mean, labels = "blanks", np.zeros((8, 8, 3), np.float32), np.arange(10, dtype=np.int32)

    def __len__(self) -> int:
        return 10

    def read(self, indices) -> np.ndarray:
        return np.zeros((len(indices), 8, 8, 3), np.uint8)


@pytest.mark.parametrize("name, top1, top5", [("paper", 90.0, 50.0), ("source2012", 90.0, 50.0)])
def test_a_net_that_says_the_same_of_all_classes_is_at_chance(name, top1, top5, oracle):
    """Ten classes, all equally probable: by index the first class wins all, in fractions each wins a tenth."""
    net, one, w = judge(oracle, name)
    w[...] = 0
    metrics = evaluate(net, Blanks(), Blanks(), one)
    assert (metrics.top1, metrics.top5, metrics.loss) == pytest.approx((top1, top5, math.log(10)))
    nines = Blanks()
    nines.labels = np.full(10, 9, np.int32)
    metrics = evaluate(net, nines, nines, one)
    assert (metrics.top1, metrics.top5) == pytest.approx((100.0, 100.0) if name == "paper" else (90.0, 50.0))


# --- weights learnt elsewhere -----------------------------------------------------------------------------------------------------

def test_the_net_reads_rgb_and_kernels_learnt_on_bgr_are_turned_round(oracle, rng):
    """A red picture arrives in channel 0.  Kernels of a net that read BGR do their old work with their channels reversed, only so."""
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9), (250, 20, 3)).save(buffer, "PNG")
    pixels, _ = decode(buffer.getvalue(), 7, "red.png")
    image = oracle.empty((1, 1, 7, 7, 3))
    oracle.augment_fprop(pixels[None], np.zeros((7, 7, 3), np.float32), np.zeros((1, 2), np.int32), np.zeros(1, bool),
                         np.zeros((1, 3), np.float32), image, mean_at="crop", scale=1.0)
    assert (image == np.float32([250, 20, 3])).all()

    def conv(x, w):
        y = oracle.empty((1, 1, 3, 3, 4))
        oracle.conv_fprop(np.ascontiguousarray(x), np.ascontiguousarray(w), np.zeros(4, np.float32), y, stride=1, pad=0, groups=1)
        return y

    on_bgr = rng.normal(size=(4, 5, 5, 3)).astype(np.float32)
    theirs = conv(image[..., ::-1], on_bgr)
    assert np.allclose(conv(image, on_bgr[..., ::-1]), theirs, rtol=1e-4, atol=1e-2)
    assert np.abs(conv(image, on_bgr) - theirs).max() > 1


def test_flatten_order_of_fc6_on_imported_weights(oracle, rng):
    """Caffe's fc6 reads 256 maps of 6 x 6 as (C, H, W), this one as (H, W, C): weights taken over as they are make another function."""
    fc6 = next(row for row in rows(alexnet(columns=1, groups=2), Shape(1, 224, 224, 3)) if row.name == "fc6")
    assert fc6.x == Shape(1, 6, 6, 256)
    layer, x = Linear("fc6", K=3), rng.normal(size=fc6.x.array(2))
    theirs = rng.normal(size=(3, 256 * 6 * 6))
    want = x[0].transpose(0, 3, 1, 2).reshape(2, -1) @ theirs.T

    def ours(w):
        y = oracle.empty((1, 2, 1, 1, 3), "float64")
        layer.fprop(oracle, x, y, Run(params={"w": np.ascontiguousarray(w), "b": np.zeros(3)}))
        return y.reshape(2, 3)

    assert np.allclose(ours(theirs.reshape(3, 256, 6, 6).transpose(0, 2, 3, 1).reshape(3, -1)), want, rtol=1e-10)
    assert np.abs(ours(theirs) - want).max() > 1


# --- sentences that belong to no single layer --------------------------------------------------------------------------------------

def test_the_input_has_150528_dimensions_and_no_relu_stands_behind_fc8(cpu):
    """Figure 2; and a slip of section 3.5, "applied to the output of every convolutional and fully-connected layer": the softmax has to
    see negative numbers, or half the classes of a fresh net would share one probability."""
    assert all(recipe(name).input.size == 150_528 for name in NAMES)
    for name in NAMES:
        layers = recipe(name).build(1000)
        assert len([layer for layer in layers if isinstance(layer, ReLU)]) == 7 == len([x for x in layers if hasattr(x, "std")]) - 1
        assert [type(layer) for layer in layers[-2:]] == [Linear, SoftmaxLoss]
    net = small_net(cpu, "paper")
    run(net)
    logits = net.activation("fc8")[0].reshape(4, 10)
    assert (logits < 0).any() and np.allclose(net.probabilities, softmax(logits.astype(float)), atol=1e-6)


def test_five_to_six_days_are_a_third_of_what_two_gtx_580_can():
    """Section 5: 90 cycles through 1.2 million pictures.  At full arithmetic speed of both cards they would have been under two days."""
    work = training_flop(rows(recipe("paper").build(1000), recipe("paper").input)) * 1_281_167 * 90
    days = work / (2 * GTX580.flop) / 86_400
    assert work == pytest.approx(4.77e17, rel=0.01) and 1.7 < days < 1.8 and 0.29 < days / 5.5 < 0.35


def test_a_relu_learns_as_long_as_one_picture_makes_it_positive(ops):
    """Section 3.3: "if at least some training examples produce a positive input to a ReLU, learning will happen in that neuron", and no
    normalisation is needed against saturation: a thousand times the input is a thousand times the gradient.  A tanh is flat by then."""
    w = np.float32([[1, 1], [1, -1], [-1, -1]])                     # of pictures (1, 0) and (0, 2): positive for both, one, none
    gradients = {}
    for unit, scale in ((ReLU, 1), (ReLU, 1000), (Tanh, 1000)):
        x = scale * np.float32([[1, 0], [0, 2]]).reshape(1, 2, 1, 1, 2)
        fc, act, ones = Linear("fc", 3), unit("unit"), np.ones((1, 2, 1, 1, 3), np.float32)
        z, y, dz = (np.empty_like(ones) for _ in range(3))
        own = Run(params={"w": w, "b": np.zeros(3, np.float32)}, grads={"w": np.empty_like(w), "b": np.empty(3, np.float32)})
        fc.fprop(ops, x, z, own)
        act.fprop(ops, z, y, own)
        act.bprop(ops, z, y, ones, dz, own)
        fc.bprop(ops, x, z, dz, None, own)
        gradients[unit, scale] = own.grads["w"]
    assert gradients[ReLU, 1].tolist() == [[1, 2], [1, 0], [0, 0]]
    assert np.array_equal(gradients[ReLU, 1000], 1000 * gradients[ReLU, 1]) and not gradients[Tanh, 1000].any()


def test_lrn_inhibits_neighbours_and_takes_no_mean_away(ops):
    """Section 3.3: "lateral inhibition", and "brightness normalization": unlike contrast normalisation it subtracts no mean, so that
    maps that are all alike stay above zero."""
    def normalised(values):
        x = np.float32(values).reshape(1, 1, 1, 1, -1)
        y = ops.empty(x.shape)
        LRN("norm", alpha=1.0).fprop(ops, x, y, Run())
        return np.asarray(y).reshape(-1)

    alike, louder = normalised([1] * 7), normalised([1, 1, 1, 5, 1, 1, 1])
    assert alike == pytest.approx([1 / 5**0.75, 1 / 6**0.75, *[1 / 7**0.75] * 3, 1 / 6**0.75, 1 / 5**0.75], rel=1e-5)
    assert (louder < alike).tolist() == [False, True, True, False, True, True, False]       # two maps to each side; itself has grown
    assert np.array_equal(normalised([-3, 1, 2]), -normalised([3, -1, -2]))


def test_halved_outputs_are_the_geometric_mean_of_all_thinned_networks(oracle, rng):
    """Section 4.2: "a reasonable approximation to taking the geometric mean of the predictive distributions".  With one layer behind the
    dropout it is exact: all 64 networks of six hidden neurons, against one pass at test time.  Their plain mean is another thing."""
    net = Net([Dropout("drop"), Linear("fc", 4, std=1.0), SoftmaxLoss("loss")], Shape(1, 1, 1, 6), 1, oracle, dtype="float64")
    hidden, w = rng.normal(0, 2, 6), np.asarray(net.params["fc", "w"])
    net.input()[...] = hidden.reshape(1, 1, 1, 1, 6)
    net.fprop()
    p = softmax(np.array([(mask * hidden) @ w.T for mask in itertools.product((0, 1), repeat=6)]))
    geometric = np.exp(np.log(p).mean(0))
    assert np.abs(net.probabilities[0] - geometric / geometric.sum()).max() < 1e-12
    assert np.abs(net.probabilities[0] - p.mean(0)).max() > 1e-3


def test_dropped_neurons_take_no_part_in_bprop_and_each_step_thins_anew(cpu):
    """Section 4.2.  A dropped neuron of fc6 has neither a gradient of its own weights nor of those that read it."""
    net, masks = small_net(cpu, "paper"), []
    for step in range(4):
        run(net, training=True, step=step)
        net.bprop()
        masks.append(np.concatenate(list(net.activation("drop6")), axis=-1).reshape(4, -1) != 0)
        for gradient in (net.grads["fc6", "w"], net.grads["fc7", "w"].T):
            assert np.array_equal((gradient != 0).any(1), masks[-1].any(0))         # no gradient for those dropped in all four pictures
    assert sum((~mask.any(0)).sum() for mask in masks) > 3 and len({mask.tobytes() for mask in masks}) == 4


def test_figure_1_compares_units_and_nothing_regularises():
    """Section 3.1: four layers, no regularisation of any kind; the two networks differ in their units alone."""
    one, other = recipe("figure1"), recipe("figure1(unit='tanh')")
    layers, twin = one.build(10), other.build(10)
    assert len([layer for layer in layers if hasattr(layer, "std")]) == 4 and one.decay == other.decay == 0.0
    assert not [layer for layer in layers if isinstance(layer, (Dropout, LRN, SpatialNorm))]
    assert not (one.augmentation.crops or one.augmentation.flips or one.augmentation.colour_std)
    pairs = [(a, b) for a, b in zip(layers, twin, strict=True) if a != b]
    assert len(pairs) == 3 and all(type(a) is ReLU and type(b) is Tanh and a.name == b.name for a, b in pairs)


# --- words ----------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("unit, slope", [(ReLU, 1.0), (Tanh, 0.0), (Sigmoid, 0.0)])
def test_relu_is_the_non_saturating_one(ops, unit, slope):
    """Section 3.1: tanh and the logistic function are flat far from zero, the ReLU is not."""
    x, dy = np.full((1, 1, 1, 1, 4), 200.0, np.float32), np.ones((1, 1, 1, 1, 4), np.float32)
    y, dx = ops.empty(x.shape), ops.empty(x.shape)
    layer = unit("unit")
    layer.fprop(ops, x, y, Run())
    layer.bprop(ops, x, y, dy, dx, Run())
    assert (dx == slope).all()
