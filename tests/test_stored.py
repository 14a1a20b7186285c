"""Activations stored as bfloat16: every row of every op gives the float32 result of the numbers it read, rounded once.

So each is compared, to the bit, with the same row on float32 arrays of the same numbers: what that is worth, the op's own tests prove.
"""

from __future__ import annotations

import unittest

import numpy as np
import pytest
from conftest import compiled_backends, load_or_skip
from test_lrn_maxpool import CASES as PAIRS
from test_lrn_maxpool import composed, draws, fused
from test_tensor_core import layer_of, named, run

from minialex.bf16 import BF16, narrow, widen
from minialex.spec import DTypeError
from minialex.testing import assert_bits_equal, call, cases, unweighted
from minialex.testing.onhost import OnHost


@pytest.fixture(params=compiled_backends())
def backend(request):
    return load_or_skip(request.param)


def kept(array: np.ndarray) -> np.ndarray:
    return widen(narrow(array))


def test_the_host_rounds_to_nearest_even_and_keeps_what_is_no_number():
    step = np.float32(2.0**-7)                              # between neighbours of 1
    values = np.array([1, 1 + step / 2, 1 + 1.5 * step, 1 + step * 0.51, -1 - step / 2, 0.0, -0.0, 3.4e38, np.inf, -np.inf, np.nan, 1e-45],
                      np.float32)
    want = np.array([1, 1, 1 + 2 * step, 1 + step, -1, 0.0, -0.0, np.inf, np.inf, -np.inf, np.nan, 0.0], np.float32)
    assert_bits_equal(np.nan_to_num(kept(values), nan=7), np.nan_to_num(want, nan=7), "rounded")
    assert narrow(values)[10] == 0x7FFF and narrow(-values)[10] == 0x7FFF
    every = np.arange(65536, dtype=np.uint16)
    numbers = ~np.isnan(widen(every))
    assert (narrow(widen(every))[numbers] == every[numbers]).all() and narrow(values).dtype == BF16


def both(backend, variant: str, op: str, outputs: dict, data: dict, **constants) -> tuple[dict, dict]:
    """The outputs of one row on bfloat16 arrays, and what float32 ones of the same numbers make, rounded."""
    got = call(OnHost(backend, variant, stored=BF16), op, outputs, **data, **constants)
    exact = {name: kept(a) if a.dtype == np.float32 and name not in ("w", "b") else a for name, a in data.items()}
    return got, call(OnHost(backend, variant), op, outputs, **exact, **constants)


@pytest.mark.parametrize("stem", unweighted.CASES)
def test_layers_without_weights(backend, stem, seed):
    rng = np.random.default_rng(seed)
    for case in cases.small(unweighted.CASES[stem])[::2]:
        x = (rng.standard_normal(case.x_shape) * unweighted.spread(case)).astype(np.float32)
        dy = rng.standard_normal(unweighted.y_shape(case)).astype(np.float32)
        for variant in backend.kernels.variants(f"{stem}_fprop"):
            try:
                got, want = both(backend, variant, f"{stem}_fprop", {"y": dy.shape}, dict(x=x), **unweighted.constants(case))
                assert_bits_equal(got["y"], kept(want["y"]), f"{stem}_fprop {variant} y", cases.repro(case), seed)
                read = {name: {"x": x, "y": got["y"]}[name] for name in unweighted.READS[stem]}
                for options in unweighted.bprop_options(stem):
                    options = {**options, **unweighted.constants(case)}
                    got, want = both(backend, variant, f"{stem}_bprop", {"dx": x.shape}, {**read, "dy": dy}, **options)
                    assert_bits_equal(got["dx"], kept(want["dx"]), f"{stem}_bprop {variant} dx", cases.repro(case), seed)
            except unittest.SkipTest:
                continue


