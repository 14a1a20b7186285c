"""A thousand classes in archives of the official layout, through the very path: prepared, killed, resumed, verified, trained on."""

import os
import re
import signal
import time
import tracemalloc

import numpy as np
import pytest
from commands import said
from drawn import contents

from minialex.bench import thousand
from minialex.data import open_source, prepare
from minialex.data.loader import share
from minialex.data.order import epoch_order

RECORD = 56                         # of the recipe small


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    return thousand.make(tmp_path_factory.mktemp("thousand") / "archives", per_class=2)


def make(archives, out):
    return prepare(open_source(archives), out, RECORD, 2, False, 100, "jpeg")


@pytest.fixture(scope="module")
def store(archives, tmp_path_factory):
    return make(archives, tmp_path_factory.mktemp("thousand") / "store")


def test_the_archives_are_the_same_wherever_they_are_made(archives, tmp_path):
    assert contents(thousand.make(tmp_path / "again", per_class=2)) == contents(archives)


def test_labels_are_sorted_wnids_and_devkit_ids_stand_beside(store):
    ids = thousand.devkit_ids()
    assert [(entry.id, entry.devkit_id) for entry in store.classes] == [(wnid, ids[wnid]) for wnid in thousand.wnids()]
    assert sorted(ids.values()) == list(range(1, 1001)) and sum(ids[wnid] == label + 1 for label, wnid in enumerate(ids)) < 20
    for name in ("train", "val"):
        split = store.split(name)
        assert len(split) == {"train": 2000, "val": 1000}[name] and set(split.labels.tolist()) == set(range(1000))
        # The picture shows its label: the colour of the class, by two different ways through the archives and the devkit.
        some = epoch_order("shuffled", 1, 0, len(split), np.arange(40))
        for picture, label in zip(split.read(some), split.labels[some], strict=True):
            colour = np.array([label // 100, label // 10 % 10, label % 10]) * 24 + 24
            if np.ptp(picture.mean(axis=(0, 1))) > 3 or np.ptp(colour) == 0:        # not one of the grey ones
                assert np.abs(picture.mean(axis=(0, 1)) - colour).max() < 12, (name, label)


def test_every_odd_file_is_in_the_audit_by_name(store):
    audit = (store.path / "audit.txt").read_text()
    wanted = {"CMYK": set(), "PNG": set(), "grey": set(), "turned": set(), "truncated": set()}
    for wnid, entries in thousand.training_files(2):
        for name, form, _ in entries:
            if form:
                wanted[form].add(f"{wnid}.tar:{name}")
    found = re.findall(r"^(?:rule|rejected) +train +\S+?:(\S+:\S+?)(?=[ :]) +(.*)$", audit, re.M)
    said_of = {form: {name for name, rule in found if rule.startswith(word)} for form, word in
               {"CMYK": "CMYK", "PNG": "PNG named .JPEG", "grey": "grey", "turned": "EXIF rotated"}.items()}
    assert len(wanted["CMYK"]) == 22 and wanted["PNG"] == {"n02105855.tar:n02105855_2933.JPEG"} and len(wanted["grey"]) > 15
    for form, names in said_of.items():
        assert names == wanted[form], form
    assert [name for name in wanted["truncated"] if name in audit] and "1 rejected" in audit


def test_killed_and_resumed_to_the_same_bytes(archives, store, tmp_path):
    """kill -9 after the 2nd, 9th, 14th and 25th of 31 shards, somewhere within the next."""
    out = tmp_path / "store"
    for shards in (2, 9, 14, 25):
        child = os.fork()
        if child == 0:
            try:
                make(archives, out)
            finally:
                os._exit(1)                                     # it was not killed in time
        deadline = time.monotonic() + 60
        while len(list(out.glob("*.shard"))) < shards and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    journals = [out / path.name.removesuffix(".json") for path in (out / "preparing").glob("*.shard.json")]
    begun = {path.name: path.stat().st_ino for path in journals}            # finished ones: a shard counts with its journal
    make(archives, out)
    assert contents(out) == contents(store.path)
    assert len(begun) >= 24 and all((out / name).stat().st_ino == inode for name, inode in begun.items())      # nothing was made twice


def test_verified_and_trained_on(store, tmp_path, capsys):
    assert said(capsys, "store", "verify", store.path)[0] == 0
    status, out, err = said(capsys, "train", store.path, "--recipe", "small", "-b", "32", "--epochs", "1", "--limit-batches", "3",
                            "--output-dir", tmp_path / "run")
    assert status == 0, err
    assert "2,000 training pictures, 1000 classes" in out and "epoch 1/1" in out
    loss = float(re.search(r"train loss ([\d.]+)", out)[1])
    assert 6.5 < loss < 8.5                                     # ln 1000 = 6.9


FALL_2011, RANKS, BATCH = 14_197_122, 1024, 128 * 1024


def own(rank, index, epoch=3):
    """Pictures of one rank in one batch, as the loader finds them."""
    first = index * BATCH
    start, stop = share(min(BATCH, FALL_2011 - first), rank, RANKS)
    return epoch_order("shuffled", 7, epoch, FALL_2011, np.arange(first + start, first + stop))


def test_fourteen_million_pictures_over_1024_ranks_resumed_in_mid_epoch():
    """Any rank finds its part of any batch from numbers alone: no list of 14 million is ever made."""
    last = FALL_2011 // BATCH
    tracemalloc.start()
    for index in (54, last):                                    # in the middle, and the last, which is smaller
        parts = [own(rank, index) for rank in range(RANKS)]
        whole = epoch_order("shuffled", 7, 3, FALL_2011, np.arange(index * BATCH, min((index + 1) * BATCH, FALL_2011)))
        assert np.array_equal(np.concatenate(parts), whole) and len(set(whole.tolist())) == len(whole)
        assert {len(part) for part in parts} <= {len(whole) // RANKS, -(-len(whole) // RANKS)}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20                                      # of two whole batches; a list of all pictures has 114 MB
    assert len(own(1023, 54)) == 128 and not set(own(1023, 54)) & set(own(1022, 54)) and set(own(5, 54)) != set(own(5, 54, epoch=4))


@pytest.mark.long
def test_an_epoch_of_fourteen_million_is_every_picture_once():
    seen = np.zeros(FALL_2011, bool)
    for first in range(0, FALL_2011, 1 << 20):
        seen[epoch_order("shuffled", 7, 3, FALL_2011, np.arange(first, min(first + (1 << 20), FALL_2011)))] = True
    assert seen.all()


@pytest.mark.long
def test_ten_times_as_many(tmp_path):
    archives = thousand.make(tmp_path / "archives", per_class=20)
    made = prepare(open_source(archives), tmp_path / "store", RECORD, 2, False, 1024, "jpeg")
    assert made.verify() == [] and made.manifest["splits"]["train"]["count"] == sum(
        len(entries) for _, entries in thousand.training_files(20)) - 1
