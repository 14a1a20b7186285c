"""Wrong convolutions, local convolutions and linear layers.

Each op is written once more here, whole activations at a time, with every deviation beside the line it spoils.  With
`wrong=""` the functions are right, and the tests demand that these pass: a mutant of a wrong base would prove nothing.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ..backends import checks
from .mutants import MUTANTS, Mutant


def _whole(array: np.ndarray) -> np.ndarray:
    """(G, N, H, W, C) as (N, H, W, G * C), global channels in order."""
    G, N, H, W, C = array.shape
    return array.transpose(1, 2, 3, 0, 4).reshape(N, H, W, G * C)


def _columns(whole: np.ndarray, G: int) -> np.ndarray:
    """The reverse."""
    N, H, W, channels = whole.shape
    return whole.reshape(N, H, W, G, channels // G).transpose(3, 0, 1, 2, 4)


def _padded(whole: np.ndarray, d: checks.ConvDims, before: int, mode: str = "constant") -> np.ndarray:
    """Zeros around, enough after the end for any window."""
    after = d.stride * max(d.P, d.Q) + max(d.R, d.S)
    return np.pad(whole, ((0, 0), (before, after), (before, after), (0, 0)), mode=mode)


def _tap(wide: np.ndarray, d: checks.ConvDims, r: int, s: int) -> np.ndarray:
    """(N, P, Q, C): what tap (r, s) meets at each position."""
    return wide[:, r:r + d.stride * (d.P - 1) + 1:d.stride, s:s + d.stride * (d.Q - 1) + 1:d.stride]


def _before(d: checks.ConvDims, wrong: str) -> int:
    if wrong == "pad_before_and_after_swapped":
        return d.after
    if wrong == "pad_halved_over_both_sides":
        return (d.before + d.after + 1) // 2
    return d.before


def _group_slices(d: checks.ConvDims, wrong: str) -> list[tuple[slice, slice]]:
    """(input channels, maps) of each group."""
    C, K = d.C // d.groups, d.K // d.groups
    source = list(range(d.groups))
    if wrong == "groups_all_read_the_first":
        source = [0] * d.groups
    if wrong == "groups_swapped":
        source = source[::-1]
    return [(slice(i * C, (i + 1) * C), slice(g * K, (g + 1) * K)) for g, i in enumerate(source)]


def _taps(d: checks.ConvDims, wrong: str) -> list[tuple[int, int]]:
    taps = [(r, s) for r in range(d.R) for s in range(d.S)]
    missing = {"first_tap_missing": 0, "middle_tap_missing": len(taps) // 2, "last_tap_missing": len(taps) - 1}.get(wrong)
    return [tap for i, tap in enumerate(taps) if i != missing]


def _filters(w: np.ndarray, maps: slice, r: int, s: int, d: checks.ConvDims, wrong: str) -> np.ndarray:
    """(maps, C_group), or (P, Q, maps, C_group) of a local layer."""
    if wrong in ("filters_flipped", "filters_not_flipped_back"):
        r, s = d.R - 1 - r, d.S - 1 - s
    if wrong == "filters_transposed" and d.R == d.S:
        r, s = s, r
    return w[..., maps, r, s, :]


def _spoilt_filters(w: np.ndarray, wrong: str) -> np.ndarray:
    if wrong == "one_filter_for_all_positions":
        return np.broadcast_to(w[:1, :1], w.shape)
    if wrong == "positions_transposed" and w.shape[0] == w.shape[1]:
        return w.transpose(1, 0, 2, 3, 4, 5)
    return w


def fprop(x, w, b, y, *, stride, pad, groups, wrong="", local=False):
    """conv_fprop or local_fprop."""
    d = checks.conv("mutant", x=x, w=w, b=b, y=y, stride=stride, pad=pad, groups=groups, outputs=("y",), local=local)
    if local:
        w = _spoilt_filters(w, wrong)
    source = x[::-1] if wrong == "input_columns_swapped" else x
    whole = _whole(source)
    if wrong == "last_input_row_unread":
        whole = whole.copy()
        whole[:, -1] = 0
    wide = _padded(whole, d, _before(d, wrong), "edge" if wrong == "edge_repeated_instead_of_zeros" else "constant")
    out = np.zeros((d.N, d.P, d.Q, d.K), x.dtype)
    for inputs, maps in _group_slices(d, wrong):
        for r, s in _taps(d, wrong):
            seen, filters = _tap(wide, d, r, s)[..., inputs], _filters(w, maps, r, s, d, wrong)
            out[..., maps] += np.einsum("npqc,pqkc->npqk", seen, filters) if local else seen @ filters.T
    if wrong == "rows_and_columns_of_the_map_transposed":
        out = out.transpose(0, 2, 1, 3).reshape(out.shape)
    bias = b[0, 0] if wrong == "one_bias_for_all_positions" else b
    times = {"bias_missing": 0, "bias_twice": 2, "bias_once_per_input_column": d.Gx // groups or 1}.get(wrong, 1)
    out += times * bias.astype(x.dtype)
    if wrong == "last_output_row_dropped":
        out[:, -1] = 0
    result = _columns(out, d.Gy)
    if wrong == "maps_dealt_to_columns_in_turn":
        result = out.reshape(d.N, d.P, d.Q, d.K // d.Gy, d.Gy).transpose(4, 0, 1, 2, 3)
    y[...] = result[::-1] if wrong == "output_columns_swapped" else result


def relu_fprop(x, w, b, y, *, stride, pad, groups, wrong=""):
    """conv_relu_fprop."""
    if wrong == "bias_behind_the_relu":
        fprop(x, w, np.zeros_like(b), y, stride=stride, pad=pad, groups=groups)
        np.maximum(y, 0, out=y)
        y += b.reshape(y.shape[0], 1, 1, 1, -1)
        return
    fprop(x, w, b, y, stride=stride, pad=pad, groups=groups)
    if wrong != "relu_missing":
        np.maximum(y, 0, out=y)


def dgrad(dy, w, dx, *, stride, pad, groups, wrong="", local=False):
    """conv_dgrad or local_dgrad."""
    d = checks.conv("mutant", x=dx, w=w, y=dy, stride=stride, pad=pad, groups=groups, outputs=("x",), local=local)
    if local:
        w = _spoilt_filters(w, wrong)
    given = dy.copy()
    if wrong == "second_output_column_forgotten":
        given[1:] = 0
    whole = _whole(given)
    wide = _padded(np.zeros((d.N, d.H, d.W, d.C), dx.dtype), d, before := _before(d, wrong))
    for inputs, maps in _group_slices(d, wrong):
        for r, s in _taps(d, wrong):
            filters = _filters(w, maps, r, s, d, wrong)
            sent = np.einsum("npqk,pqkc->npqc", whole[..., maps], filters) if local else whole[..., maps] @ filters
            if wrong == "overlaps_overwritten":
                _tap(wide, d, r, s)[..., inputs] = sent
            else:
                _tap(wide, d, r, s)[..., inputs] += sent
    result = _columns(wide[:, before:before + d.H, before:before + d.W], d.Gx)
    if wrong == "unread_rows_left_unwritten":
        read = min(d.H, (d.P - 1) * stride + d.R - d.before)
        dx[:, :, :read] = result[:, :, :read]
        return
    dx[...] = result[::-1] if wrong == "input_columns_swapped" else result


def wgrad(x, dy, dw, db, *, stride, pad, groups, accumulate=False, wrong="", local=False):
    """conv_wgrad or local_wgrad."""
    d = checks.conv("mutant", x=x, w=dw, b=db, y=dy, stride=stride, pad=pad, groups=groups, outputs=("w", "b"), local=local)
    if wrong == "last_image_forgotten" and d.N > 1:
        x, dy = x[:, :-1], dy[:, :-1]
    if wrong == "last_output_row_forgotten":
        dy = dy.copy()
        dy[:, :, -1] = 0
    new_w, new_b = np.zeros_like(dw), np.zeros_like(db)
    wide, whole = _padded(_whole(x), d, _before(d, wrong)), _whole(dy)
    for inputs, maps in _group_slices(d, wrong):
        for r, s in _taps(d, wrong):
            product = np.einsum("npqk,npqc->pqkc" if local else "npqk,npqc->kc", whole[..., maps], _tap(wide, d, r, s)[..., inputs])
            if wrong == "filters_flipped":
                r, s = d.R - 1 - r, d.S - 1 - s
            new_w[..., maps, r, s, :] = product
    new_b[...] = whole.sum(axis=0) if local else whole.sum(axis=(0, 1, 2))
    if wrong == "averaged_over_images":
        new_w /= d.N
    if wrong == "bias_averaged_over_images":
        new_b /= d.N
    if wrong == "bias_averaged_over_positions":
        new_b /= d.P * d.Q
    if wrong == "summed_over_positions":
        new_w[...] = new_w.sum(axis=(0, 1), keepdims=True)
    old_w, old_b = wrong != "accumulate_overwrites_w" and accumulate, wrong != "accumulate_overwrites_b" and accumulate
    dw[...] = dw + new_w if old_w or wrong == "always_accumulates" else new_w
    db[...] = db + new_b if old_b else new_b


def _rows(array: np.ndarray) -> np.ndarray:
    """(G, N, F) as (N, G * F)."""
    return array.transpose(1, 0, 2).reshape(array.shape[1], -1)


def linear_fprop(x, w, b, y, *, groups, wrong=""):
    """linear_fprop."""
    checks.linear("mutant", x=x, w=w, b=b, y=y, groups=groups, outputs=("y",))
    whole = _rows(x[::-1] if wrong == "input_columns_swapped" else x)
    if wrong == "columns_interleaved":
        whole = x.transpose(1, 2, 0).reshape(x.shape[1], -1)
    if wrong == "last_input_unread":
        whole = whole.copy()
        whole[:, -1] = 0
    if wrong == "weights_read_as_inputs_by_outputs":
        w = w.reshape(w.shape[1], w.shape[0]).T
    parts = np.split(whole, groups, axis=1)
    parts = parts[::-1] if wrong == "groups_swapped" else [parts[0]] * groups if wrong == "groups_all_read_the_first" else parts
    out = np.concatenate([part @ maps.T for part, maps in zip(parts, np.split(w, groups), strict=True)], axis=1)
    out += {"bias_missing": 0, "bias_twice": 2, "bias_once_per_input_column": x.shape[0] // groups}.get(wrong, 1) * b
    result = out.reshape(len(out), y.shape[0], -1).transpose(1, 0, 2)
    y[...] = result[::-1] if wrong == "output_columns_swapped" else result


def linear_dgrad(dy, w, dx, *, groups, wrong=""):
    """linear_dgrad."""
    checks.linear("mutant", x=dx, w=w, y=dy, groups=groups, outputs=("x",))
    given = dy.copy()
    if wrong == "second_output_column_forgotten":
        given[1:] = 0
    parts = np.split(_rows(given), groups, axis=1)
    out = np.concatenate([part @ maps for part, maps in zip(parts, np.split(w, groups), strict=True)], axis=1)
    result = out.reshape(len(out), dx.shape[0], -1).transpose(1, 0, 2)
    dx[...] = result[::-1] if wrong == "input_columns_swapped" else result


def linear_wgrad(x, dy, dw, db, *, groups, accumulate=False, wrong=""):
    """linear_wgrad."""
    checks.linear("mutant", x=x, w=dw, b=db, y=dy, groups=groups, outputs=("w", "b"))
    if wrong == "last_image_forgotten":
        dy = np.concatenate([dy[:, :-1], np.zeros_like(dy[:, -1:])], axis=1)
    xs, dys = np.split(_rows(x), groups, axis=1), np.split(_rows(dy), groups, axis=1)
    new_w, new_b = np.concatenate([b.T @ a for a, b in zip(xs, dys, strict=True)]), _rows(dy).sum(axis=0)
    if wrong == "averaged_over_images":
        new_w = new_w / x.shape[1]
    if wrong == "bias_averaged_over_images":
        new_b = new_b / x.shape[1]
    old_w, old_b = wrong != "accumulate_overwrites_w" and accumulate, wrong != "accumulate_overwrites_b" and accumulate
    dw[...] = dw + new_w if old_w or wrong == "always_accumulates" else new_w
    db[...] = db + new_b if old_b else new_b


_TAPS = ("first_tap_missing", "middle_tap_missing", "last_tap_missing")
_WINDOW = ("pad_before_and_after_swapped", "pad_halved_over_both_sides", "groups_all_read_the_first", "groups_swapped", *_TAPS)
_BIAS = ("bias_missing", "bias_twice", "bias_once_per_input_column")
_SWAPS = ("input_columns_swapped", "output_columns_swapped")
_SUMS = ("averaged_over_images", "bias_averaged_over_images", "accumulate_overwrites_w", "accumulate_overwrites_b", "always_accumulates",
         "last_image_forgotten")
_FPROP = (*_WINDOW, *_BIAS, *_SWAPS, "filters_flipped", "filters_transposed", "last_input_row_unread", "edge_repeated_instead_of_zeros",
          "rows_and_columns_of_the_map_transposed", "last_output_row_dropped", "maps_dealt_to_columns_in_turn")
_DGRAD = (*_WINDOW, "filters_not_flipped_back", "second_output_column_forgotten", "overlaps_overwritten", "unread_rows_left_unwritten",
          "input_columns_swapped")
_WGRAD = (*_WINDOW, *_SUMS, "filters_flipped", "last_output_row_forgotten", "bias_averaged_over_positions")
_LOCAL = ("one_filter_for_all_positions", "positions_transposed")

_TABLE = (
    ("conv", "conv_fprop", fprop, _FPROP),
    ("conv", "conv_relu_fprop", relu_fprop, ("bias_behind_the_relu", "relu_missing")),
    ("conv", "conv_dgrad", dgrad, _DGRAD),
    ("conv", "conv_wgrad", wgrad, _WGRAD),
    ("local", "local_fprop", partial(fprop, local=True), (*_FPROP, *_LOCAL, "one_bias_for_all_positions")),
    ("local", "local_dgrad", partial(dgrad, local=True), (*_DGRAD, *_LOCAL)),
    ("local", "local_wgrad", partial(wgrad, local=True), (*_WGRAD, "summed_over_positions")),
    ("linear", "linear_fprop", linear_fprop, (*_BIAS, *_SWAPS, "columns_interleaved", "last_input_unread", "groups_swapped",
                                              "weights_read_as_inputs_by_outputs", "groups_all_read_the_first")),
    ("linear", "linear_dgrad", linear_dgrad, ("second_output_column_forgotten", "input_columns_swapped")),
    ("linear", "linear_wgrad", linear_wgrad, _SUMS),
)

BASES = [Mutant(stem, "right", op, function) for stem, op, function, _ in _TABLE]     # the controls: right versions
MUTANTS += [Mutant(stem, wrong, op, partial(function, wrong=wrong)) for stem, op, function, names in _TABLE for wrong in names]
