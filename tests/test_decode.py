"""Odd pictures come out as what a person sees, broken ones as one sentence naming the file; nothing is ever silently garbled."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from minialex.data.decode import DESCRIPTION, MAX_PIXELS, decode, decode_item
from minialex.data.source import ImageError, Item

CORNERS = np.zeros((40, 60, 3), np.uint8)
CORNERS[:20, :30], CORNERS[:20, 30:], CORNERS[20:, :30], CORNERS[20:, 30:] = (220, 40, 40), (40, 200, 60), (50, 60, 220), (230, 220, 40)


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, form, **options)
    return buffer.getvalue()


def seen(data, name="x.jpg", record=40):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning per picture would flood the terminal
        pixels, notes = decode(data, record, name)
    assert pixels.shape == (record, record, 3) and pixels.dtype == np.uint8 and pixels.flags.owndata and pixels.flags.c_contiguous
    return pixels, notes


def test_whole_picture_resized_then_cut_at_integers():
    """Upright and lying, larger and smaller than the record, against the two steps spelt out."""
    rng = np.random.default_rng(3)
    shapes = [(90, 60, (48, 32), (8, 0)), (61, 90, (32, 47), (0, 7)), (20, 33, (32, 53), (0, 10)), (32, 32, (32, 32), (0, 0))]
    for width, height, full, corner in shapes:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        want = np.asarray(image.resize(full, Image.Resampling.BICUBIC))[corner[1] : corner[1] + 32, corner[0] : corner[0] + 32]
        got, notes = seen(encoded(image), "x.png", 32)
        np.testing.assert_array_equal(got, want)
        assert notes == []
    assert "bicubic" in DESCRIPTION and "Pillow" in DESCRIPTION


def test_antialiased():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    got, _ = seen(encoded(stripes), "x.png", 32)
    assert np.abs(got[4:-4, 4:-4].astype(int) - 128).max() <= 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1), (2, 40)])
def test_extreme_shapes_stay_small(shape, monkeypatch):
    """1 x 4000 resized whole would be 64 x 256,000."""
    sizes, resize = [], Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda image, size, *rest: sizes.append(size) or resize(image, size, *rest))
    image = np.full((*shape, 3), 200, np.uint8)
    centre = tuple(slice(side // 2 - 5, side // 2 + 5) if side > 9 else slice(None) for side in shape)
    image[centre] = 77
    pixels, _ = seen(encoded(image), "x.png", 64)
    assert max(sizes[0]) <= 8 * 64 and (pixels[28:36, 28:36] == 77).mean() > 0.9


def test_grey_palette_and_one_bit():
    grey = Image.fromarray(CORNERS).convert("L")
    want = np.asarray(grey)[:, 10:50]
    for image, note in ((grey, "grey"), (grey.convert("P"), "palette")):
        got, notes = seen(encoded(image), "x.png")
        assert note in notes and np.abs(got - want[..., None].astype(int)).max() <= 1
    got, notes = seen(encoded(grey, "JPEG", quality=95))
    assert notes == ["grey"] and np.abs(got.astype(int) - want[..., None]).mean() < 3
    got, notes = seen(encoded(Image.fromarray(CORNERS[..., 0] > 100)), "x.png")
    assert notes == ["1-bit"] and set(np.unique(got)) == {0, 255}
    got, notes = seen(encoded(Image.fromarray(CORNERS).quantize(16)), "x.png")
    assert notes == ["palette"] and np.abs(got.astype(int) - CORNERS[:, 10:50]).max() <= 8


def test_sixteen_bits_are_scaled_not_cut():
    """An 8-bit conversion that clips or keeps the low byte would give white or noise here."""
    wide = np.tile(np.linspace(0, 65535, 40).astype(np.uint16), (40, 1))
    got, notes = seen(encoded(wide), "x.png")
    assert notes == ["16-bit", "grey"]
    np.testing.assert_array_equal(got[..., 0], np.floor(wide / 257 + 0.5))


def test_sixteen_bit_colour():
    wide = (CORNERS[:, 10:50].astype(np.uint16) * 257).byteswap()
    got, notes = seen(png(wide.shape[:2], 16, 2, wide.tobytes()), "x.png")
    assert notes == ["16-bit"]
    assert np.abs(got.astype(int) - CORNERS[:, 10:50]).max() <= 1


def png(shape, bits, kind, rows, chunks=b""):
    """A PNG file by hand, for forms that Pillow does not write."""
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = shape
    step = len(rows) // height
    packed = zlib.compress(b"".join(b"\0" + rows[y * step : (y + 1) * step] for y in range(height)))
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunks + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_is_over_white(mode):
    image = Image.fromarray(CORNERS).convert("RGBA")
    alpha = np.full((40, 60), 255, np.uint8)
    alpha[:, :30] = 0
    image.putalpha(Image.fromarray(alpha))
    if mode == "LA":
        image = image.convert("LA")
    if mode == "P":
        image = image.quantize(8)
    got, notes = seen(encoded(image), "x.png")
    assert "alpha" in notes and (got[:, :19] == 255).all(), notes
    assert (got[:, 21:] < 255).any(axis=2).all()


def test_half_transparent_is_half_white():
    image = np.full((8, 8, 4), (200, 0, 100, 51), np.uint8)
    np.testing.assert_allclose(seen(encoded(image), "x.png", 8)[0][0, 0], 255 * 0.8 + np.array([200, 0, 100]) * 0.2, atol=1)


def test_transparent_colour_of_grey_pictures():
    got, notes = seen(encoded(Image.fromarray(np.full((8, 8), 9, np.uint8)), transparency=9), "x.png", 8)
    assert notes == ["grey", "alpha"] and (got == 255).all()
    wide = np.tile(np.array([9, 60000], ">u2"), (8, 4))
    clear = struct.pack(">I", 2) + b"tRNS" + b"\0\x09" + struct.pack(">I", zlib.crc32(b"tRNS\0\x09"))
    got, notes = seen(png((8, 8), 16, 0, wide.tobytes(), clear), "x.png", 8)
    assert notes == ["16-bit", "grey", "alpha"] and (got[:, ::2] == 255).all() and (got[:, 1::2] == 233).all()


def test_cmyk_looks_as_it_should():
    """Adobe writes CMYK inverted; read the plain way a red patch would come out as its complement."""
    got, notes = seen(encoded(Image.fromarray(CORNERS).convert("CMYK"), "JPEG", quality=95))
    assert notes in (["CMYK"], ["YCCK"])
    assert np.abs(got[4:-4, 4:-4].astype(int) - CORNERS[4:-4, 14:46]).mean() < 6


def test_black_ink_of_cmyk():
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 3] = 255
    got, _ = seen(encoded(Image.frombytes("CMYK", (16, 16), ink.tobytes()), "JPEG"), record=16)
    assert got.max() < 10


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_exif_orientation(orientation, form):
    """A camera held `orientation`: the stored picture is turned so that the flag turns it back."""
    stored = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1),
              6: lambda a: np.rot90(a), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: np.rot90(a, -1)}[orientation](CORNERS)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if form == "JPEG" else {}
    got, notes = seen(encoded(np.ascontiguousarray(stored), form, exif=exif, **options), f"x.{form.lower()}")
    assert notes == (["EXIF rotated"] if orientation > 1 else [])
    assert np.abs(got.astype(int) - CORNERS[:, 10:50]).mean() < 4


BROKEN_EXIF = [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0" + b"\xff" * 40]


@pytest.mark.parametrize("block", BROKEN_EXIF)
def test_broken_exif_is_ignored_quietly(block):
    got, notes = seen(encoded(CORNERS, "JPEG", quality=95, exif=block))
    assert notes == [] and np.abs(got.astype(int) - CORNERS[:, 10:50]).mean() < 4


def test_content_decides_not_the_suffix():
    assert seen(encoded(CORNERS), "n02105855_2933.JPEG")[1] == ["PNG named .JPEG"]
    assert seen(encoded(CORNERS, "JPEG"), "photo.png")[1] == ["JPEG named .png"]


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "WebP"])
def test_other_formats_are_named(form):
    data = b"RIFF\x24\0\0\0WEBPVP8 " + bytes(32) if form == "WebP" else encoded(CORNERS, form)
    with pytest.raises(ImageError, match=rf"photo\.jpg is neither JPEG nor PNG but {form}; convert"):
        decode(data, 32, "photo.jpg")


@pytest.mark.parametrize("data, sentence", [(b"", "is an empty file"), (b"hello", "is neither JPEG nor PNG;"),
                                            (b"<!DOCTYPE html>", "but a web page"), (b"\xff\xd8\xff", "a/b.jpg")])
def test_no_picture(data, sentence):
    with pytest.raises(ImageError, match=sentence):
        decode(data, 32, "a/b.jpg")


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_truncated_anywhere_is_refused(form):
    rng = np.random.default_rng(0)
    whole = encoded(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), form)
    # The last bytes of a PNG are its end chunk, without which the pixels are still whole.
    end = len(whole) - (2 if form == "JPEG" else 20)
    for length in range(1, end, 23):
        with pytest.raises(ImageError, match=r"a/b\.x "):
            decode(whole[:length], 32, "a/b.x")


def test_flipped_bytes_never_escape():
    """Whatever a damaged file does to the decoder, the caller sees pixels or an ImageError."""
    rng = np.random.default_rng(1)
    wholes = [encoded(CORNERS, "JPEG"), encoded(CORNERS), encoded(Image.fromarray(CORNERS).convert("CMYK"), "JPEG"),
              encoded(Image.fromarray(CORNERS).quantize(9))]
    refused = 0
    for trial in range(400):
        data = bytearray(wholes[trial % len(wholes)])
        for _ in range(4):
            data[rng.integers(len(data))] = rng.integers(256)
        try:
            seen(bytes(data), record=16)
        except ImageError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("side", [8193, 14000, 65535])
def test_bombs_are_refused_by_their_header(side):
    bomb = png((side, side), 8, 2, bytes(side))
    assert len(bomb) < 1000 and side * side > MAX_PIXELS
    with pytest.raises(ImageError, match=rf"more than the {MAX_PIXELS} (pixels )?a picture may have"):
        seen(bomb, "bomb.png")


def test_items_with_pixels():
    small = CORNERS[:32, :32]
    got, notes = decode_item(Item("batch[0]", 3, pixels=small), 32)
    np.testing.assert_array_equal(got, small)
    assert notes == [] and not np.shares_memory(got, small)
    assert decode_item(Item("batch[0]", 3, pixels=small), 48)[0].shape == (48, 48, 3)
    np.testing.assert_array_equal(decode_item(Item("x", 0, lambda: encoded(CORNERS)), 40)[0], CORNERS[:, 10:50])
    with pytest.raises(ImageError, match="no encoded bytes"):
        Item("batch[0]", 3, pixels=small).read()
