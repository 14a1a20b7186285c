"""Crops, flips, mean subtraction and colour noise (paper, sections 2 and 4.1)."""

from __future__ import annotations

import numpy as np

from .. import checks
from .cells import cells_fprop


def augment_fprop(images: np.ndarray, mean: np.ndarray, offsets: np.ndarray, flips: np.ndarray, noise: np.ndarray, y: np.ndarray,
                  *, mean_at: str, scale: float) -> None:
    """From stored uint8 pictures to the network's input.

        mean_at="crop":     y = (flip(crop(image - mean)) + noise) * scale              `paper`
        mean_at="centre":   y = (flip(crop(image)) - centre(mean) + noise) * scale      `source2012`

    With "crop" each pixel loses the mean of its own place and is then mirrored with it; with "centre" every crop, flipped or not,
    loses the middle of the mean image, whose corner is at ((H0 - H) // 2, (W0 - W) // 2).

    images (N, H0, W0, C) uint8, mean (H0, W0, C), offsets (N, 2) int32 top and left, flips (N,) bool, noise (N, C), one
    shift per image and colour, are read; y (1, N, H, W, C), or cells of it (cells_fprop), is written entirely.
    """
    cell = checks.augment("augment_fprop", images=images, mean=mean, offsets=offsets, flips=flips, noise=noise, y=y, mean_at=mean_at)
    checks.offsets_inside("augment_fprop", offsets, images, y, cell)
    N, H0, W0, _ = images.shape
    H, W = y.shape[2] * cell, y.shape[3] * cell
    image = np.arange(N)[:, None, None]
    row = offsets[:, 0, None, None] + np.arange(H)[:, None]                 # (N, H, 1)
    column = offsets[:, 1, None, None] + np.arange(W)                       # (N, 1, W)
    column = np.where(flips[:, None, None], column[:, :, ::-1], column)     # a flipped crop is read from right to left
    crops = images[image, row, column].astype(y.dtype)
    if mean_at == "crop":
        crops -= mean[row, column]
    else:
        top, left = (H0 - H) // 2, (W0 - W) // 2
        crops -= mean[top:top + H, left:left + W]
    cells_fprop(((crops + noise[:, None, None, :]) * scale)[None], y, cell=cell)
