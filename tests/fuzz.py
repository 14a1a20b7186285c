"""Changed and random input at every door of the program: each is taken or refused with a sentence, within bounds of time.

    python tests/fuzz.py [--door picture|tar|mat|checkpoint|recipe|argv|all] [--seconds 60] [--seed 0]

A fault is any exception but MiniAlexError (of argv: anything but an exit status of the table in flags.py, or a traceback), or more than
SLOW seconds for one input.  What caused it is kept beside, named by door and number; the same seed finds it again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import sys
import tarfile
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pictures_by_hand as by_hand
from PIL import Image

from minialex import checkpoint, nets
from minialex.cli import build_parser
from minialex.data import archive, decode, matfile
from minialex.data.source import open_source
from minialex.spec import MiniAlexError

SLOW = 5.0                      # seconds for one input; the machine may be busy


def changed(draw: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """One to six changes: bits, bytes, numbers, pieces removed, doubled or taken from another file, the end cut off."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 6)):
        at, size = draw.randrange(len(data) + 1), draw.choice((1, 2, 4, 8, 64, 512))
        kind = draw.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at:at + size] = draw.randbytes(size)
        elif kind == 2:
            data[at:at + 4] = draw.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)).to_bytes(4, draw.choice(("little", "big")))
        elif kind == 3:
            del data[at:at + size]
        elif kind == 4:
            data[at:at] = data[at:at + size]
        elif kind == 5:
            other = draw.choice(others)
            begin = draw.randrange(len(other))
            data[at:at + size] = other[begin:begin + size]
        elif draw.random() < 0.3:
            del data[at:]
    return bytes(data)


