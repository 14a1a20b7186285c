"""Linear layers by a library's products: the lines that run cuBLAS on a GPU, proved here with NumPy in CuPy's place."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
from proofs import Weights, prove
from test_linear import test_joint_sum_is_columns_first_bias_last, test_literal_example  # noqa: F401

from minialex.backends import library
from minialex.backends.compiled import Compiled
from minialex.spec import LayoutError, ShapeError
from minialex.testing import cases

LINEAR = Weights("linear")


class Numbers:
    """A device whose arrays are NumPy's."""

    xp, device = np, 0

    def __init__(self, extension=None, device=0):
        pass

    def workspace(self, nbytes):
        return 0

    def current(self):
        return contextlib.nullcontext()


@pytest.fixture
def kernels(monkeypatch):
    """The compiled backend with a library; its own kernels only say that they were rung."""
    tables = {op: [("tiled", "float32"), ("tf32", "tf32"), ("direct", "float32")] for op in (*library.PRODUCTS, "relu_fprop")}
    extension = SimpleNamespace(Context=SimpleNamespace, tables=tables, shared_per_block=lambda device: 101376,
                                choices={"linear_fprop": lambda dims, precision, shared: "tiled"})
    monkeypatch.setattr(Compiled, "_ring", lambda self, op, dims, *arguments, variant: rung.append((op, variant)))
    monkeypatch.delenv("CUPY_TF32", raising=False)
    rung = []
    kernels = library.WithLibrary(extension, Numbers())
    kernels.rung = rung
    return kernels


@pytest.fixture
def ops(kernels):
    """Each linear op with variant="cublas"."""
    named = {op: lambda *arrays, op=op, **options: getattr(kernels, op)(*arrays, **options, variant="cublas") for op in library.PRODUCTS}
    yield SimpleNamespace(**named)
    assert kernels.rung == []


@pytest.mark.parametrize("op", library.PRODUCTS)
@pytest.mark.parametrize("case", cases.small(cases.LINEAR), ids=str)
def test_against_the_oracle(ops, oracle, case, op, seed):
    prove(ops, oracle, LINEAR, op, case, seed)


def small():
    case = next(case for case in cases.small(cases.LINEAR) if case.name == "two_columns_own")
    data = LINEAR.draw(case, "zero_mean", 1)
    return dict(x=data["x"], w=data["w"], b=data["b"], y=np.full_like(data["dy"], 7), groups=2)


def test_it_runs_only_where_it_is_named(kernels):
    call = small()
    kernels.linear_fprop(**call)
    kernels.linear_fprop(**call, variant="tiled")
    assert kernels.rung == [("linear_fprop", None), ("linear_fprop", "tiled")] and (call["y"] == 7).all()
    kernels.linear_fprop(**call, variant="cublas")
    assert len(kernels.rung) == 2 and (call["y"] != 7).all()
    assert kernels.choose("linear_fprop", (1, 1, 1, 4, 4, 1)) == "tiled"
    assert kernels.variants("linear_fprop") == ("tiled", "tf32", "cublas", "direct")
    assert kernels.variants("relu_fprop") == ("tiled", "tf32", "direct")
    assert kernels.precision_of("linear_fprop", "cublas") == "float32" and kernels.precision_of("linear_fprop", "tf32") == "tf32"


def test_float32_is_float32(kernels, monkeypatch):
    """CuPy would round the operands to tf32 and say nothing."""
    monkeypatch.setenv("CUPY_TF32", "1")
    call = small()
    with pytest.raises(ShapeError, match="linear_fprop: variant cublas does not run in float32 while CUPY_TF32 is set; unset it"):
        kernels.linear_fprop(**call, variant="cublas")
    assert (call["y"] == 7).all()


def test_relu_and_gate_are_done_and_dropout_is_refused(kernels, ops):
    call = small()
    ops.linear_fprop(**call)
    plain, call["y"] = call["y"], np.full_like(call["y"], 7)
    kernels.linear_relu_fprop(**call, variant="cublas")
    np.testing.assert_array_equal(call["y"], np.maximum(plain, 0))
    mask = dict(keep=0.5, scale=2.0, seed=1, step=1, layer=0, first=0)
    with pytest.raises(ShapeError, match="draws no dropout"):
        kernels.linear_relu_fprop(**call, dropout=mask, variant="cublas")
    dx, gated = np.empty_like(call["x"]), np.empty_like(call["x"])
    ops.linear_dgrad(dy=plain, w=call["w"], dx=dx, groups=2)
    ops.linear_dgrad(dy=plain, w=call["w"], dx=gated, groups=2, gate=call["x"], scale=2.0)
    np.testing.assert_array_equal(gated, np.where(call["x"] > 0, 2 * dx, 0))


def test_other_arrays_are_refused(kernels):
    call = small()
    kernels._xp = SimpleNamespace(ndarray=SimpleNamespace)
    with pytest.raises(LayoutError, match=r"linear_fprop: an array is a ndarray, not of this device; make it with ops.from_host"):
        kernels.linear_fprop(**call, variant="cublas")
    assert (call["y"] == 7).all()
