"""Products of split operands: bf16x3 and bf16x6 (cuda/include/minialex/split_bf16.h).

These rows copy numbers and place sums by the code of the tf32 rows, which test_tensor_core.py proves on every case.  What is new, how
a fragment is split and multiplied and how sums that are not finite are made again, is proved on MIXED: odd channels, taps, joint
columns, vectors of one and of four, both orders in shared memory.
"""

from __future__ import annotations

import numpy as np
import pytest
from conftest import compiled_backends, load_or_skip
from test_tensor_core import MIXED, OPS, layer_of, named, run

from minialex.net import Net
from minialex.nets import recipe
from minialex.testing import assert_bits_equal, assert_within, op_bounds, zero_mean_bound
from minialex.testing.onhost import OnHost

PRECISIONS = {"bf16x3": 2, "bf16x6": 3}                     # parts of an operand
SMALL = {precision: f"{precision}_64x64" for precision in PRECISIONS}
PAIRS = [(op, name) for op in OPS for name in MIXED[op.partition("_")[0]]]


@pytest.fixture(params=compiled_backends())
def backend(request):
    return load_or_skip(request.param)


def rms(a: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(a, dtype=np.float64))))


def truth(oracle, op: str, case, data) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The outputs in float64, and those of absolute values, by name."""
    layer, wide = layer_of(op), {name: a.astype(np.float64) for name, a in data.items()}
    return run(oracle, layer, op, case, wide), run(oracle, layer, op.replace("relu_", ""), case, {name: abs(a) for name, a in wide.items()})


def allowed(precision: str, absolute: np.ndarray) -> np.ndarray:
    """What float32 may be off by, and what the products leave out."""
    return zero_mean_bound(absolute) + 2 * op_bounds.ROUNDED[precision] * absolute


@pytest.mark.parametrize("op, name", PAIRS)
def test_errors_beside_those_of_the_other_precisions(backend, oracle, op, name, seed):
    """bf16x6 is nearer to the truth than float32 (measured: 0.30 to 0.70 of its error), bf16x3 at least 40 times nearer than tf32 (50
    to 107); in sums of 360 terms or more that is at most 20 times float32's error (0.9 to 18.8), which grows with the terms.  Each
    element keeps its bound, tiles of both sizes give the same bits, and so does a second run."""
    case, layer = named(op.partition("_")[0], name), layer_of(op)
    data = layer.draw(case, "zero_mean", seed)
    want, absolute = truth(oracle, op, case, data)
    got = {row: run(OnHost(backend, row), layer, op, case, data) for row in (None, "tf32_64x64", *PRECISIONS, *SMALL.values())}
    for output in want.keys() - {"db"}:
        error = {row: rms(result[output] - want[output]) for row, result in got.items()}
        for precision in PRECISIONS:
            assert_bits_equal(got[precision][output], got[SMALL[precision]][output], f"{op} {output} with tiles of 64 x 64", seed=seed)
            assert_within(got[precision][output], want[output], allowed(precision, absolute[output]), f"{op} {output}", seed=seed)
        assert error["bf16x6"] <= error[None], error
        assert error["bf16x3"] <= error["tf32_64x64"] / 40, error
        if layer.chain(case, op) >= 360 and not op.endswith("dgrad"):
            assert error["bf16x3"] <= 20 * error[None], error
    again = run(OnHost(backend, "bf16x6_64x64"), layer, op, case, data)
    for output in again:
        assert_bits_equal(again[output], got["bf16x6_64x64"][output], f"{op} {output} again", seed=seed)


@pytest.mark.parametrize("op", OPS)
def test_errors_of_sums_of_one_sign(backend, oracle, op, seed):
    """There the chain's own rounding counts, and the rows of float32 cut theirs differently: measured at most 1.8 times their error."""
    case, layer = named(op.partition("_")[0], "many_images"), layer_of(op)
    data = layer.draw(case, "positive", seed)
    want, _ = truth(oracle, op, case, data)
    plain, split = (run(OnHost(backend, row), layer, op, case, data) for row in (None, "bf16x6_64x64"))
    for output in want.keys() - {"db"}:
        assert rms(split[output] - want[output]) <= 2 * rms(plain[output] - want[output])


