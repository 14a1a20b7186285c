"""minialex features: what a layer makes of the pictures of a split."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..flags import machine_flags, path, whole


def main(options: argparse.Namespace) -> None:
    """Write what a layer makes of pictures, and short codes of it."""
    from .. import rundir
    from ..data import locate, store_of
    from ..evaluate import validation_split
    from ..predict import trained
    from ..progress import Progress
    from ..retrieval import train_codes, write_features
    from ..retrieval.features import layer_of
    from .evaluate import check_files
    check_files(options, "out", "codes_out")
    out = Path(options.out)
    codes = Path(options.codes_out or out.with_suffix(".codes.safetensors"))
    model = trained(options.checkpoint, device=options.device, batch=options.batch, workers=options.workers)
    layer_of(model, options.layer)
    found = locate(options.data or model.config.data, options.quiet)
    rundir.same_classes(model.path, {"classes": model.classes}, found)
    folder = options.store or (None if options.data else model.config.store)
    store = store_of(found, model.mean.shape[0], folder=folder, workers=options.workers, quiet=options.quiet)
    split = validation_split(store) if options.split == "val" else store.split(options.split)
    progress = Progress(len(split), quiet=options.quiet)
    made = write_features(model, store, split, out, options.layer,
                          progress=lambda done, total: progress.update(done, f"features {done}/{total}"))
    progress.close()
    if not options.quiet:
        print(f"{out}: {len(made.features):,} x {made.features.shape[1]:,} of {made.metadata['layer']}, {split.name} pictures")
    if options.codes:
        coder = train_codes(made.features, bits=options.codes, seed=options.seed,
                            progress=lambda epoch, loss: progress.say(f"codes: epoch {epoch}, mean squared error {loss:.4f}"))
        coder.save(codes, {"features": out.name, "weights": made.metadata["weights"], "layer": made.metadata["layer"]})
        if not options.quiet:
            print(f"{codes}: {coder.bits} bits a picture; minialex retrieve PICTURE --index {out} --codes {codes}")


def add(verbs) -> None:
    p = verbs.add_parser("features", help="write a layer's values for retrieval", description=main.__doc__)
    group = p.add_argument_group("what to look at")
    group.add_argument("checkpoint", type=path, metavar="CHECKPOINT", help="a checkpoint file or a run directory (its best checkpoint)")
    group.add_argument("data", nargs="?", type=path, metavar="DATA", help="as for train (default: what the checkpoint was trained on)")
    group.add_argument("--layer", metavar="NAME", help="which layer (default: the last hidden one, as the classifier reads it)")
    group.add_argument("--split", choices=("train", "val", "test"), default="train", help="which pictures (default: train)")
    group.add_argument("--store", type=path, metavar="DIR", help="where DATA is prepared to (default: stores/NAME-FINGERPRINT-SIZE)")
    group.add_argument("-b", "--batch-size", dest="batch", type=whole(1), default=128, metavar="N", help="pictures a pass (default: 128)")
    machine_flags(p)
    group = p.add_argument_group("output")
    group.add_argument("--out", type=path, required=True, metavar="FILE", help="the feature file, safetensors (no default)")
    group.add_argument("--codes", type=whole(64), metavar="BITS",
                       help="also train an autoencoder to codes of so many bits, a multiple of 64 (default: no codes)")
    group.add_argument("--codes-out", type=path, metavar="FILE", help="where the coder is kept (default: FILE.codes.safetensors)")
    group.add_argument("--seed", type=whole(0, 2**64 - 1), default=0, metavar="N", help="of the autoencoder (default: 0)")
    group.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors (default: progress)")
    p.set_defaults(run=main)