def pictures() -> list[bytes]:
    random_ = np.random.default_rng(0)
    rgb = Image.fromarray(random_.integers(0, 256, (24, 31, 3), dtype=np.uint8))
    wide = Image.fromarray(random_.integers(0, 65536, (20, 9), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    forms = [(rgb, "JPEG", {}), (rgb, "JPEG", {"progressive": True, "exif": exif}), (rgb.convert("CMYK"), "JPEG", {}),
             (rgb.convert("L"), "JPEG", {}), (rgb, "PNG", {}),
             (rgb.convert("P"), "PNG", {"transparency": 3}), (rgb.convert("RGBA"), "PNG", {}), (wide, "PNG", {})]
    found = []
    for image, form, options in forms:
        file = io.BytesIO()
        image.save(file, form, **options)
        found.append(file.getvalue())
    palette = by_hand.chunk(b"PLTE", bytes(range(48))) + by_hand.chunk(b"tRNS", bytes(range(0, 256, 16)))
    return [*found, by_hand.jpeg(random_.integers(0, 256, (2, 3, 4)), by_hand.adobe(2)),
            by_hand.png(random_.integers(0, 4, (9, 7)), 2, 0, by_hand.clear(2), interlaced=True),
            by_hand.png(random_.integers(0, 16, (9, 7)), 4, 3, palette)]


def tars() -> list[bytes]:
    found = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as tar:
            for name in ("n00000001/a.JPEG", "n00000002/" + "b" * (90 if form == tarfile.USTAR_FORMAT else 180) + ".JPEG"):
                info = tarfile.TarInfo(name)
                info.size = 700
                tar.addfile(info, io.BytesIO(bytes(700)))
            if form != tarfile.USTAR_FORMAT:
                for kind, name in ((tarfile.SYMTYPE, "n00000001/link.JPEG"), (tarfile.GNUTYPE_SPARSE, "n00000001/hole.JPEG")):
                    info = tarfile.TarInfo(name)
                    info.type, info.linkname = kind, "../" * 60 + "etc"
                    tar.addfile(info)
        found.append(file.getvalue())
    return found


def checkpoints(folder: Path) -> list[bytes]:
    arrays = {"w/conv1.w": np.arange(60, dtype=np.float32).reshape(3, 4, 5), "v/conv1.w": np.zeros((2, 0, 3)),
              "flags": np.array([True, False])}
    return [checkpoint.save(folder, "seed.safetensors", arrays, {"step": 3, "words": ["a", {"b": 1.5}]}).read_bytes()]


def try_picture(data: bytes, folder: Path) -> None:
    pixels, _ = decode(data, 16, "fuzz.JPEG")
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8


def try_tar(data: bytes, folder: Path) -> None:
    (folder / "fuzz.tar").write_bytes(data)
    for member in archive.walk(folder / "fuzz.tar"):
        assert len(member.read()) == member.size
    found = open_source(folder / "fuzz.tar")
    assert [sum(1 for _ in found.items(split)) for split in found.splits] == [found.count(split) for split in found.splits]


def try_mat(data: bytes, folder: Path) -> None:
    matfile.load(data, "meta.mat")


def try_checkpoint(data: bytes, folder: Path) -> None:
    """What is accepted must be what the reference reader of the format makes of it."""
    from safetensors.numpy import load
    (folder / "fuzz.safetensors").write_bytes(data)
    arrays, _ = checkpoint.load(folder / "fuzz.safetensors")
    other = load(data)
    assert set(arrays) == set(other) and all(array.tobytes() == other[name].tobytes() for name, array in arrays.items())


def try_recipe(data: bytes, folder: Path) -> None:
    nets.recipe(data.decode("latin-1"))


WORDS = ("auto", "-1", "0", "1e999", "nan", "", "--", "cuda:0", "emulated:9", "cpu,cpu", "paper", "small(pool=2)", "../..", "/dev/null",
         "\udcff", "é", "x" * 5000)


def argvs(draw: random.Random) -> list[str]:
    """A verb (or none) and words from its own flags and from a list of awkward ones."""
    parser = draw.choice(list(build_parser()._subparsers._group_actions[0].choices.items()))
    flags = [flag for action in parser[1]._actions for flag in action.option_strings if flag not in ("-h", "--help")]
    words = [draw.choice((draw.choice(flags or ("-q",)), draw.choice(WORDS))) for _ in range(draw.randint(0, 6))]
    return [parser[0]] * (draw.random() < 0.95) + words


def try_argv(words: list[str]) -> None:
    """Only reads the command line: no verb runs."""
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        try:
            build_parser().parse_args(words)
        except SystemExit as end:
            assert end.code in (0, 2) and (end.code == 0 or said.getvalue().strip()), f"status {end.code}"
            if end.code == 0:
                return
            raise MiniAlexError(said.getvalue()[:60]) from None


def doors(folder: Path) -> dict[str, tuple[list[bytes], Callable[[bytes, Path], None]]]:
    recipes = [text.encode() for text in ("small(pool=2, steps=(3,))", 'paper(lrn=False, without="conv4")', "tiny", "figure1(unit='tanh')")]
    mats = [matfile.dump("synsets", [{"ILSVRC2012_ID": n, "WNID": f"n{n:08d}", "words": "a word", "num_children": 0} for n in (1, 2)])]
    mats.append(mats[0][:128] + zlib.compress(mats[0][128:]))
    return {"picture": (pictures(), try_picture), "tar": (tars(), try_tar), "mat": (mats, try_mat),
            "checkpoint": (checkpoints(folder), try_checkpoint), "recipe": (recipes, try_recipe)}


def fuzz(door: str, seed: int, folder: Path, seconds: float = 1e9,
         inputs: int = 10**12) -> tuple[int, int, Counter, list[tuple[object, str]]]:
    """(inputs tried, taken, sentences by their beginning, faults as (input, traceback))."""
    draw, tried, taken, refusals, faults = random.Random(f"{door} {seed}"), 0, 0, Counter(), []
    seeds, attempt = doors(folder).get(door, ([], None))
    end = time.monotonic() + seconds
    while tried < inputs and time.monotonic() < end:
        given = argvs(draw) if door == "argv" else changed(draw, draw.choice(seeds), seeds)
        tried += 1
        began = time.monotonic()
        try:
            if door == "argv":
                try_argv(given)
            else:
                attempt(given, folder)
            taken += 1
        except MiniAlexError as error:
            refusals[str(error).partition("(")[0][-40:]] += 1
        except Exception:
            faults.append((given, traceback.format_exc()))
        if time.monotonic() - began > SLOW:
            faults.append((given, f"took {time.monotonic() - began:.1f} s"))
    return tried, taken, refusals, faults


DOORS = ("picture", "tar", "mat", "checkpoint", "recipe", "argv")


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the doors of the program.")
    parser.add_argument("--door", choices=(*DOORS, "all"), default="all")
    parser.add_argument("--seconds", type=float, default=60, help="for each door (default: 60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("."), help="where inputs that cause faults are kept (default: here)")
    asked, worst = parser.parse_args(), 0
    for door in DOORS if asked.door == "all" else (asked.door,):
        with tempfile.TemporaryDirectory() as place:
            tried, taken, refusals, faults = fuzz(door, asked.seed, Path(place), asked.seconds)
        print(f"{door:<12}{tried:>10,} inputs, {taken:,} taken, {len(refusals):,} kinds of refusal, {len(faults)} faults", flush=True)
        for number, (given, why) in enumerate(faults[:20]):
            name = asked.out / f"fault-{door}-{asked.seed}-{number}"
            name.write_bytes(given if isinstance(given, bytes) else os.fsencode("\0".join(given)))
            print(f"  {name}: {why.strip().splitlines()[-1]}")
        worst = max(worst, len(faults))
    return 1 if worst else 0


if __name__ == "__main__":
    sys.exit(main())
