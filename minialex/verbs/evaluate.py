"""minialex evaluate: Print the top-1 and top-5 error of a checkpoint on validation pictures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..flags import machine_flags, output_flags, path, whole
from ..spec import MiniAlexError

SHOWN = 10                          # classes that --per-class - prints


def main(options: argparse.Namespace) -> None:
    """Print the top-1 and top-5 error of a checkpoint on validation pictures."""
    import numpy as np

    from .. import predictions, rundir
    from ..data import locate, store_of
    from ..distributed import my_devices, world
    from ..evaluate import evaluate as run
    from ..evaluate import validation_split
    from ..predict import trained
    from ..progress import Progress
    fewer = ("json", "ten_crops", "split", "ties", "save_predictions", "per_class", "submission", "unlabelled", "recipe")    # for train -e
    asked = argparse.Namespace(**dict.fromkeys(fewer) | vars(options))
    ranks, workers, batch = world(), asked.workers or 2, asked.batch or 128
    with ranks.together():
        check_files(asked, "save_predictions", "per_class", "submission")
        check_unlabelled(asked, ranks.size)
        device = my_devices(asked.device or "cpu", ranks.local_rank, ranks.local_size)
        model = trained(asked.checkpoint, device=device, batch=max(1, batch // ranks.size), workers=workers, expected=asked.recipe)
    which = "ten" if asked.ten_crops else model.recipe.test_views
    if asked.unlabelled and not (asked.data or asked.submission):
        return unlabelled(asked, model, None, which)
    quiet = asked.quiet or ranks.rank > 0
    found = ranks.staged(lambda: locate(asked.data or model.config.data, quiet or asked.json))
    with ranks.together():
        rundir.same_classes(model.path, {"classes": model.classes}, found)
    if asked.unlabelled:
        return unlabelled(asked, model, [c.devkit_id for c in found.classes], which)
    folder = asked.store or (None if asked.data else model.config.store)
    store = ranks.staged(lambda: store_of(found, model.mean.shape[0], folder=folder, workers=workers, quiet=quiet or asked.json))
    recipe = model.recipe.but(ties=asked.ties or model.recipe.ties)
    with ranks.together():
        split = store.split(asked.split) if asked.split else validation_split(store)
        if asked.submission:
            most = asked.limit_batches * model.net.batch * ranks.size if asked.limit_batches else len(split)
            predictions.can_be_handed_in(str(store.path), model.classes, [c.devkit_id for c in store.classes],
                                         store.manifest["splits"][split.name]["items"], min(len(split), most))
    progress = Progress(len(split), quiet=quiet or asked.json)
    kept = [] if asked.save_predictions or asked.per_class or asked.submission else None
    metrics = run(model.net, store, split, recipe, which=which, limit=asked.limit_batches, mean=model.mean, collect=kept,
                  progress=lambda done, total: progress.update(done, f"evaluate {done}/{total}"))
    progress.close()
    collected = None if kept is None else [part for parts in ranks.every(kept) for part in parts]
    if ranks.rank:
        return
    result = metrics.as_dict() | {"checkpoint": str(model.path), "split": split.name, "views": which, "ties": recipe.ties,
                                   "classes": len(model.classes)}
    lines = [f"{model.path}: {which} view(s), {split.name} pictures: {metrics}", *few(len(model.classes))]
    if collected is not None:
        made = predictions.of(model, store, split, np.concatenate(collected), which)
        more, text = write(made, save=asked.save_predictions, per_class=asked.per_class, submission=asked.submission, ties=recipe.ties)
        result, lines = result | more, lines + text
    print(json.dumps(result) if asked.json else "\n".join(lines))


def check_unlabelled(options: argparse.Namespace, ranks: int) -> None:
    """Refuses what means nothing where nobody knows what is right."""
    if not options.unlabelled:
        return
    for name in ("per_class", "split", "ties", "limit_batches", "store"):
        if getattr(options, name) is not None:
            raise MiniAlexError(f"--unlabelled goes without --{name.replace('_', '-')}: all pictures are looked at, and none is judged")
    if not (options.save_predictions or options.submission):
        raise MiniAlexError("--unlabelled prints no error, for nobody says what is right: add --save-predictions or --submission")
    if ranks > 1:
        raise MiniAlexError("--unlabelled runs in one process: start it without mpiexec")


def unlabelled(options: argparse.Namespace, model, devkit: list | None, which: str) -> None:
    """Writes what the model says of pictures without labels."""
    from .. import predictions
    from ..data.bare import Bare
    from ..progress import Progress
    pictures = Bare(options.unlabelled)
    if options.submission:
        predictions.can_be_handed_in(options.data or model.config.data, model.classes, devkit, len(pictures), len(pictures))
    progress = Progress(len(pictures), quiet=options.quiet or options.json)
    made = predictions.of_bare(model, pictures, which, devkit, workers=options.workers or 2,
                               progress=lambda done, total: progress.update(done, f"evaluate {done}/{total}"))
    progress.close()
    result, lines = write(made, save=options.save_predictions, per_class=None, submission=options.submission, ties=made.ties)
    result = {"images": len(made), "checkpoint": str(model.path), "split": made.split, "views": which} | result
    lines = [f"{model.path}: {which} view(s), {len(made):,} pictures without labels", *lines]
    print(json.dumps(result) if options.json else "\n".join(lines))


def check_files(options: argparse.Namespace, *names: str) -> None:
    """Refuses, before anything is computed, files that could not be written at its end."""
    for name in names:
        file, flag = getattr(options, name), "--" + name.replace("_", "-")
        if file is None or (name == "per_class" and file == "-"):
            continue
        if not Path(file).absolute().parent.is_dir():
            raise MiniAlexError(f"{flag} {file}: there is no folder {Path(file).absolute().parent}; make it first, or name another")
        if Path(file).is_dir():
            raise MiniAlexError(f"{flag} {file}: that is a folder; give the name of a file in it")


def few(classes: int) -> list[str]:
    """What the top-5 error of a data set of fewer than five classes means."""
    return [f"there are {classes} classes, all of them among the five most probable: the top-5 error is 0"] if classes < 5 else []


def write(made, *, save: str | None, per_class: str | None, submission: str | None, ties: str) -> tuple[dict, list[str]]:
    """Writes the files asked for; what --json and the terminal say of them.  `made` are Predictions; per_class "-" prints the worst."""
    from .. import predictions
    from ..files import write as to_file
    text = predictions.submission(made) if submission else ""           # what refuses comes before what writes
    rows = predictions.per_class(made, ties) if per_class else []
    result, lines = {}, []
    if save:
        predictions.save(made, save)
        result["predictions"], lines = save, [*lines, f"predictions: {save}"]
    if submission:
        to_file(submission, text)
        result["submission"], lines = submission, [*lines, f"submission: {submission}, {len(made):,} lines"]
    if per_class:
        result["per_class"] = [{name: None if value != value else value for name, value in row._asdict().items()} for row in rows]
    if per_class == "-":
        lines += worst_classes([row for row in rows if row.pictures])
    elif per_class:
        to_file(per_class, predictions.table(rows))
        lines.append(f"errors of each class: {per_class}")
    return result, lines


def worst_classes(rows: list) -> list[str]:
    """The first rows of the table as lines of text."""
    from ..data.source import shown
    names = [shown(row.name) for row in rows[:SHOWN]]
    width = max(map(len, names))
    lines = [f"  {name:<{width}}  top-1 {row.top1:6.2f} %, top-5 {row.top5:6.2f} % of {row.pictures:,}"
             for name, row in zip(names, rows, strict=False)]
    return [f"the {len(names)} classes of the largest error among {len(rows)}:", *lines]


def add(verbs) -> None:
    p = verbs.add_parser("evaluate", help="error rates of a checkpoint", description=main.__doc__)
    group = p.add_argument_group("what to evaluate")
    group.add_argument("checkpoint", type=path, metavar="CHECKPOINT", help="a checkpoint file or a run directory (its best checkpoint)")
    group.add_argument("data", nargs="?", type=path, metavar="DATA", help="as for train (default: what the checkpoint was trained on)")
    group.add_argument("--split", choices=("train", "val", "test"), help="which pictures (default: val, or test where there is none)")
    group.add_argument("--unlabelled", type=path, metavar="PICTURES", help="predict the pictures in this folder or tar, in the order of "
                       "their names; DATA then only tells ILSVRC2012_IDs for --submission (default: pictures with labels)")
    group.add_argument("--store", type=path, metavar="DIR", help="where DATA is prepared to (default: stores/NAME-FINGERPRINT-SIZE)")
    group = p.add_argument_group("how")
    group.add_argument("--ten-crops", action="store_true",
                       help="average corners, centre and their mirror images: paper, section 4.1 (default: as the recipe validates)")
    group.add_argument("-b", "--batch-size", dest="batch", type=whole(1), metavar="N", help="pictures a pass (default: 128)")
    group.add_argument("--limit-batches", type=whole(1), metavar="N", help="at most N batches (default: all)")
    ties_flag(group)
    machine_flags(p)
    group = output_flags(p)
    group.add_argument("--save-predictions", type=path, metavar="FILE",
                       help="also write the probabilities, for minialex average (default: no file)")
    judged_flags(group)
    p.set_defaults(run=main)


def ties_flag(group) -> None:
    group.add_argument("--ties", choices=("index", "fractional"), help="labels of equal probability: the first in the list ranks first, "
                       "or credit is shared between them, as in the 2012 program (default: the recipe's)")


def judged_flags(group) -> None:
    """What both `evaluate` and `average` write."""
    group.add_argument("--per-class", type=path, metavar="CSV",
                       help=f"also write the errors of each class, the worst first; - prints the worst {SHOWN} (default: no file)")
    group.add_argument("--submission", type=path, metavar="TXT",
                       help="also write the five best classes of each picture as ILSVRC takes them, by ILSVRC2012_ID (default: no file)")
