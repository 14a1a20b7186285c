"""Softmax and multinomial logistic loss on the CPU (paper, section 3.5)."""

from __future__ import annotations

import numpy as np

from .. import checks
from .workers import scratch


def loss_fprop(x: np.ndarray, labels: np.ndarray, p: np.ndarray, loss: np.ndarray, *, dx: np.ndarray | None = None,
               scale: float = 1.0) -> None:
    """p = softmax of the logits; loss[n] = log(sum of exp(x)) - x[label], from the logits: no p underflows into it; dx as
    loss_bprop's, where given."""
    checks.loss("loss_fprop", x=x, p=p, labels=labels, per_image_loss=loss, dx=dx, outputs=("p", "loss", "dx"))
    checks.labels_inside("loss_fprop", labels, x.shape[1])
    N = x.shape[0]
    z = np.subtract(x, x.max(axis=1, keepdims=True), out=scratch("shifted", x.shape, x.dtype))
    np.exp(z, out=p)
    total = p.sum(axis=1, keepdims=True)
    np.divide(p, total, out=p)
    np.subtract(np.log(total[:, 0]), z[np.arange(N), labels], out=loss)
    if dx is not None:
        loss_bprop(p, labels, dx, scale=scale)


def loss_bprop(p: np.ndarray, labels: np.ndarray, dx: np.ndarray, *, scale: float) -> None:
    """dx = (p - onehot(label)) * scale."""
    checks.loss("loss_bprop", x=dx, p=p, labels=labels, outputs=("x",))
    checks.labels_inside("loss_bprop", labels, p.shape[1])
    np.copyto(dx, p)
    dx[np.arange(p.shape[0]), labels] -= 1
    np.multiply(dx, scale, out=dx)
