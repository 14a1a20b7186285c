"""Softmax and multinomial logistic loss (paper, section 3.5)."""

from __future__ import annotations

import numpy as np

from .. import checks


def loss_fprop(x: np.ndarray, labels: np.ndarray, p: np.ndarray, loss: np.ndarray, *, dx: np.ndarray | None = None,
               scale: float = 1.0) -> None:
    """p = softmax of the logits x, and for each image loss = -log p[label].

        loss[n] = log(sum over k of exp(x[n, k])) - x[n, labels[n]]

    The loss comes from the logits, not from log(p): a p that underflows to 0 still has a finite loss.
    The largest logit is subtracted first, so nothing overflows.

    x (N, K) and labels (N,) int32 are read; p (N, K) and loss (N,) are written entirely, and dx, where given, as loss_bprop does.
    """
    checks.loss("loss_fprop", x=x, p=p, labels=labels, per_image_loss=loss, dx=dx, outputs=("p", "loss", "dx"))
    checks.labels_inside("loss_fprop", labels, x.shape[1])
    z = x - x.max(axis=1, keepdims=True)
    total = np.exp(z).sum(axis=1, keepdims=True)
    p[...] = np.exp(z) / total
    loss[...] = np.log(total[:, 0]) - z[np.arange(len(labels)), labels]
    if dx is not None:
        loss_bprop(p, labels, dx, scale=scale)


def loss_bprop(p: np.ndarray, labels: np.ndarray, dx: np.ndarray, *, scale: float) -> None:
    """dx = (p - onehot(labels)) * scale; scale is 1 / batch for the paper's average over the batch."""
    checks.loss("loss_bprop", x=dx, p=p, labels=labels, outputs=("x",))
    checks.labels_inside("loss_bprop", labels, p.shape[1])
    onehot = np.arange(p.shape[1]) == labels[:, None]
    dx[...] = (p - onehot) * scale
