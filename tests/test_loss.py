"""Softmax and its loss: why we trust them on every backend."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minialex.layers import SoftmaxLoss
from minialex.spec import DTypeError, LayoutError, Shape, ShapeError
from minialex.testing import assert_bits_equal, assert_gradients, assert_within, call, cases, mutants, refused
from minialex.testing.compare import eps
from minialex.testing.mutants_learning import BASES
from minialex.testing.onhost import OnHost

TINY = float(np.finfo(np.float32).tiny)         # below it a number has fewer digits, in the end none


def draw(case, seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    x = (case.spread * rng.standard_normal((case.N, case.K))).astype(dtype)
    return x, rng.integers(0, case.K, case.N).astype(np.int32)


def fprop(ops, x, labels):
    out = call(ops, "loss_fprop", {"p": x.shape, "loss": x.shape[:1]}, x=x, labels=labels)
    return out["p"], out["loss"]


def bprop(ops, p, labels, scale):
    return call(ops, "loss_bprop", {"dx": p.shape}, p=p, labels=labels, scale=scale)["dx"]


def prove_fprop(ops, oracle, case, seed):
    """An error e in a logit's distance z from the largest is a relative error e in exp(z): with |z| eps / 2 from the
    subtraction, some eps from exp and sqrt(K) eps from the sum, the bounds below hold with room of two."""
    x, labels = draw(case, seed)
    p, loss = fprop(ops, x, labels)
    want_p, want_loss = fprop(oracle, x.astype(np.float64), labels)
    z = x.astype(np.float64) - x.max(axis=1, keepdims=True)
    total_error = ((want_p * -z).sum(axis=1) + 2 * math.sqrt(case.K) + 4) * eps(np.float32)
    what, repro = f"loss_fprop [{case}]", cases.repro(case)
    assert_within(p, want_p, want_p * (total_error[:, None] + (4 - z) * eps(np.float32)) + TINY, f"{what} p", repro, seed)
    bound = total_error + eps(np.float32) * (-z[np.arange(case.N), labels] + want_loss)
    assert_within(loss, want_loss, bound, f"{what} loss", repro, seed)


def prove_bprop(ops, oracle, case, seed):
    x, labels = draw(case, seed)
    p, _ = fprop(oracle, x, labels)
    onehot = np.arange(case.K) == labels[:, None]
    for scale in (1 / 128, 1.0, 0.3):
        want = bprop(oracle, p.astype(np.float64), labels, scale)
        bound = 2 * eps(np.float32) * (p.astype(np.float64) + onehot) * scale + TINY
        assert_within(bprop(ops, p, labels, scale), want, bound, f"loss_bprop [{case}]", cases.repro(case), seed)


@pytest.mark.parametrize("case", cases.LOSS, ids=str)
def test_loss_and_gradient_in_one_trip(ops, case, seed):
    x, labels = draw(case, seed)
    p, loss = fprop(ops, x, labels)
    got = call(ops, "loss_fprop", {"p": x.shape, "loss": x.shape[:1], "dx": x.shape}, x=x, labels=labels, scale=0.3)
    for name, want in (("p", p), ("loss", loss), ("dx", bprop(ops, p, labels, 0.3))):
        assert_bits_equal(got[name], want, name, cases.repro(case), seed)


PROOFS = {"loss_fprop": prove_fprop, "loss_bprop": prove_bprop}


def test_literal_example(ops):
    """Logits ln 1, ln 2, ln 5: probabilities 1/8, 2/8, 5/8.  float64 where the backend has it."""
    dtype = np.float32 if isinstance(ops, OnHost) else np.float64
    x = np.log(np.array([[1, 2, 5], [5, 1, 2]], np.float64)).astype(dtype)
    labels = np.array([1, 0], np.int32)
    p, loss = fprop(ops, x, labels)
    assert_within(p, np.array([[1, 2, 5], [5, 1, 2]]) / 8, 4 * eps(dtype), "p")
    assert_within(loss, np.log([4, 8 / 5]), 4 * eps(dtype), "loss")
    dx = bprop(ops, np.array([[1, 2, 5], [5, 1, 2]], dtype) / 8, labels, 2.0)
    assert dx.tolist() == [[0.25, -1.5, 1.25], [-0.75, 0.25, 0.5]]


@pytest.mark.parametrize("K", [1, 3, 4, 1000])
def test_a_label_that_is_no_class(ops, K, seed):
    """A backend that sees the labels refuses the call; a device answers with NaN in the wrong images alone, and reads no logit
    beyond the row."""
    rng = np.random.default_rng(seed)
    x, right = rng.standard_normal((5, K)).astype(np.float32), np.zeros(5, np.int32)
    labels, wrong = right.copy(), [0, 2, 3]
    labels[wrong] = [K, -1, np.iinfo(np.int32).max]
    if not isinstance(ops, OnHost):
        refused(ops, "loss_fprop", ShapeError, ("p", "loss"), x=x, labels=labels, p=x + np.nan, loss=x[:, 0] + np.nan)
        refused(ops, "loss_bprop", ShapeError, ("dx",), p=x, labels=labels, dx=x + np.nan, scale=1.0)
        return
    out = call(ops, "loss_fprop", {"p": x.shape, "loss": (5,)}, whole=False, x=x, labels=labels)
    p, loss = fprop(ops, x, right)
    assert_bits_equal(out["p"], p, "p")
    assert np.isnan(out["loss"][wrong]).all()
    assert_bits_equal(out["loss"][[1, 4]], loss[[1, 4]], "loss of the right images")
    dx = call(ops, "loss_bprop", {"dx": x.shape}, whole=False, p=p, labels=labels, scale=0.5)["dx"]
    assert np.isnan(dx[wrong]).all()
    assert_bits_equal(dx[[1, 4]], bprop(ops, p, right, 0.5)[[1, 4]], "dx of the right images")


def test_a_logit_that_is_no_number_shows_itself(ops):
    """NaN and infinity make NaN, and only in their own row: a diverged run must not look like a good one."""
    x = np.zeros((3, 40), np.float32)
    x[0, 37], x[1, 3] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        out = call(ops, "loss_fprop", {"p": x.shape, "loss": (3,)}, whole=False, x=x, labels=np.array([3, 3, 3], np.int32))
    assert np.isnan(out["loss"][:2]).all() and np.isnan(out["p"][0]).all() and np.isnan(out["p"][1, 3])
    assert_within(out["loss"][2], math.log(40), 8 * eps(np.float32), "loss of the row without")


@pytest.mark.parametrize("op", PROOFS)
@pytest.mark.parametrize("case", cases.LOSS, ids=str)
def test_against_the_oracle(ops, oracle, case, op, seed):
    PROOFS[op](ops, oracle, case, seed)


@pytest.mark.parametrize("case", cases.LOSS, ids=str)
def test_probabilities_add_up_to_one(ops, case, seed):
    p, loss = fprop(ops, *draw(case, seed))
    bound = (2 * math.sqrt(case.K) + 4) * eps(np.float32)
    assert_within(p.sum(axis=1, dtype=np.float64), np.ones(case.N), bound, "sum of p")
    assert (p >= 0).all() and (loss >= 0).all()


def test_logits_far_apart_neither_overflow_nor_underflow(ops):
    """exp(1000) overflows and exp(-1000) is 0 in any type, but -log p is just 1000 or 2000."""
    x = np.array([[1000, 0, -1000], [-1000, -1000, -1000]], np.float32)
    p, loss = fprop(ops, x[[0, 0, 0, 1]], np.array([0, 1, 2, 1], np.int32))
    assert loss[:3].tolist() == [0, 1000, 2000] and p[0].tolist() == [1, 0, 0]
    assert_within(loss[3], math.log(3), 4 * eps(np.float32), "loss of equal logits")
    dx = bprop(ops, p[:1], np.array([2], np.int32), 1.0)
    assert dx.tolist() == [[1, 0, -1]]                  # the gradient does not die with p


@pytest.mark.parametrize("case", [case for case in cases.LOSS if case.spread <= 5], ids=str)
def test_gradients_by_finite_differences(ops, case, seed):
    x, labels = draw(case, seed, np.float64)
    p, _ = fprop(ops, x, labels)
    scale = 1 / case.N
    gradients = {"x": bprop(ops, p, labels, scale)}
    dy = np.full(case.N, scale)                         # of the mean loss
    assert_gradients(lambda x: fprop(ops, x, labels)[1], {"x": x}, dy, gradients, f"loss [{case}]")


def killed_by(mutant, oracle):
    for case in cases.LOSS:
        try:
            PROOFS[mutant.replaces](mutant.ops(oracle), oracle, case, 1)
        except AssertionError:
            return case.name
    return None


@pytest.mark.parametrize("base", [base for base in BASES if base.stem == "loss"], ids=str)
def test_the_right_version_of_each_mutant_lives(oracle, base):
    assert killed_by(base, oracle) is None


@pytest.mark.parametrize("mutant", mutants.of("loss"), ids=str)
def test_mutants_die(oracle, mutant):
    assert killed_by(mutant, oracle), f"{mutant} survives every case"


@pytest.mark.parametrize("case", cases.LOSS, ids=str)
def test_repeated_runs_and_single_images_give_the_same_values(ops, oracle, case, seed):
    """A second run repeats every bit; an image alone gets what it gets in the batch."""
    x, labels = draw(case, seed)
    p, loss = fprop(ops, x, labels)
    again = fprop(ops, x, labels)
    assert_bits_equal(again[0], p, "p repeated")
    assert_bits_equal(again[1], loss, "loss repeated")
    assert_bits_equal(bprop(ops, p, labels, 0.1), bprop(ops, p, labels, 0.1), "dx repeated")
    for n in range(case.N):
        alone = fprop(ops, x[n:n + 1], labels[n:n + 1])
        assert_within(alone[0][0], p[n], 4 * eps(np.float32), f"p of image {n} alone")
        assert_within(alone[1][0], loss[n], 4 * eps(np.float32) * (1 + abs(loss[n])), f"loss of image {n} alone")


def good_call(op):
    p, labels = np.full((3, 4), 0.25, np.float32), np.array([0, 3, 1], np.int32)
    if op == "loss_bprop":
        return dict(p=p, labels=labels, dx=np.full((3, 4), np.nan, np.float32), scale=0.5)
    return dict(x=p, labels=labels, p=np.full((3, 4), np.nan, np.float32), loss=np.full(3, np.nan, np.float32))


INPUT, OUTPUTS = {"loss_fprop": "x", "loss_bprop": "p"}, {"loss_fprop": ("p", "loss"), "loss_bprop": ("dx",)}


@pytest.mark.parametrize("op", PROOFS)
@pytest.mark.parametrize("bad", [
    ("no_images", ShapeError, lambda op, a: {n: v[:0] for n, v in a.items() if isinstance(v, np.ndarray)}),
    ("maps_instead_of_rows", ShapeError, lambda op, a: {INPUT[op]: a[INPUT[op]][None]}),
    ("other_classes", ShapeError, lambda op, a: {INPUT[op]: a[INPUT[op]][:, :3]}),
    ("labels_of_another_batch", ShapeError, lambda op, a: {"labels": a["labels"][:2]}),
    ("onehot_labels", ShapeError, lambda op, a: {"labels": np.eye(3, 4, dtype=np.int32)}),
    ("labels_of_int64", DTypeError, lambda op, a: {"labels": a["labels"].astype(np.int64)}),
    ("labels_of_float", DTypeError, lambda op, a: {"labels": a["labels"].astype(np.float32)}),
    ("one_float64", DTypeError, lambda op, a: {INPUT[op]: a[INPUT[op]].astype(np.float64)}),
    ("in_place", LayoutError, lambda op, a: {OUTPUTS[op][0]: a[INPUT[op]]}),
], ids=lambda bad: bad[0])
def test_bad_calls_raise_and_write_nothing(ops, op, bad):
    _, error, change = bad
    arguments = good_call(op)
    arguments.update(change(op, arguments))
    refused(ops, op, error, OUTPUTS[op], **arguments)


def test_layer_averages_over_the_batch_and_wants_one_column(oracle, seed):
    layer = SoftmaxLoss("prob")
    x, labels = draw(cases.LossCase("layer", 4, 5), seed, np.float64)
    p, loss, dx = np.full((4, 5), np.nan), np.full(4, np.nan), np.full((1, 4, 1, 1, 5), np.nan)
    layer.loss(oracle, x.reshape(1, 4, 1, 1, 5), labels, p, loss)
    layer.dlogits(oracle, p, labels, dx, 1 / 4)
    want_p, want_loss = fprop(oracle, x, labels)
    assert (p == want_p).all() and (loss == want_loss).all()
    assert (dx.reshape(4, 5) == bprop(oracle, p, labels, 1 / 4)).all()
    for shape in (Shape(2, 1, 1, 5), Shape(1, 2, 1, 5), Shape(1, 1, 2, 5)):
        with pytest.raises(ShapeError, match="prob"):
            layer.out_shape(shape)
