"""The oracle of wrappers.cu: inputs, and what the PTX ISA says each instruction gives, in plain NumPy.

Nothing here is shared with the interpreter or the emulator; rounding is arithmetic on float64, not on bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Case:
    a: np.ndarray                               # words; bits of float32 where the kernel wants floats
    b: np.ndarray
    expected: np.ndarray                        # words, or float64 numbers for a bound above 0
    bound: np.ndarray | float = 0               # of the error of each number
    threads: int = 32
    mask: int = 0xFFFFFFFF                      # of the bits that are defined

    def faults(self, out: np.ndarray) -> int:
        """How many elements of the kernel's words are wrong."""
        if np.all(self.bound == 0):
            return int(np.sum((out & np.uint32(self.mask)) != (self.expected.astype(np.uint32) & np.uint32(self.mask))))
        return int(np.sum(~(np.abs(out.view(np.float32) - self.expected) <= self.bound)))


def bits(values) -> np.ndarray:
    return np.asarray(values, np.float32).view(np.uint32)


def rounded(values: np.ndarray, digits: int, away: bool) -> np.ndarray:
    """float32 values at `digits` binary digits: ties away from zero, or to even."""
    with np.errstate(all="ignore"):
        values = values.astype(np.float64)
        _, exponent = np.frexp(np.where(np.isfinite(values), values, 0))
        unit = np.ldexp(1.0, np.maximum(exponent, -125) - digits)           # subnormal numbers keep the smallest normal's spacing
        scaled = values / unit
        whole = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled) if away else np.rint(scaled)
        return (whole * unit).astype(np.float32)                            # beyond float32's range: infinity


def wide_floats(rng: np.random.Generator, count: int) -> np.ndarray:
    """Floats of all magnitudes, with ties of tf32 and bf16, subnormals, zeros, infinities and the largest number in front."""
    special = bits([0.0, -0.0, np.inf, -np.inf, np.finfo(np.float32).max, np.finfo(np.float32).tiny, 1e-45, -3e-39])
    ties = np.array([0x3F801000, 0xBF803000, 0x3F808000, 0x3F818000, 0xC0018000, 0x7F7F8000, 0x00001000, 0x80018000], np.uint32)
    rest = rng.integers(0, 2**32, count - 16, dtype=np.uint32)
    words = np.concatenate([special, ties, np.where(np.isnan(rest.view(np.float32)), np.uint32(0x3F123456), rest)])
    return words.view(np.float32)


def pack(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return (low & 0xFFFF).astype(np.uint32) | high.astype(np.uint32) << np.uint32(16)


def bf16_words(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), 0x7FFF, bits(rounded(values, 8, away=False)) >> np.uint32(16)).astype(np.uint32)


