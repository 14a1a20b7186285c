"""The network with one thing changed: columns, norms, pools, depth, biases, augmentation, dropout, decay (paper, sections 3 to 5, 7).

Every arm is the base recipe with a difference.  At quick the base is `small` on a user's photographs or the embedded pictures, at full
`source2012`, the network whose run notes give the gold numbers.  Arms share seeds, so differences are taken seed by seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..figures.arms import Curve, Difference
from ..figures.arms import arms as draw_arms
from .arms import Arm, Measured
from .experiment import Experiment, Found, Steps
from .lab import Lab, paired
from .result import Interval, Row

CLASSES = 20                # at most, of a user's photographs at quick


@dataclass(frozen=True)
class Budget:
    """What a run at quick may cost: at most so many training and validation pictures of each class, learnt from `images` times in all."""

    per_class: int
    val_per_class: int
    images: int

    def epochs(self, pictures: int) -> int:
        return max(2, round(self.images / pictures))


# How the program's schedule for the ILSVRC-2010 pictures differs (nets.alexnet.ILSVRC2010).
YEAR = {2010: "colour_until=68, epochs=93, steps=(23, 51, 78)", 2012: ""}

# The embedded pictures are learnt within 7,000 uses if there are 3,600 of them: with few, arms still differ.
PHOTOGRAPHS, FEW_PHOTOGRAPHS = Budget(500, 50, 24_000), Budget(50, 50, 18_000)
EMBEDDED, FEW_EMBEDDED = Budget(30, 50, 7200), Budget(15, 50, 5400)


def budget(lab: Lab, few: bool = False) -> Budget:
    """`few` is where overfitting is looked at."""
    if lab.pictures is None:
        return FEW_EMBEDDED if few else EMBEDDED
    return FEW_PHOTOGRAPHS if few else PHOTOGRAPHS


def arm(lab: Lab, words: str = "", *, few: bool = False, seeds: int = 3, year: int = 2012) -> Arm:
    """The base recipe with the differences `words`, on all pictures or on a few of each class."""
    if not lab.quick:
        words = ", ".join(filter(None, [words, YEAR[year]]))
        return Arm(f"source2012({words})" if words else "source2012", lab.photographs(256), 93 if year == 2010 else 91, lab.seeds_of(seeds))
    cost = budget(lab, few)
    data = lab.photographs(56, most_classes=CLASSES, per_class=cost.per_class, val_per_class=cost.val_per_class)
    epochs = cost.epochs(lab.count(data))
    return Arm(small(epochs, words), data, epochs, lab.seeds_of(seeds))


def small(epochs: int, words: str = "") -> str:
    """The base at quick with the differences `words`.  Its rate falls for the last quarter, as the paper's does: else the last epoch
    is a matter of luck."""
    return "small(" + ", ".join(filter(None, [f"steps=({max(1, int(0.75 * epochs))},)", words])) + ")"


def compare(lab: Lab, base: Arm, others: dict[str, Arm], judge: Callable[[dict[str, Measured]], dict[str, Interval]], note: Callable,
            ylabel: str = "validation error, %", part: str = "validation", more: Callable = lambda found: [],
            golds: dict[str, float] | None = None, title: str = "", field: str = "top1") -> Steps:
    """Steps of an ablation: trains the base and the others, judges, draws their curves and differences."""
    found = yield {"base": base, **others}
    differences = []
    for word in others:
        d = paired(found["base"], found[word], field, part if part != "train" else "fitted")
        differences.append(Difference(word, d.mean, d.low, d.high, (golds or {}).get(word)))
    curves = [Curve(word, [o.curve(field, "train" if part in ("train", "fitted") else "validation") for o in one.outcomes], word != "base")
              for word, one in found.items()]
    seconds = sum(o.seconds for measured in found.values() for o in measured.outcomes)
    return Found(judge(found), {"base": base, **others}, [base.data], note(found, differences), more=more(found),
                 picture=partial(_draw, curves, differences, ylabel, title), seconds=seconds)


def _draw(curves, differences, ylabel, title, path) -> None:
    draw_arms(curves, path, ylabel=ylabel, title=title, differences=differences, against="the base")


def _level(found: dict[str, Measured], word: str, field: str = "top1", part: str = "validation") -> Interval:
    return Interval.of(found[word].values(field, part))


def _sentence(differences: list[Difference]) -> str:
    """What was seen, in words."""
    parts = []
    for one in differences:
        if one.low is None:
            parts.append(f"{one.label}: {one.mean:+.2f} points from one seed, which allows no judgement")
        else:
            parts.append(f"{one.label}: {one.mean:+.2f} points, between {one.low:+.2f} and {one.high:+.2f}")
    return "; ".join(parts)


def ablation(name: str, title: str, section: str, claim: str, words: str, *, word: str, gold: tuple | None = None, few: bool = False,
             base_gold: tuple = (40.6640, 18.2100), year: int = 2012, remark: str = "", text_gold: str | None = None) -> Experiment:
    """An experiment of two arms, judged by the difference of their validation errors.  gold: (top-1, top-5) of the changed network."""
    d1, d5 = (gold[0] - base_gold[0], gold[1] - base_gold[1]) if gold else (text_gold, None)
    rows = {"base": Row("top-1 error of the base network", "%", base_gold[0] if gold else None),
            "other": Row(f"top-1 error {word}", "%", gold and gold[0]),
            "d1": Row(f"difference {word}, top-1", "points", round(d1, 4) if gold else d1),
            "d5": Row(f"difference {word}, top-5", "points", round(d5, 4) if gold else None)}

    def judge(found: dict[str, Measured]) -> dict[str, Interval]:
        base, other = found["base"], found[word]
        measured = {"base": _level(found, "base"), "other": _level(found, word), "d1": paired(base, other, "top1"),
                    "d5": paired(base, other, "top5")}
        return measured

    def more(found: dict[str, Measured]) -> list[Row]:
        base, other = found["base"], found[word]
        rows = [Row(f"difference {word}, validation loss", "nats", None, paired(base, other, "loss")),
                Row(f"difference {word}, error on the training pictures", "points", None, paired(base, other, "top1", "fitted"))]
        return rows

    def steps(lab: Lab) -> Steps:
        def note(found, differences) -> str:
            return f"Validation error against the base network, {_sentence(differences)}. {remark}".strip()
        base, other = (arm(lab, text, few=few, year=year) for text in ("", words))
        return (yield from compare(lab, base, {word: other}, judge, note, more=more, title=title,
                                   golds={word: d1} if gold else None))

    return Experiment(name, title, section, claim, rows, steps, expected={"d1": +1})


def _steps_depth(lab: Lab) -> Steps:
    others = {f"without conv{i}": arm(lab, f'without="conv{i}"') for i in range(1, 6)}

    def judge(found):
        return {word: paired(found["base"], found[word], "top1") for word in others}

    def note(found, differences) -> str:
        return ("Each network is the base without one convolution and its ReLU; without conv1 its norm and pool go too, and conv2 reads "
                f"the picture. Validation error: {_sentence(differences)}.")
    return (yield from compare(lab, arm(lab), others, judge, note, title="Any convolution removed (section 7)"))


def _steps_bias(lab: Lab) -> Steps:
    base, other = arm(lab), arm(lab, "bias=0.0")

    def judge(found):
        pairs = zip(found["base"].outcomes, found["bias 0"].outcomes, strict=True)
        early = [b.curve("loss", "train")[0] - a.curve("loss", "train")[0] for a, b in pairs]
        return {"early": Interval.of(early), "d1": paired(found["base"], found["bias 0"], "top1")}

    def note(found, differences) -> str:
        return ("Bias 1 gives the ReLUs behind conv2, conv4, conv5, fc6 and fc7 positive inputs at the start; the base has it, the other "
                f"arm begins with 0. At the end, validation error: {_sentence(differences)}.")
    return (yield from compare(lab, base, {"bias 0": other}, judge, note, part="train", ylabel="training error, %",
                               title="First biases of 1 and of 0 (section 5)"))


def _steps_decay(lab: Lab) -> Steps:
    word = "without weight decay"

    def judge(found):
        base, other = found["base"], found[word]
        return {"fitted": paired(base, other, "top1", "fitted"), "loss": paired(base, other, "loss", "fitted"),
                "d1": paired(base, other, "top1")}

    def note(found, differences) -> str:
        return ("The claim is about the training error: of the finished networks on their training pictures, without dropout and "
                f"augmentation, {_sentence(differences)}.")
    return (yield from compare(lab, arm(lab), {word: arm(lab, "decay=0.0")}, judge, note, part="fitted", ylabel="training error, %",
                               title="Weight decay and the training error (section 5)"))


def _steps_pooling(lab: Lab) -> Steps:
    word = "pools of 2 every 2"

    def gap(one: Measured) -> list[float]:
        return [o.last("top1") - float(o.fitted["top1"]) for o in one.outcomes]

    def judge(found):
        base, other = found["base"], found[word]
        narrower = Interval.of([b - a for a, b in zip(gap(base), gap(other), strict=True)])
        return {"base": _level(found, "base"), "other": _level(found, word), "d1": paired(base, other, "top1"),
                "d5": paired(base, other, "top5"), "gap": narrower}

    def note(found, differences) -> str:
        return ("Windows of 2 every 2, with conv2 padded by 1 and conv5 by 0, which keeps the maps before fc6 as large. Validation error: "
                f"{_sentence(differences)}. The gap is validation error less error on the training pictures: the claim that overlapping "
                "pools are harder to overfit wants it wider without them.")
    return (yield from compare(lab, arm(lab), {word: arm(lab, "pool=2")}, judge, note, golds={word: 0.39},
                               title="Overlapping pools (section 3.4)"))


ONEGPU = "columns=1, maps=(48, 128, 192, 192, 256)"
TALKLESS = "both=('fc8',), hidden=(8192, 4096), maps=(96, 320, 384, 384, 256)"

EXPERIMENTS = (
    ablation("onegpu", "One column of half size", "3.2", "Two columns err less than one of half as many maps: by 1.7 and 1.2 points.",
             ONEGPU, word="with one column", gold=(39.1680, 18.2287), base_gold=(37.4727, 16.9987), year=2010),
    ablation("talkless", "Columns that never talk", "3.2, network 150", "Columns that read each other in conv3, fc6 and fc7 err less.",
             TALKLESS, word="without talking", gold=(41.8280, 19.3300)),
    Experiment("bias1", "First biases of 1", "5", "Biases of 1 speed up the early stages of learning.",
               {"early": Row("training loss of the first epoch with bias 0, less with bias 1", "nats", "faster with 1"),
                "d1": Row("difference with bias 0 at the end, top-1", "points")}, _steps_bias, expected={"early": +1}),
    ablation("lrn", "Without the norm layers", "3.3, network 148", "Local response normalisation lowers the error by 1.4 and 1.2 points.",
             "lrn=False", word="without norms", gold=(42.0340, 19.3620)),
    Experiment("pooling", "Pools that do not overlap", "3.4, network 147",
               "Overlapping pools err less, by .4 and .3 points, and are slightly harder to overfit.",
               {"base": Row("top-1 error of the base network", "%", 40.6640),
                "other": Row("top-1 error with pools of 2 every 2", "%", 41.0580),
                "d1": Row("difference with pools of 2 every 2, top-1", "points", 0.394),
                "d5": Row("difference with pools of 2 every 2, top-5", "points", 0.3),
                "gap": Row("wider gap between training and validation error", "points", "slightly wider")}, _steps_pooling,
               expected={"d1": +1, "gap": +1}),
    ablation("augmentation", "Without crops and flips", "4.1", "Without them the network suffers from substantial overfitting.",
             "crops=False, flips=False", word="without crops and flips", few=True, text_gold="heavy overfitting",
             remark="Run on a few pictures of each class, where overfitting shows within a short run."),
    ablation("colour", "Without colour noise", "4.1",
             "Noise along the principal components of the colours lowers the top-1 error by over 1 point.",
             "colour_std=0.0", word="without colour noise", few=True, text_gold="> 1",
             remark="Run on a few pictures of each class, where overfitting shows within a short run."),
    ablation("dropout", "Without dropout", "4.2",
             "Without dropout the network overfits substantially; with it, it takes about twice as many iterations.",
             "keep=1.0", word="without dropout", few=True, text_gold="heavy overfitting",
             remark="Run on a few pictures of each class. Dropout also slows learning, by about two as the paper says: within a short run "
                    "the network without it may still be ahead, which does not contradict the claim about the end."),
    Experiment("weight-decay", "Without weight decay", "5", "Weight decay is not merely a regulariser: it lowers the training error.",
               {"fitted": Row("difference without decay, error on the training pictures", "points", "worse"),
                "loss": Row("difference without decay, loss on the training pictures", "nats", "worse"),
                "d1": Row("difference without decay, validation top-1", "points")}, _steps_decay, expected={"fitted": +1}),
    Experiment("depth", "Any convolution removed", "1, 7",
               "Removing any convolution makes the network worse; a middle one by about 2 points.",
               {f"without conv{i}": Row(f"difference without conv{i}, top-1", "points", 2.0 if i in (2, 3, 4) else "worse")
                for i in range(1, 6)}, _steps_depth, expected={f"without conv{i}": +1 for i in range(1, 6)}),
)
