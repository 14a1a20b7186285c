"""The paper's figures of one network: its first kernels, and what it says of pictures (section 6.1)."""

from __future__ import annotations

from functools import partial

import numpy as np

from .. import figures
from ..checkpoint import load
from ..data import Store
from ..evaluate import validation_split
from ..figures.filters import colourfulness
from .ablations import arm
from .experiment import Experiment, Found, Steps
from .lab import Lab, network, predicted
from .result import Interval, Row

DIVISIONS = 2000            # random divisions of the kernels into two columns, to judge the real one by


# ---------------------------------------------------------------- figure 3
def gap_beyond_chance(w: np.ndarray, columns: int = 2, seed: int = 0) -> tuple[np.ndarray, float]:
    """(mean colourfulness of each column, how much further apart they are than kernels dealt into columns at random, on average).

    w is (K, R, S, 3), the first column's kernels first.
    """
    own = colourfulness(w, columns).ravel()
    means = own.reshape(columns, -1).mean(1)
    rng = np.random.default_rng(seed)
    dealt = rng.permuted(np.tile(own, (DIVISIONS, 1)), axis=1).reshape(DIVISIONS, columns, -1).mean(2)
    return means, float(np.ptp(means) - np.ptp(dealt, axis=1).mean())


def _steps_fig3(lab: Lab) -> Steps:
    wide = arm(lab, "maps=(384, 256, 384, 384, 256)") if lab.quick else arm(lab)
    found = yield {"network": wide}
    kernels = [load(network(o).path)[0]["w/conv1.w"] for o in found["network"].outcomes]
    judged = [gap_beyond_chance(w) for w in kernels]
    ordered = [np.sort(means) for means, _ in judged]           # which column becomes which differs from seed to seed
    measured = {"grey": Interval.of([m[0] for m in ordered]), "colour": Interval.of([m[-1] for m in ordered]),
                "beyond": Interval.of([beyond for _, beyond in judged])}
    note = (f"{len(kernels[0])} kernels of {kernels[0].shape[1]} x {kernels[0].shape[2]}. Colourfulness is the share of a kernel's energy "
            "off the grey axis: 0 for a grey kernel, 1 for one without brightness. Chance is the mean gap over "
            f"{DIVISIONS} random divisions of the same kernels.")
    return Found(measured, {"network": wide}, [wide.data], note, picture=lambda path: figures.filters(kernels[0], path, columns=2),
                 seconds=sum(o.seconds for o in found["network"].outcomes), publishable=True)


# ---------------------------------------------------------------- figure 4, left
def _steps_fig4_left(lab: Lab) -> Steps:
    base = arm(lab)
    found = yield {"base": base}
    told = [predicted(o) for o in found["base"].outcomes]
    first, split = told[0], validation_split(Store(base.data))
    chosen = np.unique(np.linspace(0, len(split) - 1, 8).astype(int))
    pictures = split.read(chosen)
    examples = []
    for image, index in zip(pictures, chosen, strict=True):
        p = first.probabilities[index]
        best = np.argsort(-p, kind="stable")[:5]
        examples.append((image, first.names[split.labels[index]], [(first.names[k], float(p[k])) for k in best]))
    measured = {"first": Interval.of([100 - one.metrics().top1 for one in told]),
                "five": Interval.of([100 - one.metrics().top5 for one in told])}
    note = "Eight validation pictures spread evenly over the split, with seed 0's five most probable labels; the right one is red."
    return Found(measured, {"base": base}, [base.data], note, picture=partial(figures.predictions, examples),
                 seconds=sum(o.seconds for o in found["base"].outcomes))


EXPERIMENTS = (
    Experiment("fig3", "First kernels of two columns", "figure 3, 6.1",
               "One column becomes largely colour-blind, the other colour-specific, in every run.",
               {"grey": Row("colourfulness of the greyer column", "", "colour-agnostic"),
                "colour": Row("colourfulness of the more colourful column", "", "colour-specific"),
                "beyond": Row("gap between the columns beyond that of a random division", "", "every run")}, _steps_fig3,
               expected={"beyond": +1}),
    Experiment("fig4-predictions", "Five most probable labels", "figure 4 left, 6.1",
               "Most of the five labels are reasonable, also where the object is off-centre.",
               {"first": Row("right label is the first of the five", "%"), "five": Row("right label is among the five", "%")},
               _steps_fig4_left),
)
