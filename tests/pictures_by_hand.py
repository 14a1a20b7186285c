"""PNG and JPEG files written byte by byte, in forms that no library writes, so that what a decoder makes of them is compared with the
numbers they were written from and not with another decoder."""

from __future__ import annotations

import struct
import zlib

import numpy as np

ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))   # x, y, step of x, of y


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def rows(samples: np.ndarray, bits: int) -> bytes:
    """(height, width, channels) numbers as unfiltered rows."""
    if bits < 8:
        flat = ((samples.reshape(len(samples), -1, 1) >> np.arange(bits)[::-1]) & 1).astype(np.uint8)
        packed = np.packbits(flat.reshape(len(samples), -1), axis=1)
    else:
        packed = samples.astype(">u2" if bits == 16 else "u1").reshape(len(samples), -1).view(np.uint8)
    return b"".join(b"\0" + row.tobytes() for row in packed)


def png_file(width: int, height: int, bits: int, kind: int, deflated: bytes, extra: bytes = b"", interlaced: bool = False) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", deflated) + chunk(b"IEND", b"")


def png(samples, bits: int, kind: int, extra: bytes = b"", interlaced: bool = False) -> bytes:
    """`samples`: (height, width) or (height, width, channels) of the file's own numbers; `kind` 0 grey, 2 RGB, 3 palette, 4 LA, 6 RGBA."""
    samples = np.asarray(samples).reshape(*np.shape(samples)[:2], -1)
    passes = [samples[y::down, x::along] for x, y, along, down in ADAM7] if interlaced else [samples]
    content = b"".join(rows(part, bits) for part in passes if part.size)
    return png_file(samples.shape[1], samples.shape[0], bits, kind, zlib.compress(content), extra, interlaced)


def clear(*levels: int) -> bytes:
    """The transparent colour of a grey or RGB picture."""
    return chunk(b"tRNS", struct.pack(f">{len(levels)}H", *levels))


def plain_png(width: int, height: int, bits: int, kind: int, row: bytes) -> bytes:
    """A picture of equal rows, whose file stays small and is made in no time, however large the picture."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(b"\0" + row) + packer.flush(zlib.Z_FULL_FLUSH)
    sum_ = 1
    for _ in range(height):
        sum_ = zlib.adler32(b"\0" + row, sum_)
    return png_file(width, height, bits, kind, b"\x78\xda" + packed * height + b"\3\0" + struct.pack(">I", sum_))


def segment(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, len(content) + 2) + content


def adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))


def jpeg(blocks, extra: bytes = b"") -> bytes:
    """`blocks`: (rows, columns, components) of bytes as stored; each becomes 8 x 8 pixels of one colour (only DC is coded)."""
    blocks = np.asarray(blocks, int)
    height, width, parts = blocks.shape
    code, last = "", [0] * parts
    for block in blocks.reshape(-1, parts):
        for part, level in enumerate(block):
            step, last[part] = level - 128 - last[part], level - 128
            size = int(abs(step)).bit_length()
            code += f"{size:04b}" + (f"{step if step > 0 else step + (1 << size) - 1:0{size}b}" if size else "") + "0"
    code += "1" * (-len(code) % 8)
    scan = int(code, 2).to_bytes(len(code) // 8, "big").replace(b"\xff", b"\xff\0")
    frame = struct.pack(">BHHB", 8, 8 * height, 8 * width, parts) + b"".join(bytes((i + 1, 0x11, 0)) for i in range(parts))
    tables = (segment(0xDB, b"\0" + b"\x08" * 64)                                   # DC of one step is one level
              + segment(0xC4, b"\x00" + bytes((0, 0, 0, 12)) + bytes(12) + bytes(range(12)))    # DC: twelve codes of four bits
              + segment(0xC4, b"\x10" + bytes((1,)) + bytes(15) + b"\0"))                       # AC: nothing but "end of block"
    start = segment(0xDA, bytes((parts,)) + b"".join(bytes((i + 1, 0)) for i in range(parts)) + bytes((0, 63, 0)))
    return b"\xff\xd8" + extra + tables + segment(0xC0, frame) + start + scan + b"\xff\xd9"
