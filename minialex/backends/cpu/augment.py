"""Crops, flips, mean and colour shift on the CPU (paper, sections 2 and 4.1), one image at a time."""

from __future__ import annotations

import numpy as np

from .. import checks
from .cells import cells_fprop
from .parts import record
from .workers import over_images, scratch


def augment_fprop(images: np.ndarray, mean: np.ndarray, offsets: np.ndarray, flips: np.ndarray, noise: np.ndarray, y: np.ndarray, *,
                  mean_at: str, scale: float) -> None:
    """y = (flip(crop(image - mean)) + noise) * scale, or with mean_at="centre" (flip(crop(image)) - centre(mean) + noise) * scale."""
    cell = checks.augment("augment_fprop", images=images, mean=mean, offsets=offsets, flips=flips, noise=noise, y=y, mean_at=mean_at)
    checks.offsets_inside("augment_fprop", offsets, images, y, cell)
    N, H0, W0, C = images.shape
    H, W = y.shape[2] * cell, y.shape[3] * cell
    top0, left0 = (H0 - H) // 2, (W0 - W) // 2
    mirrored = np.ascontiguousarray(mean[:, ::-1]) if mean_at == "crop" and flips.any() else None

    def block(start: int, stop: int) -> None:
        for n in range(start, stop):
            top, left = int(offsets[n, 0]), int(offsets[n, 1])
            crop = images[n, top:top + H, left:left + W]
            if mean_at == "centre":
                own = mean[top0:top0 + H, left0:left0 + W]
            elif flips[n]:
                own = mirrored[top:top + H, W0 - left - W:W0 - left]
            else:
                own = mean[top:top + H, left:left + W]
            plain = y[0, n] if cell == 1 else scratch("plain", (H, W, C), y.dtype)
            _one(crop, own, bool(flips[n]), noise[n], plain, scale)
            if cell > 1:
                cells_fprop(plain[None, None], y[:, n:n + 1], cell=cell)

    over_images(block, N, y.size)


def _one(crop, mean, flip: bool, noise, y, scale: float) -> None:
    if flip:
        pixel = record(1, crop.shape[2])                            # whole pixels are mirrored, not their colours
        turned = scratch("turned", crop.shape, np.uint8)
        np.copyto(turned.view(pixel), crop.view(pixel)[:, ::-1])
        crop = turned
    shift = scratch("shift", y.shape[1:], y.dtype)
    shift[...] = noise
    np.subtract(crop, mean, out=y)
    rows = y.reshape(y.shape[0], -1)
    np.add(rows, shift.reshape(-1), out=rows)
    if scale != 1:
        np.multiply(rows, scale, out=rows)
