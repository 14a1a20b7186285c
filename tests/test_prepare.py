"""Preparation: exact statistics, the same bytes for any number of workers and after any kill, an audit by name, nothing half-written."""

import fcntl
import tracemalloc
from io import BytesIO

import numpy as np
import pytest
from drawn import CLASSES, Drawn, contents, flip_byte, pixels, small_store
from PIL import Image

from minialex.data import DataError, Item, Store, StoreError, prepare
from minialex.data import sums as colour_sums
from minialex.data.sums import Sums, principal, products


def make(out, counts=None, *, workers=2, per_shard=5, source=None, record=8):
    return prepare(source or Drawn(counts or {"train": 23, "val": 7}, broken=(4, 22), grey=(6,)), out, record, workers, False, per_shard)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory) -> dict[str, bytes]:
    """The bytes of the undisturbed store of the default source."""
    folder = tmp_path_factory.mktemp("wanted") / "store"
    make(folder)
    return contents(folder)


def test_statistics_equal_the_two_pass_result(tmp_path):
    store = small_store(tmp_path / "store", train=40, side=12)
    images = np.stack([pixels("train", i, 12) for i in range(40)]).astype(np.float64)     # training pictures only
    mean = np.load(tmp_path / "store" / "mean.npy")
    assert mean.dtype == np.float64 and np.allclose(mean, images.mean(axis=0), rtol=1e-12)
    assert np.array_equal(store.mean, mean.astype(np.float32))
    flat = images.reshape(-1, 3)
    centred = flat - flat.mean(axis=0)
    assert np.allclose(store.manifest["mean"]["rgb"], flat.mean(axis=0), rtol=1e-12)
    covariance = np.array(store.manifest["colour"]["covariance"])
    assert np.allclose(covariance, centred.T @ centred / len(flat), rtol=1e-9)
    assert np.all(np.diff(store.eigenvalues) <= 0) and np.allclose(store.eigenvectors.T @ store.eigenvectors, np.eye(3), atol=1e-12)
    assert np.allclose(store.eigenvectors @ np.diag(store.eigenvalues) @ store.eigenvectors.T, covariance, rtol=1e-9)
    assert store.manifest["colour"]["split"] == "train"


def test_statistics_of_nearly_constant_pictures_do_not_cancel():
    """Bright pictures that differ in one pixel: sums of squares in floating point lose the variance, whole numbers do not."""
    image = np.full((61, 67, 3), 255, np.uint8)
    image[0, 0] = (254, 253, 255)
    sums = Sums(image.shape)
    sums.count = 10**6                                          # a million such pictures at once
    sums.pixels += image.astype(np.int64) * 10**6
    sums.products += products(image) * 10**6
    n, covariance = 61 * 67, sums.covariance()
    for i, drop in enumerate((1, 2, 0)):
        assert covariance[i, i] == pytest.approx(drop**2 * (1 / n - 1 / n**2), rel=1e-12, abs=0)
    assert covariance[0, 1] == pytest.approx(2 * (1 / n - 1 / n**2), rel=1e-12)
    total, squares = np.float64(sums.pixels[..., 0].sum()), np.float64(sums.products[0, 0])
    naive = squares / (n * 1e6) - (total / (n * 1e6)) ** 2
    assert abs(naive / covariance[0, 0] - 1) > 1e-9


def test_products_of_channels_are_exact():
    image = np.random.default_rng(0).integers(200, 256, (256, 256, 3), dtype=np.uint8)
    flat = image.reshape(-1, 3).astype(object)
    assert products(image).tolist() == [[int((flat[:, i] * flat[:, j]).sum()) for j in range(3)] for i in range(3)]


def test_sums_of_many_bright_pictures_do_not_overflow(monkeypatch):
    assert colour_sums.HOLD * 255 < 2**32
    bright = np.full((2, 2, 3), 255, np.uint8)
    for hold in (colour_sums.HOLD, 7):
        monkeypatch.setattr(colour_sums, "HOLD", hold)
        sums = Sums(bright.shape)
        for _ in range(300):                                    # more than 16 bits hold
            sums.add(bright, products(bright))
        assert (sums.mean() == 255).all() and sums.mean_rgb() == [255.0] * 3 and not sums.covariance().any()


def test_axes_do_not_depend_on_a_sign():
    values, vectors = principal(np.diag([1.0, 9.0, 4.0]))
    assert values.tolist() == [9, 4, 1] and np.array_equal(vectors, np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]))
    for seed in range(20):
        spread = np.random.default_rng(seed).normal(size=(3, 3))
        _, vectors = principal(spread @ spread.T)
        assert all(column[np.abs(column).argmax()] > 0 for column in vectors.T), seed
    assert (principal(np.ones((3, 3)))[0] >= 0).all()           # grey data: rounding must not make a root imaginary


