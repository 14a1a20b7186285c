"""Pictures made to harm cost bounded memory and do nothing; odd ones have the colours they were written from."""

import functools
import io
import json
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from pictures_by_hand import adobe, chunk, clear, jpeg, plain_png, png, png_file, segment
from PIL import Image

from minialex.data.source import ImageError

decoding = sys.modules["minialex.data.decode"]                  # minialex.data.decode is the function of that module
decode, LIMIT = decoding.decode, 512                            # MiB
RGB = [[200, 40, 60], [20, 160, 90], [60, 70, 210], [230, 220, 40]]
TURNED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0%c\0\0\0\0\0\0\0"


def saved(image, form="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def after_start(data, inserted, at=2):
    return data[:at] + inserted + data[at:]


def small(**options):
    return saved(Image.new("RGB", (64, 64), (200, 40, 60)), subsampling=0, **options)


def one(extra=b"", deflated=None):
    return png_file(1, 1, 8, 2, deflated or zlib.compress(b"\0" + bytes(RGB[0])), extra)


@functools.cache
def bomb():
    """200 MiB of zeros in 200 KB."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()


def large(mode="RGB", side=8192, **options):
    """As many pixels as are allowed."""
    return saved(Image.new(mode, (side, side), (200, 40, 60, 0)[:len(mode)] if mode != "L" else 77), **options)


def scans(side, count):
    """A progressive JPEG in which a scan of a hundred bytes, which goes over the whole picture, comes again and again."""
    data = large("L", side, progressive=True)
    starts = [i for i in range(len(data) - 1) if data[i:i + 2] == b"\xff\xda"]
    begin = data.rindex(b"\xff\xc4", 0, starts[1])
    return after_start(data, data[begin:data.rindex(b"\xff\xc4", 0, starts[2])] * count, len(data) - 2)


def claiming(data, old, new=8192):
    """The header says another size."""
    found = struct.pack(">HH", old, old)
    assert found in data
    return data.replace(found, struct.pack(">HH", new, new), 1)


# Name: (how the file is made, the colour it has or words of the sentence that refuses it)
HOSTILE = {
    "65500 x 65500.jpg": (lambda: claiming(small(), 64, 65500), "more than the 67108864 pixels"),
    "65500 x 65500.png": (lambda: png_file(65500, 65500, 8, 2, zlib.compress(bytes(9))), "more than the 67108864 pixels"),
    "profile bomb.png": (lambda: one(chunk(b"iCCP", b"x\0\0" + bomb())), RGB[0]),
    "text bomb.png": (lambda: one(chunk(b"zTXt", b"x\0\0" + bomb())), RGB[0]),
    "international bomb.png": (lambda: one(chunk(b"iTXt", b"x\0\1\0\0\0" + bomb())), RGB[0]),
    "pixels without end.png": (lambda: one(deflated=bomb()), [0, 0, 0]),
    "sixty texts of a megabyte.png": (lambda: one(chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 20))) * 60), RGB[0]),
    "chunks.png": (lambda: one(chunk(b"tEXt", b"a\0b") * 200_000), "more than 100000 chunks"),
    "100 segments.jpg": (lambda: after_start(small(), segment(0xE5, bytes(65533)) * 100), RGB[0]),
    "500 Exif.jpg": (lambda: after_start(small(), segment(0xE1, b"Exif\0\0" + bytes(65527)) * 500), RGB[0]),
    "every tag the whole block.png": (lambda: one(chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff" + b"".join(
        struct.pack("<HHII", tag, 7, 700_000, 8) for tag in range(65535)))), RGB[0]),
    "segments.jpg": (lambda: after_start(small(), b"\xff\xe5\0\2" * 4_000_000), "more than 100000 segments"),
    "fill bytes.jpg": (lambda: after_start(small(), b"\xff" * 1_000_000 + b"\0" * 1_000_000), RGB[0]),
    "1 x 20000.jpg": (lambda: saved(Image.new("RGB", (1, 20000), (200, 40, 60))), RGB[0]),
    "20000 x 1.jpg": (lambda: saved(Image.new("RGB", (20000, 1), (200, 40, 60))), RGB[0]),
    "1 x 1.jpg": (lambda: saved(Image.new("RGB", (1, 1), (200, 40, 60))), RGB[0]),
    "few scans of much.jpg": (lambda: claiming(scans(512, 100), 512), "too many scans for its 8192 x 8192 pixels"),
    "many scans of little.jpg": (lambda: scans(512, 100), [77, 77, 77]),
    "large grey of 16 bits.png": (lambda: plain_png(8192, 8192, 16, 0, b"\x4d\x4d" * 8192), [77, 77, 77]),
    "large with alpha.png": (lambda: plain_png(8192, 8192, 8, 6, bytes((*RGB[0], 255)) * 8192), RGB[0]),
    "large turned ink.jpg": (lambda: large("CMYK", exif=TURNED % 6), [55, 215, 195]),
    "large progressive.jpg": (lambda: large("L", progressive=True), [77, 77, 77]),
    "large progressive colour.jpg": (lambda: claiming(large("CMYK", 512, progressive=True), 512),
                                     "in several scans (progressive), which takes more than 512"),
}
CHILD = """
import json, resource, sys, time
from minialex.data.decode import decode
from minialex.data.source import ImageError
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))     # a fault must not take the machine's memory
def memory(word):
    return next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith(word))
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        data = file.read()
    with open("/proc/self/clear_refs", "w") as file:            # the peak is counted from here on
        file.write("5")
    before = memory("VmRSS")
    try:
        pixels, _ = decode(data, 64, path)
        outcome = pixels.reshape(-1, 3).mean(0).tolist()
    except ImageError as error:
        outcome = str(error)
    print(json.dumps([path, memory("VmHWM") - before, outcome]), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """All of them through one process: {name: (MiB at the peak, mean colour or sentence)}."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("no /proc to ask for peaks of memory")
    folder = tmp_path_factory.mktemp("hostile")
    for name, (make, _) in HOSTILE.items():
        (folder / name).write_bytes(make())
    run = subprocess.run([sys.executable, "-c", CHILD, *HOSTILE], cwd=folder, capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert run.returncode == 0, run.stderr
    assert sorted(p.name for p in folder.iterdir()) == sorted(HOSTILE)
    return {name: (peak, outcome) for name, peak, outcome in map(json.loads, run.stdout.splitlines())}


@pytest.mark.parametrize("name", HOSTILE)
def test_bounded_memory_and_the_right_picture_or_a_sentence(name, outcomes):
    (peak, outcome), (_, want) = outcomes[name], HOSTILE[name]
    assert peak < (LIMIT if name.startswith("large") else 64)
    if isinstance(want, str):
        assert want in outcome and outcome.startswith(name) and len(outcome.splitlines()) == 1
    else:
        np.testing.assert_allclose(outcome, want, atol=2)


def test_memory_is_measured(tmp_path):
    """With strips as large as the picture it takes three times the memory of its pixels and more."""
    (tmp_path / "x.png").write_bytes(plain_png(4096, 4096, 8, 6, bytes((*RGB[0], 255)) * 4096))
    child = CHILD.replace("resource.set", "sys.modules['minialex.data.decode'].STRIP = 1 << 30\nresource.set", 1)
    run = subprocess.run([sys.executable, "-c", child, "x.png"], cwd=tmp_path, capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert run.returncode != 0 or json.loads(run.stdout)[1] > 3 * 64


# -------------------------------------------------------------------------------------------------------------- what Pillow gets to see


def given(data, monkeypatch):
    """The bytes that Pillow is handed for a file, and the formats it may try."""
    seen, open_ = [], Image.open
    monkeypatch.setattr(Image, "open", lambda file, formats: seen.append((file.getvalue(), formats)) or open_(file, formats=formats))
    decode(data, 8, "x")
    return seen[0]


def test_pillow_sees_only_what_pixels_depend_on(monkeypatch):
    block = TURNED % 1
    mpf = segment(0xE2, b"MPF\0II*\0\x08\0\0\0")
    for extra in (segment(0xFE, b"comment"), segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"), segment(0xE2, b"ICC_PROFILE\0\1\1"), mpf,
                  segment(0xED, b"Photoshop 3.0\0" + b"8BIM" * 9), b"\xff\xff\xff", b"\0junk"):
        assert given(after_start(small(), extra, 20), monkeypatch) == (small(), ("JPEG", "PNG"))
    assert given(after_start(small(), segment(0xE1, block)), monkeypatch)[0] == small()
    for kind in (b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"acTL", b"fcTL", b"gAMA", b"prVt"):
        assert given(one(chunk(kind, b"\0" * 26)), monkeypatch)[0] == one()
    assert given(one(chunk(b"eXIf", block[6:]) + clear(1, 2, 3)), monkeypatch)[0] == one(clear(1, 2, 3))


@pytest.mark.parametrize("extra", [b"MPF\0", b"MPF\0II*\0\xff\xff\xff\x7f", b"MPF\0II*\0\x08\0\0\0\1\0\1\xb0\4\0\1\0\0\0\2\0\0\0\0\0\0\0"])
def test_a_list_of_further_pictures_changes_nothing(extra):
    """Pillow takes such files for another format; a broken list is none of the picture's."""
    wanted = decode(small(), 16, "x")
    got = decode(after_start(small(), segment(0xE2, extra)), 16, "x")
    np.testing.assert_array_equal(got[0], wanted[0])
    assert got[1] == wanted[1] == []


def test_an_animation_is_its_still_picture():
    def frame(side):
        return chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, side, side, 0, 0, 1, 1, 0, 0))
    for frames, side in ((2, 1), ((1 << 31) - 1, 1), (2, 9)):           # the last has a frame larger than the picture
        data = one(chunk(b"acTL", struct.pack(">II", frames, 0)) + frame(side))
        assert decode(data, 1, "x.png")[0].tolist() == [[RGB[0]]]


