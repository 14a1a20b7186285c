"""The prepared store: what was written is what is read, and every kind of damage is found and named."""

import json
import struct
import zlib

import numpy as np
import pytest
from drawn import CLASSES, contents, flip_byte, pixels, small_store

from minialex.data import DataError, Store, StoreError, open_store
from minialex.data.shard import open_shard, records_offset, write_shard

SHARD = "train-00001.shard"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pristine") / "store"
    small_store(folder)
    return contents(folder)


@pytest.fixture
def folder(pristine, tmp_path):
    for name, content in pristine.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_pictures_come_back_by_number(folder):
    split = Store(folder).split("train")
    assert len(split) == 50 and split.shape == (8, 8, 3) and split.labels.dtype == np.int32
    chosen = [49, 0, 15, 16, 17, 31, 32, 0]                 # both sides of shard borders, out of order, one twice
    got = split.read(chosen)
    assert got.dtype == np.uint8
    for image, number in zip(got, chosen, strict=True):
        assert np.array_equal(image, pixels("train", number, 8)), number
    assert split.labels.tolist() == [i * 3 // 50 for i in range(50)]
    out = np.full((3, 8, 8, 3), 7, np.uint8)
    assert split.read(np.array([4, 5, 6]), out) is out and np.array_equal(out[2], pixels("train", 6, 8))
    assert split.read([]).shape == (0, 8, 8, 3)


def test_what_a_store_says_of_itself(folder):
    store = Store(folder)
    assert store.splits == ("train", "val") and store.record == 8 and store.shape == (8, 8, 3)
    assert store.classes == CLASSES                         # two classes may share a name, never a number
    assert store.verified is False and store.manifest["source"]["kind"] == "drawn"
    assert store.mean.shape == (8, 8, 3) and store.mean.dtype == np.float32
    assert "50 train, 7 val, 3 classes, 8 x 8 x 3" in repr(store)
    assert store.verify() == []
    with pytest.raises(StoreError, match="has no test pictures; it has train, val"):
        store.split("test")


def test_colour_directions_are_eigenvectors_times_standard_deviations(folder):
    """The square roots of the eigenvalues, not the eigenvalues (section 4.1): D D^T is the covariance, not its square."""
    store = Store(folder)
    flat = np.stack([pixels("train", i, 8) for i in range(50)]).reshape(-1, 3).astype(np.float64)
    covariance = np.cov(flat.T, bias=True)
    directions = store.colour_directions
    assert directions.dtype == np.float64
    assert np.allclose(directions @ directions.T, covariance, rtol=1e-9)
    deviations = np.linalg.norm(directions, axis=0)
    assert np.all(np.diff(deviations) < 0)
    assert np.allclose(deviations, (flat @ store.eigenvectors).std(axis=0), rtol=1e-9)
    assert deviations[0] < 255 / 2 < store.eigenvalues[0]   # a deviation fits into grey levels, an eigenvalue does not


@pytest.mark.parametrize("record, at", [(0, 0), (7, 100), (15, 191)])
def test_a_flipped_byte_is_found_by_shard_and_record(folder, record, at):
    flip_byte(folder / SHARD, records_offset(16) + record * 192 + at)
    split = Store(folder).split("train")
    with pytest.raises(StoreError, match=f"{SHARD}, record {record}: the pixels are not those that were written"):
        split.read([16 + record])
    split.read([number for number in range(50) if number != 16 + record])
    assert split.read([16 + record], check=False).shape == (1, 8, 8, 3)
    problems = [" ".join(damage) for _, damage in split.verify()]
    assert [bool(problem) for problem in problems] == [False, True, False, False]
    assert f"{SHARD}, record {record}" in problems[1] and Store(folder).verify() == [problems[1]]
    assert [done for done, _ in split.verify()] == [16, 32, 48, 50]


@pytest.mark.parametrize("position", [*range(48), 64, 70, 127, 128, 180])
def test_a_flipped_byte_of_header_or_tables_is_found_at_open(folder, position):
    flip_byte(folder / SHARD, position)
    with pytest.raises(StoreError, match=SHARD):
        Store(folder)


@pytest.mark.parametrize("size", [0, 1, 47, 63, 64, 500, 4095, 4096, 4096 + 192 * 15, 4096 + 192 * 16 - 1])
def test_a_truncated_shard_is_found_at_open(folder, size):
    with open(folder / SHARD, "r+b") as file:
        file.truncate(size)
    with pytest.raises(StoreError, match=f"{SHARD} is cut short: {size} bytes"):
        Store(folder)


def test_a_shard_that_is_too_long_missing_or_of_another_store(folder, tmp_path_factory):
    content = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(content + b"\0")
    with pytest.raises(StoreError, match=f"{SHARD} is too long"):
        Store(folder)
    (folder / SHARD).unlink()
    with pytest.raises(StoreError, match=f"{SHARD} cannot be read .*prepare the store again"):
        Store(folder)
    (folder / SHARD).write_bytes((folder / "train-00003.shard").read_bytes())
    with pytest.raises(StoreError, match="holds 2 records, but the manifest says 16; the files of two stores are mixed"):
        Store(folder)
    other = tmp_path_factory.mktemp("other")
    small_store(other / "store", side=9)
    (folder / SHARD).write_bytes((other / "store" / SHARD).read_bytes())
    with pytest.raises(StoreError, match="records of 9 x 9 x 3, but the manifest says 8 x 8 x 3"):
        Store(folder)


def test_a_shard_that_lies_about_its_size_allocates_nothing(folder):
    """A header that claims 2^32 - 1 records with right sums is refused by its length."""
    content = bytearray((folder / SHARD).read_bytes())
    struct.pack_into("<I", content, 12, 2**32 - 1)
    struct.pack_into("<I", content, 48 - 4, zlib.crc32(bytes(content[:44])))
    (folder / SHARD).write_bytes(content)
    with pytest.raises(StoreError, match="cut short"):
        open_shard(folder / SHARD)


def test_labels_beyond_the_classes(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["classes"].pop()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=r"labels up to 2, but the manifest lists 2 classes"):
        Store(folder)


def test_mean_image_damaged_or_gone(folder):
    flip_byte(folder / "mean.npy", -5)
    with pytest.raises(StoreError, match=r"mean\.npy is damaged"):
        Store(folder)
    (folder / "mean.npy").unlink()
    with pytest.raises(StoreError, match=r"mean\.npy cannot be read"):
        Store(folder)


def test_no_store_no_manifest(folder, tmp_path):
    with pytest.raises(StoreError, match=r"is not a prepared store .*minialex prepare SOURCE --out"):
        Store(tmp_path / "nowhere")
    (folder / "manifest.json").unlink()
    with pytest.raises(StoreError, match="is not a prepared store"):
        Store(folder)
    (folder / "preparing").mkdir()
    with pytest.raises(StoreError, match="unfinished preparation; give the command again that began it, minialex prepare SOURCE --out"):
        Store(folder)


@pytest.mark.parametrize("text, sentence", [
    ("", "not valid JSON"), ("{", "not valid JSON"), ("[" * 100_000, "not valid JSON"), ("[]", "has format None"),
    ('{"format": 99}', "has format 99, and this program reads 1"), ('{"format": 1}', "lacks or garbles a field"),
    ('{"format": 1, "shape": "xyz"}', "lacks or garbles a field"), ('{"format": 1, "shape": [8, 8, 3], "classes": [3]}', "garbles"),
])
def test_a_manifest_that_is_none(folder, text, sentence):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match=sentence):
        Store(folder)


