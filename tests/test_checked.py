"""The project's kernels under the access checker: every variant of every op, and a whole step, without one finding.

A finding is an error: a race between threads, blocks or streams, an access outside its array, a number nobody has written, a
misaligned vector.  Every array is an allocation of its own, so the first byte behind it is out of bounds.  What the results are
worth, other tests say; here they must be numbers.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any, NamedTuple

import building
import checked
import numpy as np
import pytest
import two_devices
from proofs import Weights

from minialex.backends.signatures import OPS
from minialex.bf16 import narrow, widen
from minialex.column_net import ColumnNet
from minialex.graph import StepGraph
from minialex.net import Net
from minialex.nets import recipe as recipe_of
from minialex.optim import SGD
from minialex.spec import BF16, DeviceError, ShapeError, pool_extent
from minialex.testing import cases
from minialex.testing.onhost import PLAIN, as_read

MODES = (dict(order="forward", streams="now"), dict(order="random:7", streams="lazy"))
NO_TABLE = {"empty", "from_host", "to_host", "sum_partials", *PLAIN}
KERNEL_OPS = [op for op in OPS if op not in NO_TABLE]


def rows(table: list, *names: str) -> list:
    """These rows of a table of cases.py."""
    by_name = {case.name: case for case in table}
    return [by_name[name] for name in names]


CASES: dict[str, list] = {
    "conv": [*rows(cases.CONV, "odd", "pad_after", "channels_47_to_49", "two_columns_own", "two_columns_joint", "three_columns_joint",
                   "many_images", "long_sums"),
             cases.ConvCase("rows_of_tiles", 2, 9, 8, 16, 80, 3, 3, pad=1, columns=2, out_columns=2),
             cases.ConvCase("stride_4", 1, 20, 19, 3, 8, 11, 11, stride=4, pad=(0, 3), out_columns=2)],
    "conv_relu_fprop": rows(cases.CONV, "odd", "two_columns_joint"),
    "local": [*rows(cases.LOCAL, "odd", "two_columns_joint", "channels_7"), cases.ConvCase("vectors", 3, 4, 5, 8, 6, 3, 3, pad=1)],
    "linear": [*rows(cases.LINEAR, "odd", "channels_47_to_49", "two_columns_own", "three_columns_joint", "long_sums"),
               cases.LinearCase("rows_of_tiles", 35, 70, 132, columns=2, out_columns=2)],
    "joint": [*rows(cases.ACTIVATION, "odd", "two_columns"), cases.MapCase("vectors", 2, 3, 5, 8, columns=2)],
    "cells": rows(cases.CELLS, "odd", "filters_of_11", "vectors", "vectors_with_rest"),
    "relu": rows(cases.ACTIVATION, "one_number", "odd", "channels_47"),
    "lrn": rows(cases.LRN, "odd", "n_9", "channels_47", "cifar_norm1"),
    "spatial_norm": rows(cases.SPATIAL_NORM, "map_below_window", "odd", "n_5", "tall", "two_columns", "channels_47"),
    "maxpool": [*rows(cases.MAXPOOL, "clipped", "stride_over_window", "last_window_outside", "two_columns", "channels_49"),
                cases.PoolCase("vectors", 2, 7, 6, 8)],
    "dropout": rows(cases.DROPOUT, "odd", "two_columns", "channels_12_three_columns"),
    "loss": rows(cases.LOSS, "one_class", "odd", "imagenet"),
    "sgd": [*rows(cases.SGD, "weights_and_biases", "gap_between_segments", "empty_segment"),
            cases.SGDCase("longer", 5003, ((0, 5001, 0.1, 0.1),))],
    "augment": rows(cases.AUGMENT, "odd", "odd_centre", "rows_of_12", "rows_of_60", "in_cells", "in_cells_of_vectors"),
}
CASES |= {"tanh": CASES["relu"], "sigmoid": CASES["relu"], "avgpool": CASES["maxpool"],
          "lrn_maxpool": [cases.NormCase("odd", 2, 7, 5, 3), cases.NormCase("vectors", 2, 9, 8, 8, columns=2),
                          cases.NormCase("a_row_in_pieces", 1, 9, 21, 128)]}


class Out(NamedTuple):
    """An array the op fills."""

    shape: tuple[int, ...]


def stem_of(op: str) -> str:
    return {"conv_relu_fprop": "conv", "linear_relu_fprop": "linear", "joint_sum": "joint"}.get(op, op.rsplit("_", 1)[0])


def cases_of(kernels, op: str, variant: str) -> list:
    """What a row is shown.  Split products touch memory where tf32's row does and take longest here: numbers one by one, and in fours."""
    split = "bf16x" in kernels.precision_of(op, variant)
    return [case for case in CASES.get(op) or CASES[stem_of(op)] if not split or case.name in ("odd", "rows_of_tiles")]


