"""Gradients against central differences in float64.

    (L(v + h d) - L(v - h d)) / 2h    against    <gradient, d>,        L(v) = <f(v), dy>

For small arrays d runs over all unit vectors, for larger ones over random vectors of +1 and -1 (which, unlike normalised
directions, do not dilute an error in a single element).  f must be smooth around v: see `away_from`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .compare import running_test

STEP = 1e-6
EVERY = 600             # arrays up to this size are checked element by element
DIRECTIONS = 8


def worst_ratio(function: Callable[..., np.ndarray], arrays: Mapping[str, np.ndarray], dy: np.ndarray, gradients: Mapping[str, np.ndarray],
                *, step: float = STEP, atol: float = 1e-6, rtol: float = 1e-5, seed: int = 0) -> dict[str, tuple[float, str]]:
    """For each name of `gradients`, max |numeric - analytic| / (atol + rtol size), and a line saying where.

    `function(**arrays)` returns y without writing its arguments; `dy` is what y's gradient shall be.  `size` is the
    gradient's magnitude: the element's for unit vectors, the Euclidean norm for random directions.  NaN counts as
    infinite.  All arrays must be float64.
    """
    for name, array in (*arrays.items(), ("dy", dy), *gradients.items()):
        if array.dtype != np.float64:
            raise AssertionError(f"gradient check: {name} is {array.dtype}; central differences need float64")
    rng = np.random.default_rng(seed)
    result = {}
    for name, gradient in gradients.items():
        value = arrays[name]
        if gradient.shape != value.shape:
            raise AssertionError(f"gradient check: gradient of {name} has shape {gradient.shape}, {name} has {value.shape}")
        worst, line = 0.0, ""
        count = value.size if value.size <= EVERY else DIRECTIONS
        for trial in range(count):
            if value.size <= EVERY:
                direction = np.zeros(value.size)
                direction[trial] = 1.0
                direction = direction.reshape(value.shape)
                size = abs(gradient.flat[trial])
                where = f"element {tuple(int(i) for i in np.unravel_index(trial, value.shape))}"
            else:
                direction = rng.choice((-1.0, 1.0), value.shape)
                size = float(np.sqrt((gradient * gradient).sum()))
                where = f"random direction {trial}"
            high, low = (function(**{**arrays, name: value + h * direction}) for h in (step, -step))
            numeric = float(((high - low) * dy).sum() / (2 * step))
            analytic = float((gradient * direction).sum())
            ratio = abs(numeric - analytic) / (atol + rtol * size)
            ratio = ratio if np.isfinite(ratio) else np.inf
            if ratio > worst:
                worst, line = ratio, f"d{name} {where}: numeric {numeric!r}, analytic {analytic!r}"
        result[name] = (worst, line)
    return result


def assert_gradients(function: Callable[..., np.ndarray], arrays: Mapping[str, np.ndarray], dy: np.ndarray,
                     gradients: Mapping[str, np.ndarray], what: str, **options) -> float:
    """Fails where a gradient is wrong, and where the check could not see a wrong one: the largest element of each
    gradient is made wrong by 1 % and must then be rejected.  Returns the worst ratio (1 is the limit)."""
    worst = 0.0
    for ratio, line in worst_ratio(function, arrays, dy, gradients, **options).values():
        if ratio > 1:
            raise AssertionError(f"{what}: {ratio:.3g} times the tolerance; {line}\n  repro {running_test()}")
        worst = max(worst, ratio)
    for name, gradient in gradients.items():
        wrong = gradient.copy()
        index = np.unravel_index(int(np.argmax(np.abs(wrong))), wrong.shape)
        wrong[index] = wrong[index] * 1.01 + 1e-3 * (wrong[index] == 0)
        only = {name: wrong}
        if worst_ratio(function, arrays, dy, only, **options)[name][0] <= 1:
            raise AssertionError(f"{what}: this check does not see a gradient of {name} that is wrong by 1 % at {index}")
    return worst


def away_from(values: np.ndarray, kinks: tuple[float, ...] = (0.0,), distance: float = 1e-3) -> np.ndarray:
    """A copy of `values` in which nothing lies within `distance` of a kink (ReLU's 0); what did is moved outwards."""
    result = np.array(values, copy=True)
    for kink in kinks:
        side = np.where(result >= kink, 1.0, -1.0)
        result = np.where(np.abs(result - kink) < distance, kink + side * distance, result)
    return result.astype(values.dtype)


def distinct(rng: np.random.Generator, shape: tuple[int, ...], gap: float = 1e-3, dtype: np.dtype | type | str = np.float64) -> np.ndarray:
    """Random values around zero, any two of them at least `gap` apart: no maximum is near a tie."""
    size = int(np.prod(shape))
    return ((rng.permutation(size) - size / 2 + 0.25) * gap).reshape(shape).astype(dtype)