def test_saved_sums_are_believed_only_where_they_can_be_right(tmp_path):
    """After a power cut the sums may know a shard that is not there, or be damaged: then they are made again from the shards."""
    sums, path = Sums((2, 2, 3)), tmp_path / "sums.bin"
    sums.add_shard(np.arange(36, dtype=np.uint8).reshape(3, 2, 2, 3))
    sums.add_shard(np.full((1, 2, 2, 3), 9, np.uint8))
    sums.save(path)
    back = Sums.load(path, (2, 2, 3), at_most=2)
    assert (back.shards, back.count) == (2, 4)
    assert np.array_equal(back.pixels, sums.pixels) and np.array_equal(back.products, sums.products)
    back.add(np.ones((2, 2, 3), np.uint8), np.ones((3, 3), np.int64))       # what was loaded can be added to
    assert Sums.load(path, (2, 2, 3), at_most=1).count == 0
    assert Sums.load(path, (2, 3, 3), at_most=2).count == 0
    assert Sums.load(tmp_path / "none", (2, 2, 3), at_most=2).count == 0
    flip_byte(path, 20)
    assert Sums.load(path, (2, 2, 3), at_most=2).count == 0


@pytest.mark.parametrize("workers", [1, 3, 4])
def test_workers_change_no_byte(tmp_path, wanted, workers):
    make(tmp_path / "store", workers=workers)
    assert contents(tmp_path / "store") == wanted


