"""Tables 1 and 2, and what stands around them: crops, averaged networks, pre-training, the half-and-half split of Fall-2009 (section 6)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from ..figures.arms import Curve, Difference
from ..figures.arms import arms as draw_arms
from ..predictions import Predictions, average, errors, search
from .ablations import CLASSES, arm, budget, small
from .arms import Arm, Measured
from .experiment import Experiment, Found, Steps
from .lab import Lab, Missing, paired, predicted
from .result import Interval, Row

SIXTH = "both=('conv3', 'conv6', 'fc6', 'fc7', 'fc8'), conv6=True"


def _seconds(found: dict[str, Measured]) -> float:
    return sum(o.seconds for one in found.values() for o in one.outcomes)


def _errors(p: Predictions) -> tuple[float, float]:
    return errors(p.probabilities, p.labels, p.ties)


def _intervals(several: list[tuple[float, float]]) -> list[Interval]:
    """Of top-1 and of top-5."""
    return [Interval.of(column) for column in zip(*several, strict=True)]


def _minus(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> list[Interval]:
    return _intervals([(a[0] - b[0], a[1] - b[1]) for a, b in zip(one, other, strict=True)])


# ---------------------------------------------------------------- table 1
def _steps_table1(lab: Lab) -> Steps:
    base = arm(lab, year=2010)
    found = yield {"base": base}
    centre, ten = ([_errors(predicted(o, views)) for o in found["base"].outcomes] for views in ("centre", "ten"))
    measured = dict(zip(("c1", "c5", "t1", "t5", "d1", "d5"), _intervals(centre) + _intervals(ten) + _minus(ten, centre), strict=True))
    d = measured["d1"]
    picture = partial(draw_arms, [Curve("base, centre crop", [o.curve("top1") for o in found["base"].outcomes])],
                      ylabel="validation error, %", title="Ten crops against one (table 1, section 4.1)", against="centre crop",
                      differences=[Difference("ten crops", d.mean, d.low, d.high, 37.4727 - 39.0247)])
    return Found(measured, {"base": base}, [base.data], "Ten crops: the four corners, the centre and their mirror images, the mean of ten "
                 "softmax outputs. The curve on the left is of the centre crop.", picture=picture, seconds=_seconds(found))


# ---------------------------------------------------------------- table 2, pre-training, averaging
def _half(lab: Lab, which: int, words: str = "", *, seeds: int, init: Arm | None = None) -> Arm:
    """A network on every second class: the task (which=1), or the other classes that pre-training may see (which=0)."""
    everything = lab.photographs(56, most_classes=CLASSES)
    cost = budget(lab)
    data = lab.photographs(56, classes=lab.classes(everything)[which::2], per_class=cost.per_class, val_per_class=cost.val_per_class)
    epochs = cost.epochs(2 * lab.count(data))                   # as many as with all classes
    return Arm(small(epochs, words), data, epochs, lab.seeds_of(seeds), init=init)


def contestants(lab: Lab) -> dict[str, Arm]:
    """Five networks, and three that were pre-trained, with a sixth convolution, on pictures of other classes."""
    if lab.quick:
        before = _half(lab, 0, SIXTH, seeds=3)
        return {"CNN": _half(lab, 1, seeds=5), "pre-training": before, "CNN*": _half(lab, 1, SIXTH, seeds=3, init=before)}
    if lab.other is None:
        raise Missing("needs the pictures of ImageNet Fall-2011 to pre-train on: name them with --other; --scale quick pre-trains on half "
                      "of the classes of any pictures")
    data, other = lab.photographs(256), lab.others(256)
    before = Arm("conv6", other, 90, (0, 1))
    after = Arm("conv6", data, 90, (0, 1), init=before)
    return {"CNN": Arm("source2012", data, 91, tuple(range(5))), "pre-training": before, "CNN*": after}


def _steps_table2(lab: Lab) -> Steps:
    asked = contestants(lab)
    found = yield asked
    plain, star = ([predicted(o) for o in found[word].outcomes] for word in ("CNN", "CNN*"))
    rows = {"1": [_errors(p) for p in plain], "5": [_errors(average(plain))], "1*": [_errors(p) for p in star],
            "7*": [_errors(average([*plain, *star[:2]]))]}
    measured = {f"{word} top-{k}": one for word, several in rows.items() for k, one in zip((1, 5), _intervals(several), strict=True)}
    note = ("CNN: five networks that differ in their seed. CNN*: with a sixth convolution, pre-trained on pictures of other classes, "
            "new head, fine-tuned. Averages are over softmax outputs with equal weights. "
            + ("At this scale the task is every second class, and the others are what pre-training sees." if lab.quick else ""))
    picture = partial(draw_arms, [Curve(word, [o.curve("top1") for o in one.outcomes], word != "CNN") for word, one in found.items()],
                      ylabel="validation error, %", title="The networks of table 2")
    return Found(measured, asked, [asked["CNN"].data], note, picture=picture, seconds=_seconds(found))


def _steps_pretrain(lab: Lab) -> Steps:
    asked = contestants(lab)
    found = yield asked
    plain, star = found["CNN"], found["CNN*"]
    measured = {"scratch": Interval.of(plain.values("top1")), "tuned": Interval.of(star.values("top1")),
                "d1": paired(plain, star, "top1"), "d5": paired(plain, star, "top5")}
    d = measured["d1"]
    picture = partial(draw_arms, [Curve(word, [o.curve("top1") for o in found[word].outcomes], word == "CNN*") for word in ("CNN", "CNN*")],
                      ylabel="validation error, %", title="From random weights, and from weights of other classes (section 6)",
                      differences=[Difference("pre-trained", d.mean, d.low, d.high, 38.99 - 40.664)], against="from random weights")
    note = ("The pre-trained network has a sixth convolution over the last pool, as the paper's had; its head is new. Both learn for the "
            "same number of epochs.")
    return Found(measured, asked, [plain.arm.data], note, picture=picture, seconds=_seconds(found))


def _steps_ensemble(lab: Lab) -> Steps:
    asked = {"CNN": contestants(lab)["CNN"]}
    found = yield asked
    several = [predicted(o) for o in found["CNN"].outcomes]
    single, mean = [_errors(p) for p in several], _errors(average(several))
    measured = dict(zip(("d1", "d5"), _minus([mean] * len(single), single), strict=True))
    measured |= {"1": Interval.of([e[0] for e in single]), "5": Interval.of([mean[0]])}
    # Coefficients are searched on every second picture and judged on the others.
    halves = [[_every_second(p, start) for p in several] for start in (0, 1)]
    weights = search(halves[0])
    equal, searched = _errors(average(halves[1])), _errors(average(halves[1], weights))
    more = [Row("searched coefficients against equal ones, on the pictures not searched on, top-1", "points", None,
                Interval.of([searched[0] - equal[0]]))]
    counts = list(range(1, len(several) + 1))
    grown = [_errors(average(several[:n]))[0] for n in counts]
    picture = partial(draw_arms, [Curve("mean of the first n networks", [grown]),
                                  Curve("each network alone", [[e[0] for e in single]], True)],
                      ylabel="validation error, %", xlabel="networks", title="Averaging networks")
    note = f"Coefficients found on half of the pictures: {', '.join(f'{w:.2f}' for w in weights)}."
    return Found(measured, asked, [asked["CNN"].data], note, more=more, picture=picture, seconds=_seconds(found))


def _every_second(p: Predictions, start: int) -> Predictions:
    keep = np.arange(start, len(p), 2)
    return replace(p, probabilities=p.probabilities[keep], labels=p.labels[keep], listed=len(keep))


# ---------------------------------------------------------------- Fall-2009
def _steps_2009(lab: Lab) -> Steps:
    if lab.quick:
        everything = lab.photographs(56, most_classes=CLASSES)
        cost = budget(lab)
        data = lab.photographs(56, classes=lab.classes(everything), per_class=cost.per_class, val_per_class=cost.per_class, halves=True)
        epochs = cost.epochs(lab.count(data))
        one = Arm(small(epochs, SIXTH), data, epochs, lab.seeds_of(3))
    else:
        one = Arm("conv6", lab.halves(256), 90, lab.seeds_of(1))
    found = yield {"conv6": one}
    measured = {"top1": Interval.of(found["conv6"].values("top1")), "top5": Interval.of(found["conv6"].values("top5"))}
    picture = partial(draw_arms, [Curve("validation", [o.curve("top1") for o in found["conv6"].outcomes]),
                                  Curve("training", [o.curve("top1", "train") for o in found["conv6"].outcomes], True)],
                      ylabel="error, %", title="Half to learn from, half to be judged by")
    return Found(measured, {"conv6": one}, [one.data], "Every class's pictures are dealt into two halves, one to each in turn; the network "
                 "has a sixth convolution.", picture=picture, seconds=_seconds(found))


EXPERIMENTS = (
    Experiment("table1", "ILSVRC-2010, one crop and ten", "table 1, 4.1", "The mean over ten crops errs less than the centre crop.",
               {"t1": Row("top-1 error, ten crops", "%", 37.4727), "t5": Row("top-5 error, ten crops", "%", 16.9987),
                "c1": Row("top-1 error, centre crop", "%", 39.0247), "c5": Row("top-5 error, centre crop", "%", 18.2953),
                "d1": Row("ten crops against one, top-1", "points", -1.552), "d5": Row("ten crops against one, top-5", "points", -1.2966),
                "sparse": Row("sparse coding, as printed, top-1 / top-5", "%", "47.1 / 28.2"),
                "sift": Row("SIFT + FV, as printed, top-1 / top-5", "%", "45.7 / 25.7")}, _steps_table1, expected={"d1": -1}),
    Experiment("table2", "ILSVRC-2012, one network and several", "table 2, 6",
               "Five networks averaged err less than one; pre-trained ones less still.",
               {"1 top-1": Row("1 CNN, top-1", "%", 40.6640), "1 top-5": Row("1 CNN, top-5", "%", 18.2100),
                "5 top-1": Row("5 CNNs, top-1", "%", 38.1), "5 top-5": Row("5 CNNs, top-5", "%", 16.4),
                "1* top-1": Row("1 CNN*, top-1", "%", 38.9900), "1* top-5": Row("1 CNN*, top-5", "%", 16.6220),
                "7* top-1": Row("7 CNNs*, top-1", "%", 36.7), "7* top-5": Row("7 CNNs*, top-5 (test 15.3, runner-up 26.2)", "%", 15.4)},
               _steps_table2),
    Experiment("imagenet2009", "Fall-2009, half and half", "6",
               "On 10,184 classes the network errs on 67.4 and 40.9 %; the best before on 78.1 and 60.9.",
               {"top1": Row("top-1 error", "%", 67.4), "top5": Row("top-5 error", "%", 40.9)}, _steps_2009),
    Experiment("pretrain-finetune", "Pre-training on other classes", "6, table 2", "Pre-training lowers the error by 1.7 and 1.6 points.",
               {"scratch": Row("top-1 error from random weights", "%", 40.6640), "tuned": Row("top-1 error, pre-trained", "%", 38.9900),
                "d1": Row("difference with pre-training, top-1", "points", -1.674),
                "d5": Row("difference with pre-training, top-5", "points", -1.588)}, _steps_pretrain, expected={"d1": -1}),
    Experiment("ensemble", "Averaging networks", "6, table 2",
               "The mean of five networks' outputs errs by 2.6 points less than one network.",
               {"1": Row("top-1 error of one network", "%", 40.6640), "5": Row("top-1 error of the mean of five", "%", 38.1),
                "d1": Row("mean of five against one network, top-1", "points", -2.564),
                "d5": Row("mean of five against one network, top-5", "points", -1.81)}, _steps_ensemble, expected={"d1": -1}),
)
