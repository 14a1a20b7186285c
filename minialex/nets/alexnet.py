"""AlexNet and its relatives (paper, section 3.5 and figure 2; the 2012 program, network 145 and its neighbours).

`alexnet()` is the paper's network.  Each of its keywords is one decision on which the paper, the program and later
re-implementations differ, so a recipe, or an ablation, is a call that names what it changes:
`alexnet(pool=2)`, `alexnet(lrn=False)`, `alexnet(without="conv4")`.  Prints its table: `python -m minialex.nets.alexnet`.
"""

from __future__ import annotations

from functools import partial

from ..layers import LRN, Conv, Dropout, Layer, Linear, MaxPool, ReLU, SoftmaxLoss, SpatialNorm
from ..spec import MiniAlexError, ShapeError
from .recipe import Augmentation, Recipe, Steps

# Layers that read both columns.  The others read their own (section 3.2: "the GPUs communicate only in certain layers").
BOTH = ("conv3", "fc6", "fc7", "fc8")


def alexnet(
    classes: int = 1000,
    *,
    # the shape of the network
    maps: tuple[int, ...] = (96, 256, 384, 384, 256),
    hidden: tuple[int, int] = (4096, 4096),
    width: float = 1.0,
    columns: int = 2,
    groups: int | None = None,
    both: tuple[str, ...] = BOTH,
    pool: int | tuple[int, int] = (3, 2),
    window1: tuple[int, int] = (11, 4),
    pad1: int | tuple[int, int] = (0, 3),
    without: str | None = None,
    conv6: bool = False,
    # what follows a convolution, in order
    order1: str = "relu-lrn-pool",
    order2: str = "relu-lrn-pool",
    order5: str = "relu-pool",
    ties: str = "first",
    # normalisation (section 3.3)
    lrn: bool = True,
    lrn_k: float = 2.0,
    lrn_alpha: float = 1e-4,
    lrn_divide_by_n: bool = False,
    spatial_alpha: float = 0.001 / 25,
    # dropout (section 4.2); keep=1 leaves it out
    keep: float = 0.5,
    inverted_dropout: bool = False,
    # first weights and biases, and how biases learn (section 5)
    std: float = 0.01,
    std1: float | None = None,
    std345: float | None = None,
    std67: float | None = None,
    bias: float = 1.0,
    bias_rate: float = 1.0,
    bias_anneal: bool = True,
) -> list[Layer]:
    """The layers, input first, SoftmaxLoss last, for `classes` labels.

    `maps` and `hidden` count both columns, and `width` multiplies them all.  `groups` is what a layer that reads its own
    column divides its channels into: as many as there are columns, unless a network in one column wants two (Caffe).
    `window1` is extent and stride of conv1's windows.
    `order1`, `order2`, `order5` are words of relu, lrn, spatial, pool joined by "-"; lrn=False takes lrn and spatial out.
    pool=2 means windows of 2 every 2, and then conv2 pads 1 and conv5 0, which keeps the end at 6 x 6 (network 147).
    `std1`, `std345`, `std67` (of conv1, of conv3 to conv5, of fc6 and fc7) are `std` where not given; `bias` is the first
    bias of conv2, conv4, conv5, conv6, fc6 and fc7, the others start at 0.

    `without` takes one of conv1 .. conv5 away with its ReLU (section 7).  Without conv1 its norm and pool go too, and conv2
    reads the image in conv1's windows at twice their stride (8 pixels), pool1's together with conv1's, which keeps its 27 x 27.

    Raises ShapeError where `width` leaves a fraction of a map, MiniAlexError for an unknown word.
    """
    K1, K2, K3, K4, K5 = (_share(f"conv{i}", count, width) for i, count in enumerate(maps, start=1))
    F6, F7 = (_share(f"fc{i}", count, width) for i, count in enumerate(hidden, start=6))
    own = columns if groups is None else groups
    window, stride = (pool, pool) if isinstance(pool, int) else pool
    pad2, pad5 = (1, 0) if (window, stride) == (2, 2) else (2, 1)
    std1, std345, std67 = (std if given is None else given for given in (std1, std345, std67))
    learning = dict(columns=columns, bias_rate=bias_rate, bias_anneal=bias_anneal)

    def conv(name: str, K: int, kernel: int, *, std: float, bias: float, pad=1, stride: int = 1) -> Conv:
        return Conv(name, K, kernel, stride, pad, groups=1 if name in (first, *both) else own, std=std, bias=bias, **learning)

    def linear(name: str, K: int, *, std: float, bias: float) -> Linear:
        return Linear(name, K, groups=1 if name in both else own, std=std, bias=bias, **learning)

    def after(stage: int, order: str) -> list[Layer]:
        layer = {"relu": ReLU(f"relu{stage}"),
                 "lrn": LRN(f"norm{stage}", 5, lrn_k, lrn_alpha, 0.75, lrn_divide_by_n),
                 "spatial": SpatialNorm(f"spatial{stage}", 5, 1.0, spatial_alpha, 0.75),
                 "pool": MaxPool(f"pool{stage}", window, stride, ties)}
        words = order.split("-")
        if unknown := [word for word in words if word not in layer]:
            raise MiniAlexError(f"order{stage}={order!r}: {unknown[0]!r} is none of {', '.join(layer)}; join these words by '-'")
        return [layer[word] for word in words if lrn or word not in ("lrn", "spatial")]

    def dropout(name: str) -> list[Layer]:
        return [Dropout(name, keep, inverted_dropout)] if keep < 1.0 else []

    if without not in (None, "conv1", "conv2", "conv3", "conv4", "conv5"):
        raise MiniAlexError(f"without={without!r}: only one of conv1 to conv5 can be taken away")
    first = "conv2" if without == "conv1" else "conv1"
    start = [conv("conv1", K1, window1[0], stride=window1[1], pad=pad1, std=std1, bias=0.0), *after(1, order1),
             conv("conv2", K2, 5, pad=pad2, std=std, bias=bias)]
    if without == "conv1":
        start = [conv("conv2", K2, window1[0], stride=2 * window1[1], pad=0, std=std1, bias=bias)]
    sixth = [conv("conv6", _share("conv6", 256, width), 3, std=0.03, bias=bias), ReLU("conv6_relu")] if conv6 else []

    net = [
        *start, *after(2, order2),
        conv("conv3", K3, 3, std=std345, bias=0.0), ReLU("relu3"),
        conv("conv4", K4, 3, std=std345, bias=bias), ReLU("relu4"),
        conv("conv5", K5, 3, pad=pad5, std=std345, bias=bias), *after(5, order5),
        *sixth,
        linear("fc6", F6, std=std67, bias=bias), ReLU("relu6"), *dropout("drop6"),
        linear("fc7", F7, std=std67, bias=bias), ReLU("relu7"), *dropout("drop7"),
        Linear("fc8", classes, std=std, bias_rate=bias_rate, bias_anneal=bias_anneal), SoftmaxLoss("loss"),
    ]
    gone = () if without is None else (without, without.replace("conv", "relu"))
    return [layer for layer in net if layer.name not in gone]