@pytest.mark.parametrize("key", ["shape", "splits", "classes", "mean", "colour", "source"])
def test_a_manifest_without_a_field(folder, key):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest[key]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=f"lacks or garbles a field.*{key}"):
        Store(folder)


def test_bad_reads(folder):
    split = Store(folder).split("val")
    with pytest.raises(StoreError, match="split val: pictures 0 to 7 asked for, but it holds 0 to 6"):
        split.read([0, 7])
    with pytest.raises(StoreError, match="pictures -1 to 0"):
        split.read([-1, 0])
    for out in (np.empty((1, 8, 8, 3), np.uint8), np.empty((2, 8, 8, 3), np.float32), np.empty((2, 8, 8, 6), np.uint8)[..., ::2]):
        with pytest.raises(StoreError, match="a contiguous uint8 array of"):
            split.read([0, 1], out)


def test_a_failed_shard_leaves_no_file(tmp_path):
    def records():
        yield np.zeros((2, 2, 3), np.uint8), 0, 0
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_shard(tmp_path / "train-00000.shard", records(), (2, 2, 3), 4)
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_another_size_is_refused(folder):
    """A recipe made for records of 128 must not train on crops of 112 from pictures of 256."""
    store = Store(folder)
    assert open_store(folder, store.record).record == store.record
    with pytest.raises(DataError, match=rf"holds pictures of {store.record} pixels a side, but this recipe is made for 999: .*999"):
        open_store(folder, 999)
