"""Images in blocks: ranges that depend on N alone, workers that change nothing, partial sums in a fixed tree."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from minialex.spec import DTypeError, LayoutError, ShapeError
from minialex.testing import assert_bits_equal, assert_within, call, refused
from minialex.testing.compare import eps

BATCHES = (1, 2, 3, 5, 7, 8, 16, 31, 32, 33, 100, 127, 128, 129, 256)


@pytest.mark.parametrize("N", BATCHES)
def test_ranges_cover_each_image_once_in_order(ops, N):
    ranges = ops.image_ranges(N)
    assert isinstance(ranges, tuple) and ranges and all(isinstance(blocks, tuple) and blocks for blocks in ranges)
    blocks = [block for blocks in ranges for block in blocks]
    assert all(0 <= start < stop <= N for start, stop in blocks)
    assert [image for start, stop in blocks for image in range(start, stop)] == list(range(N))


@pytest.mark.parametrize("N", BATCHES)
def test_ranges_do_not_depend_on_workers(ops, N):
    seen = set()
    for workers in (1, 2, 3, 7):
        ops.set_workers(workers)
        seen.add(ops.image_ranges(N))
    assert len(seen) == 1


def test_no_images_is_refused(ops):
    with pytest.raises(ShapeError):
        ops.image_ranges(0)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_parallel_calls_each_item_once_with_slots_of_its_own(ops, workers):
    """No two calls that run at once share a slot, or a workspace would be written by both."""
    ops.set_workers(workers)
    lock, running, seen, shared = threading.Lock(), set(), [], []

    def function(slot, item):
        with lock:
            if slot in running or not 0 <= slot < ops.workers():
                shared.append((slot, item))
            running.add(slot)
        time.sleep(0.002)                       # long enough for the other workers to come
        with lock:
            running.discard(slot)
            seen.append(item)

    ops.parallel(function, range(23))
    assert sorted(seen) == list(range(23)) and shared == [] and running == set()
    ops.parallel(function, [])
    assert len(seen) == 23


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_one_item_reaches_the_caller(ops, workers):
    ops.set_workers(workers)

    def function(slot, item):
        if item == 3:
            raise KeyError("item 3")

    with pytest.raises(KeyError, match="item 3"):
        ops.parallel(function, range(6))
    done = []
    ops.parallel(lambda slot, item: done.append(item), range(4))        # and the next call works again
    assert sorted(done) == [0, 1, 2, 3]


def test_workers_count_at_least_one(ops):
    assert ops.workers() >= 1


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 8, 13, 32])
def test_sum_of_partials(ops, rows, rng):
    """Within the bound of a tree (depth log2 rows), exact on integers, the same bits for each number of workers."""
    partials = rng.standard_normal((rows, 1003)).astype(np.float32)
    ops.set_workers(1)
    one = call(ops, "sum_partials", {"out": (1003,)}, partials=partials)["out"]
    bound = 0.5 * eps(np.float32) * np.ceil(np.log2(max(rows, 2))) * abs(partials.astype(np.float64)).sum(axis=0)
    assert_within(one, partials.sum(axis=0, dtype=np.float64), bound, f"sum of {rows} partials")
    for workers in (2, 3):
        ops.set_workers(workers)
        assert_bits_equal(call(ops, "sum_partials", {"out": (1003,)}, partials=partials)["out"], one, f"{workers} workers")
    whole = rng.integers(-999, 1000, (rows, 50)).astype(np.float32)
    assert (call(ops, "sum_partials", {"out": (50,)}, partials=whole)["out"] == whole.sum(axis=0)).all()


def test_all_backends_add_partials_in_the_same_tree(ops, oracle, rng):
    """The tree is part of the meaning: neighbours first, an odd last row waits.  So the bits are equal everywhere."""
    for rows in (1, 2, 3, 5, 6, 7, 11, 16):
        partials = rng.standard_normal((rows, 257)).astype(np.float32)
        got, want = (call(o, "sum_partials", {"out": (257,)}, partials=partials)["out"] for o in (ops, oracle))
        assert_bits_equal(got, want, f"{rows} rows")


def test_literal_tree(ops):
    """((a + b) + (c + d)) + e: each 3 is lost in its 1e8, whose neighbours in float32 are 8 away."""
    partials = np.array([[1e8], [3], [-1e8], [3], [1]], np.float32)
    assert call(ops, "sum_partials", {"out": (1,)}, partials=partials)["out"][0] == 1       # from left to right: 4


@pytest.mark.parametrize("bad", [
    ("out_too_short", ShapeError, lambda a: {"out": a["out"][:3]}),
    ("one_row_without_axis", ShapeError, lambda a: {"partials": a["partials"][0]}),
    ("other_type", DTypeError, lambda a: {"out": a["out"].astype(np.float64)}),
    ("out_is_a_row", LayoutError, lambda a: {"out": a["partials"][0]}),
], ids=lambda bad: bad[0])
def test_bad_sums_are_refused(ops, bad):
    _, error, change = bad
    arguments = dict(partials=np.ones((3, 4), np.float32), out=np.full(4, np.nan, np.float32))
    arguments.update(change(arguments))
    refused(ops, "sum_partials", error, ("out",), **arguments)


def test_the_oracle_allocates_nan(oracle):
    assert np.isnan(oracle.empty((2, 3))).all() and np.isnan(oracle.empty((2,), "float64")).all()


def test_empty_has_shape_and_type_and_host_copies_are_copies(ops):
    for dtype in ("float32", "float64", "int32", "uint8", "bool"):
        array = ops.empty((2, 3), dtype)
        assert (tuple(array.shape), str(array.dtype)) == ((2, 3), dtype)
    assert str(ops.empty((4,)).dtype) == "float32"
    host = np.arange(6, dtype=np.float32).reshape(2, 3)
    inside = ops.from_host(host)
    host[0, 0] = 99
    back = ops.to_host(inside)
    assert back.tolist() == [[0, 1, 2], [3, 4, 5]]
    back[0, 1] = 99
    assert ops.to_host(inside)[0, 1] == 1
