"""From an encoded picture to a record of (record, record, 3) uint8 RGB, by rules that are stated once and versioned (paper, section 2).

The paper: shorter side to 256, then the central 256 x 256.  Here, for any `record`:
- JPEG and PNG only, told by content and not by suffix; at most MAX_PIXELS, checked before anything is decoded;
- truncated or broken data is an error, never a half-grey picture;
- turned upright by the EXIF orientation; alpha and transparent colours over white; palette, grey and 1-bit to RGB; 16 bits to the nearest
  of 8 (grey) or to the upper 8 (colour); CMYK and YCCK inverted as Adobe writes them, then R = 255 (1-C)(1-K) and so on;
- the whole picture resized by Pillow's antialiased bicubic filter so that the shorter side has `record` pixels and the longer one
  round(long * record / short), then the central `record` pixels at the integer offset (long' - record) // 2; of a picture more than
  MAX_ASPECT times as long as wide only the central part of that shape is resized;
- JPEG is decoded at full size (no draft mode, which gives other pixels).
"""

from __future__ import annotations

import io
import threading
import warnings

import numpy as np
import PIL
from PIL import Image

from .source import ImageError, Item

VERSION = 1  # goes up when the rules above change what any picture becomes
MAX_PIXELS = 64 << 20
MAX_ASPECT = 8
# For the manifest of a store: how its pixels came about.
DESCRIPTION = (f"decode {VERSION}: Pillow {PIL.__version__}, EXIF upright, alpha over white, bicubic, antialiased, whole picture resized "
               f"by its shorter side, then centre crop at integers")
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
    (b"ftyphei", 4, "HEIC"), (b"<", 0, "a web page or SVG"), (b"%PDF", 0, "PDF"),
)
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
    image, notes = _opened(data, name)
    try:
        image.load()
        orientation = _orientation(image)
        image = _plain(image, data, notes)
        if orientation in _UPRIGHT:
            image = image.transpose(_UPRIGHT[orientation])
            notes.append("EXIF rotated")
        return _fit(image, record), notes
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


def _opened(data: bytes, name: str) -> tuple[Image.Image, list[str]]:
    """The picture with its header read, nothing decoded yet."""
    if not data:
        raise ImageError(f"{name} is an empty file; replace or remove it")
    try:
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
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
    suffix = name.rpartition(".")[2].lower()
    if image.format == "PNG":
        return image, ["PNG named ." + name.rpartition(".")[2]] if suffix in ("jpg", "jpeg", "jpe") else []
    return image, ["JPEG named .png"] if suffix == "png" else []


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none or the EXIF block is broken (cameras and editors write many broken ones)."""
    if "exif" not in image.info:
        return 1
    try:
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1


def _plain(image: Image.Image, data: bytes, notes: list[str]) -> Image.Image:
    """The picture as RGB or L, with a note for every other form it had."""
    mode = image.mode
    if image.format == "PNG" and data[24] == 16:
        notes.append("16-bit")
    if mode == "CMYK":
        notes.append("YCCK" if image.info.get("adobe_transform") == 2 else "CMYK")
        return image.convert("RGB")
    if mode.startswith("I"):
        notes.append("grey")
        wide = np.asarray(image).astype(np.uint32)
        grey = ((wide + 128) // 257).astype(np.uint8)
        if (clear := image.info.get("transparency")) is not None:
            notes.append("alpha")
            grey = np.where(wide == clear, 255, grey).astype(np.uint8)
        return Image.fromarray(grey)
    if mode in ("L", "LA", "1"):
        notes.append("1-bit" if mode == "1" else "grey")
    if mode in ("P", "PA"):
        notes.append("palette")
    if mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        notes.append("alpha")
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if mode in ("RGB", "L"):
        return image
    return image.convert("L" if mode == "1" else "RGB")


def _fit(image: Image.Image, record: int) -> np.ndarray:
    """Resizes the whole picture and keeps its centre.  (Pillow's resize(box=...) computes only what is kept, but rounds the box to
    float32 and may filter rows before columns, which moves most pixels of upright pictures by up to 24 levels.)"""
    width, height = image.size
    short = min(width, height)
    if max(width, height) > MAX_ASPECT * short:  # 1 x 20000 would come to 256 x 5,120,000
        left, top = (max(0, side - MAX_ASPECT * short) // 2 for side in (width, height))
        width, height = (min(side, MAX_ASPECT * short) for side in (width, height))
        image = image.crop((left, top, left + width, top + height))
    full = [(2 * side * record + short) // (2 * short) for side in (width, height)]
    left, top = ((side - record) // 2 for side in full)
    small = image.resize(full, Image.Resampling.BICUBIC).crop((left, top, left + record, top + record))
    return np.array(small.convert("RGB") if small.mode != "RGB" else small)
