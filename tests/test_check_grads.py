"""`minialex check-grads`: it passes what is right, and finds what is wrong, in a table and in the exit status."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from commands import finished, said
from conftest import BACKENDS, compiled_backends, load_or_skip

from minialex import backends
from minialex.cli import main
from minialex.layers import LRN, AvgPool, Conv, Dropout, Linear, Local, MaxPool, ReLU, Sigmoid, SoftmaxLoss, SpatialNorm, Tanh
from minialex.nets import RECIPES, recipe
from minialex.spec import PRECISIONS, MiniAlexError, Shape
from minialex.testing import check_grads, mutants, op_bounds

# Every kind of layer, in two columns where it can: groups, joints, uneven padding, rows no window reads, clipped windows.
NET = [Conv("conv1", 24, 3, 3, (0, 1), columns=2), ReLU("relu1"), LRN("norm1", alpha=0.5), MaxPool("pool1"),
       Conv("conv2", 12, 3, pad=1, groups=2, columns=2), Tanh("tanh2"), SpatialNorm("norm2", 3), AvgPool("pool2", 2, 2),
       Conv("conv3", 8, 2, columns=2, pad=1), AvgPool("pool3", 2, 1),
       Local("local4", 4, 3, pad=(1, 2), groups=2, columns=2), Sigmoid("sigmoid4"), Dropout("drop4", 0.75),
       Linear("fc5", 6, groups=2, columns=2), ReLU("relu5"), Linear("fc6", 6, columns=2), Dropout("drop6", 0.5, True),
       Linear("fc7", 5), SoftmaxLoss("loss")]
INPUT = Shape(1, 19, 19, 3)
STEMS = {Conv: "conv", Local: "local", Linear: "linear", ReLU: "relu", Tanh: "tanh", Sigmoid: "sigmoid", LRN: "lrn", MaxPool: "maxpool",
         SpatialNorm: "spatial_norm", AvgPool: "avgpool", Dropout: "dropout", SoftmaxLoss: "loss"}


def check(ops, **options):
    return check_grads.check(ops, NET, INPUT, **options)


@pytest.mark.parametrize("backend", [*BACKENDS, *compiled_backends()])
def test_every_kind_of_layer_is_right(backend):
    rows = check(load_or_skip(backend))
    assert all(row.ok for row in rows), check_grads.text(rows)
    assert {row.layer for row in rows} == {layer.name for layer in NET}
    unfused = [row for row in rows if not row.op.startswith(("conv_relu", "linear_relu", "lrn_maxpool"))]
    for row in unfused:
        assert (row.difference is not None) == row.op.endswith(("_bprop", "_dgrad", "_wgrad")), row
    assert {row.op for row in unfused} >= {"dropout_test", "conv_fprop", "local_wgrad", "linear_dgrad", "loss_bprop", "spatial_norm_bprop"}


@pytest.mark.parametrize("backend", compiled_backends())
def test_variants_are_named_forced_and_refused(backend):
    ops = load_or_skip(backend)
    chosen = {row.op: row.variant for row in check(ops)}
    assert chosen["relu_fprop"] == "vector" and chosen["dropout_bprop"] == "direct"             # of three channels
    rows = check(ops, variant="direct")
    assert {row.variant for row in rows} == {"direct"} and all(row.ok for row in rows)
    rows = check(ops, variant="vector")
    assert "refused" in {row.note for row in rows if row.op == "dropout_fprop"} and all(row.ok for row in rows)
    assert "refused by the variant" in check_grads.text(rows)
    assert "_ring" not in vars(ops.kernels)                                                     # nobody listens any more
    with pytest.raises(MiniAlexError, match=r"no op has such a variant; there are .*direct"):
        check(ops, variant="fastest")


@pytest.mark.parametrize("backend", compiled_backends())
@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_other_precisions_have_bounds_of_their_own(backend, precision):
    rows = check(load_or_skip(backend), precision=precision)
    assert all(row.ok for row in rows), check_grads.text(rows)


@pytest.mark.parametrize("precision, dropped", [("tf32", 13), ("bf16", 16)])
def test_the_error_of_a_rounded_operand(precision, dropped, rng):
    """tf32 keeps 10 of float32's 23 bits behind the point, bf16 7: the largest relative error is half of the last one."""
    x = rng.uniform(1, 2, 100_000).astype(np.float32)
    half = np.uint32(1 << dropped - 1)
    rounded = (x.view(np.uint32) + half >> np.uint32(dropped) << np.uint32(dropped)).view(np.float32)
    worst = float((abs(rounded.astype(np.float64) - x) / x).max())
    assert 0.95 * op_bounds.ROUNDED[precision] < worst <= op_bounds.ROUNDED[precision]


@pytest.mark.parametrize("precision, parts", [("bf16x3", 2), ("bf16x6", 3)])
def test_what_the_products_of_split_operands_leave_out(precision, parts, rng):
    """Of x y, with x and y cut into bf16 numbers, the terms whose places add up to `parts` or more."""
    def split(x):
        for _ in range(parts):
            bits = x.astype(np.float32).view(np.uint32)
            bits = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)) & np.uint32(0xFFFF0000)
            yield bits.view(np.float32).astype(np.float64)
            x = x - bits.view(np.float32)

    x, y = (rng.uniform(1, 1.01, 100_000).astype(np.float32).astype(np.float64) for _ in range(2))
    a, b = list(split(x)), list(split(y))
    kept = sum(a[i] * b[j] for i in range(parts) for j in range(parts - i))
    worst = float(abs((kept - x * y) / (x * y)).max())
    assert 0.8 * 2 * op_bounds.ROUNDED[precision] < worst <= 2 * op_bounds.ROUNDED[precision]


