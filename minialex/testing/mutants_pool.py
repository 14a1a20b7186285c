"""Wrong pools and activations; unweighted.prove must reject each one.  They share no code with any backend."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .mutants import Mutant, mutant


def _windows(H, W, P, Q, window, stride, first=0) -> Iterator[tuple[int, int, slice, slice]]:
    """Each output position with the rows and columns its window covers, clipped; `first` shifts all windows."""
    for p in range(P):
        for q in range(Q):
            top, left = p * stride + first, q * stride + first
            yield p, q, slice(max(0, top), min(H, top + window)), slice(max(0, left), min(W, left + window))


def _seen(x, y, window, stride, first=0):
    """_windows for x (G, N, H, W, C) and y (G, N, P, Q, C)."""
    return _windows(*x.shape[2:4], *y.shape[2:4], window, stride, first)


# --- max-pooling ---------------------------------------------------------------------------------------------------------------------

@mutant("maxpool", "maxpool_fprop")
def extents_rounded_down(x, y, *, window, stride):
    P, Q = ((extent - window) // stride + 1 for extent in x.shape[2:4])
    for p, q, rows, columns in _windows(*x.shape[2:4], P, Q, window, stride):
        y[:, :, p, q] = x[:, :, rows, columns].max(axis=(2, 3))


@mutant("maxpool", "maxpool_fprop")
def border_counts_as_zero(x, y, *, window, stride):
    for p, q, rows, columns in _seen(x, y, window, stride):
        seen = x[:, :, rows, columns]
        y[:, :, p, q] = np.maximum(seen.max(axis=(2, 3)), -np.inf if seen.shape[2:4] == (window, window) else 0)


@mutant("maxpool", "maxpool_fprop")
def maximum_starts_at_zero(x, y, *, window, stride):
    for p, q, rows, columns in _seen(x, y, window, stride):
        y[:, :, p, q] = np.maximum(x[:, :, rows, columns].max(axis=(2, 3)), 0)


@mutant("maxpool", "maxpool_fprop")
def windows_start_one_early(x, y, *, window, stride):
    for p, q, rows, columns in _seen(x, y, window, stride, first=-1):
        y[:, :, p, q] = x[:, :, rows, columns].max(axis=(2, 3))


@mutant("maxpool", "maxpool_fprop")
def last_windows_moved_inside(x, y, *, window, stride):
    H, W = x.shape[2:4]
    for p, q, rows, columns in _seen(x, y, window, stride):
        top, left = min(rows.start, H - window), min(columns.start, W - window)
        y[:, :, p, q] = x[:, :, top:top + window, left:left + window].max(axis=(2, 3))


@mutant("maxpool", "maxpool_fprop")
def window_one_smaller(x, y, *, window, stride):
    for p, q, rows, columns in _seen(x, y, max(1, window - 1), stride):
        y[:, :, p, q] = x[:, :, rows, columns].max(axis=(2, 3))


@mutant("maxpool", "maxpool_fprop")
def window_as_wide_as_the_stride(x, y, *, window, stride):
    for p, q, rows, columns in _seen(x, y, stride, stride):
        y[:, :, p, q] = x[:, :, rows, columns].max(axis=(2, 3))


@mutant("maxpool", "maxpool_fprop")
def largest_magnitude(x, y, *, window, stride):
    for p, q, rows, columns in _seen(x, y, window, stride):
        y[:, :, p, q] = np.abs(x[:, :, rows, columns]).max(axis=(2, 3))


def _send(x, y, dy, dx, window, stride, choose, add=True, first=0):
    """dx of each window's inputs += dy * choose(inputs equal to the maximum, flattened over the window in row order)."""
    dx[...] = 0
    for p, q, rows, columns in _seen(x, y, window, stride, first):
        wins = x[:, :, rows, columns] == y[:, :, p, q][:, :, None, None]
        chosen = choose(wins.reshape(*wins.shape[:2], -1, wins.shape[4])).reshape(wins.shape)
        sent = chosen * dy[:, :, p, q][:, :, None, None]
        dx[:, :, rows, columns] = dx[:, :, rows, columns] + sent if add else np.where(chosen, sent, dx[:, :, rows, columns])


def _first(wins):
    return wins & (np.cumsum(wins, axis=2) == 1)


def _last(wins):
    return _first(wins[:, :, ::-1])[:, :, ::-1]


def _all(wins):
    return wins


def _right(ties):
    return _first if ties == "first" else _all


@mutant("maxpool", "maxpool_bprop")
def first_for_all(x, y, dy, dx, *, window, stride, ties):
    _send(x, y, dy, dx, window, stride, _first)


