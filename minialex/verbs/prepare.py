"""minialex prepare: Decode pictures once into a store, which training then reads without decoding."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..flags import path, whole
from ..spec import MiniAlexError


def main(options: argparse.Namespace) -> None:
    """Decode pictures once into a store, which training then reads without decoding."""
    from ..data import open_source
    from ..data import prepare as run
    from ..progress import reading
    if (options.data is None) == (options.src is None):
        raise MiniAlexError("say once what to prepare: minialex prepare --src ARCHIVES --out STORE")
    out = Path(options.out)
    source = open_source(options.data or options.src, allow_unverified=options.allow_unverified,
                         progress=reading("MD5 of the archives", quiet=options.quiet), kept=out.with_name(out.name + ".md5.json"))
    if not options.quiet:
        for note in source.notes:                               # before the hours, not after them
            print(f"note: {note}", file=sys.stderr)
    store = run(source, out, record=options.record, workers=options.workers, progress=not options.quiet, kind=options.kind)
    if not options.quiet:
        print(store)


def add(verbs) -> None:
    p = verbs.add_parser("prepare", help="decode pictures once into a store", description=main.__doc__)
    group = p.add_argument_group("what and where")
    group.add_argument("data", nargs="?", type=path, metavar="DATA",
                       help="folder per class, tar of one, folder of official ILSVRC archives (2012, 2010), Kaggle's archive or "
                            "folder, flat val with the devkit or a list, one tar per synset, CIFAR-10 binary batches (default: --src)")
    group.add_argument("--src", type=path, metavar="DATA", help="the same, as a flag (default: DATA)")
    group.add_argument("--out", type=path, required=True, metavar="DIR", help="the store's folder (no default)")
    group.add_argument("--record", type=whole(1, 4096), default=256, metavar="PIXELS",
                       help="side of a stored picture (default: 256, the paper's)")
    group.add_argument("--kind", choices=("raw", "jpeg"), default="raw",
                       help="records as bytes, 252 GB for ImageNet, or as JPEG of a tenth, decoded when read (default: raw)")
    group.add_argument("--allow-unverified", action="store_true",
                       help="take archives of the official size whose MD5 is wrong (default: refuse them)")
    group = p.add_argument_group("machine")
    group.add_argument("-j", "--workers", type=whole(1), default=2, metavar="N",
                       help="decoding threads; never changes a bit (default: 2)")
    group.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors (default: progress)")
    p.set_defaults(run=main)