@pytest.mark.parametrize("name", ["odd", "n_9", "a_row_in_pieces", "many_strips", "channels_47"])
def test_norm_and_pool_in_one_op_are_the_two(backend, name, seed):
    """Stored norms tie more often than exact ones: the winners are those of what lrn would have stored."""
    case = next(case for case in PAIRS if case.name == name)
    for variant in backend.kernels.variants("lrn_maxpool_fprop"):
        for label, x, dy in draws(case, np.random.default_rng(seed)):
            try:
                ops = OnHost(backend, variant, stored=BF16)
                got = fused(ops, case, x, dy, "first", True)
            except unittest.SkipTest:
                continue
            two = composed(OnHost(backend, stored=BF16), case, x, dy, "first", True)
            for part, value, want in zip(("y", "dx"), got, two, strict=True):
                assert_bits_equal(value, want, f"{part} of {variant} on {label}", seed=seed)


PRODUCTS = {"conv": ("whole_vectors", "two_columns_joint", "alexnet_conv1_crop"),
            "linear": ("whole_vectors", "two_columns_joint", "long_sums")}
WHOLE = {"conv": cases.ConvCase("whole_vectors", 3, 6, 5, 16, 48, 3, 3, pad=1, columns=2, out_columns=2),
         "linear": cases.LinearCase("whole_vectors", 9, 40, 48, columns=2, out_columns=2)}


@pytest.mark.parametrize("op", ["conv_fprop", "conv_relu_fprop", "conv_dgrad", "conv_wgrad", "linear_fprop", "linear_relu_fprop",
                                "linear_dgrad", "linear_wgrad"])
def test_layers_with_weights(backend, op, seed):
    """A row of precision "bf16" writes float32 from the same bfloat16 numbers, too.  In whole vectors, and with columns whose sums are
    parts of one."""
    stem = op.partition("_")[0]
    for name in PRODUCTS[stem]:
        case, layer = WHOLE[stem] if name == "whole_vectors" else named(stem, name), layer_of(op)
        for kind in ("zero_mean", "integers"):
            data = layer.draw(case, kind, seed)
            for variant in ("bf16", "bf16_64x64", "direct"):
                got = run(OnHost(backend, variant, stored=BF16), layer, op, case, data)
                exact = {name: kept(a) if name in ("x", "dy") else a for name, a in data.items()}
                want = run(OnHost(backend, variant), layer, op, case, exact)
                for output, value in want.items():
                    value = kept(value) if output in ("y", "dx") else value
                    assert_bits_equal(got[output], value, f"{op} {variant} {output} of {kind} numbers [{case}]", seed=seed)


@pytest.mark.parametrize("stem", ["conv", "linear"])
def test_gates_and_dropout_round_between_what_would_be_two_ops(backend, stem, seed):
    case, layer = WHOLE[stem], layer_of(stem)
    data = layer.draw(case, "zero_mean", seed)
    gate = np.maximum(data["x"], 0)
    for variant in ("bf16", "direct"):
        ops = OnHost(backend, variant, stored=BF16)
        plain = layer.dgrad(ops, case, data["dy"], data["w"])
        got = layer.dgrad(ops, case, data["dy"], data["w"], gate=gate, scale=1.7)
        want = kept(np.where(kept(gate) > 0, plain * np.float32(1.7), np.float32(0)))
        assert_bits_equal(got, want, f"{variant} dx behind a gate", seed=seed)
        if stem == "linear":
            mask = dict(keep=0.6, scale=1.7, seed=seed, step=1, layer=2, first=0)
            arrays = {name: data[name] for name in ("x", "w", "b")}
            y = call(ops, "linear_relu_fprop", {"y": case.y_shape}, **arrays, groups=case.groups)["y"]
            got = call(ops, "linear_relu_fprop", {"y": case.y_shape}, **arrays, groups=case.groups, dropout=mask)["y"]
            G, N, F = case.y_shape
            want = call(ops, "dropout_fprop", {"y": (G, N, 1, 1, F)}, x=y.reshape(G, N, 1, 1, F), **mask)["y"]
            assert_bits_equal(got, want.reshape(got.shape), f"{variant} y behind dropout", seed=seed)


