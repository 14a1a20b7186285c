"""The two kinds of record: a picture's bytes as they are, or as a JPEG file of about a tenth of them.

A JPEG record is the baseline JPEG that Pillow writes at QUALITY with halved colour (4:2:0): 22 kB for a photograph of 256 x 256, at
40.3 dB from its pixels.  What the network sees is what comes out of it again; mean and covariance of the store are of those pixels.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

RAW, JPEG = 0, 1                        # as written in a shard
KINDS = ("raw", "jpeg")                 # their names, in that order
QUALITY, HALVED = 90, "4:2:0"
LEAST = (100, 3)                        # bytes of a record in per cent of the raw ones, for a disk that is far too small
DESCRIPTIONS = ("uint8 as they are", f"JPEG, quality {QUALITY}, {HALVED}")


def pack(pixels: np.ndarray, kind: int) -> tuple[bytes | np.ndarray, np.ndarray]:
    """(what is stored, the pixels that come out of it again) of (H, W, 3) uint8."""
    if kind == RAW:
        return pixels, pixels
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY, subsampling=HALVED)
    content = file.getvalue()
    return content, unpack_jpeg(content, np.empty_like(pixels))


def unpack_jpeg(content, out: np.ndarray) -> np.ndarray:
    """Decodes a JPEG record into `out`, (H, W, 3) uint8, and returns it.  Raises ValueError for anything but RGB of that size."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            if image.mode != "RGB" or (image.height, image.width, 3) != out.shape:
                raise ValueError(f"a {image.mode} picture of {image.height} x {image.width}")
            out[...] = np.asarray(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    return out
