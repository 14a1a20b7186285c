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
EVERY = 160             # arrays up to this size are checked element by element
DIRECTIONS = 8

Arrays = Mapping[str, np.ndarray]


def _differences(function: Callable[..., np.ndarray], arrays: Arrays, dy: np.ndarray, name: str, step: float, seed: int) -> list:
    """(what, direction, numeric derivative along it) for one argument."""
    value, rng, result = arrays[name], np.random.default_rng(seed), []
    for trial in range(value.size if value.size <= EVERY else DIRECTIONS):
        if value.size <= EVERY:
            direction = np.zeros(value.size)
            direction[trial] = 1.0
            direction = direction.reshape(value.shape)
            what = f"element {tuple(int(i) for i in np.unravel_index(trial, value.shape))}"
        else:
            direction, what = rng.choice((-1.0, 1.0), value.shape), f"random direction {trial}"
        high, low = (function(**{**arrays, name: value + h * direction}) for h in (step, -step))
        result.append((what, direction, float(((high - low) * dy).sum() / (2 * step))))
    return result


def _worst(differences: list, gradient: np.ndarray, atol: float, rtol: float) -> tuple[float, str]:
    """The largest |numeric - analytic| / tolerance, and where; NaN counts as infinite."""
    worst, line = 0.0, ""
    for what, direction, numeric in differences:
        analytic = float((gradient * direction).sum())
        size = abs(analytic) if what.startswith("element") else float(np.linalg.norm(gradient))
        ratio = abs(numeric - analytic) / (atol + rtol * size)
        ratio = ratio if np.isfinite(ratio) else np.inf
        if ratio > worst:
            worst, line = ratio, f"{what}: numeric {numeric!r}, analytic {analytic!r}"
    return worst, line


def _all_float64(arrays: Arrays, dy: np.ndarray, gradients: Arrays) -> None:
    for name, array in (*arrays.items(), ("dy", dy), *gradients.items()):
        if array.dtype != np.float64:
            raise AssertionError(f"gradient check: {name} is {array.dtype}; central differences need float64")
    for name, gradient in gradients.items():
        if gradient.shape != arrays[name].shape:
            raise AssertionError(f"gradient check: gradient of {name} has shape {gradient.shape}, {name} has {arrays[name].shape}")


def worst_ratio(function: Callable[..., np.ndarray], arrays: Arrays, dy: np.ndarray, gradients: Arrays, *, step: float = STEP,
                atol: float = 1e-6, rtol: float = 1e-5, seed: int = 0) -> dict[str, tuple[float, str]]:
    """For each name of `gradients`, max |numeric - analytic| / (atol + rtol size), and a line saying where.

    `function(**arrays)` returns y without writing its arguments; `dy` is what y's gradient shall be.  `size` is the
    gradient's magnitude: the element's for unit vectors, the Euclidean norm for random directions.  All arrays must be
    float64.
    """
    _all_float64(arrays, dy, gradients)
    return {name: _worst(_differences(function, arrays, dy, name, step, seed), gradient, atol, rtol)
            for name, gradient in gradients.items()}


def assert_gradients(function: Callable[..., np.ndarray], arrays: Arrays, dy: np.ndarray, gradients: Arrays, what: str, *,
                     step: float = STEP, atol: float = 1e-6, rtol: float = 1e-5, seed: int = 0) -> float:
    """Fails where a gradient is wrong, and where the check could not see a wrong one: the largest element of each
    gradient is made wrong by 1 % and must then be rejected.  Returns the worst ratio (1 is the limit)."""
    _all_float64(arrays, dy, gradients)
    worst = 0.0
    for name, gradient in gradients.items():
        differences = _differences(function, arrays, dy, name, step, seed)
        ratio, line = _worst(differences, gradient, atol, rtol)
        if ratio > 1:
            raise AssertionError(f"{what}: d{name} is off by {ratio:.3g} times the tolerance; {line}\n  repro {running_test()}")
        worst = max(worst, ratio)
        wrong = gradient.copy()
        index = np.unravel_index(int(np.argmax(np.abs(wrong))), wrong.shape)
        wrong[index] = wrong[index] * 1.01 if wrong[index] else 1e-3
        if _worst(differences, wrong, atol, rtol)[0] <= 1:
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
