"""Pictures for `minialex predict`: odd ones are seen as a person sees them, anything else is refused in one sentence."""

import io
import json
import os
import struct
import zlib

import numpy as np
import pytest
from commands import empty_folder, finished, one_epoch, refused, said
from pictures import picture, tree
from PIL import Image
from runs import small_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("pictures"), per_class=3, val_per_class=1)


@pytest.fixture(scope="module")
def finished_run(store, tmp_path_factory):
    return one_epoch(store, tmp_path_factory.mktemp("run"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    return empty_folder(tmp_path, monkeypatch)


def bomb(side):
    """A PNG file of a few bytes whose header claims side x side pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return picture()[:12] + head + struct.pack(">I", zlib.crc32(head)) + picture()[33:]


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def colourful():
    """A picture in few colours, so that a palette loses nothing."""
    rng = np.random.default_rng(7)
    return Image.fromarray(rng.choice(np.uint8([0, 85, 170, 255]), (6, 4, 3)).repeat(30, 0).repeat(30, 1))


def test_predict_on_odd_pictures(tmp_path, colourful, finished_run, capsys):
    """Each form of a picture has the probabilities of the plain one; CMYK, which has other colours, those of a picture."""
    grey = colourful.convert("L")
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6                                                 # to be turned clockwise when shown
    opaque = colourful.copy()
    opaque.putalpha(255)
    files = {"plain.png": encoded(colourful), "palette.png": encoded(colourful.convert("P", palette=Image.Palette.ADAPTIVE)),
             "alpha.png": encoded(opaque), "turned.png": encoded(colourful.transpose(Image.Transpose.ROTATE_90), exif=exif),
             "a name\n\U0001f600.png": encoded(colourful), os.fsdecode(b"\xff.png"): encoded(colourful),
             "grey.png": encoded(grey), "grey as colours.png": encoded(grey.convert("RGB")), "16 bit.png": encoded(wide),
             "cmyk.jpg": encoded(colourful.convert("CMYK"), "JPEG")}
    paths = {name: str(tree(tmp_path, {name: content}) / name) for name, content in files.items()}
    got = json.loads(finished(capsys, "predict", *paths.values(), "--checkpoint", finished_run, "--json", "--top", "12"))
    assert list(got) == list(paths.values())
    for ranked in got.values():
        assert len(ranked) == 12 and sum(ranked.values()) == pytest.approx(1, abs=1e-5)
    def same(*names):
        first, *others = (got[paths[name]] for name in names)
        for other in others:
            assert other == pytest.approx(first, abs=1e-6)
    same("plain.png", "palette.png", "alpha.png", "turned.png", "a name\n\U0001f600.png", os.fsdecode(b"\xff.png"))
    same("grey.png", "grey as colours.png", "16 bit.png")
    assert got[paths["grey.png"]] != pytest.approx(got[paths["plain.png"]], abs=1e-6)
    out = finished(capsys, "predict", *paths.values(), "--checkpoint", finished_run)
    assert out.count(" %  ") == 5 * len(paths)


@pytest.mark.parametrize("name, content, parts", [
    ("nowhere.jpg", None, ("does not exist", "JPEG or PNG")),
    ("folder.jpg", "folder", ("is a folder", "folder.jpg/*.jpg")),
    ("pipe.jpg", "pipe", ("not a regular file",)),
    ("text.jpg", b"hello", ("neither JPEG nor PNG", "convert")),
    ("film.gif", encoded(Image.new("RGB", (4, 4)), "GIF"), ("neither JPEG nor PNG but GIF",)),
    ("empty.jpg", b"", ("is an empty file",)),
    ("short.jpg", encoded(Image.effect_noise((64, 64), 9), "JPEG")[:-300], ("truncated or broken", "replace")),
    ("bomb.png", bomb(60000), ("more than the", "pixels a picture may have", "scale it down")),
])
def test_predict_on_what_is_no_picture(tmp_path, finished_run, capsys, name, content, parts):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    elif content is not None:
        path.write_bytes(content)
    refused(capsys, tmp_path, ("predict", path, "--checkpoint", finished_run), str(path), *parts)


@pytest.mark.parametrize("figure, parts", [("no/where/x.png", ("there is no folder", "no/where")), ("x.jpg", ("only PNG",)),
                                           ("d.png", ("that is a folder",))])
def test_figures_that_cannot_be_drawn(tmp_path, capsys, figure, parts):
    (tmp_path / "d.png").mkdir()
    refused(capsys, tmp_path, ("predict", "x.png", "--figure", tmp_path / figure), f"--figure {tmp_path / figure}", *parts)


def test_a_figure_the_system_refuses(tmp_path, finished_run, capsys):
    """Its name is the user's, not that of the temporary file."""
    pictures = tree(tmp_path, {"x.png": 3}) / "x.png"
    status, _, err = said(capsys, "predict", pictures, "--checkpoint", finished_run, "--figure", "/proc/figure.png")
    assert status == 2 and err.startswith("minialex: /proc/figure.png: ") and "check the path" in err and len(err.splitlines()) == 1
