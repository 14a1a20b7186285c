"""minialex train: Train a network; the loop itself can be read in examples/train_imagenet.py."""

from __future__ import annotations

import argparse

from ..flags import training_parser
from ..spec import MiniAlexError
from . import evaluate


def main(options: argparse.Namespace) -> None:
    """Train a network; the loop itself can be read in examples/train_imagenet.py."""
    from .. import rundir
    from ..train import run
    if not options.evaluate:
        run(vars(options), resume=options.resume, quiet=options.quiet, checkpoint_minutes=options.checkpoint_minutes,
            stall_timeout=options.stall_timeout)
        return
    if not options.resume:
        raise MiniAlexError("--evaluate needs a network: add --resume CHECKPOINT, --resume RUN_DIRECTORY or --resume auto")
    auto = options.resume == "auto"
    options.checkpoint = (options.output_dir or rundir.newest("--resume auto")) if auto else options.resume
    evaluate.main(options)


def add(verbs) -> None:
    training_parser(verbs.add_parser("train", help="train a network", description=main.__doc__)).set_defaults(run=main)
