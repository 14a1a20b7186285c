"""The paper's network at an eighth of the width: `tiny` for tests and for the default demonstration, `small` for experiments on
pictures of 64 pixels, both at home on one or two cores."""

from __future__ import annotations

from functools import partial

from .alexnet import alexnet
from .recipe import Constant, Recipe

# A pre-activation is a sum over inputs, of which there are an eighth: sqrt(8) keeps it at the paper's size.  With .01 the part
# of the logits that depends on the image is 1e-4 of the paper's and nothing learns.  conv1 reads the image, which is not narrower.
STD = 0.01 * 8**0.5

tiny = partial(alexnet, width=1 / 8, std=STD, std1=0.01)

TINY = Recipe(
    "tiny", "the paper's shape at 1/8 of the width", tiny, crop=112, record=128, classes=12, batch=32, epochs=10,
    schedule=Constant(),
    differs=(
        "an eighth of the maps in every layer",
        "behind conv1 weights start from N(0, .0283), so that sums over an eighth of the inputs keep the paper's size (paper: .01)",
        "crops of 112 from records of 128 (paper: 224 from 256) and batches of 32 (paper: 128)",
        "10 epochs at one rate (paper: about 90, the rate divided by ten three times)",
    ))

# conv1 gives 23 x 23, so that pools of 3 every 2 and of 2 every 2 both end at 2 x 2, as both end at 6 x 6 in the paper's network.
SMALL = Recipe(
    "small", "as tiny, for pictures of 64 pixels: experiments on small machines",
    partial(tiny, window1=(7, 2), std=0.05), crop=48, record=56, classes=12, batch=32, epochs=20, schedule=Constant(),
    differs=(
        "an eighth of the maps in every layer; behind conv1 weights start from N(0, .05), with which it learns at once",
        "windows of 7 every 2 in conv1 (paper: 11 every 4) on crops of 48 from records of 56 (paper: 224 from 256), batches of 32",
        "20 epochs at one rate (paper: about 90, the rate divided by ten three times)",
    ))
