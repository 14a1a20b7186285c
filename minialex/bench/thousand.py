"""A stand-in for the real archives at their full breadth: 1,000 classes, official names, tiny pictures, the odd files of ILSVRC-2012.

    python -m minialex.bench.thousand FOLDER [--per-class 3]

What it is for: preparation, label order, audit, kills and resumed runs at a thousand classes, without 155 GB.  The odd files are those that
the real set is known for: 22 CMYK JPEGs and a PNG called n02105855_2933.JPEG; grey, turned and a truncated one are added.  A class is a
colour, so a network can learn a little.  WNIDs but one are invented; devkit ids are in another order than WNIDs, as in the real set.
"""

from __future__ import annotations

import argparse
import gzip
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from .. import files
from ..data import matfile
from ..data.ilsvrc import DEVKIT, META, TRAIN, TRUTH, VAL
from ..data.synthetic import pack, write_tar
from ..philox import philox

CLASSES, INNER, CMYK = 1000, 60, 22
PNG_CLASS, PNG_NUMBER = "n02105855", 2933
GREY_EVERY, TURNED_EVERY = 97, 211      # pictures
SIDES = (20, 60)                        # pixels
_STREAM = 0xFFFF0005


def wnids() -> list[str]:
    """The 1,000 ids in sorted order, with the one that is known for its PNG among them."""
    return sorted({PNG_CLASS, *(f"n{1440000 + 9973 * number:08d}" for number in range(CLASSES - 1))})


def devkit_ids(seed: int = 0) -> dict[str, int]:
    """WNID -> ILSVRC2012_ID, in an order of its own."""
    order = np.argsort(philox(np.arange(CLASSES), 0, 0, _STREAM, seed)[0], kind="stable")
    return {wnid: int(place) + 1 for wnid, place in zip(wnids(), order, strict=True)}


def draw(label: int, number: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: the colour of the class, one of 10 x 10 x 10, with a little noise; its sides differ from picture to picture."""
    words = philox(np.arange(2), label, number, _STREAM, seed)
    height, width = (SIDES[0] + int(word) % (SIDES[1] - SIDES[0]) for word in words[0])
    colour = np.array([label // 100, label // 10 % 10, label % 10]) * 24 + 20
    noise = philox(np.arange(height * width), label, number, _STREAM + 1, seed)[0].reshape(height, width, 1) % 9
    return (colour + noise).astype(np.uint8)


def encode(pixels: np.ndarray, form: str) -> bytes:
    """The file of a picture; form is "", "CMYK", "PNG", "grey", "turned" (by EXIF) or "truncated"."""
    image, file, more = Image.fromarray(pixels), io.BytesIO(), {}
    if form == "CMYK":
        image = image.convert("CMYK")
    elif form == "grey":
        image = image.convert("L")
    elif form == "turned":
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[0x0112] = 6
        more["exif"] = exif
    image.save(file, "PNG" if form == "PNG" else "JPEG", **more)
    return file.getvalue()[:-40] if form == "truncated" else file.getvalue()


def training_files(per_class: int, seed: int = 0) -> Iterator[tuple[str, list[tuple[str, str, np.ndarray]]]]:
    """(WNID, [(file name, form, pixels)]) of every class; classes differ in size, numbers have gaps, as in the real set."""
    count = 0
    for label, wnid in enumerate(wnids()):
        entries = []
        for number in range(max(1, per_class - label % 3) if per_class > 2 else per_class):
            form = ("CMYK" if number == 0 and label % 45 == 7 and label // 45 < CMYK else "truncated" if (label, number) == (500, 0) else
                    "grey" if count % GREY_EVERY == 5 else "turned" if count % TURNED_EVERY == 9 else "")
            entries.append((f"{wnid}_{3 * number + label % 7 + 1}.JPEG", form, draw(label, number, seed)))
            count += 1
        if wnid == PNG_CLASS:
            entries.append((f"{wnid}_{PNG_NUMBER}.JPEG", "PNG", draw(label, PNG_NUMBER, seed)))
        yield wnid, entries


def make(folder: str | Path, per_class: int = 3, val_per_class: int = 1, seed: int = 0) -> Path:
    """Writes the three archives, each atomically; returns the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ids = devkit_ids(seed)
    by_id = {number: wnid for wnid, number in ids.items()}
    order = philox(np.arange(CLASSES * val_per_class), 1, 0, _STREAM, seed)[0].argsort(kind="stable")
    truth = [int(place) % CLASSES + 1 for place in order]
    labels = {wnid: label for label, wnid in enumerate(wnids())}

    def class_tars() -> Iterator[tuple[str, bytes]]:
        for wnid, entries in training_files(per_class, seed):
            yield f"{wnid}.tar", pack((name, encode(pixels, form)) for name, form, pixels in entries)

    def val_pictures() -> Iterator[tuple[str, bytes]]:
        for place, number in enumerate(truth):
            yield f"ILSVRC2012_val_{place + 1:08d}.JPEG", encode(draw(labels[by_id[number]], 10**6 + place, seed), "")

    leaves = [{"ILSVRC2012_ID": number, "WNID": by_id[number], "words": f"class {by_id[number]}", "num_children": 0}
              for number in range(1, CLASSES + 1)]
    inner = [{"ILSVRC2012_ID": CLASSES + 1 + number, "WNID": f"n{number:08d}", "words": "inner", "num_children": 2}
             for number in range(INNER)]
    outer = DEVKIT.removesuffix(".tar.gz")
    devkit = pack([(f"{outer}/{META}", matfile.dump("synsets", [*leaves, *inner])),
                   (f"{outer}/{TRUTH}", "".join(f"{number}\n" for number in truth).encode())])
    files.write(folder / TRAIN, lambda file: write_tar(file, class_tars()))
    files.write(folder / VAL, lambda file: write_tar(file, val_pictures()))
    files.write(folder / DEVKIT, gzip.compress(devkit, 6, mtime=0))
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write archives of the official ILSVRC-2012 layout with 1,000 classes of tiny pictures.")
    parser.add_argument("folder", help="where the three archives go")
    parser.add_argument("--per-class", type=int, default=3, help="training pictures of a class (default: 3)")
    asked = parser.parse_args()
    print(f"{make(asked.folder, asked.per_class)}: now minialex prepare --src {asked.folder} --out STORE --record 32")
