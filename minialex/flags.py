"""Command-line flags, spelled as in PyTorch's ImageNet example, and every expected failure as one sentence with an exit status."""

from __future__ import annotations

import argparse
import difflib
import errno
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from . import distributed
from .data.source import shown
from .nets import RECIPES
from .spec import PRECISIONS, Diverged, Interrupted, MiniAlexError, Stalled

DEVICES = ("cpu; cuda:0, a GPU; cuda:0,cuda:1, a column of the network on each; emulated:0, the GPU's kernels on the CPU; "
           "reference, the slow oracle")

# What other training programs call it.
ELSEWHERE = {"--arch": "--recipe", "-a": "--recipe", "--model": "--recipe", "--gpu": "--device", "--output": "--output-dir",
             "--data": "DATA without a flag", "--data-path": "DATA without a flag"}
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


class Parser(argparse.ArgumentParser):
    """argparse that takes no abbreviation and answers a wrong word with the nearest right one, in one line and exit status 2."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None):
        """Refuses what it does not know itself, abbreviations too, before anything else: a verb knows its flags, the program above
        it does not."""
        for word in sys.argv[1:] if args is None else args:
            if word == "--" or (self._subparsers and not word.startswith("-")):
                break
            if word.startswith("--") and word.split("=")[0] not in self._option_string_actions:
                self.error(self._unknown(word))
        namespace, left = super().parse_known_args(args, namespace)
        if left:
            self.error(self._unknown(left[0]))
        return namespace, left

    def _unknown(self, word: str) -> str:
        flag = word.split("=")[0]
        if not flag.startswith("-"):
            return f"{word!r} is one argument too many; a path with spaces needs quotes, see {self.prog} --help"
        bare = {known.strip("-"): known for known in self._option_string_actions}
        near = difflib.get_close_matches(flag.strip("-"), bare, n=1, cutoff=0.6)
        meant = bare[near[0]] if near else ELSEWHERE.get(flag)
        if self._subparsers:
            return f"the flag {flag} belongs behind a verb: {self.prog} VERB {flag}; see {self.prog} --help"
        return f"there is no flag {flag}" + (f"; did you mean {meant}?" if meant else f"; see {self.prog} --help")

    def error(self, message: str) -> NoReturn:
        if found := re.match(r"argument (\S+): invalid choice: (.+) \(choose from (.*)\)", message):
            name, word, choices = found[1], found[2].strip("'"), found[3].replace("'", "").split(", ")
            near = difflib.get_close_matches(word, choices, n=1)
            what = f"there is no verb {word!r}" if name == "VERB" else f"{name} {word}: there is no such choice"
            message = what + (f"; did you mean {near[0]}?" if near else "") + f" There are {', '.join(choices)}"
        elif message.endswith("required: VERB"):
            message = f"say what to do, for example: {self.prog} train; {self.prog} --help lists everything"
        elif "required" in message:
            message += f"; see {self.prog} --help"
        self.exit(2, f"{self.prog}: {shown(message)}\n")


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """The type of a flag that takes a whole number of at least `low`."""
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"{text!r} was given, a whole number " + (
                f"of at least {low} is needed" if high is None else f"from {low} to {high} is needed"))
        return value
    return parse


def number(low: float, below: float = math.inf) -> Callable[[str], float]:
    """The type of a flag that takes a number from `low` to less than `below`; NaN and infinity are none."""
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value < below:
            raise argparse.ArgumentTypeError(f"{text!r} was given, a number of at least {low:g}" + (
                "" if below == math.inf else f" and less than {below:g}") + " is needed")
        return value
    return parse


def path(text: str) -> str:
    """The type of a flag or argument that names a file; "" is what an unset variable of the shell leaves."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty; is a variable of your shell not set?")
    return text


def machine_flags(p: argparse.ArgumentParser) -> None:
    """--device and -j of a verb that runs a network."""
    group = p.add_argument_group("machine")
    group.add_argument("--device", default="cpu", metavar="DEVICE", help=f"{DEVICES} (default: cpu)")
    group.add_argument("-j", "--workers", type=whole(1), default=2, metavar="N", help="threads; never changes a bit (default: 2)")


