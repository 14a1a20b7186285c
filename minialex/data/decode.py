"""From an encoded picture to a record of (record, record, 3) uint8 RGB, by rules that are stated once and versioned (paper, section 2).

The paper: shorter side to 256, then the central 256 x 256.  Here, for any `record`:
- JPEG and PNG only, told by content and not by suffix; at most MAX_PIXELS, checked before anything is decoded;
- Pillow sees only what pixels depend on: profiles, texts, thumbnails and animations are cut out before (`_jpeg`, `_png`), so that none of
  them can cost memory or time or spoil a good picture; within MAX_BYTES a picture of MAX_PIXELS is made a record strip by strip;
- truncated or broken data is an error, never a half-grey picture;
- turned upright by the EXIF orientation; alpha and transparent colours over white; palette, grey and 1-bit to RGB; 16 bits to the nearest
  of 8 (grey) or to the upper 8 (colour); CMYK and YCCK inverted as Adobe writes them, then R = 255 (1-C)(1-K) and so on;
- the whole picture resized by Pillow's antialiased bicubic filter, across and then down, so that the shorter side has `record` pixels
  and the longer one round(long * record / short), then the central `record` pixels at the integer offset (long' - record) // 2; of a
  picture more than MAX_ASPECT times as long as wide only the central part of that shape is resized;
- JPEG is decoded at full size (no draft mode, which gives other pixels).
"""

from __future__ import annotations

import io
import re
import threading
import warnings

import numpy as np
import PIL
from PIL import Image

from .source import ImageError, Item

VERSION = 2  # goes up when the rules above change what any picture becomes
MAX_PIXELS = 64 << 20
MAX_BYTES = 512 << 20       # of memory for one picture
MAX_SCANNED = 32 * MAX_PIXELS  # pixels of all scans of a JPEG together: a scan of 100 bytes can cost a pass over the whole picture
MAX_PARTS = 100_000         # segments or chunks of a file
MAX_ASPECT = 8
STRIP = 4 << 20             # pixels converted at a time
# For the manifest of a store: how its pixels came about.
DESCRIPTION = (f"decode {VERSION}: Pillow {PIL.__version__}, EXIF upright, alpha over white, bicubic, antialiased, whole picture resized "
               f"by its shorter side, across and then down, then centre crop at integers")
_ORIENTATION = 0x0112  # EXIF tag; values 2 to 8 mirror or turn
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_OTHER_FORMATS = (
    (b"GIF8", 0, "GIF"), (b"BM", 0, "BMP"), (b"II*\0", 0, "TIFF"), (b"MM\0*", 0, "TIFF"), (b"WEBP", 8, "WebP"), (b"ftypavif", 4, "AVIF"),
    (b"ftyphei", 4, "HEIC"), (b"<", 0, "a web page or SVG"), (b"%PDF", 0, "PDF"), (b"%!PS", 0, "PostScript"),
    (b"jP  ", 4, "JPEG 2000"), (b"\xff\x4f\xff\x51", 0, "JPEG 2000"), (b"SIMPLE  =", 0, "FITS"),
)
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_PNG = b"\x89PNG\r\n\x1a\n"
_IN_SCAN = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")       # in a scan, ff 00 is data and d0 to d7 only divide it
# Silencing Pillow's warnings (broken EXIF, large pictures) changes the process's filters, so only one thread may do it at a time.
_QUIET = threading.Lock()


def decode(data: bytes, record: int, name: str) -> tuple[np.ndarray, list[str]]:
    """One record from the bytes of a JPEG or PNG file.

    Parameters
    ----------
    data : bytes       the whole file                 record : int       side of the result in pixels, 1 or more
    name : str         what errors call the file; its suffix only serves the note "PNG named .JPEG"

    Returns
    -------
    pixels : (record, record, 3) uint8, owned          notes : what was odd about the file, for the audit, e.g. ["CMYK", "EXIF rotated"]

    Raises
    ------
    ImageError         no JPEG or PNG, too many pixels, truncated, broken
    """
    image, exif, notes = _opened(data, name)
    try:
        image.load()
        _note(image, data, notes)
        return _fit(image, record, _orientation(exif, notes)), notes
    except MemoryError:
        raise
    except Exception as error:  # whatever the decoder raises on broken data, it is this picture's fault
        raise ImageError(f"{name} is truncated or broken ({error}); replace or remove it") from error


def decode_item(item: Item, record: int) -> tuple[np.ndarray, list[str]]:
    """`decode` for an item of any source: one that carries pixels is only resized, by the same rules."""
    if item.pixels is None:
        return decode(item.read(), record, item.name)
    if item.pixels.shape == (record, record, 3):
        return item.pixels.copy(), []
    return _fit(Image.fromarray(item.pixels), record), []


