"""Tensor-core variants of conv and linear: operands rounded to tf32 or bf16, sums in float32.  In bf16 activations are stored as
bfloat16 (OnHost rounds those that are read); what is written here is float32, tests/test_stored.py has the rest.

Products of numbers that the precision can hold are exact in float32, so on such numbers the bounds are float32's own.  On all
others the result is, to the bit, that of the rounded numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from conftest import compiled_backends, load_or_skip
from proofs import Weights, prove

from minialex.spec import PRECISIONS, ShapeError
from minialex.testing import assert_bits_equal, assert_exact, assert_within, cases, zero_mean_bound
from minialex.testing.onhost import OnHost, as_read

VARIANTS = ("tf32", "tf32_64x64", "bf16", "bf16_64x64")
OPS = ("conv_fprop", "conv_relu_fprop", "conv_dgrad", "conv_wgrad", "linear_fprop", "linear_dgrad", "linear_wgrad")
# dgrad's phases with a border that is no multiple of the stride; a convolution whose sums are cut as a linear layer's
MORE = [cases.ConvCase("stride_3_pad_1", 2, 8, 7, 3, 4, 4, 5, stride=3, pad=1),
        cases.ConvCase("one_pixel_joint", 3, 1, 1, 5, 6, 1, 1, columns=2, out_columns=2)]
ROWS = {"conv": [*cases.CONV, *MORE], "linear": cases.LINEAR}
# a number between two neighbours is off by at most half their distance: 2^-11 of 11 significant bits, 2^-8 of 8
KEPT_BITS = {"tf32": 11, "bf16": 8}


def precision_of(variant: str) -> str:
    return variant.partition("_")[0]


def rounded(array: np.ndarray, precision: str) -> np.ndarray:
    """The nearest numbers the precision holds; of two, tf32 takes the one away from zero and bf16 the even one."""
    bits, drop = array.view(np.uint32), 24 - KEPT_BITS[precision]
    half = np.uint32(1 << drop - 1) if precision == "tf32" else np.uint32((1 << drop - 1) - 1) + (bits >> np.uint32(drop) & np.uint32(1))
    return (bits + half & ~np.uint32((1 << drop) - 1)).view(np.float32)


@dataclass(frozen=True)
class Representable(Weights):
    """Draws numbers that the precision holds."""

    precision: str = "tf32"

    def draw(self, case, kind, seed, dtype=np.float32):
        return {name: rounded(a, self.precision) for name, a in super().draw(case, kind, seed, dtype).items()}


def layer_of(op: str, variant: str = "") -> Weights:
    stem = op.partition("_")[0]
    return Representable(stem, precision_of(variant)) if variant else Weights(stem)


def run(ops, layer: Weights, op: str, case, data) -> dict[str, np.ndarray]:
    """The outputs of one op by name."""
    if op.endswith("fprop"):
        return {"y": layer.fprop(ops, case, data["x"], data["w"], data["b"], op=op)}
    if op.endswith("dgrad"):
        return {"dx": layer.dgrad(ops, case, data["dy"], data["w"])}
    return dict(zip(("dw", "db"), layer.wgrad(ops, case, data["x"], data["dy"]), strict=True))


@pytest.fixture(params=compiled_backends())
def backend(request):
    return load_or_skip(request.param)


@pytest.fixture(params=VARIANTS)
def variant(request) -> str:
    return request.param


@pytest.fixture
def kernels(backend, variant) -> OnHost:
    """The ops with one variant forced, NumPy arrays in and out."""
    return OnHost(backend, variant)


def named(stem: str, name: str):
    return next(case for case in ROWS[stem] if case.name == name)


def small_rows() -> list:
    return [pytest.param(op, case, id=f"{op}-{case}") for op in OPS for case in cases.small(ROWS[op.partition("_")[0]])]


def big_rows() -> list:
    """One picture each; the pictures themselves have no gradient."""
    rows = [(op, case) for op in OPS if op != "conv_relu_fprop" for case in ROWS[op.partition("_")[0]] if case.big]
    rows = [(op, case) for op, case in rows if (op, case.name) != ("conv_dgrad", "alexnet_conv1")]
    return [pytest.param(op, replace(case, N=1), id=f"{op}-{case}") for op, case in rows]


@pytest.mark.parametrize("op, case", small_rows())
def test_exact_products(kernels, oracle, variant, op, case, seed):
    prove(kernels, oracle, layer_of(op, variant), op, case, seed, ("zero_mean", "integers"))


@pytest.mark.parametrize("op, case", big_rows())
@pytest.mark.parametrize("variant", ["tf32", "bf16"], indirect=True)
def test_exact_products_in_the_layers_of_the_paper(kernels, oracle, variant, op, case, seed):
    prove(kernels, oracle, layer_of(op, variant), op, case, seed, ("zero_mean",))


MIXED = {"conv": ("channels_47_to_49", "two_columns_joint", "alexnet_conv1_crop", "many_images"),
         "linear": ("channels_47_to_49", "many_images")}


@pytest.mark.parametrize("op, name", [(op, name) for op in OPS for name in MIXED[op.partition("_")[0]]])
def test_operands_are_rounded_to_nearest(kernels, oracle, variant, op, name, seed):
    """Any numbers give the bits of the rounded ones, and stay within two roundings of the exact result."""
    case, layer, precision = named(op.partition("_")[0], name), layer_of(op), precision_of(variant)
    data = layer.draw(case, "zero_mean", seed)
    near = {name: a if name == "b" else rounded(a, precision) for name, a in data.items()}
    seen = near if precision == "bf16" else data                # by db, which is no product
    assert any((near[name] != data[name]).any() for name in near)
    got, same = run(kernels, layer, op, case, data), run(kernels, layer, op, case, near)
    wide = {name: a.astype(np.float64) for name, a in data.items()}
    want = run(oracle, layer, op, case, wide)
    absolute = run(oracle, layer, op.replace("relu_", ""), case, {name: abs(a) for name, a in wide.items()})
    unit = 2.0 ** -KEPT_BITS[precision]
    for output in got:
        bound = zero_mean_bound(absolute[output])
        if output == "db":
            exact = run(oracle, layer, op, case, {name: a.astype(np.float64) for name, a in seen.items()})["db"]
            assert_within(got[output], exact, bound, "db", seed=seed)
            continue
        assert_bits_equal(got[output], same[output], f"{op} {output} of rounded operands", seed=seed)
        assert_within(got[output], want[output], bound + (2 * unit + unit * unit) * absolute[output], f"{op} {output}", seed=seed)
        with pytest.raises(AssertionError):                     # float32 products would be nearer
            assert_within(got[output], want[output], bound, f"{op} {output}")


@pytest.mark.parametrize("precision", KEPT_BITS)
def test_rounding_of_this_file(precision):
    """1 + half a step goes away from zero in tf32 and to the even neighbour, here below, in bf16."""
    step = np.float32(2.0 ** (1 - KEPT_BITS[precision]))
    one = np.float32(1)
    values = (one + step * np.array([0, 0.49, 0.5, 0.51, 1.5], np.float32)).astype(np.float32)
    tie = one + step if precision == "tf32" else one
    for sign in (1, -1):
        assert rounded(sign * values, precision).tolist() == [sign * v for v in (one, one, tie, one + step, one + 2 * step)]


@pytest.mark.parametrize("op", OPS)
def test_same_bits_again_and_with_other_tiles(backend, variant, op, seed):
    case = named(op.partition("_")[0], "many_images")
    layer = layer_of(op)
    data = layer.draw(case, "zero_mean", seed)
    names = (variant, variant, f"{precision_of(variant)}_64x64")
    first, second, small = (run(OnHost(backend, name), layer, op, case, data) for name in names)
    for output in first:
        assert_bits_equal(second[output], first[output], f"{op} {output} again", seed=seed)
        assert_bits_equal(small[output], first[output], f"{op} {output} with tiles of 64 x 64", seed=seed)


@pytest.mark.parametrize("stem", ROWS)
def test_a_layer_without_biases(kernels, stem, seed):
    layer = layer_of(stem)
    for name in ("odd", "two_columns_joint"):
        case = named(stem, name)
        data = layer.draw(case, "zero_mean", seed)
        without = layer.fprop(kernels, case, data["x"], data["w"], None)
        assert_exact(without, layer.fprop(kernels, case, data["x"], data["w"], 0 * data["b"]), f"{stem} without b", seed=seed)


def joint_case(stem: str):
    """Two columns of 32 inputs and of 32 maps, one tap, so one column of 64 adds the same products in the same order."""
    if stem == "linear":
        return cases.LinearCase("joint", 5, 32, 64, columns=2, out_columns=2)
    return cases.ConvCase("joint", 2, 3, 4, 32, 64, 1, 1, columns=2, out_columns=2)


def merged(array: np.ndarray) -> np.ndarray:
    """Two columns side by side as one."""
    return np.concatenate(array, axis=-1)[None]


@pytest.mark.parametrize("stem", ROWS)
def test_each_column_has_a_sum_of_its_own(kernels, stem, seed):
    """y = (P_0 + P_1) + b and dx = D_0 + D_1 to the bit, as two devices make them; one sum over both columns differs."""
    case, layer = joint_case(stem), layer_of(stem)
    one = replace(case, columns=1)
    data = layer.draw(case, "zero_mean", seed)
    x, w, b, dy = (data[name] for name in ("x", "w", "b", "dy"))
    halves = [layer.fprop(kernels, one, x[c:c + 1], np.ascontiguousarray(w[..., 32 * c:32 * c + 32]), None) for c in range(2)]
    bias = b.reshape(2, *(1,) * (dy.ndim - 2), 32)
    y = layer.fprop(kernels, case, x, w, b)
    assert_bits_equal(y, (halves[0] + halves[1]) + bias, f"{stem} y", seed=seed)
    single = replace(case, columns=1, **({"F": 64} if stem == "linear" else {"C": 64}))
    assert (layer.fprop(kernels, single, merged(x), w, b) != y).any(), "these data cannot tell one sum from two"

    half = replace(case, K=32, out_columns=1)
    parts = [layer.dgrad(kernels, half, dy[c:c + 1], w[32 * c:32 * c + 32]) for c in range(2)]
    dx = layer.dgrad(kernels, case, dy, w)
    assert_bits_equal(dx, parts[0] + parts[1], f"{stem} dx", seed=seed)
    assert (layer.dgrad(kernels, replace(case, out_columns=1), merged(dy), w) != dx).any(), "these data cannot tell one sum from two"


def conv_words(case, N: int) -> tuple[int, ...]:
    """The dims of minialex/backends/checks.py."""
    before, after = case.pad if isinstance(case.pad, tuple) else (case.pad, case.pad)
    return (N, case.columns, case.out_columns, case.H, case.W, case.columns * case.C, case.K, case.R, case.S, case.P, case.Q, case.stride,
            before, after, case.groups)


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_choice_by_precision(backend, precision):
    """Batches of a real layer take large tiles, a small picture small ones, and float32 takes neither."""
    table = backend.kernels
    for op in ("conv_fprop", "conv_dgrad", "conv_wgrad"):
        layer, tiny = conv_words(named("conv", "alexnet_conv3"), 128), conv_words(named("conv", "odd"), 2)
        assert table.choose(op, layer, precision) == precision
        assert table.choose(op, tiny, precision) == f"{precision}_64x64"
        assert table.precision_of(op, table.choose(op, layer)) == table.precision_of(op, table.choose(op, tiny)) == "float32"
    for op in ("linear_fprop", "linear_dgrad", "linear_wgrad"):
        assert table.choose(op, (128, 2, 2, 4608, 4096, 1), precision) == precision
        assert table.choose(op, (2, 1, 1, 7, 5, 1), precision) == f"{precision}_64x64"
        assert table.precision_of(op, table.choose(op, (128, 2, 2, 4608, 4096, 1))) == "float32"


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_set_precision(backend, precision, seed):
    case, layer = named("conv", "odd"), layer_of("conv")
    data = layer.draw(case, "zero_mean", seed)
    chosen = OnHost(backend)
    plain = layer.fprop(chosen, case, data["x"], data["w"], data["b"])
    backend.set_precision(precision)
    try:
        low = layer.fprop(chosen, case, data["x"], data["w"], data["b"])
    finally:
        backend.set_precision("float32")
    assert_bits_equal(low, layer.fprop(OnHost(backend, f"{precision}_64x64"), case, data["x"], data["w"], data["b"]), "y", seed=seed)
    assert (low != plain).any()
    assert_bits_equal(layer.fprop(chosen, case, data["x"], data["w"], data["b"]), plain, "y in float32 again", seed=seed)


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


REFUSED = [
    ("linear_fprop", dict(x=zeros(1, 1, 32776), w=zeros(1, 32776), b=zeros(1), y=zeros(1, 1, 1), groups=1), "more than 32,768 numbers"),
    ("linear_dgrad", dict(dy=zeros(1, 1, 32776), w=zeros(32776, 1), dx=zeros(1, 1, 1), groups=1), "more than 32,768 taps"),
    ("conv_fprop", dict(x=zeros(1, 1, 1, 2, 16388), w=zeros(1, 1, 2, 16388), b=zeros(1), y=zeros(1, 1, 1, 1, 1), stride=1, pad=0, groups=1),
     "more than 32,768 numbers"),
    ("conv_dgrad", dict(dy=zeros(1, 1, 1, 1, 16388), w=zeros(16388, 1, 2, 1), dx=zeros(1, 1, 1, 2, 1), stride=1, pad=0, groups=1),
     "more than 32,768 taps"),
    ("conv_wgrad", dict(x=zeros(1, 1, 1, 1, 65536), dy=zeros(1, 1, 1, 1, 65536), dw=zeros(65536, 1, 1, 1), db=zeros(65536), stride=1, pad=0,
                        groups=65536), "more than 65,535 groups"),
    ("conv_dgrad", dict(dy=zeros(1, 1, 1, 1, 1), w=zeros(1, 1, 1, 1), dx=zeros(1, 1, 1, 1, 1), stride=256, pad=0, groups=1), "stride"),
]


@pytest.mark.parametrize("op, arguments, rule", REFUSED, ids=[f"{op}-{rule}" for op, _, rule in REFUSED])
def test_refused_shapes_name_the_rule(backend, variant, op, arguments, rule):
    device = {name: backend.from_host(a) if isinstance(a, np.ndarray) else a
              for name, a in as_read(backend.kernels, op, variant, arguments).items()}
    with pytest.raises(ShapeError, match=f"{op}: variant {variant} does not run .*{rule}"):
        getattr(backend, op)(**device, variant=variant)