def output_flags(p: argparse.ArgumentParser):
    """--json and -q; returns their group, for more flags on what is printed."""
    group = p.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print JSON (default: text)")
    group.add_argument("-q", "--quiet", action="store_true", help="print results and errors only (default: progress too)")
    return group


def training_parser(parser: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """The flags of a training run, in groups."""
    parser = parser or Parser(description="Train AlexNet as in Krizhevsky, Sutskever, Hinton (NIPS 2012).")
    recipes = "\n".join(f"  {name:<12}{recipe.about}" for name, recipe in RECIPES.items())
    parser.epilog = f"recipes:\n{recipes}\n\nA default of 'recipe' is what `python -m minialex.nets.alexnet RECIPE` prints."

    group = parser.add_argument_group("what to train on")
    group.add_argument("data", nargs="?", type=path, metavar="DATA", help="folder per class, tar of one, official ILSVRC archives, "
                       "CIFAR-10 binary batches, or a prepared store (default: the embedded pictures, drawn on the spot)")
    group.add_argument("--recipe", metavar="NAME", help="network and training, see below (default: tiny without DATA, paper with)")
    group.add_argument("--store", type=path, metavar="DIR", help="where DATA is prepared to (default: stores/NAME-FINGERPRINT-SIZE)")

    group.add_argument("--init", type=path, metavar="CHECKPOINT", help="begin with the weights of this checkpoint or run, of another "
                       "network or other classes, wherever a layer fits; a table says what was taken (default: all drawn)")
    group.add_argument("--init-skip", metavar="LAYER,...", help="layers that --init leaves as they are drawn (default: none)")

    group = parser.add_argument_group("learning")
    group.add_argument("--epochs", type=whole(1), metavar="N", help="passes over the training pictures (default: recipe)")
    group.add_argument("-b", "--batch-size", dest="batch", type=whole(1), metavar="N", help="pictures a step (default: recipe)")
    group.add_argument("--lr", "--learning-rate", dest="rate", type=number(0), metavar="RATE", help="first learning rate (default: recipe)")
    group.add_argument("--taken-rate", type=number(0), metavar="FACTOR",
                       help="times the rate for the layers that --init took; 0 leaves them as they were (default: 1)")
    group.add_argument("--momentum", type=number(0, 1), metavar="M", help="momentum (default: recipe)")
    group.add_argument("--wd", "--weight-decay", dest="decay", type=number(0), metavar="W",
                       help="weight decay, times the rate (default: recipe)")
    group.add_argument("--seed", type=whole(0, 2**64 - 1), metavar="N", help="of weights, order, augmentation and dropout (default: 0)")

    group = parser.add_argument_group("machine")
    group.add_argument("--device", metavar="DEVICE", help=f"{DEVICES} (cuda:0 where a GPU is ready) (default: cpu)")
    group.add_argument("--precision", choices=PRECISIONS,
                       help="of products; all but float32 on tensor cores; sums and weights stay float32, bf16 stores activations so, too "
                            "(default: float32)")
    group.add_argument("-j", "--workers", type=whole(1), metavar="N",
                       help="threads that decode, read and compute; never changes a bit (default: 2)")
    group.add_argument("--no-fuse", dest="fuse", action="store_const", const=False,
                       help="one op per layer, slower; the same bits but on a device, where conv1 adds in another order "
                            "(default: fused)")
    group.add_argument("--no-overlap", dest="overlap", action="store_const", const=False,
                       help="on a device let nothing run beside another: copies between devices, gradients of weights; the same bits "
                            "(default: overlapped)")

    group = parser.add_argument_group("run")
    group.add_argument("--output-dir", type=path, metavar="DIR",
                       help="configuration, metrics, checkpoints, pictures (default: runs/RECIPE-1, -2, ...)")
    group.add_argument("--resume", type=path, metavar="PATH|auto", help="go on from a checkpoint, a run directory, or (auto) the run in "
                       "--output-dir, else the newest; flags given too override it (default: a new run)")
    group.add_argument("-e", "--evaluate", action="store_true",
                       help="only evaluate the checkpoint of --resume on the validation pictures (default: train)")
    group.add_argument("--limit-batches", type=whole(1), metavar="N",
                       help="at most N batches an epoch, of training and of validation (default: all)")
    group.add_argument("--checkpoint-minutes", type=number(0), default=10.0, metavar="M",
                       help="checkpoint inside long epochs too (default: 10)")
    group.add_argument("--stall-timeout", type=number(0), default=120.0, metavar="SECONDS",
                       help="stop when no pictures came for so long, 0: wait for ever (default: 120)")
    group.add_argument("--statistics", type=whole(1), metavar="N",
                       help="mean weight, update and gradient of each layer every N steps, to statistics.jsonl (default: none)")
    group.add_argument("--tensorboard", action="store_true", help="also write events for TensorBoard (default: none)")
    group.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors (default: progress)")
    return parser


def guarded(main: Callable[[], None]) -> int:
    """Runs `main`; every expected failure becomes one sentence on stderr and an exit status: 2 bad input, 70 diverged, 74 disk, 75 no data,
    130 and 143 interrupted, 141 when nobody reads the output any more (`| head`), which is no reason to complain.
    Where several ranks run, one that fails ends all; what all refuse alike is said once."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")       # names of files need not fit the terminal's encoding
    everywhere = False

    def marked() -> None:
        nonlocal everywhere
        try:
            main()
        except BaseException as error:
            everywhere = getattr(error, "everywhere", False)
            raise

    try:
        status, text = _outcome(marked)
    except BaseException:
        if not distributed.joined():
            raise
        traceback.print_exc()
        status, text = 1, "a fault of the program; its lines above say where"
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())      # or the interpreter complains when it ends
        if not status:
            status, text = _refused(error)
    alone = distributed.joined() and not everywhere             # raised by this rank only
    if text and (alone or not distributed.joined() or distributed.world().rank == 0):
        who = f"rank {distributed.world().rank}: " if alone else ""
        sys.stderr.write(f"minialex: {who}{shown(text)}\n")     # at once: other ranks write beside it
    if status and alone:
        distributed.world().abort(status)
    return status


def _outcome(main: Callable[[], None]) -> tuple[int, str | None]:
    try:
        main()
    except SystemExit as end:                                   # --help, or a flag that argparse refused
        return int(end.code or 0), None
    except Interrupted as error:
        return error.status, str(error)
    except Diverged as error:
        return 70, str(error)
    except Stalled as error:
        return 75, str(error)
    except MiniAlexError as error:
        return 74 if getattr(error.__cause__, "errno", None) in DISK else 2, str(error)
    except MemoryError as error:
        return 2, f"there is not enough memory ({error}); give a smaller batch (-b)"
    except OSError as error:
        return _refused(error)
    except KeyboardInterrupt as error:
        text = "interrupted; the same command begins again, and goes on where a preparation stopped"
        return (error.args[1], error.args[0]) if len(error.args) == 2 else (130, text)
    return 0, None


def _refused(error: OSError) -> tuple[int, str | None]:
    """Status and sentence of what the system refused; raises what looks like a fault of the program."""
    if isinstance(error, BrokenPipeError):
        return 141, None
    # A temporary file is called .NAME.PROCESS.partial; what the user knows is NAME.
    where = re.sub(r"\.([^/]+)\.\d+\.partial$", r"\1", os.fsdecode(error.filename)) if error.filename else ""
    if error.errno in DISK and not where:
        return 74, f"the output: {error.strerror}; write it elsewhere"
    if error.errno in DISK:
        return 74, (f"{where}: {error.strerror}; make room or name another folder and give the command again: "
                    "checkpoints and shards written before are whole, and --resume auto goes on from the last checkpoint")
    if where:
        return 2, f"{where}: {error.strerror}; check the path and its permissions, or name another"
    raise error
