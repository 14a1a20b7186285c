"""Mean image and colour covariance in one pass, exact: sums of integers, so the order of addition and a resumed run change nothing."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..files import write

ROW = 256                       # pixels whose products float32 adds exactly: 256 * 255^2 < 2^24
HOLD = 1 << 16                  # pictures that uint32 adds without overflow (more would do)


def products(pixels: np.ndarray) -> np.ndarray:
    """Sums over all pixels of the products of two channels, (3, 3) int64.

    Exact, whatever the order: float32 within a row of 256 pixels, float64 over the rows, and every partial sum is a whole number
    that the type holds.  Seven times faster than one product of float64 matrices with three rows.
    """
    flat = pixels.reshape(-1, 3)
    planes = np.zeros((3, -(-len(flat) // ROW), ROW), np.float32)
    planes.reshape(3, -1)[:, :len(flat)] = flat.T
    out = np.empty((3, 3), np.int64)
    for i in range(3):
        for j in range(i, 3):
            out[i, j] = out[j, i] = np.einsum("rp,rp->r", planes[i], planes[j]).sum(dtype=np.float64)
    return out


class Sums:
    """Sums over pictures of (H, W, 3) uint8; int64 holds them for 2^31 pictures of 256 x 256."""

    def __init__(self, shape: tuple[int, int, int]):
        self.shards = self.count = 0                    # finished shards and pictures in the sums
        self.products = np.zeros((3, 3), np.int64)
        self.pixels = np.zeros(shape, np.int64)         # complete after fold()
        self._recent, self._held = np.zeros(shape, np.uint32), 0

    def add(self, pixels: np.ndarray, of_products: np.ndarray) -> None:
        self.count += 1
        self._recent += pixels                          # three times faster than adding to int64
        self._held += 1
        self.products += of_products
        if self._held == HOLD:
            self.fold()

    def fold(self) -> None:
        """Brings the pictures added last into `pixels`."""
        self.pixels += self._recent
        self._recent[...] = self._held = 0

    def add_shard(self, pictures: Iterable[np.ndarray]) -> None:
        for pixels in pictures:
            self.add(pixels, products(pixels))
        self.fold()
        self.shards += 1

    def save(self, path: Path) -> None:
        self.fold()
        content = np.concatenate([[self.shards, self.count], self.products.ravel(), self.pixels.ravel()]).astype("<i8").tobytes()
        write(path, content + zlib.crc32(content).to_bytes(8, "little"))

    @classmethod
    def load(cls, path: str | os.PathLike, shape: tuple[int, int, int], at_most: int) -> Sums:
        """The sums saved at `path`; empty ones where there are none, or where they are damaged or know more than `at_most` shards."""
        sums = cls(shape)
        content = Path(path).read_bytes() if Path(path).exists() else b""
        if len(content) != 8 * (12 + sums.pixels.size) or zlib.crc32(content[:-8]).to_bytes(8, "little") != content[-8:]:
            return sums
        numbers = np.frombuffer(content, "<i8", len(content) // 8 - 1).astype(np.int64)
        if numbers[0] <= at_most:
            sums.shards, sums.count = int(numbers[0]), int(numbers[1])
            sums.products, sums.pixels = numbers[2:11].reshape(3, 3), numbers[11:].reshape(shape)
        return sums

    def mean(self) -> np.ndarray:
        """Mean picture, (H, W, 3) float64, 0..255."""
        self.fold()
        return self.pixels / self.count

    def mean_rgb(self) -> list[float]:
        self.fold()
        n = self.count * (self.pixels.size // 3)
        return [int(total) / n for total in self.pixels.sum(axis=(0, 1))]

    def covariance(self) -> np.ndarray:
        """Covariance of the channels over all pixels of all pictures, (3, 3) float64, in squared grey levels (division by n).

            (n * sum xy - sum x * sum y) / n^2      in whole numbers without bound: no cancellation
        """
        self.fold()
        n = self.count * (self.pixels.size // 3)
        totals = [int(total) for total in self.pixels.sum(axis=(0, 1))]
        return np.array([[(n * int(self.products[i, j]) - totals[i] * totals[j]) / (n * n) for j in range(3)] for i in range(3)])


def principal(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, the largest first, and eigenvectors as columns, the largest component of each positive (their sign is arbitrary, but
    must not depend on the machine: it is in the colour noise)."""
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(3)])
    return values, vectors * signs