def _share(name: str, count: int, width: float) -> int:
    """`width` of `count` maps; a fraction such as 1/3 may be a rounding away from a whole number."""
    exact = float(count * width)
    share = round(exact)
    if share < 1 or abs(share - exact) > 1e-6:
        raise ShapeError(f"{name}: {float(width):g} of {count} maps is {exact:g}, not a whole number; use a width such as 1/2 or 1/8")
    return share


# The paper's text, and what it leaves open.
PAPER = Recipe(
    "paper", "what the text says", alexnet,
    differs=(
        "224 pixels and windows of 11 at 4 give no whole number: the last window hangs 3 pixels over the right and bottom edge",
        "weight decay: the text is silent on biases; they have none",
        "the rate falls when the validation error has not gained 0.1 point for 3 epochs: the text gives no numbers",
        "mean image: the text says per pixel; it is aligned with the crop and subtracted before the flip",
        "colour noise: the text's eigenvalues are taken as standard deviations, their square roots",
        "the four corners at test lie at 0 and 32, though training offsets end at 31 (32 x 32 positions)",
        "max-pool gradient: the text is silent; the first maximum in row order gets it",
        "top-k under ties and the order of an epoch: the text is silent; by index, and a keyed permutation",
    ))

# Network 145 as it was run for table 2.
SOURCE2012 = Recipe(
    "source2012", "the 2012 program's network 145 as it was run",
    partial(alexnet, order1="lrn-pool-relu", order2="relu-lrn-spatial-pool", order5="pool-relu", ties="all", lrn_divide_by_n=True,
            std345=0.03, bias_rate=2.0, bias_anneal=False),
    epochs=91, ties="fractional",
    schedule=Steps(at=(25, 51, 79), layer_rates=((67, "conv1", 1e-5), (72, "conv1", 0.0))),
    augmentation=Augmentation(inclusive=True, chunk=32, colour_until=67, noisy_scale=1 / 1.1, mean_at="centre", order="fixed"),
    differs=(
        "after conv1: LRN on the linear output, pool, ReLU (paper: ReLU, LRN, pool)",
        "after conv2: a response norm over 5 x 5 of the same map between LRN and pool",
        "after conv5: pool, then ReLU",
        "LRN divides alpha by n: 2e-5 (paper: 1e-4)",
        "conv3, conv4 and conv5 start from N(0, .03) (paper: .01)",
        "biases learn at 2x the first rate, for ever (paper: the weights' rate)",
        "one crop and flip for 32 images (paper: for one)",
        "33 x 33 offsets, 0 to 32 (paper: 32 x 32)",
        "the mean image's centre crop is subtracted from every crop (paper: aligned)",
        "(x + noise) / 1.1 while colour noise is on, and off from epoch 67 (paper: x + noise to the end)",
        "conv1 learns at 1e-5 from epoch 67 and not at all from epoch 72 (paper: to the end)",
        "every tied maximum of a pool gets the gradient (paper: the first)",
        "top-k gives fractional credit under ties (paper: by index)",
        "the same fixed order every epoch (paper: shuffled)",
        "the rate falls at epochs 25, 51 and 79 and training stops at 91 (paper: by validation error)",
    ))