def test_numpy_backends_have_no_variants(oracle):
    with pytest.raises(MiniAlexError, match="this backend has no variants"):
        check(oracle, variant="direct")


# The ops' own tests kill these.  Here nothing is accumulated, no window holds a value twice or a spike, all columns are on one device,
# and the network above has no joint local layer and none that leaves a row unread.
UNSEEN = {*(f"{stem}_wgrad-accumulate_overwrites_{name}" for stem in ("conv", "local", "linear") for name in "wb"),
          *(f"maxpool_bprop-{name}" for name in ("first_for_all", "all_for_first", "ties_swapped", "last_maximum", "first_in_column_order",
                                                 "ties_share_the_gradient")),
          *(f"dropout_{kind}-{name}_of_the_array_alone" for kind in ("fprop", "bprop") for name in ("column", "columns")),
          "lrn_fprop-running_sum", "local_fprop-bias_once_per_input_column", "local_dgrad-unread_rows_left_unwritten"}


@pytest.mark.parametrize("kind", STEMS, ids=STEMS.get)
def test_broken_ops_are_found(oracle, kind):
    """Every mutant of every op: a row of that op, and of no other, is wrong."""
    survivors = set()
    for broken in mutants.of(STEMS[kind]):
        if broken.replaces == "conv_relu_fprop":
            continue                                # which the oracle's networks do not run
        rows = [row for i, (layer, x, *_) in enumerate(check_grads.table_rows(NET, INPUT)) if type(layer) is kind
                for row in check_grads.check_layer(broken.ops(oracle), layer, x, 2, i)]
        wrong = {row.op for row in rows if not row.ok}
        misled = {f"{STEMS[kind]}_bprop"} if broken.replaces.endswith("fprop") else set()       # which reads the wrong y
        assert wrong <= {broken.replaces} | misled, f"{broken}: {wrong}"
        survivors |= set() if broken.replaces in wrong else {str(broken)}
    assert survivors == {name for name in UNSEEN if name.startswith(f"{STEMS[kind]}_")}


def scaled(ops, op, factor):
    """`ops` with one gradient a little too long, whatever arrays they have."""
    def spoiled(y, dy, dx):
        getattr(ops, op)(y, dy, dx)
        ops.from_host(ops.to_host(dx) * np.float32(factor), dx)
    return SimpleNamespace(**{**vars(ops), op: spoiled})


@pytest.mark.parametrize("backend", [*BACKENDS, *compiled_backends()])
def test_differences_are_a_second_witness(backend, monkeypatch):
    """An oracle with the same fault as the op does not hide it: forward and backward pass no longer fit together."""
    ops = load_or_skip(backend)
    wrong = scaled(ops, "tanh_bprop", 1.001)
    by_oracle = next(row for row in check(wrong) if row.op == "tanh_bprop")
    assert by_oracle.error > 1 and by_oracle.difference > 1
    right = check_grads.reference.tanh_bprop

    def same_fault(y, dy, dx):
        right(y, dy, dx)
        dx *= 1.001

    monkeypatch.setattr(check_grads.reference, "tanh_bprop", same_fault)
    both = next(row for row in check(ops if backend == "reference" else wrong) if row.op == "tanh_bprop")
    assert both.error < 2 and both.difference > 1


def test_worst_ratio():
    want = np.array([1.0, 2.0, 0.0])
    assert check_grads.worst(np.array([1.0, 2.5, 0.0]), want, np.array([0.0, 1.0, 0.0])) == 0.5
    assert check_grads.worst(np.array([1.0, 2.0, 1e-30]), want, 0.0) == np.inf
    assert check_grads.worst(np.array([1.0, np.nan, 0.0]), want, 1.0) == np.inf


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_size_that_ends_soon(name):
    layers, shape, note = check_grads.at_size(recipe(name))
    macs = sum(row.macs for row in check_grads.table_rows(layers, shape))
    assert macs <= check_grads.BUDGET and bool(note) == (macs < sum(
        row.macs for row in check_grads.table_rows(recipe(name).build(recipe(name).classes), shape)))


# ---------------------------------------------------------------- the command
@pytest.mark.parametrize("backend", [*BACKENDS, *(f"{name}:0" for name in compiled_backends())])
def test_the_command_checks_tiny(backend, capsys):
    out = finished(capsys, "check-grads", "--device", backend, "-b", "1")
    lines = out.splitlines()
    assert lines[0] == f"tiny on {backend}, 1 images, products in float32" and lines[-1].startswith("all ")
    assert [line.split()[0] for line in lines if "fprop" in line][:3] == ["conv1", "relu1", "norm1"] and "WRONG" not in out


def test_the_command_ends_in_1_where_an_op_is_wrong(oracle, monkeypatch, capsys):
    broken = next(mutant for mutant in mutants.of("lrn") if mutant.replaces == "lrn_bprop")
    monkeypatch.setattr(backends, "load", lambda name, place=None: broken.ops(oracle))
    assert main(["check-grads", "cifar11", "-b", "1", "--device", "reference"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines[:-1] if line.endswith("WRONG")} == {"lrn_bprop"}
    assert lines[-1] == f"2 of {sum('prop' in line or 'grad' in line or '_test' in line for line in lines[2:-1])} calls are WRONG"


@pytest.mark.parametrize("arguments, word", [
    (["papr"], "paper"), (["--device", "gpu:0"], "cuda"), (["--device", "reference", "--variant", "direct"], "no variants"),
    (["--device", "reference", "--precision", "tf32"], "float32"), (["-b", "0"], "at least 1")])
def test_wrong_arguments_are_refused_in_one_sentence(arguments, word, capsys):
    status, out, error = said(capsys, "check-grads", *arguments)
    assert (status, out) == (2, "") and word in error and error.count("\n") == 1