def calls(op: str, case: Any, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """The arguments of a few calls of the op on the case's shapes."""
    stem, kind = stem_of(op), op.rsplit("_", 1)[1]

    def numbers(shape):
        return rng.standard_normal(shape).astype(np.float32)

    if stem in ("conv", "local", "linear"):
        layer = Weights(stem)
        shapes, options = layer.shapes(case), layer.keywords(case)
        given = {name: numbers(shape) for name, shape in shapes.items()}
        if kind == "fprop":
            dropout = dict(keep=0.5, scale=2.0, seed=1, step=2, layer=3, first=4)
            more = dict(dropout=dropout) if op == "linear_relu_fprop" else {}
            for b in (given["b"], None):
                yield dict(x=given["x"], w=given["w"], b=b, y=Out(shapes["dy"]), **options, **more)
        elif kind == "dgrad":
            yield dict(dy=given["dy"], w=given["w"], dx=Out(shapes["x"]), gate=given["x"], scale=1.5, **options)
        else:
            yield dict(x=given["x"], dy=given["dy"], dw=Out(shapes["w"]), db=Out(shapes["b"]), **options)
            yield dict(x=given["x"], dy=given["dy"], dw=given["w"], db=given["b"], accumulate=True, **options)
    elif stem == "joint":
        for b in (numbers(case.columns * case.C), None):
            yield dict(p=numbers(case.x_shape), q=numbers(case.x_shape), b=b, y=Out(case.x_shape))
    elif stem == "cells":
        yield dict(x=numbers(case.x_shape), y=Out(case.y_shape), cell=case.cell) if kind == "fprop" else \
            dict(dy=numbers(case.y_shape), dx=Out(case.x_shape), cell=case.cell)
    elif stem in ("relu", "tanh", "sigmoid"):
        yield dict(x=numbers(case.x_shape), y=Out(case.x_shape)) if kind == "fprop" else \
            dict(y=numbers(case.x_shape), dy=numbers(case.x_shape), dx=Out(case.x_shape))
    elif stem in ("lrn", "spatial_norm"):
        arrays = dict(y=Out(case.x_shape)) if kind == "fprop" else dict(dy=numbers(case.x_shape), dx=Out(case.x_shape))
        yield dict(x=numbers(case.x_shape), **arrays, **case.constants)
    elif stem in ("maxpool", "avgpool", "lrn_maxpool"):
        window, stride = (3, 2) if stem == "lrn_maxpool" else (case.window, case.stride)
        G, N, H, W, C = case.x_shape
        y_shape = (G, N, pool_extent(H, window, stride), pool_extent(W, window, stride), C)
        options = dict(window=window, stride=stride, **(case.constants if stem == "lrn_maxpool" else {}))
        x, y, dy = (np.round(numbers(shape)) for shape in (case.x_shape, y_shape, y_shape))       # ties
        if kind == "fprop":
            yield dict(x=x, y=Out(y_shape), **options)
        elif stem == "avgpool":
            yield dict(dy=dy, dx=Out(case.x_shape), **options)
        else:
            for ties in ("first", "all"):
                yield dict(x=x, y=y, dy=dy, dx=Out(case.x_shape), ties=ties, relu=ties == "all", **options)
    elif op == "dropout_test":
        yield dict(x=numbers(case.x_shape), y=Out(case.x_shape), factor=0.5)
    elif stem == "dropout":
        names = ("x", "y") if kind == "fprop" else ("dy", "dx")
        yield {names[0]: numbers(case.x_shape), names[1]: Out(case.x_shape), **case.mask}
    elif stem == "loss":
        labels = rng.integers(0, case.K, case.N).astype(np.int32)
        yield dict(x=numbers((case.N, case.K)), labels=labels, p=Out((case.N, case.K)), loss=Out((case.N,)),
                   dx=Out((case.N, case.K)), scale=0.25) if kind == "fprop" else \
            dict(p=numbers((case.N, case.K)), labels=labels, dx=Out((case.N, case.K)), scale=0.25)
    elif stem == "sgd":
        w, v, dw = (numbers(case.size) for _ in range(3))
        yield dict(w=w, v=v, dw=dw, segments=case.segments, momentum=case.momentum)
    else:
        room = (case.H0 - case.H + 1, case.W0 - case.W + 1)
        yield dict(images=rng.integers(0, 256, (case.N, case.H0, case.W0, 3)).astype(np.uint8), mean=numbers((case.H0, case.W0, 3)),
                   offsets=rng.integers(0, room, (case.N, 2)).astype(np.int32), flips=np.arange(case.N) % 2 == 0,
                   noise=numbers((case.N, 3)), y=Out(case.y_shape), mean_at=case.mean_at, scale=case.scale)


def ring(kernels, op: str, arguments: dict[str, Any], variant: str) -> None:
    """One call with every array in an allocation of its own, and what it wrote copied back and looked at."""
    given = as_read(kernels, op, variant, arguments)
    stored = BF16 if any(getattr(a, "dtype", None) == BF16 for a in given.values()) else "float32"
    if stored == BF16 and given.get("gate") is not None:
        given["gate"] = narrow(given["gate"])
    device = {name: kernels.empty(a.shape, stored if name in ("y", "dx") else "float32") if isinstance(a, Out) else
              kernels.from_host(a) if isinstance(a, np.ndarray) else a for name, a in given.items()}
    getattr(kernels, op)(**device, variant=variant)
    for name, a in arguments.items():
        if isinstance(a, Out):
            assert np.isfinite(widen(kernels.to_host(device[name]))).all(), f"{op} ({variant}): {name} has elements that are no numbers"
    kernels.memory.extension.stream_synchronize(kernels.memory.stream())


@pytest.fixture(scope="session")
def library(request, tmp_path_factory):
    """The checker's build of all kernels, as a file."""
    building.need("g++")
    try:
        import pybind11  # noqa: F401
    except ImportError:
        building.missing("there is no pybind11, which the extra [test] installs")
    return checked.path(building.folder(request.config, "minialex-checked", tmp_path_factory))


@pytest.fixture(scope="session")
def module(library):
    return checked.load(library)


@pytest.fixture(params=MODES, ids=lambda mode: "-".join(mode.values()))
def kernels(request, library, module):
    """The ops on device 0, in an order of threads and a mode of streams."""
    checked.configure(library, **request.param)
    return checked.kernels(module)


@pytest.mark.parametrize("op", KERNEL_OPS)
def test_no_finding(request, kernels, op, seed):
    """Each variant on each case it takes; there must be one.  In the second mode, which finds what depends on the order, one call of
    each case and the variants that share memory or work together: a thread of a direct kernel is on its own."""
    first = request.node.callspec.params["kernels"] is MODES[0]
    for variant in kernels.variants(op):
        if variant == "direct" and not first:
            continue
        ran = 0
        for case in cases_of(kernels, op, variant):
            for arguments in islice(calls(op, case, np.random.default_rng(seed)), None if first else 1):
                try:
                    ring(kernels, op, arguments, variant)
                    ran += 1
                except ShapeError as error:
                    assert f"variant {variant} does not run" in str(error), error
                except DeviceError as error:
                    pytest.fail(f"{op}, variant {variant}, {cases.repro(case)}: {error}")
        assert ran, f"no case of this test runs variant {variant} of {op}"


def test_no_finding_in_a_step(kernels):
    """A whole training step of the tiny recipe's net, two images, on bfloat16: what float32 rows read and write is seen one by one, and
    in the steps below."""
    kernels.set_precision("bf16")
    ops = SimpleNamespace(kernels=kernels, **kernels.exports())
    recipe = recipe_of("tiny")
    net = Net(recipe.build(recipe.classes), recipe.input, 2, ops, seed=3)
    sgd = SGD(net, momentum=recipe.momentum, decay=recipe.decay)
    net.show(np.random.default_rng(1).standard_normal(recipe.input.array(2)))
    loss = net.fprop(np.array([1, 4], np.int32), training=True, step=0)
    net.bprop(sgd.early(sgd.segments(0.01)))
    assert np.isfinite(loss) and np.isfinite(ops.to_host(net.params.flat)).all()


# ---------------------------------------------------------------- two devices
def two_devices_net(module, library, mode: dict, **options) -> ColumnNet:
    checked.configure(library, **mode)
    return ColumnNet(two_devices.layers(**options), two_devices.INPUT, 2, [checked.kernels(module, device) for device in (0, 1)], seed=7)


def passes(net: ColumnNet, backward: bool) -> None:
    """Three passes in which the host never waits: no loss is read, and no memory given back, which waits for its device."""
    for _ in range(3):
        net.fprop(None)
        if backward:
            net.bprop()


@pytest.mark.parametrize("overlap", [True, False], ids=["overlap", "no_overlap"])
@pytest.mark.parametrize("mode", [*MODES, dict(order="forward", streams="random:5")], ids=lambda mode: "-".join(mode.values()))
def test_no_finding_in_steps_on_two_devices(library, module, mode, overlap):
    """Every access of either device is ordered behind what it needs, by events alone."""
    net = two_devices_net(module, library, mode)
    net.exchange.overlap = overlap
    assert np.isfinite(two_devices.train(net, 2)).all()


def graph_steps(graph, count):
    for step in range(count):
        for ops, x in zip(graph.net.places, graph.net.inputs(2), strict=True):
            ops.from_host(np.full(x.shape, step, np.float32), out=x)
        graph.step(np.array([0, 1], np.int32), 0.01, step)


@pytest.mark.parametrize("mode", [*MODES, dict(order="forward", streams="random:5")], ids=lambda mode: "-".join(mode.values()))
def test_no_finding_in_a_graph_of_two_devices(library, module, mode):
    """What forks from one stream and joins it again is ordered behind what comes before and before what comes behind."""
    net = two_devices_net(module, library, mode)
    graph = StepGraph(net, SGD(net))
    graph_steps(graph, 4)
    assert graph.refusal is None and np.isfinite(net.loss())
    for place in net.places:
        place.finish()


@pytest.mark.parametrize("what", ["_fork", "_join"])
def test_a_graph_that_waits_for_nobody_is_a_finding(library, module, what):
    net = two_devices_net(module, library, dict(order="forward", streams="now"))
    graph = StepGraph(net, SGD(net))
    graph_steps(graph, 2)
    setattr(graph, what, lambda stream: None)
    with pytest.raises(DeviceError, match=r"race|not ordered|another stream"):
        graph_steps(graph, 3)


@pytest.mark.parametrize("forget, what", [(two_devices.forget, "ready"), (two_devices.forget, "arrived"), (two_devices.forget, "free"),
                                          (two_devices.forget_branch, "fork"), (two_devices.forget_branch, "join")])
def test_a_missing_event_is_a_finding(library, module, forget, what):
    """Whatever the order in which the streams happen to run: the checker looks at what the events order."""
    net = two_devices_net(module, library, dict(order="forward", streams="now"))
    two_devices.train(net, 1)
    forget(net, what)
    with pytest.raises(DeviceError, match=r"race|not ordered|another stream"):
        passes(net, backward=True)


def test_a_source_overwritten_under_its_copy_is_a_finding(library, module):
    """Column 1 of a network that talks at the end only sends its sums and would begin the next pass, which makes them anew."""
    net = two_devices_net(module, library, dict(order="forward", streams="now"), both=())
    two_devices.train(net, 1)
    passes(net, backward=False)
    two_devices.forget(net, "sent")
    with pytest.raises(DeviceError, match=r"race|not ordered|another stream"):
        passes(net, backward=False)


def test_a_finding_is_an_error(kernels):
    """Bytes nobody has written reach a kernel: the checker is in this build, and says where."""
    with pytest.raises(DeviceError, match=r"relu_fprop.*global read at relu\.cu:\d+: nobody has written"):
        ring(kernels, "relu_fprop", {"x": Out((1, 1, 1, 1, 7)), "y": Out((1, 1, 1, 1, 7))}, "direct")


def test_statistics(library):
    """MINIALEX_EMULATED_STATISTICS=1: bank passes and sectors of each source line.  Four floats a thread are 16 sectors a warp."""
    child = """if True:
        import sys, numpy as np, checked
        kernels = checked.kernels(checked.load(checked.Path(sys.argv[1])))
        x = kernels.from_host(np.ones((1, 1, 1, 1, 1024), np.float32))
        kernels.relu_fprop(x, kernels.empty(x.shape), variant="vector")
        kernels.to_host(x)
    """
    environment = {**os.environ, "MINIALEX_EMULATED_STATISTICS": "1",
                   "PYTHONPATH": os.pathsep.join([str(building.ROOT), str(building.ROOT / "tests")])}
    done = subprocess.run([sys.executable, "-c", child, library], env=environment, capture_output=True, text=True, check=True)
    lines = re.findall(r"relu\.cu:\d+ global +8 accesses of a warp, 16\.00 sectors each \(at best 16\.00\)", done.stderr)
    assert len(lines) == 2, done.stderr                     # the load and the store