# `SOURCE2012.but(**ILSVRC2010)`: the same program's schedule on the 2010 pictures (table 1).
ILSVRC2010 = dict(
    epochs=93, schedule=Steps(at=(23, 51, 78)),
    augmentation=Augmentation(inclusive=True, chunk=32, colour_until=68, noisy_scale=1 / 1.1, mean_at="centre", order="fixed"))

ONEGPU = Recipe(
    "onegpu", "the half network of section 3.2: one column",
    partial(alexnet, columns=1, maps=(48, 128, 192, 192, 256)),
    differs=("one column: half the maps up to conv4; conv5 and the hidden layers stay as wide as both columns",))

TALKLESS = Recipe(
    "talkless", "network 150: columns that never talk before fc8",
    partial(alexnet, maps=(96, 320, 384, 384, 256), hidden=(8192, 4096), both=("fc8",)),
    differs=(
        "conv3, fc6 and fc7 read their own column (paper: both)",
        "conv2 has 160 maps a column (paper: 128) and fc6 4096 values a column (paper: 2048)",
    ))

CONV6 = Recipe(
    "conv6", "the pre-training network: a sixth convolution over the last pool",
    partial(alexnet, conv6=True, both=(*BOTH, "conv6")), classes=21841,
    differs=("a sixth convolution, 128 + 128 maps of 3 x 3 that read both columns, N(0, .03), bias 1, lies over the last pool",))

CAFFE = Recipe(
    "caffe", "BVLC AlexNet, for imported weights",
    partial(alexnet, columns=1, groups=2, pad1=0, lrn_k=1.0, lrn_divide_by_n=True, inverted_dropout=True,
            std67=0.005, bias=0.1, bias_rate=2.0),
    crop=227, batch=256, schedule=Steps(at=(20, 40, 60, 80)),
    augmentation=Augmentation(inclusive=True, colour_std=0.0, order="fixed"),
    differs=(
        "crops of 227 without padding (paper: 224, padded by 3 after)",
        "one column; conv2, conv4 and conv5 in two groups; LRN windows run over all channels",
        "LRN divides alpha by n and k is 1 (paper: 1e-4 and 2)",
        "dropout is inverted: scaled in training, nothing at test (paper: the reverse)",
        "biases start at .1 (paper: 1) and learn at 2x; fc6 and fc7 start from N(0, .005)",
        "batch 256, the rate falls every 20 epochs, no colour noise, offsets 0 to 29, a fixed order",
        "published weights were learnt on BGR: their first kernels must be turned round, since this net reads RGB",
    ))


if __name__ == "__main__":
    import sys

    from .table import main

    sys.exit(main(sys.argv[1:]))
