"""Small pictures, folder trees and archives of them, for the tests of the doors."""

from __future__ import annotations

import io
import tarfile

import numpy as np
from PIL import Image


def picture(level=100):
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def tree(folder, files):
    """Writes {path: bytes, or an int for a picture of that grey level}."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(content) if isinstance(content, int) else content)
    return folder


def tar(path, members, mode="w"):
    """Writes (name or TarInfo, bytes) members in this order."""
    with tarfile.open(path, mode) as file:
        for info, content in members:
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
                info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def packed(folder, path, mode="w"):
    return tar(path, [(str(file.relative_to(folder)), file.read_bytes()) for file in sorted(folder.rglob("*")) if file.is_file()], mode)


def listing(found, split):
    return [(item.name.rpartition(":")[2], item.label) for item in found.items(split)]
