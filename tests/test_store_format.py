"""Both kinds of record, the format as docs/STORE.md tells it to other programs, and the verb that looks into a store."""

import json
import re
import shutil
import struct
import types
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from drawn import Drawn, contents, flip_byte, pixels, small_store
from PIL import Image

from minialex.cli import main
from minialex.data import Store, StoreError, prepare
from minialex.data import store as store_module
from minialex.data.record import JPEG, QUALITY
from minialex.data.shard import MAGIC, open_shard, records_offset

ROOT = Path(__file__).resolve().parent.parent
COUNTS = {"train": 23, "val": 7}


def make(out, kind="jpeg", workers=2, counts=None, source=None):
    return prepare(source or Drawn(counts or COUNTS, broken=(4, 22), grey=(6,)), out, 24, workers, False, 5, kind)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wanted") / "store"
    make(folder)
    return contents(folder)


@pytest.fixture
def folder(wanted, tmp_path):
    for name, content in wanted.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def written_reader():
    """The reader that stands in docs/STORE.md."""
    text = (ROOT / "docs/STORE.md").read_text()
    module = types.ModuleType("reader")
    types.FunctionType(compile(re.search(r"```python\n(.*?)```", text, re.S)[1], "docs/STORE.md", "exec"), vars(module))()
    return module.pictures


def through_jpeg(image):
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return np.asarray(Image.open(BytesIO(file.getvalue()), formats=("JPEG",)))


def test_jpeg_records_are_what_pillow_makes_of_the_raw_ones(tmp_path, folder):
    raw, packed = make(tmp_path / "raw", "raw"), Store(folder)
    assert packed.kind == JPEG and "jpeg" in repr(packed) and packed.classes == raw.classes
    for name in ("train", "val"):
        split = packed.split(name)
        assert split.labels.tolist() == raw.split(name).labels.tolist()
        for number, image in enumerate(split.read(range(len(split)))):
            assert np.array_equal(image, through_jpeg(raw.split(name).read([number])[0])), (name, number)
    size = [sum(file.stat().st_size for file in place.glob("*.shard")) for place in (folder, tmp_path / "raw")]
    assert size[0] < size[1]
    assert packed.verify() == [] and Store(folder).verify() == []


def test_mean_and_covariance_are_those_of_what_comes_out_again(folder):
    store = Store(folder)
    images = store.split("train").read(range(len(store.split("train")))).astype(np.float64)
    assert np.allclose(store.mean, images.mean(axis=0), atol=1e-5)
    flat = images.reshape(-1, 3)
    centred = flat - flat.mean(axis=0)
    assert np.allclose(store.manifest["colour"]["covariance"], centred.T @ centred / len(flat), rtol=1e-9)


def test_neither_workers_nor_a_break_change_a_byte(wanted, tmp_path):
    """Broken off after the second shard: the sums are made up from the JPEG records that are there."""
    class Broken(Drawn):
        def items(self, split, start=0):
            for number, item in enumerate(super().items(split, start), start):
                if number == 13 and not start:
                    raise KeyboardInterrupt
                yield item
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "store", source=Broken(COUNTS, broken=(4, 22), grey=(6,)))
    (tmp_path / "store" / "preparing" / "sums.bin").unlink()
    make(tmp_path / "store", workers=3)
    assert contents(tmp_path / "store") == wanted


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_the_description_is_enough_to_read_a_store(tmp_path, kind):
    store = make(tmp_path / "store", kind)
    pictures = written_reader()
    for name in store.splits:
        split = store.split(name)
        found = list(pictures(store.path, name))
        assert [label for label, _ in found] == split.labels.tolist()
        assert np.array_equal(np.stack([image for _, image in found]), split.read(range(len(split))))
    shard = open_shard(tmp_path / "store" / "train-00001.shard")
    flip_byte(shard.path, shard.place(2)[0] + 3)
    with pytest.raises(AssertionError):
        list(pictures(store.path, "train"))
    with pytest.raises(StoreError, match=r"train-00001.shard, record 2: the pixels are not those"):
        store.split("train").read([7])


