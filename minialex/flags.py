"""Command-line flags, spelled as in PyTorch's ImageNet example, and errors as one sentence."""

from __future__ import annotations

import argparse
import difflib
import errno
import sys
from collections.abc import Callable
from typing import NoReturn

from .nets import RECIPES
from .spec import MiniAlexError


class Parser(argparse.ArgumentParser):
    """argparse with "did you mean" and no guessing of abbreviated flags."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        flags = [flag for action in self._actions for flag in action.option_strings]
        if message.startswith("unrecognized arguments: "):
            word = message.split(": ", 1)[1].split()[0]
            near = difflib.get_close_matches(word.split("=")[0], flags, n=1, cutoff=0.5)
            message = f"{self.prog} has no argument {word}" + (f"; did you mean {near[0]}?" if near else "; see --help")
        self.exit(2, f"{self.prog}: error: {message}\n")


def training_parser(parser: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """The flags of a training run, in groups."""
    parser = parser or Parser(description="Train AlexNet as in Krizhevsky, Sutskever, Hinton (NIPS 2012).")
    recipes = "\n".join(f"  {name:<12}{recipe.about}" for name, recipe in RECIPES.items())
    parser.epilog = f"recipes:\n{recipes}\n\nA default of 'recipe' is what `python -m minialex.nets.alexnet RECIPE` prints."

    group = parser.add_argument_group("what to train on")
    group.add_argument("data", nargs="?", metavar="DATA", help="folder per class, tar of one, official ILSVRC archives, CIFAR-10 "
                       "binary batches, or a prepared store (default: the embedded pictures, drawn on the spot)")
    group.add_argument("--recipe", metavar="NAME", help="network and training, see below (default: tiny without DATA, paper with)")
    group.add_argument("--store", metavar="DIR", help="where DATA is prepared to (default: stores/NAME-FINGERPRINT-SIZE)")

    group = parser.add_argument_group("learning (defaults: the recipe's)")
    group.add_argument("--epochs", type=int, metavar="N", help="passes over the training pictures")
    group.add_argument("-b", "--batch-size", dest="batch", type=int, metavar="N", help="pictures a step")
    group.add_argument("--lr", "--learning-rate", dest="rate", type=float, metavar="RATE", help="first learning rate")
    group.add_argument("--momentum", type=float, metavar="M", help="momentum")
    group.add_argument("--wd", "--weight-decay", dest="decay", type=float, metavar="W", help="weight decay, times the rate")
    group.add_argument("--seed", type=int, metavar="N", help="of weights, order, augmentation and dropout (default: 0)")

    group = parser.add_argument_group("machine")
    group.add_argument("--device", metavar="DEVICE", help="cpu, or reference for the slow oracle (default: cpu)")
    group.add_argument("-j", "--workers", type=int, metavar="N",
                       help="threads that decode, read and compute; never changes a bit (default: 2)")
    group.add_argument("--no-fuse", dest="fuse", action="store_const", const=False, help="one op per layer; the same bits, slower")

    group = parser.add_argument_group("run")
    group.add_argument("--output-dir", metavar="DIR",
                       help="configuration, metrics, checkpoints, pictures (default: runs/RECIPE-1, -2, ...)")
    group.add_argument("--resume", metavar="PATH|auto",
                       help="go on from a checkpoint, a run directory, or the newest run; flags given too override it")
    group.add_argument("-e", "--evaluate", action="store_true", help="only evaluate the checkpoint of --resume on the validation pictures")
    group.add_argument("--limit-batches", type=int, metavar="N", help="at most N batches an epoch, of training and of validation")
    group.add_argument("--checkpoint-minutes", type=float, default=10.0, metavar="M",
                       help="checkpoint inside long epochs too (default: 10)")
    group.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    return parser


def guarded(main: Callable[[], None]) -> int:
    """Runs `main`; every expected failure becomes one sentence on stderr and an exit status (2 bad input, 70 diverged,
    74 disk, 130 and 143 interrupted)."""
    from .train import Diverged, Interrupted
    try:
        main()
        return 0
    except Interrupted as error:
        status, text = error.status, str(error)
    except Diverged as error:
        status, text = 70, str(error)
    except MiniAlexError as error:
        status, text = 2, str(error)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM):
            raise
        where = f" at {error.filename}" if error.filename else ""
        status = 74
        text = f"{error.strerror}{where}: nothing half-written was left; free some space or name another folder, then --resume auto"
    except KeyboardInterrupt:
        status, text = 130, "interrupted a second time: stopped at once; --resume auto goes on from the last checkpoint"
    print(f"minialex: {text}", file=sys.stderr)
    return status
