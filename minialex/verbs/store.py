"""minialex store: Look into a prepared store: its table of contents, its soundness, one of its pictures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..flags import output_flags, path, whole
from ..spec import MiniAlexError


def main(options: argparse.Namespace) -> None:
    """Look into a prepared store: what it is, whether it is sound, one picture."""
    from ..data import Store
    if (options.number is not None) != (options.what == "show"):
        raise MiniAlexError("minialex store show STORE N needs the number of a picture, from 0 on; info and verify take none")
    {"info": _info, "verify": _verify, "show": _show}[options.what](Store(options.store), options)


def _info(store, options: argparse.Namespace) -> None:
    from ..data.source import shown
    manifest = store.manifest
    size = sum(file.stat().st_size for file in store.path.iterdir() if file.is_file())
    if options.json:
        print(json.dumps({**manifest, "bytes": size}, indent=1, sort_keys=True))
        return
    count = sum(len(store.split(name)) for name in store.splits)
    print(store)
    print(f"{size:,} bytes, {size / max(1, count):,.0f} a picture; format {manifest['format']} (docs/STORE.md)")
    print(f"records: {manifest.get('records', {}).get('description', 'uint8 as they are')}")
    print(manifest["decode"]["description"])
    print(f"from {manifest['source']['path']}, a source of kind {manifest['source']['kind']}; "
          f"verified: {str(store.verified).lower()} ({manifest['source']['reason']})")
    for name, split in manifest["splits"].items():
        each = split["per_class"]
        print(f"{name:5} {split['count']:>11,} pictures in {len(split['shards']):,} shards, {split['rejected']:,} rejected, "
              f"{min(each):,} to {max(each):,} a class")
    numbers = (" ".join(f"{value:.2f}" for value in row) for row in (manifest["mean"]["rgb"], store.eigenvalues ** .5))
    print("mean RGB {}; standard deviations along the colour axes {}".format(*numbers))
    for number in (0, len(store.classes) - 1):
        one = store.classes[number]
        print(f"class {number}: {shown(one.id)} {shown(one.name)}" + (f", ILSVRC2012_ID {one.devkit_id}" if one.devkit_id else ""))


def _verify(store, options: argparse.Namespace) -> None:
    """Reads every record; all damage is listed before the verb fails."""
    import numpy as np

    from ..data.audit import Progress
    from ..data.store import StoreError
    problems = []
    for name in store.splits:
        split, stated = store.split(name), store.manifest["splits"][name]["per_class"]
        if np.bincount(split.labels, minlength=len(stated)).tolist() != stated:
            problems.append(f"{store.path}: the {name} labels are not as many of each class as the manifest says")
        bar = Progress(f"verify {name}", len(split), 0, not options.quiet)
        try:
            for done, damage in split.verify(options.workers):
                bar.step(done - bar.done)
                problems += damage
        finally:
            bar.close()
    if options.json:
        print(json.dumps({"sound": not problems, "problems": problems}, indent=1))
    for problem in problems * (not options.json):
        print(problem)
    if problems:
        raise StoreError(f"{store.path}: {len(problems)} damaged; restore its files from a copy, or remove the folder and prepare it anew")
    if not options.quiet and not options.json:
        print(f"{store.path}: every record of {', '.join(store.splits)} is as it was written")


def _show(store, options: argparse.Namespace) -> None:
    from PIL import Image

    from ..data.source import shown
    from ..files import atomic
    name = options.split or store.splits[0]
    split, number = store.split(name), options.number
    pixels = split.read([number])[0]
    shard, record = split.place(number)
    offset, size = shard.place(record)
    label = int(split.labels[number])
    out = Path(options.out or f"{name}-{number}.png")
    if not out.absolute().parent.is_dir():
        raise MiniAlexError(f"--out {out}: there is no folder {out.absolute().parent}; make it first, or name another")
    with atomic(out) as temporary:
        Image.fromarray(pixels).save(temporary, "PNG")
    facts = {"split": name, "number": number, "label": label, "class": store.classes[label].id, "words": store.classes[label].name,
             "shard": shard.path.name, "record": record, "offset": offset, "bytes": size, "crc32": int(shard.sums[record]),
             "mean": [round(float(value), 2) for value in pixels.mean(axis=(0, 1))], "picture": str(out)}
    if options.json:
        print(json.dumps(facts, indent=1))
        return
    print(f"{name} {number}: label {label}, {shown(facts['class'])} {shown(facts['words'])}; {shard.path.name} record {record}, "
          f"bytes {offset:,} to {offset + size:,}, CRC-32 {facts['crc32']:08x}; mean RGB {facts['mean']}")
    print(f"written to {shown(out)}")


def add(verbs) -> None:
    p = verbs.add_parser("store", help="look into a prepared store", description=main.__doc__)
    group = p.add_argument_group("what")
    group.add_argument("what", choices=("info", "verify", "show"), metavar="info|verify|show",
                       help="its table of contents; read and check everything; one picture")
    group.add_argument("store", type=path, metavar="STORE", help="the store's folder")
    group.add_argument("number", nargs="?", type=whole(0), metavar="N", help="number of a picture in its split, of show (default: none)")
    group.add_argument("--split", choices=("train", "val", "test"), help="of show (default: the first there is)")
    group.add_argument("--out", type=path, metavar="FILE", help="PNG file of show (default: SPLIT-N.png)")
    group.add_argument("-j", "--workers", type=whole(1), default=2, metavar="N", help="threads of verify (default: 2)")
    output_flags(p)
    p.set_defaults(run=main)
