"""The training step that one writes first in NumPy: NCHW, im2col of the whole batch, a BLAS with threads of its own, a new
array for every result.  A peer of the bench: what blocks, scratch memory and worker threads are worth is the ratio to this.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..layers import LRN, Conv, Dropout, Layer, Linear, Local, MaxPool, ReLU, SoftmaxLoss
from ..net import Net
from ..spec import MiniAlexError, Shape, pair

KNOWN = (Conv, ReLU, LRN, MaxPool, Dropout, Linear, SoftmaxLoss)


def unknown(layers: list[Layer], known: tuple[type[Layer], ...] = KNOWN) -> Layer | None:
    """The first layer that a peer of these layers does not have."""
    return next((layer for layer in layers if type(layer) not in known or (isinstance(layer, Linear) and layer.groups > 1)), None)


def refuse_unknown(layers: list[Layer], known: tuple[type[Layer], ...] = KNOWN) -> None:
    """Raises MiniAlexError for a layer that the peer does not have."""
    if layer := unknown(layers, known):
        raise MiniAlexError(f"bench: no peer has {layer.name} ({type(layer).__name__}); use --recipe paper, or --peer none")


def channels_first(net: Net, layers: list[Layer]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Copies of a Net's weights and biases as (K, C, R, S), of local layers (P, Q, K, C, R, S), and (K, C*H*W): the layout of the peers."""
    result, x = {}, net.picture
    for layer in layers:
        if isinstance(layer, (Conv, Linear)):
            w, b = (net.ops.to_host(net.params[layer.name, which]) for which in ("w", "b"))
            if isinstance(layer, Local):
                w = w.transpose(0, 1, 2, 5, 3, 4)
            elif isinstance(layer, Conv):
                w = w.transpose(0, 3, 1, 2)
            else:
                w = w.reshape(layer.K, x.columns, x.H, x.W, x.C).transpose(0, 1, 4, 2, 3).reshape(layer.K, -1)
            result[layer.name] = np.ascontiguousarray(w), b
        x = layer.out_shape(x)
    return result


