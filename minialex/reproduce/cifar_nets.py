"""What the paper shows on CIFAR-10: ReLU against tanh, and the four-layer networks with and without norms (sections 3.1, 3.3; figure 1)."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from ..figures.arms import Curve, Difference
from ..figures.arms import arms as draw_arms
from ..nets import recipe
from .arms import Arm, Measured, Outcome
from .experiment import Experiment, Found, Steps
from .lab import Lab, paired
from .result import Interval, Row

LEVEL = 25.0                # per cent of training error that figure 1 asks for
PER_CLASS, VAL_PER_CLASS = 500, 100             # 5,000 and 1,000 pictures of CIFAR-10 at quick
EMBEDDED = 100, 25                              # of the embedded pictures' classes, which are learnt sooner
SWEEP_EPOCHS, LIMIT = 4, 40
RATES = {"relu": (0.0003, 0.001, 0.003), "tanh": (0.001, 0.003, 0.01, 0.03), "sigmoid": (0.01, 0.03)}
# Weights of N(0, 1/fan-in) and pixels of about one, as networks are begun since 2012.
SINCE = "fan_in=True, scale=0.015625"
SINCE_RATES = (0.003, 0.01)


def data(lab: Lab) -> str:
    return lab.cifar10(*(EMBEDDED if lab.cifar is None else (PER_CLASS, VAL_PER_CLASS)))


def figure1(lab: Lab, unit: str, rate: float, *, epochs: int = LIMIT, seeds: tuple[int, ...] = (0,), until: float | None = LEVEL,
            words: str = "") -> Arm:
    """The four-layer network: at quick in batches of 32, so that 5,000 pictures give steps enough."""
    words = ", ".join(filter(None, [f"unit={unit!r}", words]))
    return Arm(f"figure1({words})", data(lab), epochs, seeds, 32 if lab.quick else 128, rate, until)


def sweep(lab: Lab, unit: str, **words) -> dict[str, Arm]:
    """A short run at each rate."""
    return {f"{unit} at {rate:g}": figure1(lab, unit, rate, epochs=SWEEP_EPOCHS, until=None, **words) for rate in RATES[unit]}


def best_rate(found: dict[str, Measured], unit: str) -> float:
    """The rate whose short run ends with the least training loss; one that diverged is no candidate."""
    ended = {one.arm.rate: one.outcomes[0].last("loss", "train") for word, one in found.items()
             if word.startswith(unit) and not one.outcomes[0].diverged}
    return min(ended, key=lambda rate: (ended[rate], rate))


def epochs_to(outcome: Outcome, level: float = LEVEL) -> float | None:
    """Epochs until the training error is `level` per cent, between two epochs by a straight line; None where it never is."""
    curve = outcome.curve("top1", "train")
    if not curve or min(curve) > level:
        return None
    if curve[0] <= level:
        return 1.0
    epoch, (before, after) = next((i, pair) for i, pair in enumerate(pairwise(curve), start=1) if pair[1] <= level)
    return epoch + (before - level) / (before - after)


def _steps_fig1(lab: Lab) -> Steps:
    units, seeds = ("relu", "tanh"), lab.seeds_of(5)
    swept = yield {word: arm for unit in units for word, arm in sweep(lab, unit).items()}
    rates = {unit: best_rate(swept, unit) for unit in units}
    arms = {unit: figure1(lab, unit, rates[unit], seeds=seeds) for unit in units}
    since = {f"{unit}, weights by fan-in, at {rate:g}": figure1(lab, unit, rate, words=SINCE) for unit in units for rate in SINCE_RATES}
    found = yield {**arms, **since}
    needed = {unit: [epochs_to(o) for o in found[unit].outcomes] for unit in units}
    measured = {unit: Interval.of(values) for unit, values in needed.items() if None not in values}
    if len(measured) == 2:
        pairs = list(zip(needed["relu"], needed["tanh"], strict=True))
        measured |= {"ratio": Interval.of([b / a for a, b in pairs]), "longer": Interval.of([b - a for a, b in pairs])}
    missed = [f"{unit}: {values.count(None)} of {len(values)} seeds did not reach it within {LIMIT} epochs"
              for unit, values in needed.items() if None in values]
    fastest = {unit: min((e for word, one in found.items() if word.startswith(f"{unit}, ") and (e := epochs_to(one.outcomes[0]))),
                         default=None) for unit in units}
    more = [Row(f"epochs with {unit}, weights by fan-in, pixels of about one", "epochs", None, Interval.of([fastest[unit]]))
            for unit in units if fastest[unit]]
    note = (f"Rates by a sweep of {SWEEP_EPOCHS} epochs: ReLU {rates['relu']:g} of {_list(RATES['relu'])}, tanh {rates['tanh']:g} of "
            f"{_list(RATES['tanh'])}. Weights begin as in the authors' CIFAR files (1e-4 in conv1, .01 above) on pixels of 0 to 255. "
            + ("; ".join(missed) + ". " if missed else "")
            + "How far tanh falls behind depends on that beginning: the last rows show both units with weights of N(0, 1/fan-in) and "
              f"pixels over 64, one seed, the better of the rates {_list(SINCE_RATES)}.")
    curves = [Curve(f"{name} (rate {rates[unit]:g})", [o.curve("top1", "train") for o in found[unit].outcomes], unit == "tanh")
              for unit, name in (("relu", "ReLU"), ("tanh", "tanh"))]
    picture = partial(draw_arms, curves, ylabel="training error, %", level=LEVEL, title="Figure 1: four layers, no regularisation")
    return Found(measured, arms | since, [data(lab)], note, more=more, picture=picture, seconds=_seconds(swept, found))


def _steps_sigmoid(lab: Lab) -> Steps:
    units, seeds = ("relu", "tanh", "sigmoid"), lab.seeds_of(3)
    swept = yield {word: arm for unit in units for word, arm in sweep(lab, unit).items()}
    rates = {unit: best_rate(swept, unit) for unit in units}
    arms = {unit: figure1(lab, unit, rates[unit], epochs=SWEEP_EPOCHS, seeds=seeds, until=None) for unit in units}
    found = yield arms
    measured = {unit: Interval.of(found[unit].values("top1", "train")) for unit in units}
    measured["behind"] = paired(found["relu"], found["sigmoid"], "top1", "train")
    note = (f"Each unit at the best of its rates, {SWEEP_EPOCHS} epochs: " + ", ".join(f"{unit} {rates[unit]:g}" for unit in units) + ". A "
            "sigmoid's slope is at most 1/4, and weights this small leave its output near 1/2 in every map: almost nothing of the picture "
            "and almost no gradient come through.")
    curves = [Curve(f"{unit} (rate {rates[unit]:g})", [o.curve("top1", "train") for o in found[unit].outcomes], unit != "relu")
              for unit in units]
    picture = partial(draw_arms, curves, ylabel="training error, %", title="Units that saturate (section 3.1)")
    return Found(measured, arms, [data(lab)], note, picture=picture, seconds=_seconds(swept, found))


def _list(values) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _seconds(*found: dict[str, Measured]) -> float:
    return sum(o.seconds for one in found for measured in one.values() for o in measured.outcomes)


def schooled(lab: Lab, name: str, seeds: int, epochs: int, words: str = "") -> Arm:
    """A CIFAR network with its schedule; at quick a few epochs of batches of 32 at its first rate."""
    text = f"{name}({words})" if words else name
    if not lab.quick:
        return Arm(text, data(lab), recipe(name).epochs, lab.seeds_of(seeds))
    return Arm(text, data(lab), epochs, lab.seeds_of(seeds), 32)


def _pair(lab: Lab, arms: dict[str, Arm], title: str, note: str, gold: float | None = None) -> Steps:
    """Two networks, the first with norms: their errors, and how much worse the second is."""
    found = yield arms
    (one, with_), (other, without) = found.items()
    d = paired(with_, without, "top1")
    curves = [Curve(word, [o.curve("top1") for o in measured.outcomes], word == other) for word, measured in found.items()]
    picture = partial(draw_arms, curves, ylabel="validation error, %", title=title, against=one,
                      differences=[Difference(other, d.mean, d.low, d.high, gold)])
    measured = {"with": Interval.of(with_.values("top1")), "without": Interval.of(without.values("top1")), "d1": d}
    return Found(measured, arms, [data(lab)], note, picture=picture, seconds=_seconds(found))


def _steps_cifar18(lab: Lab) -> Steps:
    arms = {"cifar18": schooled(lab, "cifar18", 5, 5), "without norms": schooled(lab, "cifar18", 5, 5, "lrn=False")}
    return (yield from _pair(lab, arms, "CIFAR-10, three convolutions, with and without norms",
                             "The norms of this network run over 3 x 3 of the same map and hardly act: their sum is multiplied by 5e-5/9."))


def _steps_cifar11(lab: Lab) -> Steps:
    arms = {"cifar11": schooled(lab, "cifar11", 3, 3), "cifar13, without norms": schooled(lab, "cifar13", 3, 3)}
    return (yield from _pair(lab, arms, "CIFAR-10, four layers with and without LRN",
                             "The networks differ in their norms and, as in the authors' files, in the maps of local3 and the decay of "
                             "fc10.", gold=2.0))


def _steps_cifar13(lab: Lab) -> Steps:
    arms = {"cifar13": schooled(lab, "cifar13", 3, 3)}
    found = yield arms
    curves = [Curve("cifar13, validation", [o.curve("top1") for o in found["cifar13"].outcomes]),
              Curve("cifar13, training", [o.curve("top1", "train") for o in found["cifar13"].outcomes], True)]
    picture = partial(draw_arms, curves, ylabel="error, %", title="CIFAR-10, four layers without norms")
    return Found({"error": Interval.of(found["cifar13"].values("top1"))}, arms, [data(lab)],
                 "Two convolutions and two locally connected layers; ten views averaged at test.", picture=picture, seconds=_seconds(found))


SCALES = ("quick", "cifar")
EXPERIMENTS = (
    Experiment("fig1", "ReLU and tanh", "3.1, figure 1",
               "A four-layer network reaches 25 % training error on CIFAR-10 six times faster with ReLUs than with tanh units.",
               {"relu": Row("epochs to 25 % training error with ReLU", "epochs", 6.0),
                "tanh": Row("epochs to 25 % training error with tanh", "epochs", 36.0),
                "ratio": Row("tanh's epochs over ReLU's", "times", 6.0),
                "longer": Row("epochs tanh needs beyond ReLU", "epochs", 30.0)}, _steps_fig1, expected={"longer": +1}, scales=SCALES),
    Experiment("sigmoid", "Units that saturate", "3.1", "Saturating units learn much more slowly than ReLUs.",
               {"relu": Row("training error with ReLU", "%"), "tanh": Row("training error with tanh", "%"),
                "sigmoid": Row("training error with sigmoid", "%"),
                "behind": Row("training error with sigmoid above that with ReLU", "points", "much slower")}, _steps_sigmoid,
               expected={"behind": +1}, scales=SCALES),
    Experiment("cifar13", "CIFAR-10 without norms", "3.3", "A four-layer network without normalisation errs on 13 % of the test pictures.",
               {"error": Row("test error", "%", 13.0)}, _steps_cifar13, scales=SCALES),
    Experiment("cifar11", "CIFAR-10 with norms", "3.3",
               "Local response normalisation lowers the error of the four-layer network from 13 to 11 %.",
               {"with": Row("test error with LRN", "%", 11.0), "without": Row("test error without", "%", 13.0),
                "d1": Row("difference without norms", "points", 2.0)}, _steps_cifar11, expected={"d1": +1}, scales=SCALES),
    Experiment("cifar18", "The quick CIFAR-10 network with and without norms", "3.3, authors' files",
               "The three-convolution network of the authors' files errs on 18 %; norms help.",
               {"with": Row("test error with norms", "%", 18.0), "without": Row("test error without", "%"),
                "d1": Row("difference without norms", "points")}, _steps_cifar18, expected={"d1": +1}, scales=SCALES),
)
