"""minialex check-grads: Prove a recipe's ops and gradients on this machine, layer by layer."""

from __future__ import annotations

import argparse

from ..flags import DEVICES, whole
from ..spec import PRECISIONS, MiniAlexError

CHECKED = """Each op is compared with a float64 oracle.  The columns of the table:
  error / bound  the worst element's distance from the oracle, in units of
                 what rounding explains: above 1 is a wrong result
  differences    the gradient against central differences of the oracle's
                 forward pass along random directions; above 1 is wrong
Layers a backend does in one trip (conv and relu, norm and pool) follow at
the end.  Exit status: 0 all right, 1 something is wrong.

minialex check-grads --device emulated:0
minialex check-grads cifar11 --device cuda:0 --variant direct"""


def main(options: argparse.Namespace) -> None:
    """Prove a recipe's ops and gradients on this machine, layer by layer."""
    from .. import backends
    from ..config import Config
    from ..nets import recipe
    from ..testing import check_grads as checks
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


def add(verbs) -> None:
    p = verbs.add_parser("check-grads", help="prove a recipe's ops and gradients here", description=main.__doc__,
                         epilog=CHECKED)
    group = p.add_argument_group("what to check")
    group.add_argument("recipe", nargs="?", default="tiny", metavar="RECIPE", help="which network (default: tiny)")
    group.add_argument("-b", "--batch-size", dest="batch", type=whole(1), default=2, metavar="N", help="images (default: 2)")
    group = p.add_argument_group("machine")
    group.add_argument("--device", default="cpu", metavar="DEVICE", help=f"{DEVICES} (default: cpu)")
    group.add_argument("--variant", metavar="NAME", help="force this row of every op's table that has it, such as direct; "
                       "shapes it does not run are listed as refused (default: what training takes)")
    group.add_argument("--precision", choices=PRECISIONS, default="float32",
                       help="of products; bounds widen by what rounding or splitting their operands costs (default: float32)")
    p.set_defaults(run=main)
