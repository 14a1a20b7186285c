"""Wrong normalisations, across channels and over squares; unweighted.prove must reject each one.

They share no code with any backend.  What they have in common with the right formula is built from `_shifted`, so each
mutant shows little more than its one mistake.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .mutants import Mutant, mutant

Offsets = Iterable[tuple[int, int, int]]


def _shifted(a, dh=0, dw=0, dc=0):
    """b[h, w, c] = a[h + dh, w + dw, c + dc], zero where that lies outside."""
    b = np.zeros_like(a)
    into, source = [slice(None)] * 5, [slice(None)] * 5
    for axis, d in ((2, dh), (3, dw), (4, dc)):
        extent = a.shape[axis]
        into[axis] = slice(max(0, -d), max(0, min(extent, extent - d)))
        source[axis] = slice(max(0, d), max(0, min(extent, extent + d)))
    b[tuple(into)] = a[tuple(source)]
    return b


def _sum(a, offsets: Offsets):
    return sum(_shifted(a, *offset) for offset in offsets)


def _channels(first: int, last: int) -> list[tuple[int, int, int]]:
    return [(0, 0, d) for d in range(first, last + 1)]


def _square(first: int, last: int) -> list[tuple[int, int, int]]:
    return [(i, j, 0) for i in range(first, last + 1) for j in range(first, last + 1)]


# --- local response normalisation across channels ------------------------------------------------------------------------------------

def _lrn(x, y, offsets, k, alpha, beta):
    y[...] = x * (k + alpha * _sum(x * x, offsets)) ** -beta


@mutant("lrn", "lrn_fprop")
def window_ends_one_early(x, y, *, n, k, alpha, beta):
    _lrn(x, y, _channels(-(n // 2), n // 2 - 1), k, alpha, beta)


@mutant("lrn", "lrn_fprop")
def window_starts_one_late(x, y, *, n, k, alpha, beta):
    _lrn(x, y, _channels(1 - n // 2, n // 2), k, alpha, beta)


@mutant("lrn", "lrn_fprop")
def window_shifted_by_one(x, y, *, n, k, alpha, beta):
    _lrn(x, y, _channels(1 - n // 2, n // 2 + 1), k, alpha, beta)


@mutant("lrn", "lrn_fprop")
def radius_one_smaller(x, y, *, n, k, alpha, beta):
    _lrn(x, y, _channels(1 - n // 2, n // 2 - 1), k, alpha, beta)


@mutant("lrn", "lrn_fprop")
def radius_is_n(x, y, *, n, k, alpha, beta):
    _lrn(x, y, _channels(-n, n), k, alpha, beta)


@mutant("lrn", "lrn_fprop")
def alpha_divided_by_n(x, y, *, n, k, alpha, beta):
    _lrn(x, y, _channels(-(n // 2), n // 2), k, alpha / n, beta)


@mutant("lrn", "lrn_fprop")
def absolute_values_for_squares(x, y, *, n, k, alpha, beta):
    y[...] = x * (k + alpha * _sum(np.abs(x), _channels(-(n // 2), n // 2))) ** -beta


@mutant("lrn", "lrn_fprop")
def signed_values_for_squares(x, y, *, n, k, alpha, beta):
    y[...] = x * np.abs(k + alpha * _sum(x, _channels(-(n // 2), n // 2))) ** -beta


@mutant("lrn", "lrn_fprop")
def window_crosses_columns(x, y, *, n, k, alpha, beta):
    joined = np.concatenate(list(x), axis=-1)[None]
    z = np.empty_like(joined)
    _lrn(joined, z, _channels(-(n // 2), n // 2), k, alpha, beta)
    y[...] = np.stack(np.split(z[0], len(x), axis=-1))


@mutant("lrn", "lrn_fprop")
def window_wraps_around(x, y, *, n, k, alpha, beta):
    y[...] = x * (k + alpha * sum(np.roll(x * x, d, axis=-1) for d in range(-(n // 2), n // 2 + 1))) ** -beta


@mutant("lrn", "lrn_fprop")
def window_over_width(x, y, *, n, k, alpha, beta):
    _lrn(x, y, [(0, d, 0) for d in range(-(n // 2), n // 2 + 1)], k, alpha, beta)


@mutant("lrn", "lrn_fprop")
def k_is_one(x, y, *, n, k, alpha, beta):
    _lrn(x, y, _channels(-(n // 2), n // 2), 1.0, alpha, beta)


@mutant("lrn", "lrn_fprop")
def sum_deleted(x, y, *, n, k, alpha, beta):
    y[...] = x * k ** -beta


@mutant("lrn", "lrn_fprop")
def own_channel_left_out(x, y, *, n, k, alpha, beta):
    _lrn(x, y, [offset for offset in _channels(-(n // 2), n // 2) if any(offset)], k, alpha, beta)


@mutant("lrn", "lrn_fprop")
def beta_is_one_half(x, y, *, n, k, alpha, beta):
    _lrn(x, y, _channels(-(n // 2), n // 2), k, alpha, 0.5)


@mutant("lrn", "lrn_fprop")
def multiplied_instead_of_divided(x, y, *, n, k, alpha, beta):
    _lrn(x, y, _channels(-(n // 2), n // 2), k, alpha, -beta)


@mutant("lrn", "lrn_fprop")
def clipped_windows_rescaled(x, y, *, n, k, alpha, beta):
    offsets = _channels(-(n // 2), n // 2)
    y[...] = x * (k + alpha * _sum(x * x, offsets) * n / _sum(np.ones_like(x), offsets)) ** -beta


@mutant("lrn", "lrn_fprop")
def running_sum(x, y, *, n, k, alpha, beta):
    # What leaves the window is subtracted again: right on paper, but the large values' last digits are the small values.
    total = np.cumsum(np.pad(x * x, ((0, 0),) * 4 + ((n // 2 + 1, n // 2),)), axis=-1, dtype=x.dtype)
    y[...] = x * np.maximum(k + alpha * (total[..., n:] - total[..., :-n]), k) ** -beta


def _lrn_parts(x, dy, n, k, alpha, beta):
    """Offsets of the window, scale, the direct term and what the cross term sums."""
    offsets = _channels(-(n // 2), n // 2)
    scale = k + alpha * _sum(x * x, offsets)
    return offsets, scale, dy * scale**-beta, dy * x * scale ** (-beta - 1)


@mutant("lrn", "lrn_bprop")
def cross_term_missing(x, dy, dx, *, n, k, alpha, beta):
    dx[...] = _lrn_parts(x, dy, n, k, alpha, beta)[2]


@mutant("lrn", "lrn_bprop")
def cross_term_without_x(x, dy, dx, *, n, k, alpha, beta):
    offsets, _, direct, cross = _lrn_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct - 2 * alpha * beta * _sum(cross, offsets)


@mutant("lrn", "lrn_bprop")
def cross_term_with_x_of_its_own_sum(x, dy, dx, *, n, k, alpha, beta):
    offsets, scale, direct, _ = _lrn_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct - 2 * alpha * beta * x * x * _sum(dy * scale ** (-beta - 1), offsets)


@mutant("lrn", "lrn_bprop")
def cross_term_added(x, dy, dx, *, n, k, alpha, beta):
    offsets, _, direct, cross = _lrn_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct + 2 * alpha * beta * x * _sum(cross, offsets)


@mutant("lrn", "lrn_bprop")
def cross_term_of_own_channel_only(x, dy, dx, *, n, k, alpha, beta):
    _, _, direct, cross = _lrn_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct - 2 * alpha * beta * x * cross


@mutant("lrn", "lrn_bprop")
def backward_window_ends_one_early(x, dy, dx, *, n, k, alpha, beta):
    _, _, direct, cross = _lrn_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct - 2 * alpha * beta * x * _sum(cross, _channels(-(n // 2), n // 2 - 1))


@mutant("lrn", "lrn_bprop")
def backward_window_shifted(x, dy, dx, *, n, k, alpha, beta):
    _, _, direct, cross = _lrn_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct - 2 * alpha * beta * x * _sum(cross, _channels(1 - n // 2, n // 2 + 1))


@mutant("lrn", "lrn_bprop")
def backward_window_crosses_columns(x, dy, dx, *, n, k, alpha, beta):
    offsets, _, direct, cross = _lrn_parts(x, dy, n, k, alpha, beta)
    joined = _sum(np.concatenate(list(cross), axis=-1)[None], offsets)[0]
    dx[...] = direct - 2 * alpha * beta * x * np.stack(np.split(joined, len(x), axis=-1))


@mutant("lrn", "lrn_bprop")
def factor_two_missing(x, dy, dx, *, n, k, alpha, beta):
    offsets, _, direct, cross = _lrn_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct - alpha * beta * x * _sum(cross, offsets)


@mutant("lrn", "lrn_bprop")
def factor_alpha_missing(x, dy, dx, *, n, k, alpha, beta):
    offsets, _, direct, cross = _lrn_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct - 2 * beta * x * _sum(cross, offsets)


@mutant("lrn", "lrn_bprop")
def factor_beta_missing(x, dy, dx, *, n, k, alpha, beta):
    offsets, _, direct, cross = _lrn_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct - 2 * alpha * x * _sum(cross, offsets)


@mutant("lrn", "lrn_bprop")
def backward_alpha_divided_by_n(x, dy, dx, *, n, k, alpha, beta):
    offsets, _, direct, cross = _lrn_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct - 2 * alpha / n * beta * x * _sum(cross, offsets)


@mutant("lrn", "lrn_bprop")
def exponent_not_lowered(x, dy, dx, *, n, k, alpha, beta):
    offsets, scale, direct, cross = _lrn_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct - 2 * alpha * beta * x * _sum(cross * scale, offsets)


@mutant("lrn", "lrn_bprop")
def scale_of_the_receiving_channel(x, dy, dx, *, n, k, alpha, beta):
    offsets, scale, direct, _ = _lrn_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct - 2 * alpha * beta * x * scale ** (-beta - 1) * _sum(dy * x, offsets)


# --- response normalisation over a square of the same map ----------------------------------------------------------------------------

def _spatial(x, y, offsets, k, alpha, beta):
    y[...] = x * (k + alpha * _sum(x * x, offsets)) ** -beta


@mutant("spatial_norm", "spatial_norm_fprop")
def across_channels(x, y, *, n, k, alpha, beta):
    _spatial(x, y, _channels(-(n // 2), n // 2), k, alpha, beta)


@mutant("spatial_norm", "spatial_norm_fprop")
def square_and_all_channels(x, y, *, n, k, alpha, beta):
    scale = k + alpha * _sum(x * x, _square(-(n // 2), n // 2)).sum(axis=-1, keepdims=True)
    y[...] = x * scale**-beta


@mutant("spatial_norm", "spatial_norm_fprop")
def square_ends_one_early(x, y, *, n, k, alpha, beta):
    _spatial(x, y, _square(-(n // 2), n // 2 - 1), k, alpha, beta)


@mutant("spatial_norm", "spatial_norm_fprop")
def square_shifted_by_one(x, y, *, n, k, alpha, beta):
    _spatial(x, y, _square(1 - n // 2, n // 2 + 1), k, alpha, beta)


@mutant("spatial_norm", "spatial_norm_fprop")
def square_not_centred(x, y, *, n, k, alpha, beta):
    _spatial(x, y, _square(0, n - 1), k, alpha, beta)


@mutant("spatial_norm", "spatial_norm_fprop")
def rows_only(x, y, *, n, k, alpha, beta):
    _spatial(x, y, [(0, j, 0) for j in range(-(n // 2), n // 2 + 1)], k, alpha, beta)


@mutant("spatial_norm", "spatial_norm_fprop")
def cross_for_square(x, y, *, n, k, alpha, beta):
    _spatial(x, y, [(i, j, 0) for i, j, _ in _square(-(n // 2), n // 2) if i == 0 or j == 0], k, alpha, beta)


@mutant("spatial_norm", "spatial_norm_fprop")
def rows_wrap_around(x, y, *, n, k, alpha, beta):
    square = range(-(n // 2), n // 2 + 1)
    y[...] = x * (k + alpha * sum(np.roll(_shifted(x * x, i), j, axis=3) for i in square for j in square)) ** -beta


@mutant("spatial_norm", "spatial_norm_fprop")
def alpha_divided_twice(x, y, *, n, k, alpha, beta):
    _spatial(x, y, _square(-(n // 2), n // 2), k, alpha / (n * n), beta)


@mutant("spatial_norm", "spatial_norm_fprop")
def clipped_squares_rescaled(x, y, *, n, k, alpha, beta):
    offsets = _square(-(n // 2), n // 2)
    y[...] = x * (k + alpha * _sum(x * x, offsets) * n * n / _sum(np.ones_like(x), offsets)) ** -beta


@mutant("spatial_norm", "spatial_norm_fprop")
def k_is_two(x, y, *, n, k, alpha, beta):
    _spatial(x, y, _square(-(n // 2), n // 2), 2.0, alpha, beta)


@mutant("spatial_norm", "spatial_norm_fprop")
def sum_of_squares_deleted(x, y, *, n, k, alpha, beta):
    y[...] = x * k ** -beta


def _spatial_parts(x, dy, n, k, alpha, beta):
    offsets = _square(-(n // 2), n // 2)
    scale = k + alpha * _sum(x * x, offsets)
    return offsets, scale, dy * scale**-beta, dy * x * scale ** (-beta - 1)


@mutant("spatial_norm", "spatial_norm_bprop")
def square_cross_term_missing(x, dy, dx, *, n, k, alpha, beta):
    dx[...] = _spatial_parts(x, dy, n, k, alpha, beta)[2]


@mutant("spatial_norm", "spatial_norm_bprop")
def square_cross_term_added(x, dy, dx, *, n, k, alpha, beta):
    offsets, _, direct, cross = _spatial_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct + 2 * alpha * beta * x * _sum(cross, offsets)


@mutant("spatial_norm", "spatial_norm_bprop")
def square_cross_term_across_channels(x, dy, dx, *, n, k, alpha, beta):
    _, _, direct, cross = _spatial_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct - 2 * alpha * beta * x * _sum(cross, _channels(-(n // 2), n // 2))


@mutant("spatial_norm", "spatial_norm_bprop")
def square_cross_term_of_own_position_only(x, dy, dx, *, n, k, alpha, beta):
    _, _, direct, cross = _spatial_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct - 2 * alpha * beta * x * cross


@mutant("spatial_norm", "spatial_norm_bprop")
def backward_square_shifted(x, dy, dx, *, n, k, alpha, beta):
    _, _, direct, cross = _spatial_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct - 2 * alpha * beta * x * _sum(cross, _square(1 - n // 2, n // 2 + 1))


@mutant("spatial_norm", "spatial_norm_bprop")
def backward_alpha_divided_twice(x, dy, dx, *, n, k, alpha, beta):
    offsets, _, direct, cross = _spatial_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct - 2 * alpha / (n * n) * beta * x * _sum(cross, offsets)


@mutant("spatial_norm", "spatial_norm_bprop")
def square_cross_term_without_x(x, dy, dx, *, n, k, alpha, beta):
    offsets, _, direct, cross = _spatial_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct - 2 * alpha * beta * _sum(cross, offsets)


# --- controls: the same parts without a mistake must be accepted ---------------------------------------------------------------------

def right_lrn_fprop(x, y, *, n, k, alpha, beta):
    _lrn(x, y, _channels(-(n // 2), n // 2), k, alpha, beta)


def right_lrn_bprop(x, dy, dx, *, n, k, alpha, beta):
    offsets, _, direct, cross = _lrn_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct - 2 * alpha * beta * x * _sum(cross, offsets)


def right_spatial_norm_fprop(x, y, *, n, k, alpha, beta):
    _spatial(x, y, _square(-(n // 2), n // 2), k, alpha, beta)


def right_spatial_norm_bprop(x, dy, dx, *, n, k, alpha, beta):
    offsets, _, direct, cross = _spatial_parts(x, dy, n, k, alpha, beta)
    dx[...] = direct - 2 * alpha * beta * x * _sum(cross, offsets)


BASES = [Mutant("lrn", "right", "lrn_fprop", right_lrn_fprop), Mutant("lrn", "right", "lrn_bprop", right_lrn_bprop),
         Mutant("spatial_norm", "right", "spatial_norm_fprop", right_spatial_norm_fprop),
         Mutant("spatial_norm", "right", "spatial_norm_bprop", right_spatial_norm_bprop)]
