"""minialex prepare: Decode pictures once into a store, which training then reads without decoding."""

from __future__ import annotations

import argparse

from ..flags import path, whole


def main(options: argparse.Namespace) -> None:
    """Decode pictures once into a store, which training then reads without decoding."""
    from ..data import open_source
    from ..data import prepare as run
    store = run(open_source(options.data), options.out, record=options.record, workers=options.workers, progress=not options.quiet,
                kind=options.kind)
    if not options.quiet:
        print(store)


def add(verbs) -> None:
    p = verbs.add_parser("prepare", help="decode pictures once into a store", description=main.__doc__)
    group = p.add_argument_group("what and where")
    group.add_argument("data", type=path, metavar="DATA",
                       help="folder per class, tar of one, official ILSVRC archives, CIFAR-10 binary batches")
    group.add_argument("--out", type=path, required=True, metavar="DIR", help="the store's folder (no default)")
    group.add_argument("--record", type=whole(1, 4096), default=256, metavar="PIXELS",
                       help="side of a stored picture (default: 256, the paper's)")
    group.add_argument("--kind", choices=("raw", "jpeg"), default="raw",
                       help="records as bytes, 252 GB for ImageNet, or as JPEG of a tenth, decoded when read (default: raw)")
    group = p.add_argument_group("machine")
    group.add_argument("-j", "--workers", type=whole(1), default=2, metavar="N",
                       help="decoding threads; never changes a bit (default: 2)")
    group.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors (default: progress)")
    p.set_defaults(run=main)
