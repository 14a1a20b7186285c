"""Batches: the right pictures with the right draws, the same bits for any number of threads, errors that arrive, threads that end."""

import gc
import threading
import time
from dataclasses import fields, replace

import numpy as np
import pytest
from drawn import flip_byte, pixels, small_store

from minialex.data import Batch, DataError, Loader, Store, StoreError, draw, epoch_order, transform
from minialex.data.shard import records_offset
from minialex.nets.recipe import Augmentation
from minialex.spec import ShapeError

PAPER = Augmentation()
SOURCE2012 = Augmentation(inclusive=True, chunk=4, colour_until=3, noisy_scale=1 / 1.1, mean_at="centre", order="fixed")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("store") / "store")


def loader(store, *, split="train", augmentation=PAPER, crop=6, batch=8, **more) -> Loader:
    return Loader(store.split(split), store, augmentation=augmentation, crop=crop, batch=batch, **more)


def same(a: Batch, b: Batch) -> bool:
    """Bit by bit, types included."""
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in fields(Batch)]
    return all(x.dtype == y.dtype and np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y for x, y in pairs)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("minialex-loader")]


def test_an_epoch_is_every_picture_once_with_its_own_draws(store):
    got = list(loader(store, seed=5).batches(2))
    assert [len(batch) for batch in got] == [8] * 6 + [2]                       # the last, smaller batch is kept
    assert [(batch.index, batch.first, batch.epoch) for batch in got] == [(i, 8 * i, 2) for i in range(7)]
    pictures = np.concatenate([batch.pictures for batch in got])
    assert np.array_equal(pictures, epoch_order("shuffled", 5, 2, 50, np.arange(50)))
    for batch in got:
        places = np.arange(batch.first, batch.first + len(batch))
        want = draw(PAPER, 5, 2, places, batch.pictures, 8, 6, store.colour_directions)
        for name in ("offsets", "flips", "noise"):
            assert np.array_equal(getattr(batch, name), getattr(want, name)), name
        assert batch.scale == want.scale and batch.mean_at == "crop"
        assert batch.images.dtype == np.uint8 and batch.labels.dtype == np.int32
        for image, label, picture in zip(batch.images, batch.labels, batch.pictures, strict=True):
            assert np.array_equal(image, pixels("train", picture, 8)) and label == picture * 3 // 50


@pytest.mark.parametrize("augmentation", [PAPER, SOURCE2012])
def test_workers_and_prefetch_change_no_bit(store, augmentation):
    want = list(loader(store, augmentation=augmentation, seed=1, workers=1, prefetch=1).batches(1))
    for workers, prefetch in ((1, 1 << 20), (2, 8 * 192 * 3), (4, 1 << 20), (7, 1)):
        got = list(loader(store, augmentation=augmentation, seed=1, workers=workers, prefetch=prefetch).batches(1))
        assert len(got) == len(want) and all(map(same, got, want)), (workers, prefetch)


def test_a_resumed_epoch_goes_on_with_the_same_bits(store):
    whole = list(loader(store, seed=3).batches(4))
    for start in range(8):
        rest = list(loader(store, seed=3).batches(4, start=start))
        assert len(rest) == 7 - start and all(map(same, rest, whole[start:])), start


def test_seed_and_epoch_change_the_batches_and_fixed_order_does_not(store):
    def pictures(augmentation, seed, epoch):
        return tuple(np.concatenate([b.pictures for b in loader(store, augmentation=augmentation, seed=seed).batches(epoch)]).tolist())

    assert len({pictures(PAPER, seed, epoch) for seed in (0, 1) for epoch in (0, 1)}) == 4
    assert pictures(SOURCE2012, 0, 0) == pictures(SOURCE2012, 0, 5) != tuple(range(50))
    on, off = (next(loader(store, augmentation=SOURCE2012).batches(epoch)) for epoch in (2, 3))
    assert on.noise.any() and on.scale == 1 / 1.1 and not off.noise.any() and off.scale == 1.0
    assert not np.array_equal(on.offsets, off.offsets)                          # the order is fixed, the crops are not


