"""Every wrong version of a kernel must be rejected by the proof of its op: what the proofs of the compiled backends are worth."""

from __future__ import annotations

import ctypes
import unittest
from collections.abc import Iterator
from types import SimpleNamespace

import building
import checked
import numpy as np
import pytest
import test_augment
import test_cells
import test_checked
import test_dropout
import test_joint
import test_loss
import test_lrn_maxpool
import test_sgd
from kernel_mutants import EQUIVALENT, KernelMutant, launches, numbered, written
from proofs import Weights, prove, prove_gate
from test_tensor_core import KEPT_BITS, Representable, precision_of

from minialex.spec import DeviceError, ShapeError
from minialex.testing import assert_bits_equal, cases, unweighted
from minialex.testing.onhost import OnHost

ORDERS = ("forward", "reverse", "random:1")         # of threads: without a barrier some order goes wrong, not each
NUMBERS = {mutant: number for number, mutant in numbered()}


@pytest.fixture(scope="module")
def mutated(request, tmp_path_factory) -> SimpleNamespace:
    """The kernels with all mutants in them: `kernels` and `switch(number)`, `order(name)`."""
    building.need("g++")
    pytest.importorskip("pybind11", reason="pybind11 is not installed, which the doorbells are made with")
    folder = building.folder(request.config, "mutants", tmp_path_factory)
    sources = written(folder / "cuda")
    first = f"-I{folder / 'cuda/include'}"          # before the true headers
    units = [building.Unit(unit.source, (first, *unit.flags)) for unit in building.units(sources, "-O1")]
    control = [unit for unit in building.units(building.CHECKER, "-O1") if unit.source.name == "control.cpp"]
    parts = [*checked.doorbells(folder, "_mutants"), *units, *building.units(building.EMULATOR, "-O1"), *control]
    file = building.build(folder, "_mutants.so", parts, "-shared")
    kernels = checked.kernels(checked.load(file))
    library = ctypes.CDLL(str(file))
    library.minialex_launched.restype = ctypes.c_char_p
    return SimpleNamespace(kernels=kernels, switch=library.minialex_wrong_version, order=lambda name: checked.configure(file, order=name),
                           launched=lambda: set(library.minialex_launched().decode().split()), launches=launches(folder / "cuda"))


class Backend:
    """What OnHost asks of a backend's module."""

    def __init__(self, kernels):
        self.kernels = kernels

    def __getattr__(self, name):
        return getattr(self.kernels, name)


def proofs(mutant: KernelMutant, ops: OnHost, oracle) -> Iterator[object]:
    """The proofs of the mutant's stem, one after the other, each a call that raises AssertionError where it fails."""
    stem, seed = mutant.stem, 1
    if stem in ("conv", "local", "linear"):
        rows = {"conv": cases.CONV, "local": cases.LOCAL, "linear": cases.LINEAR}[stem]
        precision = precision_of(mutant.variant)
        layer = Representable(stem, precision) if precision in KEPT_BITS else Weights(stem)
        for case in cases.small(rows):
            for op in ("fprop", "dgrad", "wgrad"):
                yield lambda op=op, case=case: prove(ops, oracle, layer, f"{stem}_{op}", case, seed, ("zero_mean",))
            if case.name in ("odd", "two_columns_joint", "two_columns_four_groups"):
                yield lambda case=case: prove_gate(ops, layer, case, seed)
    elif stem in unweighted.CASES:
        for case in cases.small(unweighted.CASES[stem]):
            yield lambda case=case: unweighted.prove(stem, ops, oracle, case, seed)
    elif stem == "lrn_maxpool":
        for case in test_lrn_maxpool.CASES:
            yield lambda case=case: fused_is_composed(ops, case)
    elif stem == "joint":
        for shape in test_joint.SHAPES.values():
            yield lambda shape=shape: test_joint.prove(ops, shape, seed)
    elif stem == "cells":
        for case in cases.CELLS:
            yield lambda case=case: test_cells.prove(ops, case, seed)
    elif stem == "loss":
        for case in cases.LOSS:
            for proof in test_loss.PROOFS.values():
                yield lambda case=case, proof=proof: proof(ops, oracle, case, seed)
    elif stem == "dropout":
        for case in cases.DROPOUT:
            yield lambda case=case: test_dropout.prove(ops, oracle, "dropout_fprop", case, seed)
    elif stem == "sgd":
        for case in cases.SGD[:-1]:
            yield lambda case=case: test_sgd.prove(ops, oracle, case, seed)
    else:
        for case in cases.AUGMENT[:-1]:
            yield lambda case=case: test_augment.prove(ops, oracle, case, seed)