def test_every_truncation_and_every_flipped_byte_of_the_head_is_found_at_open(folder):
    path = folder / "train-00001.shard"
    content = path.read_bytes()
    tables = 64 + 16 * 5
    for size in [*range(0, tables + 1, 3), records_offset(5, JPEG), len(content) - 1, len(content) + 1]:
        path.write_bytes(content.ljust(size, b"\0")[:size])
        with pytest.raises(StoreError, match=f"^{re.escape(str(path))}"):
            open_shard(path)
    for at in [*range(48), *range(64, tables)]:
        path.write_bytes(content)
        flip_byte(path, at)
        with pytest.raises(StoreError, match=f"^{re.escape(str(path))}"):
            open_shard(path)


def test_well_summed_nonsense_is_refused(folder):
    """Records that overlap, and tables that reach into them, with sums that are right."""
    path = folder / "train-00001.shard"
    content = path.read_bytes()

    def sealed(changed):
        struct.pack_into("<I", changed, 40, zlib.crc32(bytes(changed[64:64 + 16 * 5])))
        struct.pack_into("<I", changed, 44, zlib.crc32(bytes(changed[:44])))
        path.write_bytes(changed)
    changed = bytearray(content)
    struct.pack_into("<Q", changed, 64 + 8 * 5 + 8, 0)              # record 1 ends before it begins
    sealed(changed)
    with pytest.raises(StoreError, match="overlap"):
        open_shard(path)
    changed = bytearray(content)
    struct.pack_into("<Q", changed, 32, 64)                          # record 0 within the tables
    sealed(changed)
    with pytest.raises(StoreError, match="within the tables"):
        open_shard(path)
    changed = bytearray(content)
    struct.pack_into("<I", changed, 28, 2)
    sealed(changed)
    with pytest.raises(StoreError, match="version 1, kind 2"):
        open_shard(path)
    assert content.startswith(MAGIC)


def test_a_record_that_is_no_jpeg_is_named(folder):
    """A sum that is right over bytes that are no picture: only a faulty writer makes that."""
    path = folder / "train-00001.shard"
    shard, content = open_shard(path), bytearray(path.read_bytes())
    offset, size = shard.place(1)
    content[offset:offset + size] = b"\7" * size
    struct.pack_into("<I", content, 64 + 4 * 5 + 4, zlib.crc32(b"\7" * size))
    struct.pack_into("<I", content, 40, zlib.crc32(bytes(content[64:64 + 16 * 5])))
    struct.pack_into("<I", content, 44, zlib.crc32(bytes(content[:44])))
    path.write_bytes(content)
    with pytest.raises(StoreError, match="record 1: no JPEG of this store"):
        Store(folder).split("train").read([6])


def test_a_file_cut_short_or_gone_behind_an_open_store_is_an_error(folder):
    """It would be a bus error, which ends the process without a word, if shards were mapped into memory."""
    split = Store(folder).split("train")
    split.read([6])
    path = folder / "train-00001.shard"
    with open(path, "r+b") as file:
        file.truncate(records_offset(5, JPEG) + 10)
    with pytest.raises(StoreError, match="record 1: the file has become shorter"):
        split.read([6])
    (folder / "train-00002.shard").unlink()
    with pytest.raises(StoreError, match=r"train-00002\.shard cannot be read"):
        split.read([11])


def test_more_shards_than_files_may_be_open(folder, monkeypatch):
    monkeypatch.setattr(store_module, "OPEN_FILES", 2)
    opened, closed = [], []

    class Counted(store_module.Handle):
        def __init__(self, path):
            super().__init__(path)
            opened.append(path)

        def __del__(self):
            super().__del__()
            closed.append(1)
    monkeypatch.setattr(store_module, "Handle", Counted)
    split = Store(folder).split("train")
    for number in range(len(split)):
        split.read([number])
    assert len(opened) == 5 and len(closed) == 3
    del split
    assert len(closed) == 5