def _opened(data: bytes, name: str) -> tuple[Image.Image, bytes, list[str]]:
    """The picture with its header read, nothing decoded yet; its Exif block; notes."""
    if not data:
        raise ImageError(f"{name} is an empty file; replace or remove it")
    try:
        parts, exif = _jpeg(data) if data.startswith(b"\xff\xd8\xff") else _png(data) if data.startswith(_PNG) else ([data], b"")
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(b"".join(parts)), formats=("JPEG", "PNG"))
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} has more than the {MAX_PIXELS} pixels a picture may have; scale it down or remove it") from error
    except Image.UnidentifiedImageError as error:
        found = next((f" but {kind}" for magic, at, kind in _OTHER_FORMATS if data[at : at + len(magic)] == magic), "")
        raise ImageError(f"{name} is neither JPEG nor PNG{found}; convert or remove it") from error
    except MemoryError:
        raise
    except Exception as error:
        raise ImageError(f"{name} has a broken header ({error}); replace or remove it") from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{name} has {image.width} x {image.height} pixels, more than the {MAX_PIXELS} a picture may have; "
                         f"scale it down or remove it")
    if image.format == "JPEG":
        _scans(image, parts[-1], name)
    suffix, notes = name.rpartition(".")[2], []
    if image.format == "PNG" and suffix.lower() in ("jpg", "jpeg", "jpe"):
        notes.append(f"PNG named .{suffix}")
    elif image.format != "PNG" and suffix.lower() == "png":
        notes.append("JPEG named .png")
    return image, exif, notes


def _jpeg(data: bytes) -> tuple[list[memoryview], bytes]:
    """All segments up to the first scan but comments and applications' own, of which JFIF and Adobe stay, and all from the scan on;
    the first Exif.  Bytes between segments, which decoders skip, go too."""
    view, at, exif = memoryview(data), 2, b""
    kept = [view[:2]]
    for _ in range(MAX_PARTS):
        if (found := _MARKER.search(data, at)) is None:
            return kept, exif
        start, at, kind = *found.span(), found[1][0]
        if kind == 0xDA:
            return [*kept, view[start:]], exif
        if kind == 0x01 or 0xD0 <= kind <= 0xD9:                # these have no length
            continue
        at += int.from_bytes(data[at : at + 2], "big")
        if kind in (0xE0, 0xEE) or not (0xE0 <= kind <= 0xEF or kind == 0xFE):
            kept.append(view[start:at])
        elif kind == 0xE1 and not exif and data.startswith(b"Exif\0\0", start + 4):
            exif = data[start + 10 : at]
    raise ValueError(f"more than {MAX_PARTS} segments")


def _png(data: bytes) -> tuple[list[memoryview], bytes]:
    """All chunks a decoder must understand and the transparent colour; the first Exif."""
    view, at, exif, colours = memoryview(data), 8, b"", False
    kept = [view[:8]]
    for _ in range(MAX_PARTS):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"IDAT" and data[25:26] == b"\x03" and not colours:
            raise ValueError("a palette picture without palette")
        colours |= kind == b"PLTE"
        if kind[:1] < b"a" or kind[:1] > b"z" or kind == b"tRNS":
            kept.append(view[at:end])
        elif kind == b"eXIf" and not exif:
            exif = data[at + 8 : end - 4].removeprefix(b"Exif\0\0")
        if kind == b"IEND" or end >= len(data):
            return kept, exif
        at = end
    raise ValueError(f"more than {MAX_PARTS} chunks")


def _scans(image: Image.Image, scans: memoryview, name: str) -> None:
    """Refuses a JPEG in several scans that would cost too much: its coefficients are kept until the last, 2 bytes each, and every scan
    goes over them all.  `scans` is the file from the first one on."""
    pixels, sides = image.width * image.height, [layer[1:3] for layer in image.layer]     # of a short header there are none
    if "progressive" not in image.info and int.from_bytes(scans[4:5], "big") == len(sides):
        return                                              # one scan of all components is all there can be
    most, at = MAX_SCANNED // pixels, 0
    for count in range(MAX_PARTS):
        found = _IN_SCAN.search(scans, at)
        if found is None or found[1] == b"\xd9":
            break
        most -= found[1] == b"\xda"
        if most < 0 or count == MAX_PARTS - 1:
            raise ImageError(f"{name} has too many scans for its {image.width} x {image.height} pixels, which only an attack has use for; "
                             f"save it again as plain JPEG or remove it")
        at = found.end() + int.from_bytes(scans[found.end() : found.end() + 2], "big") * (found[1] != b"\x01")
    share = sum(h * v for h, v in sides) / max(1, max((h for h, _ in sides), default=0) * max((v for _, v in sides), default=0))
    if pixels * (4 + 2 * share) > MAX_BYTES:
        raise ImageError(f"{name} has {image.width} x {image.height} pixels in several scans (progressive), which takes more than "
                         f"{MAX_BYTES >> 20} MiB; scale it down or save it again as plain JPEG")