def fused_is_composed(ops, case) -> None:
    for label, x, dy in test_lrn_maxpool.draws(case, np.random.default_rng(1)):
        for ties in ("first", "all"):
            got, want = (which(ops, case, x, dy, ties, True) for which in (test_lrn_maxpool.fused, test_lrn_maxpool.composed))
            for name, a, b in zip(("y", "dx"), got, want, strict=True):
                assert_bits_equal(a, b, f"{case.name}, {label}: {name}")


def rejected(mutated: SimpleNamespace, oracle, mutant: KernelMutant) -> str | None:
    """The message of the first proof that fails; None if all hold.  At least one must have run the variant."""
    ops, ran = OnHost(Backend(mutated.kernels), mutant.variant), 0
    tables = mutated.kernels.extension.tables
    assert any(mutant.variant in mutated.kernels.variants(op) for op in tables if op.startswith(f"{mutant.stem}_")), "no such variant"
    for order in ORDERS:
        mutated.order(order)
        try:
            for proof in proofs(mutant, ops, oracle):
                try:
                    proof()
                    ran += 1
                except unittest.SkipTest:
                    pass
                except (AssertionError, DeviceError) as failure:
                    return str(failure)
        finally:
            mutated.order("forward")
    assert ran, f"{mutant}: no case runs this variant"
    return None


@pytest.fixture
def switched(mutated):
    """Turns a mutant on until the test ends."""
    yield lambda mutant: mutated.switch(NUMBERS[mutant])
    mutated.switch(0)


@pytest.mark.parametrize("mutant", [mutant for mutant in NUMBERS if mutant is not EQUIVALENT], ids=str)
def test_a_wrong_kernel_is_rejected(mutated, switched, oracle, mutant):
    switched(mutant)
    assert rejected(mutated, oracle, mutant), f"{mutant} survives"


def test_the_equivalent_one_lives(mutated, switched, oracle):
    switched(EQUIVALENT)
    assert rejected(mutated, oracle, EQUIVALENT) is None


@pytest.mark.parametrize("mutant", {(m.stem, m.variant): m for m in NUMBERS}.values(), ids=lambda m: f"{m.stem}-{m.variant}")
def test_the_right_kernels_pass_the_same_proofs(mutated, oracle, mutant):
    assert rejected(mutated, oracle, mutant) is None


def test_every_launch_of_every_kernel_file_is_reached(mutated):
    """No kernel file, and no launch in one, that the cases of the access checker leave out: what it calls clean has run."""
    for op in test_checked.KERNEL_OPS:
        for variant in mutated.kernels.variants(op):
            for case in test_checked.cases_of(mutated.kernels, op, variant):
                for arguments in test_checked.calls(op, case, np.random.default_rng(0)):
                    try:
                        test_checked.ring(mutated.kernels, op, arguments, variant)
                    except ShapeError as refusal:
                        assert f"variant {variant} does not run" in str(refusal)
    files = {path.name for path in building.ROOT.glob("cuda/*.cu")} - {"runtime.cu"}         # the calls of CUDA itself
    through_others = {"conv.cu", "local.cu", "linear_mma.cu", "tanh.cu", "sigmoid.cu"}          # conv_direct.h, conv_mma_*.cu, map.h
    assert files - set(mutated.launches) == through_others
    missed = {f"{name}:{line}" for name, lines in mutated.launches.items() for line in lines} - mutated.launched()
    assert not missed, sorted(missed)
