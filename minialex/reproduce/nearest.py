"""The nearest pictures by the last hidden layer, by raw pixels and by short codes (paper, section 6.1; figure 4, right)."""

from __future__ import annotations

from functools import partial

import numpy as np

from .. import figures
from ..data import Split, Store
from ..evaluate import validation_split
from ..retrieval import Codes, features_of, hamming_nearest, hyperplanes, nearest, recall, train_codes
from .ablations import arm
from .arms import Outcome
from .experiment import Experiment, Found, Steps
from .lab import Lab, network, paired_values
from .result import Interval, Row

NEIGHBOURS, QUERIES, BITS = 6, 5, 128
CANDIDATES = 60             # nearest codes among which the exact neighbours are looked for


def _pictures(lab_store: str) -> tuple[Store, Split, Split]:
    store = Store(lab_store)
    return store, store.split("train"), validation_split(store)


def _features(outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    """Of the training and the validation pictures, the last hidden layer."""
    model = network(outcome)
    _, train, val = _pictures(outcome.run.data)
    return tuple(np.concatenate([features_of(model, split.read(np.arange(start, min(start + 500, len(split)))))
                                 for start in range(0, len(split), 500)]) for split in (train, val))


def _raw(store: Store, split: Split) -> np.ndarray:
    pictures = split.read(np.arange(len(split))).astype(np.float32)
    return (pictures - store.mean).reshape(len(split), -1)


def share_of_class(indices: np.ndarray, of: np.ndarray, queries: np.ndarray) -> float:
    """Per cent of the neighbours that are of their query's class."""
    return 100 * float((of[indices] == queries[:, None]).mean())


def _steps_retrieval(lab: Lab) -> Steps:
    base = arm(lab)
    found = yield {"base": base}
    store, train, val = _pictures(base.data)
    raw = nearest(_raw(store, val), _raw(store, train), NEIGHBOURS)[0]
    by_pixels = share_of_class(raw, train.labels, val.labels)
    by_layer, first = [], None
    for outcome in found["base"].outcomes:
        own, asked = _features(outcome)
        indices = nearest(asked, own, NEIGHBOURS)[0]
        first = indices if first is None else first
        by_layer.append(share_of_class(indices, train.labels, val.labels))
    chosen = np.unique(np.linspace(0, len(val) - 1, QUERIES + 2).astype(int))[1:-1]
    names = [c.name for c in store.classes]
    rows = [(picture, [(label, _neighbours(train, indices[index], names, val.labels[index]))
                       for label, indices in (("last hidden layer", first), ("raw pixels", raw))])
            for picture, index in zip(val.read(chosen), chosen, strict=True)]
    measured = {"layer": Interval.of(by_layer), "pixels": Interval.of([by_pixels]),
                "d": Interval.of([one - by_pixels for one in by_layer])}
    note = (f"For each of {len(val)} validation pictures the {NEIGHBOURS} nearest of {len(train)} training pictures, Euclidean. The "
            f"picture shows {len(chosen)} queries, spread evenly over the split, for seed 0.")
    return Found(measured, {"base": base}, [base.data], note, picture=partial(figures.neighbours, rows),
                 seconds=sum(o.seconds for o in found["base"].outcomes))


def _neighbours(train: Split, indices: np.ndarray, names: list[str], label: int) -> list:
    return [(picture, names[train.labels[index]], bool(train.labels[index] == label))
            for picture, index in zip(train.read(indices), indices, strict=True)]


def _steps_codes(lab: Lab) -> Steps:
    base = arm(lab)
    found = yield {"base": base}
    _, train, val = _pictures(base.data)
    table = {word: {"recall": [], "share": []} for word in ("autoencoder", "hyperplanes")}
    exact = []
    for outcome in found["base"].outcomes:
        own, asked = _features(outcome)
        truth = nearest(asked, own, NEIGHBOURS)[0]
        exact.append(share_of_class(truth, train.labels, val.labels))
        coders: dict[str, Codes] = {"autoencoder": train_codes(own, bits=BITS, seed=outcome.run.seed),
                                    "hyperplanes": hyperplanes(own, bits=BITS, seed=outcome.run.seed)}
        for word, coder in coders.items():
            close = hamming_nearest(coder.encode(asked), coder.encode(own), CANDIDATES)[0]
            table[word]["recall"].append(100 * recall(close, truth))
            table[word]["share"].append(share_of_class(close[:, :NEIGHBOURS], train.labels, val.labels))
    learnt, random = table["autoencoder"], table["hyperplanes"]
    measured = {"recall": Interval.of(learnt["recall"]), "share": Interval.of(learnt["share"]), "exact": Interval.of(exact)}
    more = [Row("the same with random hyperplanes of as many bits: exact neighbours found", "%", None, Interval.of(random["recall"])),
            Row("codes learnt against random hyperplanes, exact neighbours found", "points", None,
                paired_values(random["recall"], learnt["recall"]))]
    note = (f"{BITS} bits. Found: the {NEIGHBOURS} nearest by the last hidden layer, looked for among the {CANDIDATES} nearest by Hamming "
            "distance. Time against exact search: python -m minialex.bench retrieval.")
    bars = {"exact search, last hidden layer": measured["exact"], f"codes of {BITS} bits": measured["share"],
            "random hyperplanes": Interval.of(random["share"])}
    picture = partial(figures.bars, [(word, one.mean, one.low, one.high) for word, one in bars.items()],
                      xlabel=f"neighbours of the query's class, of {NEIGHBOURS}, %", title="Short binary codes (section 6.1)")
    return Found(measured, {"base": base}, [base.data], note, more=more, picture=picture,
                 seconds=sum(o.seconds for o in found["base"].outcomes))


EXPERIMENTS = (
    Experiment("fig4-retrieval", "Nearest pictures", "figure 4 right, 6.1",
               "Pictures near each other in the last hidden layer are alike in content, where raw pixels are often not.",
               {"layer": Row(f"of the {NEIGHBOURS} nearest by the last hidden layer, of the query's class", "%"),
                "pixels": Row(f"of the {NEIGHBOURS} nearest by raw pixels, of the query's class", "%"),
                "d": Row("last hidden layer against raw pixels", "points", "more alike")}, _steps_retrieval, expected={"d": +1}),
    Experiment("codes", "Short binary codes", "6.1",
               "An autoencoder could make Euclidean search efficient by compressing to short binary codes.",
               {"recall": Row("exact neighbours found by codes", "%"), "share": Row("of the nearest by codes, of the query's class", "%"),
                "exact": Row("of the nearest by exact search, of the query's class", "%")}, _steps_codes),
)
