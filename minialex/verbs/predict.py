"""minialex predict: Print the most probable labels of pictures as bars."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..flags import machine_flags, output_flags, path, whole
from ..spec import MiniAlexError


def main(options: argparse.Namespace) -> None:
    """Print the most probable labels of pictures as bars."""
    from .. import figures, rundir
    from ..predict import bars, trained
    from ..predict import predict as run
    if options.figure:
        check_figure(Path(options.figure))
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


def check_figure(figure: Path) -> None:
    if figure.suffix.lower() != ".png":
        raise MiniAlexError(f"--figure {figure}: only PNG is drawn; give a name that ends in .png")
    if not figure.absolute().parent.is_dir():
        raise MiniAlexError(f"--figure {figure}: there is no folder {figure.absolute().parent}; make it first, or name another")
    if figure.is_dir():
        raise MiniAlexError(f"--figure {figure}: that is a folder; give the name of a file in it")


def add(verbs) -> None:
    p = verbs.add_parser("predict", help="the five most probable labels of pictures", description=main.__doc__)
    group = p.add_argument_group("what to look at")
    group.add_argument("pictures", nargs="+", type=path, metavar="PICTURE", help="JPEG or PNG files")
    group.add_argument("--checkpoint", type=path, metavar="PATH",
                       help="a checkpoint file or a run directory (default: the newest run under runs/)")
    group.add_argument("--ten-crops", action="store_true", help="average ten views (default: the centre)")
    group.add_argument("-b", "--batch-size", dest="batch", type=whole(1), default=16, metavar="N", help="pictures a pass (default: 16)")
    machine_flags(p)
    group = output_flags(p)
    group.add_argument("--top", type=whole(1), default=5, metavar="K", help="labels to show (default: 5)")
    group.add_argument("--figure", type=path, metavar="PNG", help="also draw pictures and bars to this file (default: no file)")
    p.set_defaults(run=main)