class Plain:
    """A network and its SGD; `step(x, labels)` with x (N, C, H, W) returns the loss and updates the weights."""

    def __init__(self, net: Net, layers: list[Layer], *, momentum: float = 0.9, decay: float = 0.0005, seed: int = 0):
        refuse_unknown(layers)
        self.layers, self.momentum, self.decay = layers, momentum, decay
        self.params = channels_first(net, layers)
        self.velocity = {name: tuple(np.zeros_like(p) for p in both) for name, both in self.params.items()}
        self.grads: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.columns = {}
        shape: Shape = net.picture
        for layer in layers:
            self.columns[layer.name] = shape.columns
            shape = layer.out_shape(shape)
        self.random = np.random.default_rng(seed)

    def step(self, x: np.ndarray, labels: np.ndarray, rate: float) -> float:
        saved, y = [], x
        for layer in self.layers[:-1]:
            y, keep = getattr(self, "_" + type(layer).__name__.lower())(layer, y)
            saved.append(keep)
        p = np.exp(y - y.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        index = np.arange(len(labels)), labels
        loss = float(-np.log(p[index]).mean())
        p[index] -= 1
        d = p / np.float32(len(labels))
        for i in range(len(self.layers) - 2, -1, -1):
            layer = self.layers[i]
            d = getattr(self, f"_{type(layer).__name__.lower()}_back")(layer, d, saved[i], i > 0)
        for name, grads in self.grads.items():
            for which, (w, v, dw) in enumerate(zip(self.params[name], self.velocity[name], grads, strict=True)):
                decay = self.decay if which == 0 else 0.0
                v[...] = np.float32(self.momentum) * v - np.float32(decay * rate) * w - np.float32(rate) * dw
                w += v
        return loss

    # each returns (y, what its way back needs)
    def _conv(self, layer, x):
        w, b = self.params[layer.name]
        before, after = pair(layer.pad)
        x = np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)))
        outputs, columns = [], []
        for part, filters in zip(np.split(x, layer.groups, axis=1), np.split(w, layer.groups), strict=True):
            seen = sliding_window_view(part, filters.shape[2:], axis=(2, 3))[:, :, ::layer.stride, ::layer.stride]
            N, C, P, Q, R, S = seen.shape
            columns.append(np.ascontiguousarray(seen.transpose(0, 1, 4, 5, 2, 3)).reshape(N, C * R * S, P * Q))
            outputs.append(filters.reshape(len(filters), -1) @ columns[-1])
        y = np.concatenate(outputs, axis=1).reshape(N, -1, P, Q) + b[:, None, None]
        return y, (x.shape, columns)

    def _conv_back(self, layer, dy, saved, wanted):
        w, _ = self.params[layer.name]
        shape, columns = saved
        (N, K, P, Q), (R, S), groups, stride = dy.shape, w.shape[2:], layer.groups, layer.stride
        dw, dx = [], []
        for grad, filters, seen in zip(np.split(dy, groups, axis=1), np.split(w, groups), columns, strict=True):
            grad = np.ascontiguousarray(grad).reshape(N, K // groups, P * Q)
            dw.append((grad @ seen.transpose(0, 2, 1)).sum(axis=0).reshape(filters.shape))
            if wanted:
                dseen = (filters.reshape(len(filters), -1).T @ grad).reshape(N, -1, R, S, P, Q)
                part = np.zeros((N, shape[1] // groups, *shape[2:]), dy.dtype)
                for r in range(R):
                    for s in range(S):
                        part[:, :, r:r + stride * (P - 1) + 1:stride, s:s + stride * (Q - 1) + 1:stride] += dseen[:, :, r, s]
                dx.append(part)
        self.grads[layer.name] = np.concatenate(dw), dy.sum(axis=(0, 2, 3))
        before, after = pair(layer.pad)
        return np.concatenate(dx, axis=1)[:, :, before:shape[2] - after, before:shape[3] - after] if wanted else None

    def _relu(self, layer, x):
        y = np.maximum(x, 0)
        return y, y

    def _relu_back(self, layer, dy, y, wanted):
        return dy * (y > 0)

    def _window(self, layer, a):
        """Sum over n channels around each, within its column."""
        N, C, H, W = a.shape
        columns = self.columns[layer.name]
        wide = np.pad(a.reshape(N, columns, C // columns, H, W), ((0, 0), (0, 0), (layer.n // 2, layer.n // 2), (0, 0), (0, 0)))
        return sum(wide[:, :, i:i + C // columns] for i in range(layer.n)).reshape(a.shape)

    def _lrn(self, layer, x):
        alpha = layer.alpha / layer.n if layer.divide_by_n else layer.alpha
        scale = np.float32(layer.k) + np.float32(alpha) * self._window(layer, x * x)
        y = x * scale ** np.float32(-layer.beta)
        return y, (x, y, scale, np.float32(2 * alpha * layer.beta))

    def _lrn_back(self, layer, dy, saved, wanted):
        x, y, scale, factor = saved
        return dy * scale ** np.float32(-layer.beta) - factor * x * self._window(layer, dy * y / scale)

    def _maxpool(self, layer, x):
        P, Q = (-(-(extent - layer.window) // layer.stride) + 1 for extent in x.shape[2:])
        whole = [(0, layer.stride * (out - 1) + layer.window - extent) for out, extent in zip((P, Q), x.shape[2:], strict=True)]
        wide = np.pad(x, ((0, 0), (0, 0), *whole), constant_values=-np.inf)
        y = sliding_window_view(wide, (layer.window, layer.window), axis=(2, 3))[:, :, ::layer.stride, ::layer.stride].max(axis=(4, 5))
        return y, (x.shape, wide, y)

    def _maxpool_back(self, layer, dy, saved, wanted):
        shape, wide, y = saved
        dx, taken, stride = np.zeros_like(wide), np.zeros(y.shape, bool), layer.stride
        for r in range(layer.window):
            for s in range(layer.window):
                place = (..., slice(r, r + stride * (y.shape[2] - 1) + 1, stride), slice(s, s + stride * (y.shape[3] - 1) + 1, stride))
                wins = (wide[place] == y) & ~taken
                taken |= wins
                dx[place] += dy * wins
        return dx[:, :, :shape[2], :shape[3]]

    def _dropout(self, layer, x):
        mask = (self.random.random(x.shape, dtype=np.float32) < layer.keep) * np.float32(1 / layer.keep if layer.inverted else 1)
        return x * mask, mask

    def _dropout_back(self, layer, dy, mask, wanted):
        return dy * mask

    def _linear(self, layer, x):
        w, b = self.params[layer.name]
        flat = x.reshape(len(x), -1)
        return flat @ w.T + b, (x.shape, flat)

    def _linear_back(self, layer, dy, saved, wanted):
        shape, flat = saved
        self.grads[layer.name] = dy.T @ flat, dy.sum(axis=0)
        return (dy @ self.params[layer.name][0]).reshape(shape) if wanted else None