def fragments(matrix: np.ndarray, places: list[tuple]) -> np.ndarray:
    """Registers (32, number) of a matrix of words; `places` are the ISA's formulas of (row, column) in g and t."""
    lane = np.arange(32)
    return np.stack([matrix[np.broadcast_to(row(lane // 4, lane % 4), 32), np.broadcast_to(column(lane // 4, lane % 4), 32)]
                     for row, column in places], 1)


C_PLACES = [(lambda g, t: g, lambda g, t: 2 * t), (lambda g, t: g, lambda g, t: 2 * t + 1),
            (lambda g, t: g + 8, lambda g, t: 2 * t), (lambda g, t: g + 8, lambda g, t: 2 * t + 1)]


def product_case(a: np.ndarray, b: np.ndarray, c: np.ndarray, a_fragments: np.ndarray, b_fragments: np.ndarray) -> Case:
    exact = a.astype(np.float64) @ b + c
    size = np.abs(a).astype(np.float64) @ np.abs(b) + np.abs(c)
    words = np.concatenate([a_fragments.ravel(), fragments(bits(c), C_PLACES).ravel()])
    expected, bound = fragments(exact, C_PLACES).ravel(), fragments(size, C_PLACES).ravel() * 2.0**-19
    return Case(words, b_fragments.ravel(), expected, bound)


def mma_tf32(rng) -> Case:
    a, b, c = (rng.standard_normal(shape, np.float32) for shape in ((16, 8), (8, 8), (16, 8)))
    a_places = [(lambda g, t: g, lambda g, t: t), (lambda g, t: g + 8, lambda g, t: t),
                (lambda g, t: g, lambda g, t: t + 4), (lambda g, t: g + 8, lambda g, t: t + 4)]
    b_places = [(lambda g, t: t, lambda g, t: g), (lambda g, t: t + 4, lambda g, t: g)]
    seen_a, seen_b = ((bits(x) & np.uint32(0xFFFFE000)).view(np.float32) for x in (a, b))       # the low 13 bits do not count
    return product_case(seen_a, seen_b, c, fragments(bits(a), a_places), fragments(bits(b), b_places))


def mma_bf16(rng) -> Case:
    a, b, c = (rounded(rng.standard_normal(shape, np.float32), 8, away=False) for shape in ((16, 16), (16, 8), (16, 8)))
    a_words = pack(bf16_words(a[:, 0::2]), bf16_words(a[:, 1::2]))                              # (16, 8): neighbours along k
    b_words = pack(bf16_words(b[0::2]), bf16_words(b[1::2]))                                    # (8, 8)
    a_places = [(lambda g, t: g, lambda g, t: t), (lambda g, t: g + 8, lambda g, t: t),
                (lambda g, t: g, lambda g, t: t + 4), (lambda g, t: g + 8, lambda g, t: t + 4)]
    b_places = [(lambda g, t: t, lambda g, t: g), (lambda g, t: t + 4, lambda g, t: g)]
    return product_case(a, b, c, fragments(a_words, a_places), fragments(b_words, b_places))


def tile_product(rng) -> Case:
    a, b = (rounded(rng.standard_normal(shape, np.float32), 8, away=False) for shape in ((16, 16), (16, 8)))
    words = [pack(bf16_words(x[:, 0::2]), bf16_words(x[:, 1::2])).ravel() for x in (a, b)]
    case = product_case(a, b, np.zeros((16, 8), np.float32), np.zeros(0, np.uint32), np.zeros(0, np.uint32))
    return Case(*words, case.expected, case.bound)


def ldmatrix(rng, count: int, transposed: bool) -> Case:
    words, rows = rng.integers(0, 2**16, (32, 8), dtype=np.uint16), rng.permutation(32).astype(np.uint32)
    matrices = words[rows].reshape(4, 8, 8)[:count]
    if transposed:
        matrices = matrices.transpose(0, 2, 1)
    lane = np.arange(32)
    low, high = (matrices[:, lane // 4, lane % 4 * 2 + half].T for half in (0, 1))              # (32, count)
    return Case(words.view(np.uint32).ravel(), rows, pack(low, high).ravel())


def cp_async(rng, words: int) -> Case:
    a, valid = rng.integers(0, 2**32, 32 * words, dtype=np.uint32), rng.integers(0, 2, 32).astype(np.uint32)
    copied = np.where(np.repeat(valid, words) != 0, a, 0)
    return Case(a, valid, copied if words == 4 else copied[::-1])


def shuffles(a: np.ndarray) -> list[np.ndarray]:
    warps, lane = a.reshape(4, 32), np.arange(32)
    down = np.where(lane % 8 + 3 < 8, lane + 3, lane)                       # within 8 lanes; beyond them a lane keeps its own
    up = np.where(lane % 16 - 2 >= 0, lane - 2, lane)
    return [warps[:, (lane + 1) % 32].ravel(), warps[:, down].ravel(), warps[:, up].ravel()]


def reduction(rng) -> Case:
    a = rng.integers(0, 2**32, 128, dtype=np.uint32)
    return Case(a, np.zeros(1, np.uint32), np.concatenate([[a.sum(dtype=np.uint32)], *shuffles(a)]), threads=128)


def transpose(rng) -> Case:
    a, b = (rng.integers(0, 2**32, 256, dtype=np.uint32) for _ in range(2))
    turned = a.reshape(16, 16).T
    return Case(a, b, np.concatenate([turned.ravel(), (turned + b.reshape(16, 16)).T.ravel()]), threads=256)


def divergence(rng) -> Case:
    a, steps = rng.integers(1, 100, 32).astype(np.uint32), []
    for value in a.tolist():
        count = 0
        while value != 1 and count < 40:
            value, count = (3 * value + 1 if value % 2 else value // 2), count + 1
        steps.append(count)
    ballot = sum(1 << lane for lane, count in enumerate(steps) if count > 10)
    return Case(a, np.array([40], np.uint32), np.array([*steps, *[ballot] * 32], np.uint32))


def to_tf32(rng) -> Case:
    a = wide_floats(rng, 64)
    return Case(bits(a), np.zeros(1, np.uint32), bits(rounded(a, 11, away=True)), threads=64, mask=0xFFFFE000)


def pack_bf16(rng) -> Case:
    low, high = wide_floats(rng, 64), np.roll(wide_floats(rng, 64), 20)
    low[40], high[41] = np.nan, -np.nan
    return Case(bits(low), bits(high), pack(bf16_words(low), bf16_words(high)), threads=64)


def bf16(rng) -> Case:
    pairs, b = rng.integers(0, 2**32, 64, dtype=np.uint32), wide_floats(rng, 64)
    b[50] = np.nan
    halves = [pairs << np.uint32(16), pairs & np.uint32(0xFFFF0000)]
    return Case(pairs, bits(b), np.stack([*halves, bf16_words(b)], 1).ravel(), threads=64)


def cp_async_wait(rng) -> Case:
    a = rng.integers(0, 2**32, 96, dtype=np.uint32)
    return Case(a, np.array([7], np.uint32), (7 + a.reshape(3, 32).cumsum(0, dtype=np.uint32)).ravel())


CASES = {
    "to_tf32": to_tf32, "pack_bf16": pack_bf16, "bf16": bf16, "mma_tf32": mma_tf32, "mma_bf16": mma_bf16,
    "ldmatrix_x4": lambda rng: ldmatrix(rng, 4, False), "ldmatrix_x4_trans": lambda rng: ldmatrix(rng, 4, True),
    "ldmatrix_x2": lambda rng: ldmatrix(rng, 2, False), "ldmatrix_x2_trans": lambda rng: ldmatrix(rng, 2, True),
    "tile_product": tile_product, "cp_async_16": lambda rng: cp_async(rng, 4), "cp_async_4": lambda rng: cp_async(rng, 1),
    "cp_async_wait": cp_async_wait, "reduction": reduction, "transpose": transpose, "divergence": divergence,
}
