"""Images in blocks as the net uses them: workers that change nothing, partial sums in one tree on every backend."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from minialex.spec import MiniAlexError
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


def test_no_workers_are_refused(ops):
    for n in (0, -1):
        assert "at least one" in refused(ops, "set_workers", MiniAlexError, (), n=n)
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


def test_ops_called_by_workers_on_blocks_give_the_same_bits_for_any_number_of_workers(ops, rng):
    """The way the net runs: each range of images is carried through several ops by one worker, block by block; its partial
    gradient belongs to the range and the partials are added in the tree."""
    N, K, C = 50, 6, 5
    x = rng.standard_normal((1, N, 9, 8, C)).astype(np.float32)
    w, b = rng.standard_normal((K, 3, 3, C)).astype(np.float32), rng.standard_normal(K).astype(np.float32)
    geometry = dict(stride=1, pad=1, groups=1)
    ranges = ops.image_ranges(N)
    results = []
    for workers in (1, 2, 3):
        ops.set_workers(workers)
        y, z, dx = np.full((1, N, 9, 8, K), np.nan, np.float32), np.full((1, N, 4, 4, K), np.nan, np.float32), np.full_like(x, np.nan)
        dw, db = np.full((len(ranges), *w.shape), np.nan, np.float32), np.full((len(ranges), K), np.nan, np.float32)

        def carry(slot, r, y=y, z=z, dx=dx, dw=dw, db=db):
            for number, (start, stop) in enumerate(ranges[r]):
                part = np.s_[:, start:stop]
                ops.conv_fprop(x[part], w, b, y[part], **geometry)
                ops.relu_fprop(y[part], y[part])
                ops.maxpool_fprop(y[part], z[part], window=3, stride=2)
                dy = np.empty_like(y[part])
                ops.maxpool_bprop(y[part], z[part], z[part], dy, window=3, stride=2, ties="first")
                ops.relu_bprop(y[part], dy, dy)
                ops.conv_wgrad(x[part], dy, dw[r], db[r], accumulate=number > 0, **geometry)
                ops.conv_dgrad(dy, w, dx[part], **geometry)

        ops.parallel(carry, range(len(ranges)))
        total = np.full(w.size, np.nan, np.float32)
        ops.sum_partials(dw.reshape(len(ranges), -1), total)
        results.append(dict(y=y, z=z, dx=dx, dw=dw, db=db, total=total))
    for other in results[1:]:
        for name, array in other.items():
            assert_bits_equal(array, results[0][name], name)
    assert_within(results[0]["total"], results[0]["dw"].sum(axis=0, dtype=np.float64).ravel(), 1e-2, "sum of the ranges' gradients")