@pytest.mark.parametrize("mean_at", ["crop", "centre"])
def test_transform_subtracts_the_mean_that_the_recipe_names(store, oracle, mean_at):
    """"crop": the mean under the crop, before the flip; "centre": the mean's centre from every crop, after it (docs/PAPER_TO_CODE.md)."""
    augmentation = replace(PAPER, mean_at=mean_at, noisy_scale=0.5)
    batch = next(loader(store, augmentation=augmentation, seed=2).batches(0))
    assert batch.flips.any() and not batch.flips.all() and (batch.offsets != 1).any()
    mean = store.mean.astype(np.float64)
    out = oracle.empty((1, 8, 6, 6, 3), dtype="float64")
    transform(oracle, batch, oracle.from_host(mean), out)
    results = {}
    for kind in ("crop", "centre"):
        results[kind] = np.empty((8, 6, 6, 3))
        for n, (top, left) in enumerate(batch.offsets):
            there = slice(top, top + 6), slice(left, left + 6)
            turn = -1 if batch.flips[n] else 1
            if kind == "crop":
                image = (batch.images[n].astype(np.float64) - mean)[there][:, ::turn]
            else:
                image = batch.images[n].astype(np.float64)[there][:, ::turn] - mean[1:7, 1:7]
            results[kind][n] = (image + batch.noise[n].astype(np.float64)) * 0.5
    assert np.allclose(oracle.to_host(out)[0], results[mean_at], rtol=1e-12, atol=1e-10)
    assert not np.allclose(results["crop"], results["centre"], atol=0.01)       # else the test could not tell them apart


def test_transform_is_the_same_on_every_backend(store, ops, oracle):
    batch = next(loader(store, seed=2).batches(0))
    got, want = (module.empty((1, 8, 6, 6, 3)) for module in (ops, oracle))
    transform(ops, batch, ops.from_host(store.mean), got)
    transform(oracle, batch, oracle.from_host(store.mean), want)
    assert np.allclose(ops.to_host(got), oracle.to_host(want), rtol=1e-6, atol=1e-4)


def test_a_damaged_record_reaches_the_caller_by_name(tmp_path):
    small_store(tmp_path / "store")
    flip_byte(tmp_path / "store" / "train-00002.shard", records_offset(16) + 5 * 192)
    store = Store(tmp_path / "store")
    for workers in (1, 3):
        with pytest.raises(StoreError, match=r"train-00002\.shard, record 5: the pixels are not"):
            list(loader(store, workers=workers).batches(0))
        assert threads() == []
    assert len(list(loader(store, check=False).batches(0))) == 7


def test_threads_end_with_the_iterator_however_it_ends(store):
    for end in ("exhausted", "closed", "dropped", "error", "never begun"):
        batches = loader(store, batch=2, workers=3).batches(0)
        if end == "exhausted":
            list(batches)
        elif end != "never begun":
            next(batches)
        if end == "error":
            with pytest.raises(RuntimeError, match="of the caller"):
                batches.throw(RuntimeError("of the caller"))
        elif end == "closed":
            batches.close()
        del batches
        gc.collect()
        assert threads() == [], end


def test_prefetch_is_bounded_in_bytes(store, monkeypatch):
    """No more batches exist ahead of a slow caller than fit into the bytes given, and as many do."""
    begun = []
    split = store.split("train")
    read = split.read
    monkeypatch.setattr(split, "read", lambda pictures, check: (begun.append(len(pictures)), read(pictures, check=check))[1])
    size = 2 * 192                                              # bytes of a batch of two
    for prefetch, ahead in ((1, 1), (size, 1), (3 * size, 3), (5 * size + size - 1, 5)):
        begun.clear()
        batches = Loader(split, store, augmentation=PAPER, crop=6, batch=2, workers=4, prefetch=prefetch).batches(0)
        for taken in (1, 2, 3, 4):
            next(batches)
            deadline = time.monotonic() + 5
            while len(begun) < taken + ahead - 1 and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.01)
            assert len(begun) == taken + ahead - 1, prefetch
        batches.close()


def test_waiting_time_is_counted(store, monkeypatch):
    split = store.split("train")
    read = split.read
    monkeypatch.setattr(split, "read", lambda pictures, check: (time.sleep(0.02), read(pictures, check=check))[1])
    slow = Loader(split, store, augmentation=PAPER, crop=6, batch=25, workers=1, prefetch=1)
    list(slow.batches(0))
    assert slow.waited >= 2 * 0.02                              # two batches, neither read ahead


def test_bad_calls(store):
    with pytest.raises(DataError, match=r"a batch of 51 is larger than the 50 train pictures; use a smaller batch \(-b\)"):
        loader(store, batch=51).batches(0)                      # at once, not at the first batch
    with pytest.raises(ShapeError, match="a crop of 9 pixels does not fit records of 8 pixels"):
        loader(store, crop=9)
    with pytest.raises(DataError, match="a batch of 0 pictures"):
        loader(store, batch=0)
    with pytest.raises(DataError, match="batch 8 of an epoch of 7 batches"):
        loader(store).batches(0, start=8)
