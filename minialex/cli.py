"""minialex VERB: the program's front door; each verb lives in minialex/verbs."""

from __future__ import annotations

import sys

from . import __version__
from .flags import Parser, guarded
from .verbs import (
    average,
    check_grads,
    doctor,
    evaluate,
    features,
    figures,
    plan,
    predict,
    prepare,
    report,
    reproduce,
    retrieve,
    store,
    train,
)

# In the order of --help.
VERBS = (train, evaluate, average, predict, figures, features, retrieve, reproduce, report, prepare, store, plan, check_grads, doctor)


def build_parser() -> Parser:
    parser = Parser(prog="minialex", description="AlexNet as it really was: train it, test it, look inside.",
                    epilog="minialex VERB --help lists the flags of a verb.  To begin without any data:\nminialex train")
    parser.add_argument("--version", action="version", version=f"minialex {__version__}")
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for verb in VERBS:
        verb.add(verbs)
    return parser


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit status (flags.guarded lists them)."""
    def run() -> None:
        options = build_parser().parse_args(argv)
        options.run(options)
    return guarded(run)


if __name__ == "__main__":
    sys.exit(main())