@mutant("maxpool", "maxpool_bprop")
def all_for_first(x, y, dy, dx, *, window, stride, ties):
    _send(x, y, dy, dx, window, stride, _all)


@mutant("maxpool", "maxpool_bprop")
def ties_swapped(x, y, dy, dx, *, window, stride, ties):
    _send(x, y, dy, dx, window, stride, _all if ties == "first" else _first)


@mutant("maxpool", "maxpool_bprop")
def last_maximum(x, y, dy, dx, *, window, stride, ties):
    _send(x, y, dy, dx, window, stride, _last if ties == "first" else _all)


@mutant("maxpool", "maxpool_bprop")
def first_in_column_order(x, y, dy, dx, *, window, stride, ties):
    turned = [np.ascontiguousarray(a.swapaxes(2, 3)) for a in (x, y, dy, dx)]
    _send(*turned, window, stride, _right(ties))
    dx[...] = turned[3].swapaxes(2, 3)


@mutant("maxpool", "maxpool_bprop")
def ties_share_the_gradient(x, y, dy, dx, *, window, stride, ties):
    _send(x, y, dy, dx, window, stride, lambda wins: wins / wins.sum(axis=2, keepdims=True) if ties == "all" else _first(wins))


@mutant("maxpool", "maxpool_bprop")
def second_window_overwrites_the_first(x, y, dy, dx, *, window, stride, ties):
    # Right until one input wins in two windows.
    _send(x, y, dy, dx, window, stride, _right(ties), add=False)


