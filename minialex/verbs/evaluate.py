"""minialex evaluate: Print the top-1 and top-5 error of a checkpoint on validation pictures."""

from __future__ import annotations

import argparse
import json

from ..flags import machine_flags, output_flags, path, whole


def main(options: argparse.Namespace) -> None:
    """Print the top-1 and top-5 error of a checkpoint on validation pictures."""
    from .. import rundir
    from ..data import locate, store_of
    from ..distributed import my_devices, world
    from ..evaluate import evaluate as run
    from ..evaluate import validation_split
    from ..predict import trained
    from ..progress import Progress
    ranks, workers, batch = world(), options.workers or 2, options.batch or 128
    with ranks.together():
        device = my_devices(options.device or "cpu", ranks.local_rank, ranks.local_size)
        model = trained(options.checkpoint, device=device, batch=max(1, batch // ranks.size), workers=workers,
                        expected=getattr(options, "recipe", None))
    found = ranks.staged(lambda: locate(options.data or model.config.data))
    with ranks.together():
        rundir.same_classes(model.path, {"classes": model.classes}, found)
    quiet, as_json = options.quiet or ranks.rank > 0, getattr(options, "json", False)
    folder = options.store or (None if options.data else model.config.store)
    store = ranks.staged(lambda: store_of(found, model.mean.shape[0], folder=folder, workers=workers, quiet=quiet or as_json))
    which = "ten" if getattr(options, "ten_crops", False) else model.recipe.test_views
    split = store.split(options.split) if getattr(options, "split", None) else validation_split(store)
    progress = Progress(len(split), quiet=quiet or as_json)
    metrics = run(model.net, store, split, model.recipe, which=which, limit=options.limit_batches, mean=model.mean,
                  progress=lambda done, total: progress.update(done, f"evaluate {done}/{total}"))
    progress.close()
    if ranks.rank:
        return
    if as_json:
        print(json.dumps(metrics.as_dict() | {"checkpoint": str(model.path), "split": split.name, "views": which}))
    else:
        print(f"{model.path}: {which} view(s), {split.name} pictures: {metrics}")


def add(verbs) -> None:
    p = verbs.add_parser("evaluate", help="error rates of a checkpoint", description=main.__doc__)
    group = p.add_argument_group("what to evaluate")
    group.add_argument("checkpoint", type=path, metavar="CHECKPOINT", help="a checkpoint file or a run directory (its best checkpoint)")
    group.add_argument("data", nargs="?", type=path, metavar="DATA", help="as for train (default: what the checkpoint was trained on)")
    group.add_argument("--split", choices=("train", "val", "test"), help="which pictures (default: val, or test where there is none)")
    group.add_argument("--store", type=path, metavar="DIR", help="where DATA is prepared to (default: stores/NAME-FINGERPRINT-SIZE)")
    group = p.add_argument_group("how")
    group.add_argument("--ten-crops", action="store_true",
                       help="average corners, centre and their mirror images: paper, section 4.1 (default: as the recipe validates)")
    group.add_argument("-b", "--batch-size", dest="batch", type=whole(1), metavar="N", help="pictures a pass (default: 128)")
    group.add_argument("--limit-batches", type=whole(1), metavar="N", help="at most N batches (default: all)")
    machine_flags(p)
    output_flags(p)
    p.set_defaults(run=main)
