"""Pictures that a network finds alike (the paper's figure 4, right).    python examples/nearest_pictures.py [RUN] [--picture PNG]

Two pictures are alike to the network if their values in its last hidden layer lie close, by Euclidean distance.  RUN is a run directory
or a checkpoint; without one a small network first learns from the embedded pictures, for about half a minute.
"""

import argparse
import sys

import numpy as np

from minialex import figures
from minialex.data import open_store
from minialex.evaluate import validation_split
from minialex.flags import guarded
from minialex.predict import trained
from minialex.retrieval import features_of, nearest
from minialex.train import run

NEIGHBOURS, QUERIES = 6, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", help="a run directory or a checkpoint (default: a new, short run of recipe small)")
    parser.add_argument("--picture", default="nearest_pictures.png")
    parser.add_argument("--batches", type=int, help="a new run of so many batches only, to try it out")
    options = parser.parse_args()
    if options.run is None:
        options.run = run({"recipe": "small", "epochs": 1 if options.batches else 6, "limit_batches": options.batches}).folder

    model = trained(options.run, batch=100)
    store = open_store(model.config.data, model.mean.shape[0], quiet=True)
    train, held_out = store.split("train"), validation_split(store)
    pictures, asked = train.read(np.arange(len(train))), held_out.read(np.arange(len(held_out)))

    ways = {"last hidden layer": (features_of(model, asked), features_of(model, pictures)),         # what fc8 reads
            "raw pixels": tuple((p - store.mean).reshape(len(p), -1) for p in (asked, pictures))}
    found = {}
    for way, (queries, index) in ways.items():
        found[way] = nearest(queries, index, NEIGHBOURS)[0]
        same = train.labels[found[way]] == held_out.labels[:, None]
        print(f"of the {NEIGHBOURS} nearest by {way:<18} {100 * same.mean():5.1f} % are of the query's class")

    chosen = np.linspace(0, len(asked) - 1, QUERIES + 2).astype(int)[1:-1]
    names = [c.name for c in store.classes]
    rows = [(asked[q], [(way, [(pictures[i], names[train.labels[i]], train.labels[i] == held_out.labels[q]) for i in indices[q]])
                        for way, indices in found.items()]) for q in chosen]
    figures.neighbours(rows, options.picture, title="Green: of the query's class")
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    sys.exit(guarded(main))