def test_kinds_are_not_mixed(folder, tmp_path_factory):
    with pytest.raises(StoreError, match="another kind of records: kind jpeg there, raw asked for"):
        make(folder, "raw")
    with pytest.raises(StoreError, match="a store of 'webp' records: there are raw and jpeg"):
        make(tmp_path_factory.mktemp("none") / "store", "webp")
    other = tmp_path_factory.mktemp("other") / "store"
    make(other, "raw")
    (folder / "val-00000.shard").write_bytes((other / "val-00000.shard").read_bytes())
    with pytest.raises(StoreError, match="holds raw records, but the manifest says jpeg"):
        Store(folder)


def test_a_store_from_before_there_were_kinds_is_raw(tmp_path):
    small_store(tmp_path / "store")
    path = tmp_path / "store" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["records"]
    path.write_text(json.dumps(manifest))
    assert np.array_equal(Store(tmp_path / "store").split("train").read([3])[0], pixels("train", 3, 8))


def test_store_info_verify_and_show(folder, tmp_path, capsys):
    assert main(["store", "info", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "JPEG, quality 90, 4:2:0" in said and "21 pictures in 5 shards, 2 rejected" in said
    assert main(["store", "info", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["records"]["kind"] == "jpeg"
    assert main(["store", "verify", str(folder), "-q"]) == 0 and capsys.readouterr().out == ""
    out = tmp_path / "seven.png"
    assert main(["store", "show", str(folder), "7", "--out", str(out)]) == 0
    assert "train-00001.shard record 2" in capsys.readouterr().out
    with Image.open(out, formats=("PNG",)) as shown:
        assert np.array_equal(np.asarray(shown), Store(folder).split("train").read([7])[0])


def test_store_verify_names_all_damage(folder, capsys):
    for number, record in ((1, 2), (1, 4), (3, 0)):
        shard = open_shard(folder / f"train-{number:05d}.shard")
        flip_byte(shard.path, shard.place(record)[0] + 9)
    assert main(["store", "verify", str(folder), "--json", "-q"]) == 2
    found = capsys.readouterr()
    named = [re.search(r"train-0000(\d).shard, record (\d)", problem).groups() for problem in json.loads(found.out)["problems"]]
    assert named == [("1", "2"), ("1", "4"), ("3", "0")]
    assert "3 damaged; restore" in found.err


@pytest.mark.parametrize("arguments, sentence", [
    (["show", "STORE"], "needs the number of a picture"),
    (["info", "STORE", "3"], "info and verify take none"),
    (["show", "STORE", "99"], "pictures 99 to 99 asked for, but it holds 0 to 20"),
    (["show", "STORE", "1", "--split", "test"], "has no test pictures; it has train, val"),
    (["show", "STORE", "1", "--out", "nowhere/x.png"], "there is no folder"),
    (["look", "STORE"], "did you mean|no such choice"),
    (["info", "nothing"], "is not a prepared store"),
])
def test_what_the_verb_refuses(folder, capsys, arguments, sentence):
    assert main(["store", *(str(folder) if word == "STORE" else word for word in arguments)]) == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_prepare_takes_the_kind(tmp_path, capsys):
    place = tmp_path / "pictures"
    for split, name, number in [("train", "a", 0), ("train", "b", 1), ("val", "a", 2), ("val", "b", 3)]:
        (place / split / name).mkdir(parents=True)
        Image.fromarray(pixels(split, number, 24)).save(place / split / name / "1.png")
    assert main(["prepare", str(place), "--out", str(tmp_path / "store"), "--record", "16", "--kind", "jpeg", "-q"]) == 0
    assert Store(tmp_path / "store").kind == JPEG


def test_a_disk_too_small_for_raw_records_may_hold_jpeg(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    for free, fits in ((30 * 24 * 24 * 3 // 10, True), (30 * 24 * 24 * 3 // 40, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        with pytest.raises(StoreError, match="the store needs 51,840 more bytes"):
            make(tmp_path / "raw", "raw", counts=COUNTS)
        if fits:
            make(tmp_path / "jpeg")
        else:
            with pytest.raises(StoreError, match="the store needs 1,555 more bytes"):
                make(tmp_path / "none")