def test_orientation_is_exif_and_nothing_else():
    """Pillow also believes XMP, which no browser does."""
    data = jpeg([[[200], [40]]], segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation=\"3\"/>")
                + segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0"))
    pixels, notes = decode(data, 8, "x.jpg")
    assert notes == ["grey"] and pixels[0, 0, 0] > pixels[0, -1, 0]


def test_orientation_of_odd_blocks():
    """The first block counts, in either order of bytes, as a number of 2 or 4 bytes; what is broken turns nothing."""
    def entries(*found, order="<", count=None, start=8):
        head = b"II*\0" if order == "<" else b"MM\0*"
        body = b"".join(struct.pack(f"{order}HHI", tag, kind, 1) + struct.pack(f"{order}I" if kind == 4 else f"{order}HH", *value)
                        for tag, kind, *value in found)
        return head + struct.pack(f"{order}IH", start, len(found) if count is None else count) + body

    def turned(*blocks):
        data = after_start(small(), b"".join(segment(0xE1, b"Exif\0\0" + block) for block in blocks))
        both = [decode(data, 8, "x")[1], decode(one(b"".join(chunk(b"eXIf", block) for block in blocks)), 1, "x")[1]]
        assert both[0] == both[1]
        return both[0] == ["EXIF rotated"]
    six = (0x112, 3, 6, 0)
    assert turned(entries(six)) and turned(entries(six, order=">")) and turned(entries((0x112, 4, 6))) and turned(entries(six), b"junk")
    assert turned(entries((0x100, 3, 6, 0), six)) and turned(entries(six, count=65535))
    several = entries(six).replace(b"\1\0\0\0\6", b"\2\0\0\0\6")
    for block in (several, entries((0x112, 3, 1, 0)), entries((0x112, 3, 9, 0)), entries((0x112, 2, 6, 0)), entries((0x111, 3, 6, 0)),
                  entries(six, start=9), entries(six, start=1 << 31), entries(six, count=0), entries(six)[:14], entries(six)[1:], b"II*\0"):
        assert not turned(block, entries(six))