@mutant("maxpool", "maxpool_bprop")
def clipped_windows_send_nothing(x, y, dy, dx, *, window, stride, ties):
    P, Q = ((extent - window) // stride + 1 for extent in x.shape[2:4])
    _send(x, y[:, :, :P, :Q], dy[:, :, :P, :Q], dx, window, stride, _right(ties))


@mutant("maxpool", "maxpool_bprop")
def backward_windows_start_one_early(x, y, dy, dx, *, window, stride, ties):
    _send(x, y, dy, dx, window, stride, _right(ties), first=-1)


@mutant("maxpool", "maxpool_bprop")
def every_input_gets_it(x, y, dy, dx, *, window, stride, ties):
    _send(x, y, dy, dx, window, stride, np.ones_like)


# --- average pooling -----------------------------------------------------------------------------------------------------------------

@mutant("avgpool", "avgpool_fprop")
def divided_by_the_whole_window(x, y, *, window, stride):
    for p, q, rows, columns in _seen(x, y, window, stride):
        y[:, :, p, q] = x[:, :, rows, columns].sum(axis=(2, 3)) / (window * window)


@mutant("avgpool", "avgpool_fprop")
def average_extents_rounded_down(x, y, *, window, stride):
    P, Q = ((extent - window) // stride + 1 for extent in x.shape[2:4])
    for p, q, rows, columns in _windows(*x.shape[2:4], P, Q, window, stride):
        y[:, :, p, q] = x[:, :, rows, columns].mean(axis=(2, 3))


@mutant("avgpool", "avgpool_fprop")
def average_windows_start_one_early(x, y, *, window, stride):
    for p, q, rows, columns in _seen(x, y, window, stride, first=-1):
        y[:, :, p, q] = x[:, :, rows, columns].mean(axis=(2, 3))


@mutant("avgpool", "avgpool_fprop")
def one_divisor_for_both_axes(x, y, *, window, stride):
    for p, q, rows, columns in _seen(x, y, window, stride):
        y[:, :, p, q] = x[:, :, rows, columns].sum(axis=(2, 3)) / (rows.stop - rows.start) ** 2


@mutant("avgpool", "avgpool_fprop")
def sum_instead_of_mean(x, y, *, window, stride):
    for p, q, rows, columns in _seen(x, y, window, stride):
        y[:, :, p, q] = x[:, :, rows, columns].sum(axis=(2, 3))


def _hand_back(dy, dx, window, stride, count, first=0, add=True):
    dx[...] = 0
    for p, q, rows, columns in _seen(dx, dy, window, stride, first):
        share = dy[:, :, p, q][:, :, None, None] / count(rows.stop - rows.start, columns.stop - columns.start)
        dx[:, :, rows, columns] = dx[:, :, rows, columns] * add + share


@mutant("avgpool", "avgpool_bprop")
def gradient_divided_by_the_whole_window(dy, dx, *, window, stride):
    _hand_back(dy, dx, window, stride, lambda rows, columns: window * window)


@mutant("avgpool", "avgpool_bprop")
def gradient_not_divided(dy, dx, *, window, stride):
    _hand_back(dy, dx, window, stride, lambda rows, columns: 1)


@mutant("avgpool", "avgpool_bprop")
def gradient_windows_start_one_early(dy, dx, *, window, stride):
    _hand_back(dy, dx, window, stride, lambda rows, columns: rows * columns, first=-1)


@mutant("avgpool", "avgpool_bprop")
def overlaps_overwritten(dy, dx, *, window, stride):
    _hand_back(dy, dx, window, stride, lambda rows, columns: rows * columns, add=False)


# --- activations ---------------------------------------------------------------------------------------------------------------------

@mutant("relu", "relu_fprop")
def leaky(x, y):
    y[...] = np.where(x > 0, x, 0.01 * x)


@mutant("relu", "relu_fprop")
def linear(x, y):
    y[...] = x


@mutant("relu", "relu_fprop")
def capped_at_six(x, y):
    y[...] = np.clip(x, 0, 6)


@mutant("relu", "relu_fprop")
def magnitude(x, y):
    y[...] = np.abs(x)


@mutant("relu", "relu_bprop")
def gradient_passes_at_zero(y, dy, dx):
    dx[...] = np.where(y >= 0, dy, 0)


@mutant("relu", "relu_bprop")
def leaky_gradient(y, dy, dx):
    dx[...] = np.where(y > 0, dy, 0.01 * dy)


@mutant("relu", "relu_bprop")
def gradient_of_positive_gradients_only(y, dy, dx):
    dx[...] = np.maximum(np.where(y > 0, dy, 0), 0)


@mutant("relu", "relu_bprop")
def gradient_times_y(y, dy, dx):
    dx[...] = dy * y


@mutant("tanh", "tanh_fprop")
def tanh_of_half(x, y):
    y[...] = np.tanh(x / 2)         # 2 sigmoid(x) - 1


@mutant("tanh", "tanh_fprop")
def scaled_tanh(x, y):
    y[...] = 1.7159 * np.tanh(2 * x / 3)


@mutant("tanh", "tanh_fprop")
def hard_tanh(x, y):
    y[...] = np.clip(x, -1, 1)


@mutant("tanh", "tanh_bprop")
def one_minus_y(y, dy, dx):
    dx[...] = dy * (1 - y)


@mutant("tanh", "tanh_bprop")
def one_plus_square(y, dy, dx):
    dx[...] = dy * (1 + y * y)


@mutant("tanh", "tanh_bprop")
def slope_of_the_sigmoid(y, dy, dx):
    dx[...] = dy * y * (1 - y)


@mutant("tanh", "tanh_bprop")
def y_taken_for_x(y, dy, dx):
    dx[...] = dy * (1 - np.tanh(y) ** 2)


@mutant("sigmoid", "sigmoid_fprop")
def sign_of_x_turned(x, y):
    y[...] = 1 / (1 + np.exp(x))


@mutant("sigmoid", "sigmoid_fprop")
def hard_sigmoid(x, y):
    y[...] = np.clip(0.2 * x + 0.5, 0, 1)


@mutant("sigmoid", "sigmoid_fprop")
def digits_of_small_values_lost(x, y):
    y[...] = (1 + np.tanh(x / 2)) / 2


@mutant("sigmoid", "sigmoid_bprop")
def one_minus_square(y, dy, dx):
    dx[...] = dy * (1 - y * y)


@mutant("sigmoid", "sigmoid_bprop")
def y_left_out(y, dy, dx):
    dx[...] = dy * (1 - y)


@mutant("sigmoid", "sigmoid_bprop")
def sigmoid_y_taken_for_x(y, dy, dx):
    s = 1 / (1 + np.exp(-y))
    dx[...] = dy * s * (1 - s)


# --- controls: the same parts without a mistake must be accepted ---------------------------------------------------------------------

def right_maxpool_fprop(x, y, *, window, stride):
    for p, q, rows, columns in _seen(x, y, window, stride):
        y[:, :, p, q] = x[:, :, rows, columns].max(axis=(2, 3))


def right_maxpool_bprop(x, y, dy, dx, *, window, stride, ties):
    _send(x, y, dy, dx, window, stride, _right(ties))


def right_avgpool_fprop(x, y, *, window, stride):
    for p, q, rows, columns in _seen(x, y, window, stride):
        y[:, :, p, q] = x[:, :, rows, columns].mean(axis=(2, 3))


def right_avgpool_bprop(dy, dx, *, window, stride):
    _hand_back(dy, dx, window, stride, lambda rows, columns: rows * columns)


BASES = [Mutant("maxpool", "right", "maxpool_fprop", right_maxpool_fprop), Mutant("maxpool", "right", "maxpool_bprop", right_maxpool_bprop),
         Mutant("avgpool", "right", "avgpool_fprop", right_avgpool_fprop), Mutant("avgpool", "right", "avgpool_bprop", right_avgpool_bprop)]
