"""minialex VERB: train, evaluate, predict, prepare, plan, check-grads, doctor."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from pathlib import Path

from .flags import DEVICES, Parser, guarded, path, training_parser, whole
from .spec import MiniAlexError


def train(options: argparse.Namespace) -> None:
    """Train a network; the loop itself can be read in examples/train_imagenet.py."""
    from . import rundir
    from .train import run
    if not options.evaluate:
        run(vars(options), resume=options.resume, quiet=options.quiet, checkpoint_minutes=options.checkpoint_minutes)
        return
    if not options.resume:
        raise MiniAlexError("--evaluate needs a network: add --resume CHECKPOINT, --resume RUN_DIRECTORY or --resume auto")
    auto = options.resume == "auto"
    options.checkpoint = (options.output_dir or rundir.newest("--resume auto")) if auto else options.resume
    evaluate(options)


def evaluate(options: argparse.Namespace) -> None:
    """Print the top-1 and top-5 error of a checkpoint on validation pictures."""
    from . import rundir
    from .data import locate, store_of
    from .distributed import my_devices, world
    from .evaluate import evaluate as run
    from .evaluate import validation_split
    from .predict import trained
    from .progress import Progress
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


def predict(options: argparse.Namespace) -> None:
    """Print the most probable labels of pictures as bars."""
    from . import figures, rundir
    from .predict import bars, trained
    from .predict import predict as run
    if options.figure:
        _check_figure(Path(options.figure))
    model = trained(options.checkpoint or rundir.newest("--checkpoint"), device=options.device, batch=options.batch,
                    workers=options.workers)
    results = run(model, [Path(p) for p in options.pictures], views="ten" if options.ten_crops else "centre", top=options.top)
    if options.json:
        print(json.dumps({name: dict(ranked) for name, (_, ranked) in zip(options.pictures, results, strict=True)}, indent=1))
    else:
        for name, (_, ranked) in zip(options.pictures, results, strict=True):
            print(f"{name}\n{bars(ranked, mark=_mark())}")
    if options.figure:
        figures.predictions([(image, None, ranked) for image, ranked in results], options.figure)
        if not options.json:
            print(f"picture: {options.figure}")


def _mark() -> str:
    """What bars are made of: a block where the terminal can show one."""
    try:
        "█".encode(getattr(sys.stdout, "encoding", None) or "ascii")
        return "█"
    except UnicodeEncodeError:
        return "#"


def _check_figure(figure: Path) -> None:
    if figure.suffix.lower() != ".png":
        raise MiniAlexError(f"--figure {figure}: only PNG is drawn; give a name that ends in .png")
    if not figure.absolute().parent.is_dir():
        raise MiniAlexError(f"--figure {figure}: there is no folder {figure.absolute().parent}; make it first, or name another")
    if figure.is_dir():
        raise MiniAlexError(f"--figure {figure}: that is a folder; give the name of a file in it")


def prepare(options: argparse.Namespace) -> None:
    """Decode pictures once into a store, which training then reads without decoding."""
    from .data import open_source
    from .data import prepare as run
    store = run(open_source(options.data), options.out, record=options.record, workers=options.workers, progress=not options.quiet)
    if not options.quiet:
        print(store)


def plan(options: argparse.Namespace) -> None:
    """Print a recipe's layers, sizes, and what its columns exchange and hold."""
    from .columns import print_plan
    from .config import Config
    from .nets import recipe
    devices = Config(options.recipe, device=options.device).device_names if options.device else []
    print_plan(recipe(options.recipe), batch=options.batch, devices=devices)


def check_grads(options: argparse.Namespace) -> None:
    """Prove a recipe's ops and gradients on this machine, layer by layer."""
    from . import backends
    from .config import Config
    from .nets import recipe
    from .testing import check_grads as checks
    layers, shape, note = checks.at_size(recipe(options.recipe))
    named = Config(options.recipe, device=options.device).backends
    if len(named) > 1:
        raise MiniAlexError(f"--device {options.device}: ops are checked on one device at a time; name one")
    ops = backends.load(*named[0])
    found = checks.check(ops, layers, shape, batch=options.batch, variant=options.variant, precision=options.precision)
    print(f"{options.recipe} on {options.device}, {options.batch} images, products in {options.precision}")
    print(f"{note}\n" if note else "")
    print(checks.text(found))
    if not all(row.ok for row in found):
        raise SystemExit(1)


def doctor(options: argparse.Namespace) -> None:
    """Print what this installation can do, and what is missing for the rest."""
    import numpy
    import PIL

    from . import __version__, backends
    print(f"minialex {__version__}, Python {platform.python_version()}, NumPy {numpy.__version__}, Pillow {PIL.__version__}, "
          f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}")
    print("backends (--device):")
    for name, reason in backends.available().items():
        print(f"  {name:<10} {'ready' if reason is None else 'no: ' + reason}")
        if reason is None and hasattr(module := backends.load(name), "kernels"):
            for number, what in enumerate(devices := module.kernels.devices()):
                print(f"    {name}:{number}  {what}")
            if len(devices) > 1:
                print(f"    {_peers(name, module.kernels.extension, len(devices))}")
    tools = {"nvcc": "compiles the kernels for a GPU", "c++": "compiles them for the emulator", "cmake": "both need it"}
    print("to build kernels (pip install -e . again afterwards): " + "; ".join(
        f"{tool} {'found' if shutil.which(tool) else 'missing (' + what + ')'}" for tool, what in tools.items()))
    writable = os.access(".", os.W_OK)
    print(f"folder {Path.cwd()}: " + ("runs/ and stores/ can be made here" if writable else
                                      "not writable; go to another, or give --output-dir and --store"))