@pytest.mark.parametrize("frame", [b"\x08\0\x40\0\x40\0", b"\x08\0\0\0\x40\1\1\x11\0", b"\x08\0\x40\0\0\1\1\x11\0",
                                   b"\x08\0\x40\0\x40\1\1\0\0", b"\x08\0\x40\0\x40\1", b"\x08\0\x40\0\x40\3", b""])
@pytest.mark.parametrize("kind", [0xC0, 0xC1, 0xC2, 0xC9])
def test_a_frame_of_nothing(frame, kind):
    """No components, no rows, no columns, no samples, none of the components it promises, no frame."""
    data = jpeg([[[200]]])
    start = data.index(b"\xff\xc0")
    with pytest.raises(ImageError, match=r"^x\.jpg "):
        decode(data[:start] + segment(kind, frame) * bool(frame) + data[data.index(b"\xff\xda"):], 8, "x.jpg")


def test_extraneous_bytes_before_the_end():
    plain, odd = small(), after_start(small(), bytes(range(100)), -2)
    np.testing.assert_array_equal(decode(odd, 64, "x")[0], decode(plain, 64, "x")[0])


OTHERS = {
    "GIF": b"GIF89a\1\0\1\0", "BMP": b"BM" + bytes(60), "TIFF": b"II*\0\x08\0\0\0", "WebP": b"RIFF\x24\0\0\0WEBPVP8 " + bytes(32),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PDF": b"%PDF-1.7\n", "FITS": b"SIMPLE  =                    T",
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 stream": b"\xff\x4f\xff\x51\0\x2f", "AVIF": b"\0\0\0\x1cftypavif",
    "PSD": b"8BPS\0\1", "ICO": b"\0\0\1\0\1\0", "PPM": b"P6 1 1 255 abc", "DDS": b"DDS " + bytes(124),
    "ICNS": b"icns" + bytes(20), "XPM": b"/* XPM */",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_reach_no_plugin(name, monkeypatch):
    Image.init()
    asked = []

    def trap(*_):
        asked.append(name)
        raise SyntaxError
    others = {key: (trap, None) for key in Image.OPEN if key not in ("JPEG", "PNG")}
    assert len(others) > 30
    monkeypatch.setattr(Image, "OPEN", Image.OPEN | others)
    named = "" if name in ("PSD", "ICO", "PPM", "DDS", "ICNS", "XPM") else f" but {name.removesuffix(' stream')}"
    with pytest.raises(ImageError, match=rf"^photo\.jpg is neither JPEG nor PNG{named}; convert or remove it$"):
        decode(OTHERS[name] + bytes(200), 32, "photo.jpg")
    assert asked == []
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(io.BytesIO(OTHERS["GIF"] + bytes(200)))
    assert asked                                                # the trap works


# ------------------------------------------------------------------------------------------------------------- what a person sees


INK = np.array([[[0, .8, .6, .1], [.9, 0, .5, .2]], [[.7, .6, 0, .05], [.1, .1, .8, 0]]])
SEEN = 255 * (1 - INK[..., :3]) * (1 - INK[..., 3:])
STORED = np.rint(255 * (1 - INK)).astype(int)                   # as Adobe writes ink: 255 is none


def luma(rgb):
    """Y, Cb, Cr of JFIF."""
    r, g, b = np.moveaxis(np.asarray(rgb, float), -1, 0)
    y = .299 * r + .587 * g + .114 * b
    return np.rint(np.stack([y, 128 + (b - y) / 1.772, 128 + (r - y) / 1.402], -1)).clip(0, 255).astype(int)


SQUARE = np.array(RGB).reshape(2, 2, 3)
BY_HAND = {
    "YCbCr": (jpeg(luma(SQUARE)), SQUARE, []),
    "RGB": (jpeg(SQUARE, adobe(0)), SQUARE, []),
    "grey": (jpeg(SQUARE[..., :1]), SQUARE[..., :1], ["grey"]),
    "CMYK": (jpeg(STORED, adobe(0)), SEEN, ["CMYK"]),
    "CMYK without Adobe's mark": (jpeg(STORED), SEEN, ["CMYK"]),
    "YCCK": (jpeg(np.concatenate([luma(255 - STORED[..., :3]), STORED[..., 3:]], -1), adobe(2)), SEEN, ["YCCK"]),
}


@pytest.mark.parametrize("form", BY_HAND)
def test_colours_of_jpeg(form):
    data, want, noted = BY_HAND[form]
    pixels, notes = decode(data, 16, "x.jpg")
    assert notes == noted
    np.testing.assert_allclose(pixels, np.broadcast_to(want, (2, 2, 3)).repeat(8, 0).repeat(8, 1), atol=2)


@pytest.mark.parametrize("form", ["YCbCr", "YCCK", "grey"])
def test_progressive_is_the_same_picture(form):
    plain = Image.open(io.BytesIO(BY_HAND[form][0]), formats=("JPEG",))
    again = saved(plain, progressive=True, quality=100, subsampling=0)
    assert b"\xff\xc2" in again
    np.testing.assert_allclose(decode(again, 16, "x")[0], decode(BY_HAND[form][0], 16, "x")[0], atol=3)


PALETTE = chunk(b"PLTE", np.array(RGB, np.uint8).tobytes())
C = np.array(RGB)
HALF = 255 - (255 - C) * np.array([255, 0, 128, 255])[:, None] / 255        # opaque, clear, half, opaque
# Form: (samples of a row, bits, kind, extra chunks, colours of the row, notes)
ROWS = {
    "1 bit": ([0, 1, 1, 0], 1, 0, b"", [0, 255, 255, 0], ["1-bit"]),
    "1 bit, black clear": ([0, 1, 1, 0], 1, 0, clear(0), [255] * 4, ["1-bit", "alpha"]),
    "2 bits": ([0, 1, 2, 3], 2, 0, b"", [0, 85, 170, 255], ["grey"]),
    "2 bits, one clear": ([0, 1, 2, 3], 2, 0, clear(2), [0, 85, 255, 255], ["grey", "alpha"]),
    "4 bits, one clear": ([0, 2, 7, 15], 4, 0, clear(2), [0, 255, 119, 255], ["grey", "alpha"]),
    "grey": ([0, 9, 200, 255], 8, 0, b"", [0, 9, 200, 255], ["grey"]),
    "grey of 16 bits": ([0, 128, 129, 65407], 16, 0, b"", [0, 0, 1, 255], ["16-bit", "grey"]),
    "RGB": (RGB, 8, 2, b"", C, []),
    "RGB, one clear": (RGB, 8, 2, clear(*RGB[1]), [RGB[0], [255] * 3, *RGB[2:]], ["alpha"]),
    "RGB of 16 bits": (C * 256 + 99, 16, 2, b"", C, ["16-bit"]),
    "RGB of 16 bits, one clear": (C * 256 + 99, 16, 2, clear(*(C[1] * 256 + 99)), [RGB[0], [255] * 3, *RGB[2:]], ["16-bit", "alpha"]),
    "palette of 2 bits": ([0, 1, 2, 3], 2, 3, PALETTE, C, ["palette"]),
    "palette of 4 bits": ([3, 2, 1, 0], 4, 3, PALETTE, C[::-1], ["palette"]),
    "palette of 8 bits, part clear": ([0, 1, 2, 3], 8, 3, PALETTE + chunk(b"tRNS", b"\xff\0\x80"), HALF, ["palette", "alpha"]),
    "grey and alpha": ([[100, 255], [100, 0], [100, 51], [9, 255]], 8, 4, b"", [100, 255, 224, 9], ["grey", "alpha"]),
    "grey and alpha of 16 bits": ([[25700, 65535], [25700, 0], [0, 65535], [65535, 9]], 16, 4, b"", [100, 255, 0, 255],
                                  ["16-bit", "alpha"]),
    "RGBA": (np.c_[C, [255, 0, 128, 255]], 8, 6, b"", HALF, ["alpha"]),
    "RGBA of 16 bits": (np.c_[C, [255, 0, 128, 255]] * 257, 16, 6, b"", HALF, ["16-bit", "alpha"]),
}


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("form", ROWS)
def test_colours_of_png(form, interlaced):
    samples, bits, kind, extra, want, noted = ROWS[form]
    pixels, notes = decode(png(np.stack([samples] * 4), bits, kind, extra, interlaced), 4, "x.png")
    assert notes == noted
    np.testing.assert_allclose(pixels, np.broadcast_to(np.reshape(want, (1, 4, -1)), (4, 4, 3)), atol=1 if "alpha" in notes else 0)


def test_a_palette_picture_without_palette_is_no_black_picture():
    with pytest.raises(ImageError, match=r"^x\.png has a broken header \(a palette picture without palette\)"):
        decode(png([[0, 1]], 8, 3), 4, "x.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(90, 40), (33, 120), (700, 30)])
def test_strips_come_to_the_same_pixels(orientation, shape, monkeypatch):
    """Strips of a few rows, whole pictures turned first: each form of picture, however it is to be turned."""
    rng = np.random.default_rng(shape[0])
    block = TURNED % orientation
    forms = {"RGB": (2, 3, 8), "RGBA": (6, 4, 8), "LA": (4, 2, 8), "grey of 16 bits": (0, 1, 16), "1 bit": (0, 1, 1), "palette": (3, 1, 2)}
    files = {form: png(rng.integers(0, 1 << bits, (*shape, parts)), bits, kind, PALETTE * (kind == 3) + chunk(b"eXIf", block[6:]))
             for form, (kind, parts, bits) in forms.items()}
    ink = Image.frombytes("CMYK", shape[::-1], rng.bytes(shape[0] * shape[1] * 4))
    files["CMYK"] = saved(ink, exif=block)
    whole = {form: decode(data, 24, form) for form, data in files.items()}
    monkeypatch.setattr(decoding, "STRIP", 1000)
    for form, data in files.items():
        pixels, notes = decode(data, 24, form)
        np.testing.assert_array_equal(pixels, whole[form][0], err_msg=form)
        assert ("EXIF rotated" in notes) == (orientation > 1) and notes == whole[form][1]


def test_more_components_than_a_byte_counts():
    """A hundred frames, of which each adds its own: found by the fuzzer."""
    plain = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(plain, "JPEG")
    data = plain.getvalue()
    at = data.index(b"\xff\xc0")
    frame = data[at:at + 2 + int.from_bytes(data[at + 2:at + 4], "big")]
    with pytest.raises(ImageError, match="frames"):
        decode(data[:at] + frame * 100 + data[at + len(frame):], 8, "frames")
