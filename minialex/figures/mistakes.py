"""The mistakes a network was surest of."""

from __future__ import annotations

import numpy as np


def mistaken(p: np.ndarray, labels: np.ndarray, n: int) -> np.ndarray:
    """Numbers of the up to n pictures whose wrong answer got most probability, the surest first; p (m, K), labels (m,)."""
    answer = p.argmax(axis=1)
    wrong = np.flatnonzero(answer != labels)
    return wrong[np.argsort(-p[wrong, answer[wrong]], kind="stable")][:n]