def test_records_are_the_pictures_in_the_order_of_the_source(wanted, tmp_path):
    store = make(tmp_path / "store")
    train = store.split("train")
    kept = [i for i in range(23) if i not in (4, 22)]
    assert len(train) == 21 and store.manifest["splits"]["train"]["shards"] == [5, 5, 5, 5, 1]
    for place, i in enumerate(kept):
        if i != 6:
            assert np.array_equal(train.read([place])[0], pixels("train", i, 8))
    assert train.labels.tolist() == [i * 3 // 23 for i in kept]
    assert store.manifest["splits"]["train"]["per_class"] == np.bincount(train.labels).tolist()
    assert sorted(wanted) == ["audit.txt", "manifest.json", "mean.npy", *(f"train-{i:05d}.shard" for i in range(5)),
                              "val-00000.shard", "val-00001.shard"]


class Odd(Drawn):
    """One file of each odd kind among the training pictures."""

    def file(self, split, index):
        image, file = Image.fromarray(pixels(split, index, 8)), BytesIO()
        if split == "train" and index == 1:
            image.convert("CMYK").save(file, "JPEG")
        elif split == "train" and index == 2:
            exif = Image.Exif()
            exif[0x0112] = 6
            image.save(file, "JPEG", exif=exif)
        elif split == "train" and index == 3:
            return super().file(split, index)[:120]
        else:
            return super().file(split, index)
        return file.getvalue()


def test_the_audit_names_every_odd_file(tmp_path, capsys):
    source = Odd({"train": 60, "val": 6}, grey=(5,))
    source.notes.append("a note of the source")
    store = prepare(source, tmp_path / "store", 8, 2, True)
    page = (tmp_path / "store" / "audit.txt").read_text()
    for words in (r"rejected  train  train/3.png  ", "rule      train  train/1.png  CMYK", "rule      train  train/2.png  EXIF rotated",
                  "rule      train  train/5.png  grey", "rule      val  val/5.png  grey", "verified: false", "note: a note of the source",
                  "train          59 pictures of 60, 1 rejected", "val             6 pictures of 6, 0 rejected", "decode "):
        assert words in page, words
    assert page.count("rejected  ") == 1
    assert "     20        2  n02  crane" in page                # per class: train, val, id, name
    assert store.manifest["rules"]["grey"] == 2 and store.manifest["warnings"] == []
    out, err = capsys.readouterr()
    assert "CMYK 1" in out and "train/1.png" not in out and "audit.txt" in out      # a summary on the screen, names in the file
    assert "prepare train: 60 of 60 (100 %)" in err and "images/s" in err


def test_many_rejections_are_a_warning(tmp_path, capsys):
    store = prepare(Drawn({"train": 30, "val": 6}, broken=(0, 1, 2)), tmp_path / "store", 8, 2, True)
    assert "WARNING: 3 of 30 train pictures (10.0 %) cannot be read" in capsys.readouterr().out
    assert any("val pictures (50.0 %)" in warning for warning in store.manifest["warnings"])
    assert any("1 of 3 classes have no val pictures, the first is n01" in warning for warning in store.manifest["warnings"])


def test_no_readable_picture_leaves_nothing(tmp_path):
    with pytest.raises(StoreError, match=r"none of the 6 train pictures can be read \(the first: train/0\.png is neither JPEG nor PNG"):
        make(tmp_path / "new" / "store", source=Drawn({"train": 6}, broken=range(6)))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()                                # the user's own folder stays, empty
    with pytest.raises(StoreError, match="none of the 6"):
        make(tmp_path / "empty", source=Drawn({"train": 6}, broken=range(6)))
    assert contents(tmp_path) == {} and [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_finished_store_is_used_again_and_another_refused(tmp_path, capsys):
    source = Drawn({"train": 9})
    make(tmp_path / "store", source=source)
    before = contents(tmp_path / "store")
    (tmp_path / "store" / "preparing").mkdir()                  # left by a kill after the manifest was written
    assert len(prepare(source, tmp_path / "store", 8, 2, True, 5).split("train")) == 9
    assert "already prepared" in capsys.readouterr().out
    assert contents(tmp_path / "store") == before and not (tmp_path / "store" / "preparing").exists()
    with pytest.raises(StoreError, match="a store of another record size: record 8 there, 9 asked for; choose another folder"):
        make(tmp_path / "store", source=source, record=9)
    with pytest.raises(StoreError, match="a store of another source"):
        make(tmp_path / "store", {"train": 10})
    assert contents(tmp_path / "store") == before


def test_folders_that_are_no_place_for_a_store(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="is a file; give a folder"):
        make(tmp_path / "file")
    with pytest.raises(StoreError, match="with other files in it"):
        make(tmp_path)
    with pytest.raises(StoreError, match="cannot be read or written"):
        make(tmp_path / "file" / "below")
    with pytest.raises(StoreError, match="all start at 1"):
        make(tmp_path / "store", workers=0)
    assert contents(tmp_path) == {"file": b"mine"}


class Breaks(Drawn):
    """A source that fails in mid-stream, as a truncated archive does."""

    at = 17

    def items(self, split, start=0):
        for item in super().items(split, start):
            if item.name == f"train/{self.at}.png":
                raise DataError("the archive ends within this file")
            yield item


def test_a_source_that_breaks_keeps_finished_shards_for_later(tmp_path, wanted):
    arguments = ({"train": 23, "val": 7}, 8, (4, 22), (6,))
    with pytest.raises(DataError, match="archive ends"):
        make(tmp_path / "store", source=Breaks(*arguments))
    assert not list((tmp_path / "store").glob(".*"))
    with pytest.raises(StoreError, match="unfinished preparation"):
        Store(tmp_path / "store")
    with pytest.raises(StoreError, match=r"unfinished preparation of something else \(record 8 there, 9 asked for\)"):
        make(tmp_path / "store", record=9)
    started = []

    class Watched(Drawn):
        def items(self, split, start=0):
            started.append((split, start))
            return super().items(split, start)

    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*.shard")}
    make(tmp_path / "store", source=Watched(*arguments))
    assert contents(tmp_path / "store") == wanted
    assert stamps and started[0][1] > 4                         # goes on behind the finished shards
    assert all((tmp_path / "store" / name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())
    early = Breaks(*arguments)
    early.at = 2
    with pytest.raises(DataError, match="archive ends"):
        make(tmp_path / "early", source=early)
    assert not (tmp_path / "early").exists()


def test_a_damaged_journal_is_one_sentence(tmp_path):
    for name in ("plan.json", "train-00000.shard.json"):
        out = tmp_path / name
        with pytest.raises(DataError, match="archive ends"):
            make(out, source=Breaks({"train": 23}))
        (out / "preparing" / name).write_bytes(b"\0" * 100)
        with pytest.raises(StoreError, match=f"{name} is damaged; remove .*{name} and prepare the store anew"):
            make(out, source=Drawn({"train": 23}))


def test_pictures_that_come_as_pixels(tmp_path):
    """CIFAR-10's batches hold pixels: stored as they are at their own size, resized by the rules of `decode` at another."""
    class Pixels(Drawn):
        def items(self, split, start=0):
            for item in super().items(split, start):
                yield Item(item.name, item.label, pixels=pixels(split, int(item.name[6:-4]), 8))

    same, files = make(tmp_path / "same", source=Pixels({"train": 9})), make(tmp_path / "files", source=Drawn({"train": 9}))
    assert np.array_equal(same.split("train").read(range(9)), files.split("train").read(range(9)))
    large = [make(tmp_path / kind.__name__, source=kind({"train": 9}), record=12) for kind in (Pixels, Drawn)]
    assert np.array_equal(*(store.split("train").read(range(9)) for store in large)) and large[0].shape == (12, 12, 3)


def test_one_preparation_at_a_time(tmp_path):
    with pytest.raises(DataError):
        make(tmp_path / "store", source=Breaks({"train": 23}))
    before = contents(tmp_path / "store")
    with open(tmp_path / "store" / "preparing" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="another preparation is at work here"):
            make(tmp_path / "store", {"train": 23})
    assert contents(tmp_path / "store") == before               # the loser has not cleaned up under the winner


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            prepare(Drawn({"train": count}, side=64), tmp_path / str(count), 64, 2, False, 16)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(20)                                                    # what is imported and cached once
    few, many = peak(40), peak(320)
    assert many < few + 64 * 64 * 3 * 70                        # 280 pictures more; what threads overlap varies by some twenty


def test_classes_keep_the_ids_beside_the_order(tmp_path):
    store = make(tmp_path / "store")
    assert store.classes == CLASSES and [c.devkit_id for c in store.classes] == [7, 3, None]
