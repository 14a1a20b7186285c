"""Arrays and blocks of images: what every backend promises to the floors above it."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from minialex.spec import DTypeError, LayoutError, ShapeError
from minialex.testing import assert_bits_equal, assert_exact, refused


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8", "bool"])
def test_empty_has_the_shape_and_type_asked_for(ops, dtype):
    array = ops.empty((2, 3, 4), dtype)
    assert array.shape == (2, 3, 4) and str(array.dtype) == dtype and array.flags.c_contiguous
    assert str(ops.empty((1,)).dtype) == "float32"


def test_the_oracles_empty_arrays_show_what_nobody_wrote(oracle):
    for dtype in ("float32", "float64"):
        assert np.isnan(oracle.empty((3, 2), dtype)).all()


def test_host_copies_are_copies(ops, rng):
    source = rng.standard_normal((3, 4)).astype(np.float32)
    kept = source.copy()
    array = ops.from_host(source[:, ::-1])
    assert array.flags.c_contiguous
    assert_bits_equal(ops.to_host(array), kept[:, ::-1], "from_host")
    source[...] = 0
    back = ops.to_host(array)
    back[...] = 1
    assert_bits_equal(ops.to_host(array), kept[:, ::-1], "after changes to both sides")


def test_from_host_into_a_view(ops):
    flat = ops.from_host(np.zeros(12, np.float32))
    returned = ops.from_host(np.arange(6, dtype=np.float32).reshape(2, 3), out=flat[4:10].reshape(2, 3))
    assert returned.shape == (2, 3)
    assert ops.to_host(flat).tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0]


@pytest.mark.parametrize("array, error", [(np.ones((3, 2), np.float32), ShapeError), (np.ones(6, np.float32), ShapeError),
                                          (np.ones((2, 3), np.float64), DTypeError)], ids=["turned", "flat", "wider"])
def test_from_host_refuses_what_does_not_fit(ops, array, error):
    message = refused(ops, "from_host", error, ("out",), array=array, out=np.zeros((2, 3), np.float32))
    assert message.startswith("from_host: array")


@pytest.mark.parametrize("N", [1, 2, 3, 7, 8, 31, 32, 33, 64, 65, 100, 127, 128, 129, 1000])
def test_image_ranges_cover_each_image_once_in_order(ops, N):
    ranges = ops.image_ranges(N)
    images = [i for blocks in ranges for start, stop in blocks for i in range(start, stop)]
    assert images == list(range(N))
    assert all(blocks and all(start < stop for start, stop in blocks) for blocks in ranges)


def test_image_ranges_do_not_depend_on_the_workers(ops):
    before = ops.image_ranges(50)
    for workers in (1, 2, 5):
        ops.set_workers(workers)
        assert ops.image_ranges(50) == before


def test_a_batch_of_no_images_is_refused(ops):
    assert "image" in refused(ops, "image_ranges", ShapeError, (), N=0)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_parallel_takes_each_item_once_and_slots_are_not_shared(ops, workers):
    ops.set_workers(workers)
    lock, busy, done, clashes = threading.Lock(), set(), [], []

    def function(slot, item):
        with lock:
            if slot in busy or not 0 <= slot < ops.workers():
                clashes.append((slot, item))
            busy.add(slot)
        sum(range(1000))
        with lock:
            busy.discard(slot)
            done.append(item)

    ops.parallel(function, iter(range(40)))
    assert sorted(done) == list(range(40)) and not clashes


def test_parallel_hands_on_the_first_error(ops):
    def function(slot, item):
        if item == 3:
            raise KeyError("item 3")

    with pytest.raises(KeyError, match="item 3"):
        ops.parallel(function, range(8))
    done = []
    ops.parallel(lambda slot, item: done.append(item), range(3))       # and the workers are still there
    assert sorted(done) == [0, 1, 2]


@pytest.mark.parametrize("ranges", [1, 2, 3, 5, 8, 13, 16])
def test_sum_partials(ops, ranges, rng):
    """Whole numbers are added exactly; other numbers always in the same tree, and the partial sums stay as they were."""
    whole = rng.integers(-99, 100, (ranges, 77)).astype(np.float32)
    out = ops.empty((77,))
    ops.sum_partials(whole, out)
    assert_exact(out, whole.astype(np.float64).sum(axis=0), "sum")
    partials = rng.standard_normal((ranges, 20_011)).astype(np.float32)
    kept, sums = partials.copy(), []
    for workers in (1, 2, 3):
        ops.set_workers(workers)
        sums.append(ops.empty((20_011,)))
        ops.sum_partials(partials, sums[-1])
        assert_bits_equal(sums[-1], sums[0], f"{workers} workers")
    assert_bits_equal(partials, kept, "partials")


def test_sum_partials_adds_neighbours(ops):
    """(0 + 1) + (s + s), and (1 + s) + s where the last row waits; s = 2^-24 alone is too small to be added to 1."""
    s, out = 2.0**-24, ops.empty((1,))
    ops.sum_partials(np.array([[0], [1], [s], [s]], np.float32), out)
    assert out[0] == 1 + 2 * s
    ops.sum_partials(np.array([[1], [s], [s]], np.float32), out)
    assert out[0] == 1


def test_sum_partials_refuses(ops):
    partials = np.ones((3, 5), np.float32)
    refused(ops, "sum_partials", ShapeError, ("out",), partials=partials, out=np.ones(6, np.float32))
    refused(ops, "sum_partials", ShapeError, ("out",), partials=partials[0], out=np.ones(5, np.float32))
    refused(ops, "sum_partials", DTypeError, ("out",), partials=partials, out=np.ones(5, np.float64))
    refused(ops, "sum_partials", LayoutError, ("out",), partials=partials, out=partials[0])
