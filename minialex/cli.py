"""minialex VERB: train, evaluate, predict, prepare, plan, doctor."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .flags import Parser, guarded, training_parser
from .spec import MiniAlexError


def train(options: argparse.Namespace) -> None:
    """Trains; with --evaluate only evaluates.  The loop itself can be read in examples/train_imagenet.py."""
    from .train import Trainer
    if options.evaluate:
        options.checkpoint = options.resume
        return evaluate(options)
    with Trainer(vars(options), resume=options.resume, quiet=options.quiet, checkpoint_minutes=options.checkpoint_minutes) as trainer:
        for epoch in trainer.epochs():
            for batch in trainer.batches(epoch):
                trainer.learn(batch)
            trainer.validate(epoch)


def evaluate(options: argparse.Namespace) -> None:
    """Prints top-1 and top-5 error of a checkpoint on a split."""
    from .checkpoint import load, match
    from .data import open_store
    from .evaluate import evaluate as run
    from .evaluate import validation_split
    from .predict import trained
    from .progress import Progress
    if not options.checkpoint:
        raise MiniAlexError("--evaluate needs a network: add --resume CHECKPOINT or --resume RUN_DIRECTORY")
    workers = options.workers or 2
    model = trained(options.checkpoint, device=options.device or "cpu", batch=options.batch or 128, workers=workers)
    _, state = load(model.path)
    data = options.data or state["config"]["data"]
    store = open_store(data, model.recipe.record, folder=options.store, workers=workers, quiet=options.quiet)
    match(state, {"classes": [c.id for c in store.classes]})
    which = "ten" if getattr(options, "ten_crops", False) else model.recipe.test_views
    split = store.split(options.split) if getattr(options, "split", None) else validation_split(store)
    progress = Progress(len(split), quiet=options.quiet)
    metrics = run(model.net, store, split, model.recipe, which=which, limit=options.limit_batches,
                  progress=lambda done, total: progress.update(done, f"evaluate {done}/{total}"))
    progress.close()
    if getattr(options, "json", False):
        print(json.dumps(metrics.as_dict()))
    else:
        print(f"{model.path}: {which} view(s), {split.name} pictures: {metrics}")


def predict(options: argparse.Namespace) -> None:
    """Prints the most probable labels of pictures as bars."""
    from . import figures
    from .predict import bars, trained
    from .predict import predict as run
    checkpoint = options.checkpoint
    if checkpoint is None:
        from .train import newest_run
        checkpoint = newest_run()
    model = trained(checkpoint, device=options.device)
    results = run(model, [Path(p) for p in options.pictures], views="ten" if options.ten_crops else "centre", top=options.top)
    if options.json:
        print(json.dumps({name: dict(ranked) for name, (_, ranked) in zip(options.pictures, results, strict=True)}, indent=1))
        return
    for name, (_, ranked) in zip(options.pictures, results, strict=True):
        print(f"{name}\n{bars(ranked)}")
    if options.figure:
        figures.predictions([(image, None, ranked) for image, ranked in results], options.figure)
        print(f"picture: {options.figure}")


def prepare(options: argparse.Namespace) -> None:
    """Decodes pictures once into a store."""
    from .data import open_source
    from .data import prepare as run
    store = run(open_source(options.data), options.out, record=options.record, workers=options.workers, progress=not options.quiet)
    print(store)


def plan(options: argparse.Namespace) -> None:
    """Prints a recipe's table and its exchange plan."""
    from .columns import print_plan
    from .nets import recipe
    print_plan(recipe(options.recipe), batch=options.batch)


def doctor(options: argparse.Namespace) -> None:
    """Prints what this installation can do, and why not."""
    from . import __version__, backends
    print(f"minialex {__version__}, Python {sys.version.split()[0]}")
    for name, reason in backends.available().items():
        print(f"  {name:<10} {'ready' if reason is None else reason}")


def build_parser() -> Parser:
    parser = Parser(prog="minialex", description="AlexNet as it really was: train, evaluate, predict, prepare, plan, doctor.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)

    training_parser(verbs.add_parser("train", help="train a network", description=train.__doc__)).set_defaults(run=train)

    p = verbs.add_parser("evaluate", help="error rates of a checkpoint", description=evaluate.__doc__)
    p.add_argument("checkpoint", help="a checkpoint file or a run directory (its best checkpoint)")
    p.add_argument("data", nargs="?", metavar="DATA", help="as for train (default: what the checkpoint was trained on)")
    p.add_argument("--split", choices=("train", "val", "test"), help="default: val, or test where there is none")
    p.add_argument("--ten-crops", action="store_true", help="average corners, centre and their mirror images (paper, section 4.1)")
    p.add_argument("-b", "--batch-size", dest="batch", type=int, metavar="N", help="pictures a pass (default: 128)")
    p.add_argument("--limit-batches", type=int, metavar="N", help="at most N batches")
    _machine(p)
    p.set_defaults(run=evaluate)

    p = verbs.add_parser("predict", help="the five most probable labels of pictures", description=predict.__doc__)
    p.add_argument("pictures", nargs="+", metavar="PICTURE", help="JPEG or PNG files")
    p.add_argument("--checkpoint", metavar="PATH", help="a checkpoint file or a run directory (default: the newest run under runs/)")
    p.add_argument("--top", type=int, default=5, metavar="K", help="labels to show (default: 5)")
    p.add_argument("--ten-crops", action="store_true", help="average ten views")
    p.add_argument("--figure", metavar="PNG", help="also draw pictures and bars to this file")
    _machine(p)
    p.set_defaults(run=predict)

    p = verbs.add_parser("prepare", help="decode pictures once into a store", description=prepare.__doc__)
    p.add_argument("data", metavar="DATA", help="folder per class, tar of one, official ILSVRC archives, CIFAR-10 binary batches")
    p.add_argument("--out", required=True, metavar="DIR", help="the store's folder")
    p.add_argument("--record", type=int, default=256, metavar="PIXELS", help="side of a stored picture (default: 256, the paper's)")
    p.add_argument("-j", "--workers", type=int, default=2, metavar="N", help="decoding threads; never changes a bit (default: 2)")
    p.add_argument("-q", "--quiet", action="store_true", help="no progress")
    p.set_defaults(run=prepare)

    p = verbs.add_parser("plan", help="a recipe's layers, sizes and columns", description=plan.__doc__)
    p.add_argument("--recipe", default="paper", metavar="NAME", help="default: paper")
    p.add_argument("-b", "--batch-size", dest="batch", type=int, default=128, metavar="N", help="images a step (default: 128)")
    p.set_defaults(run=plan)

    verbs.add_parser("doctor", help="what this installation can do", description=doctor.__doc__).set_defaults(run=doctor)
    return parser


def _machine(p: argparse.ArgumentParser) -> None:
    p.add_argument("--device", default="cpu", metavar="DEVICE", help="cpu or reference (default: cpu)")
    p.add_argument("-j", "--workers", type=int, metavar="N", help="threads (default: 2)")
    p.add_argument("--store", metavar="DIR", help="where DATA is prepared to")
    p.add_argument("--json", action="store_true", help="print JSON")
    p.add_argument("-q", "--quiet", action="store_true", help="no progress")


def main(argv: list[str] | None = None) -> int:
    options = build_parser().parse_args(argv)
    return guarded(lambda: options.run(options))


if __name__ == "__main__":
    sys.exit(main())