def test_what_may_be_written_either_way(backend, seed):
    """The loss's gradient, the network's input and the sum of two columns come from float32."""
    rng = np.random.default_rng(seed)

    def pair(op: str, output: str, shape: tuple[int, ...], **arguments) -> None:
        for variant in backend.kernels.variants(op):
            wide, stored = (call(OnHost(backend, variant, kind), op, {output: shape}, whole=op != "augment_fprop", **arguments)[output]
                            for kind in ("float32", BF16))
            assert_bits_equal(stored, kept(wide), f"{op} {variant} {output}", seed=seed)

    p, labels = rng.random((3, 8), np.float32), np.arange(3, dtype=np.int32)
    pair("loss_bprop", "dx", (3, 8), p=p, labels=labels, scale=1 / 3)
    logits = (4 * rng.standard_normal((3, 8))).astype(np.float32)
    out = [call(OnHost(backend, stored=kind), "loss_fprop", {"p": (3, 8), "loss": (3,), "dx": (3, 8)}, x=logits, labels=labels, scale=1 / 3)
           for kind in ("float32", BF16)]
    for name in out[0]:
        assert_bits_equal(out[1][name], kept(out[0][name]) if name == "dx" else out[0][name], f"loss_fprop {name}", seed=seed)
    P, Q, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 8), (2, 3, 8), (16,)))
    pair("joint_sum", "y", P.shape, p=P, q=Q, b=b)
    x = rng.standard_normal((1, 2, 8, 8, 3)).astype(np.float32)
    pair("cells_fprop", "y", (1, 2, 2, 2, 48), x=x, cell=4)
    given = dict(images=rng.integers(0, 256, (2, 9, 10, 3)).astype(np.uint8), mean=rng.standard_normal((9, 10, 3)).astype(np.float32),
                 offsets=np.array([[0, 1], [1, 2]], np.int32), flips=np.array([True, False]),
                 noise=rng.standard_normal((2, 3)).astype(np.float32))
    pair("augment_fprop", "y", (1, 2, 2, 2, 48), **given, scale=0.7, mean_at="crop")
    x = rng.standard_normal((2, 3, 1, 2, 8)).astype(np.float32)
    got, want = both(backend, "vector", "dropout_test", {"y": x.shape}, dict(x=x), factor=0.7)
    assert_bits_equal(got["y"], kept(want["y"]), "dropout_test", seed=seed)


def test_mixed_and_host_arrays_are_refused(backend):
    x, w = np.zeros((1, 2, 3, 3, 8), np.float32), np.zeros((8, 1, 1, 8), np.float32)
    wide, stored, filters, narrow_filters = (backend.from_host(a) for a in (x, narrow(x), w, narrow(w)))
    biases = backend.from_host(np.zeros(8, np.float32))
    geometry = dict(stride=1, pad=0, groups=1)

    def refuses(why: str, function, *arrays, **options) -> None:
        with pytest.raises(DTypeError, match=why):
            function(*arrays, **options)

    refuses("all of a call have one storage", backend.relu_fprop, stored, wide)
    refuses("all of a call have one storage", backend.conv_wgrad, stored, wide, filters, biases, **geometry)
    refuses("all of a call have one storage", backend.conv_dgrad, stored, filters, backend.from_host(narrow(x)), gate=wide, **geometry)
    refuses("only from bfloat16", backend.conv_fprop, wide, filters, None, stored, **geometry)
    refuses("w is uint16", backend.conv_fprop, stored, narrow_filters, None, stored, **geometry)
    other = backend.from_host(x)
    refuses("takes activations of bfloat16", backend.conv_fprop, wide, filters, None, other, **geometry, variant="bf16")
    refuses("takes activations of float32", backend.conv_fprop, stored, filters, None, other, **geometry, variant="tf32")
    refuses("uint16", load_or_skip("cpu").relu_fprop, narrow(x), narrow(x))
