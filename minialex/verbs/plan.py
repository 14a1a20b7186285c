"""minialex plan: Print a recipe's layers, sizes, and what its columns exchange and hold."""

from __future__ import annotations

import argparse

from ..flags import whole


def main(options: argparse.Namespace) -> None:
    """Print a recipe's layers, sizes, and what its columns exchange and hold."""
    from ..columns import print_plan
    from ..config import Config
    from ..nets import recipe
    devices = Config(options.recipe, device=options.device).device_names if options.device else []
    print_plan(recipe(options.recipe), batch=options.batch, devices=devices)


def add(verbs) -> None:
    p = verbs.add_parser("plan", help="a recipe's layers, sizes and columns", description=main.__doc__)
    p.add_argument("--recipe", default="paper", metavar="NAME", help="which network (default: paper)")
    p.add_argument("-b", "--batch-size", dest="batch", type=whole(1), metavar="N", help="images a step (default: recipe)")
    p.add_argument("--device", metavar="DEVICE", help="where the columns lie, for example cuda:0,cuda:1; they need not be here "
                   "(default: the exchange between any)")
    p.set_defaults(run=main)