def through_ones(backend, variant: str, numbers: np.ndarray) -> np.ndarray:
    """Each of 64 n numbers times 1, through a linear layer whose weights are the identity."""
    x, w, y = numbers.reshape(1, -1, 64), np.eye(64, dtype=np.float32), np.empty((1, numbers.size // 64, 64), np.float32)
    OnHost(backend, variant).linear_fprop(x, w, None, y, groups=1)
    return y.reshape(-1)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_parts_add_up_to_the_number(backend, precision, rng):
    """Three parts are the number; two keep it to 2^-17.  Below 2^-110 and 2^-117 bf16's least number, 2^-133, is what is rounded to."""
    parts = PRECISIONS[precision]
    numbers = np.ldexp(rng.uniform(1, 2, 4096).astype(np.float32), rng.integers(-149, 127, 4096)) * rng.choice([-1, 1], 4096)
    numbers[:8] = [0, 1, 1 + 2.0**-8, 1 + 2.0**-8 + 2.0**-23, 3.389e38, 2.0**-110 * (2 - 2.0**-23), 2.0**-149, -(2 - 2.0**-23)]
    numbers = numbers.astype(np.float32)
    error = abs(through_ones(backend, SMALL[precision], numbers).astype(np.float64) - numbers)
    assert (error <= np.maximum(0 if parts == 3 else 2.0**-17 * abs(numbers.astype(np.float64)), 2.0**-134)).all()
    large = abs(numbers) >= 2.0 ** (-110 if parts == 3 else -117)
    assert (error[large] <= (0 if parts == 3 else 2.0**-17) * abs(numbers[large].astype(np.float64))).all()
    assert (error[~large] > 0).any() and (parts == 3 or (error[large] > 2.0**-18.5 * abs(numbers[large])).any())


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("variant", ["bf16x3", "bf16x6_64x64"])
def test_infinities_and_nans_are_where_float32_has_them(backend, op, variant, seed):
    """Numbers that bf16 rounds to infinity too: their products with small ones are finite."""
    name = "channels_47_to_49" if op.startswith("linear") else "two_columns_joint"
    case, layer, rng = named(op.partition("_")[0], name), layer_of(op), np.random.default_rng(seed)
    shapes = layer.shapes(case)
    data = {name: rng.uniform(-0.4, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    for name in ("x", "w", "dy"):
        places = rng.choice(data[name].size, 5, replace=False)
        data[name].reshape(-1)[places] = [np.inf, -np.inf, np.nan, 3.4e38, 0]
    kind, results = op.rpartition("_")[2], []
    outputs = {"fprop": (("y", "dy"),), "dgrad": (("dx", "x"),), "wgrad": (("dw", "w"), ("db", "b"))}
    inputs = {"fprop": "x w b", "dgrad": "dy w", "wgrad": "x dy"}
    for row in ("direct", variant):
        results.append({output: np.full(shapes[like], 7, np.float32) for output, like in outputs[kind]})
        getattr(OnHost(backend, row), op)(**{name: data[name] for name in inputs[kind].split()}, **results[-1], **layer.keywords(case))
    direct, split = results
    for output, plain in direct.items():
        finite = np.isfinite(plain)
        assert output == "db" or (np.isnan(plain).any() and np.isinf(plain).any() and finite.any())
        np.testing.assert_array_equal(split[output][~finite], plain[~finite])                       # a NaN is a NaN
        assert_within(split[output][finite], plain[finite], 1e-4 * (1 + abs(plain[finite])), f"{op} {output}", seed=seed)


@pytest.mark.parametrize("name", compiled_backends())
def test_a_step_is_near_that_of_float32(name):
    """Gradients of one step of `tiny`: relative distance (root mean square) from those of float32."""
    ops, made = load_or_skip(name), recipe("tiny")
    x, gradients = np.random.default_rng(0).standard_normal(made.input.array(2)).astype(np.float32), {}
    for precision in ("float32", *PRECISIONS):
        ops.set_precision(precision)
        try:
            net = Net(made.build(12), made.input, 2, ops, seed=1)
            net.show(x)
            net.fprop(np.array([0, 11], np.int32), training=True, step=1)
            net.bprop()
            gradients[precision] = {key: net.grads.numpy(key) for key in net.params}
        finally:
            ops.set_precision("float32")
    plain = gradients.pop("float32")
    distance = {precision: max(rms(found[key] - plain[key]) / rms(plain[key]) for key in plain) for precision, found in gradients.items()}
    assert distance["bf16x6"] < 2e-6 < distance["bf16x3"] < 5e-5