def _orientation(exif: bytes, notes: list[str]) -> int:
    """The orientation in an Exif block, 1 where there is none or the block is broken (cameras and editors write many broken ones).
    Read here, because Pillow reads everything a block points to, in versions before 13 many times over."""
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(exif[:4])
    if order is None:
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(exif[at : at + size], order)

    first = number(4, 4) + 2
    for at in range(first, first + 12 * number(first - 2, 2), 12):
        if number(at, 2) == _ORIENTATION and number(at + 2, 2) in (3, 4) and number(at + 4, 4) == 1:  # one number of 2 or 4 bytes
            turn = number(at + 8, 2 * number(at + 2, 2) - 4)
            notes += ["EXIF rotated"] * (turn in _UPRIGHT)
            return turn if turn in _UPRIGHT else 1
    return 1


def _note(image: Image.Image, data: bytes, notes: list[str]) -> None:
    """What form the picture had, other than RGB; and its transparent colour in the numbers its pixels have."""
    mode, clear = image.mode, image.info.get("transparency")
    if image.format == "PNG" and data[24] == 16:
        notes.append("16-bit")
    if mode == "CMYK":
        notes.append("YCCK" if image.info.get("adobe_transform") == 2 else "CMYK")
    if mode in ("L", "LA", "1") or mode.startswith("I"):
        notes.append("1-bit" if mode == "1" else "grey")
    if mode in ("P", "PA"):
        notes.append("palette")
    if mode in ("LA", "PA", "RGBA") or clear is not None:
        notes.append("alpha")
    if clear is not None and mode == "L" and data[24] < 8:       # Pillow leaves the 0 to 3 or 0 to 15 of the file
        image.info["transparency"] = clear * 255 // ((1 << data[24]) - 1)
    if isinstance(clear, tuple) and data[24] == 16:
        image.info["transparency"] = tuple(level >> 8 for level in clear)


def _plain(image: Image.Image) -> Image.Image:
    """The picture, or a part of it, as RGB or L."""
    mode, clear = image.mode, image.info.get("transparency")
    if mode == "CMYK":
        return image.convert("RGB")
    if mode.startswith("I"):
        wide = np.asarray(image).astype(np.uint32)
        grey = ((wide + 128) // 257).astype(np.uint8)
        return Image.fromarray(grey if clear is None else np.where(wide == clear, 255, grey).astype(np.uint8))
    if mode in ("LA", "PA", "RGBA") or clear is not None:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if mode in ("RGB", "L"):
        return image
    return image.convert("L" if mode == "1" else "RGB")


def _part(image: Image.Image, box: tuple[int, int, int, int], orientation: int) -> Image.Image:
    """The plain, upright part of a picture; `box` counts upright."""
    left, top, right, bottom = box
    if orientation > 4:
        left, top, right, bottom = top, left, bottom, right
    if orientation in (2, 3, 7, 8):
        left, right = image.width - right, image.width - left
    if orientation in (3, 4, 6, 7):
        top, bottom = image.height - bottom, image.height - top
    whole = (left, top, right, bottom) == (0, 0, *image.size)
    part = _plain(image if whole else image.crop((left, top, right, bottom)))
    return part.transpose(_UPRIGHT[orientation]) if orientation > 1 else part


def _fit(image: Image.Image, record: int, orientation: int = 1) -> np.ndarray:
    """Resizes the whole picture, first across and then down, and keeps its centre.

    In one call Pillow would choose which comes first, by rules that differ between versions and move pixels by up to 24 levels; with
    resize(box=...), which computes only what is kept, it also rounds the box to float32.  Across goes row by row and is rounded to bytes
    before down begins, so that strips of a large picture come to the same pixels as the whole.
    """
    width, height = image.size if orientation < 5 else image.size[::-1]
    short, left, top = min(width, height), 0, 0
    if max(width, height) > MAX_ASPECT * short:  # 1 x 20000 would come to 256 x 5,120,000
        left, top = (max(0, side - MAX_ASPECT * short) // 2 for side in (width, height))
        width, height = (min(side, MAX_ASPECT * short) for side in (width, height))
    full = [(2 * side * record + short) // (2 * short) for side in (width, height)]
    plain = orientation == 1 and image.mode in ("RGB", "L") and "transparency" not in image.info
    rows = height if plain else max(1, STRIP // width)
    strips = (_part(image, (left, y, left + width, min(y + rows, top + height)), orientation) for y in range(top, top + height, rows))
    narrow = [strip.resize((full[0], strip.height), Image.Resampling.BICUBIC) for strip in strips]
    tall = narrow[0]
    if len(narrow) > 1:
        tall = Image.new(tall.mode, (full[0], height))
        for number, strip in enumerate(narrow):
            tall.paste(strip, (0, number * rows))
    left, top = ((side - record) // 2 for side in full)
    small = tall.resize(full, Image.Resampling.BICUBIC).crop((left, top, left + record, top + record))
    return np.array(small.convert("RGB") if small.mode != "RGB" else small)