def _peers(name: str, extension, count: int) -> str:
    """Which devices copy straight into each other's memory."""
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    apart = [f"{name}:{a} and {name}:{b}" for a, b in pairs if not (extension.can_access_peer(a, b) and extension.can_access_peer(b, a))]
    return ("no peer access between " + ", ".join(apart) + ": columns there exchange through the host's memory" if apart else
            "all devices reach each other's memory (peer access)")


CHECKED = """Each op is compared with a float64 oracle.  The columns of the table:
  error / bound  the worst element's distance from the oracle, in units of
                 what rounding explains: above 1 is a wrong result
  differences    the gradient against central differences of the oracle's
                 forward pass along random directions; above 1 is wrong
Layers a backend does in one trip (conv and relu, norm and pool) follow at
the end.  Exit status: 0 all right, 1 something is wrong.

minialex check-grads --device emulated:0
minialex check-grads cifar11 --device cuda:0 --variant direct"""


def build_parser() -> Parser:
    from . import __version__
    parser = Parser(prog="minialex", description="AlexNet as it really was: train it, test it, look inside.",
                    epilog="minialex VERB --help lists the flags of a verb.  To begin without any data:\nminialex train")
    parser.add_argument("--version", action="version", version=f"minialex {__version__}")
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True, parser_class=Parser)

    training_parser(verbs.add_parser("train", help="train a network", description=train.__doc__)).set_defaults(run=train)

    p = verbs.add_parser("evaluate", help="error rates of a checkpoint", description=evaluate.__doc__)
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
    _machine(p)
    _output(p)
    p.set_defaults(run=evaluate)

    p = verbs.add_parser("predict", help="the five most probable labels of pictures", description=predict.__doc__)
    group = p.add_argument_group("what to look at")
    group.add_argument("pictures", nargs="+", type=path, metavar="PICTURE", help="JPEG or PNG files")
    group.add_argument("--checkpoint", type=path, metavar="PATH",
                       help="a checkpoint file or a run directory (default: the newest run under runs/)")
    group.add_argument("--ten-crops", action="store_true", help="average ten views (default: the centre)")
    group.add_argument("-b", "--batch-size", dest="batch", type=whole(1), default=16, metavar="N", help="pictures a pass (default: 16)")
    _machine(p)
    group = _output(p)
    group.add_argument("--top", type=whole(1), default=5, metavar="K", help="labels to show (default: 5)")
    group.add_argument("--figure", type=path, metavar="PNG", help="also draw pictures and bars to this file (default: no file)")
    p.set_defaults(run=predict)

    p = verbs.add_parser("prepare", help="decode pictures once into a store", description=prepare.__doc__)
    group = p.add_argument_group("what and where")
    group.add_argument("data", type=path, metavar="DATA",
                       help="folder per class, tar of one, official ILSVRC archives, CIFAR-10 binary batches")
    group.add_argument("--out", type=path, required=True, metavar="DIR", help="the store's folder (no default)")
    group.add_argument("--record", type=whole(1, 4096), default=256, metavar="PIXELS",
                       help="side of a stored picture (default: 256, the paper's)")
    group = p.add_argument_group("machine")
    group.add_argument("-j", "--workers", type=whole(1), default=2, metavar="N",
                       help="decoding threads; never changes a bit (default: 2)")
    group.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors (default: progress)")
    p.set_defaults(run=prepare)

    p = verbs.add_parser("plan", help="a recipe's layers, sizes and columns", description=plan.__doc__)
    p.add_argument("--recipe", default="paper", metavar="NAME", help="which network (default: paper)")
    p.add_argument("-b", "--batch-size", dest="batch", type=whole(1), metavar="N", help="images a step (default: recipe)")
    p.add_argument("--device", metavar="DEVICE", help="where the columns lie, for example cuda:0,cuda:1; they need not be here "
                   "(default: the exchange between any)")
    p.set_defaults(run=plan)

    p = verbs.add_parser("check-grads", help="prove a recipe's ops and gradients here", description=check_grads.__doc__,
                         epilog=CHECKED)
    group = p.add_argument_group("what to check")
    group.add_argument("recipe", nargs="?", default="tiny", metavar="RECIPE", help="which network (default: tiny)")
    group.add_argument("-b", "--batch-size", dest="batch", type=whole(1), default=2, metavar="N", help="images (default: 2)")
    group = p.add_argument_group("machine")
    group.add_argument("--device", default="cpu", metavar="DEVICE", help=f"{DEVICES} (default: cpu)")
    group.add_argument("--variant", metavar="NAME", help="force this row of every op's table that has it, such as direct; "
                       "shapes it does not run are listed as refused (default: what training takes)")
    group.add_argument("--precision", choices=("float32", "tf32", "bf16"), default="float32",
                       help="of products on tensor cores; bounds widen by what rounding their operands costs (default: float32)")
    p.set_defaults(run=check_grads)

    verbs.add_parser("doctor", help="what this installation can do", description=doctor.__doc__).set_defaults(run=doctor)
    return parser


def _machine(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group("machine")
    group.add_argument("--device", default="cpu", metavar="DEVICE", help=f"{DEVICES} (default: cpu)")
    group.add_argument("-j", "--workers", type=whole(1), default=2, metavar="N", help="threads; never changes a bit (default: 2)")


def _output(p: argparse.ArgumentParser):
    group = p.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print JSON (default: text)")
    group.add_argument("-q", "--quiet", action="store_true", help="print results and errors only (default: progress too)")
    return group


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit status (flags.guarded lists them)."""
    def run() -> None:
        options = build_parser().parse_args(argv)
        options.run(options)
    return guarded(run)


if __name__ == "__main__":
    sys.exit(main())
