"""minialex retrieve: the pictures nearest to others."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..flags import machine_flags, output_flags, path, whole
from ..spec import MiniAlexError


def main(options: argparse.Namespace) -> None:
    """Find the pictures of a feature file nearest to others (figure 4)."""
    import numpy as np

    from .. import figures, rundir
    from ..predict import pictures_of, trained
    from ..retrieval import Codes, FeatureFile, features_of, hamming_nearest, nearest
    from ..retrieval.features import pictures_behind
    from .predict import check_figure
    if options.figure:
        check_figure(Path(options.figure))
    index = FeatureFile.open(options.index)
    if options.k > len(index.features):
        raise MiniAlexError(f"-k {options.k}: {options.index} holds {len(index.features)} pictures; ask for fewer")
    coder = None
    if options.codes:
        coder, about = Codes.load(options.codes)
        if about.get("weights") != index.metadata["weights"] or about.get("layer") != index.metadata["layer"]:
            raise MiniAlexError(f"--codes {options.codes}: made from other features than {options.index}; write both again: "
                                f"minialex features CHECKPOINT --out {options.index} --codes 128")
    model = trained(options.checkpoint or rundir.newest("--checkpoint"), device=options.device, batch=16, workers=options.workers)
    layer = index.must_be_of(model)
    images = pictures_of(model, [Path(p) for p in options.pictures])
    asked = features_of(model, images, layer)
    if coder:
        rows, distances = hamming_nearest(coder.encode(asked), coder.encode(index.features), options.k)
    else:
        rows, distances = nearest(asked, index.features, options.k)
    names = [index.names[label] for label in index.labels]
    found = {name: [{"row": int(r), "class": names[r], "distance": round(float(d), 4)} for r, d in zip(own, far, strict=True)]
             for name, own, far in zip(options.pictures, rows, distances, strict=True)}
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        unit = f"bits of {coder.bits}" if coder else f"distance in {layer}"
        for name, near in found.items():
            print(f"{name}  ({unit})")
            for one in near:
                print(f"  {one['distance']:>10g}  picture {one['row']:<7} {one['class']}")
    if options.figure:
        split, mean = pictures_behind(index)
        raw = nearest((images - mean).reshape(len(images), -1).astype(np.float32), _flat(split, mean), options.k)[0]
        drawn = [(image, [(way, [(picture, names[r], False) for picture, r in zip(split.read(own[i]), own[i], strict=True)])
                          for way, own in ((layer if not coder else f"{coder.bits} bits", rows), ("raw pixels", raw))])
                 for i, image in enumerate(images)]
        figures.neighbours(drawn, options.figure)
        if not options.json:
            print(f"picture: {options.figure}")


def _flat(split, mean):
    """Raw pixels less the mean, (n, D) float32."""
    import numpy as np
    pixels = split.read(np.arange(len(split))).astype(np.float32)
    pixels -= mean
    return pixels.reshape(len(split), -1)


def add(verbs) -> None:
    p = verbs.add_parser("retrieve", help="the pictures nearest to others", description=main.__doc__)
    group = p.add_argument_group("what to look for")
    group.add_argument("pictures", nargs="+", type=path, metavar="QUERY", help="JPEG or PNG files")
    group.add_argument("--index", type=path, required=True, metavar="FILE", help="a feature file of minialex features (no default)")
    group.add_argument("--checkpoint", type=path, metavar="PATH",
                       help="the network the features are of: a checkpoint or a run directory (default: the newest run under runs/)")
    group.add_argument("--codes", type=path, metavar="FILE",
                       help="search by Hamming distance of these codes (default: exactly, by Euclidean distance)")
    group.add_argument("-k", type=whole(1), default=6, metavar="K", help="neighbours (default: 6, the paper's)")
    machine_flags(p)
    group = output_flags(p)
    group.add_argument("--figure", type=path, metavar="PNG",
                       help="also draw queries and neighbours, with those by raw pixels below (default: no file)")
    p.set_defaults(run=main)
