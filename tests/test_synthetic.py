"""The embedded pictures: the same every time, in the official layout, and of a kind where neither form nor colour is enough."""

import json
import zlib

import numpy as np
import pytest

from minialex.data import synthetic
from minialex.data.decode import decode_item
from minialex.data.ilsvrc import DEVKIT, TRAIN, VAL
from minialex.data.source import DataError, open_source

ARCHIVES = (TRAIN, VAL, DEVKIT)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return synthetic.make(tmp_path_factory.mktemp("made"), 4, 48, 7, val_per_class=3)


def content(folder):
    return [(folder / name).read_bytes() for name in ARCHIVES]


def test_official_layout(made):
    found = open_source(made)
    kinds = synthetic.kinds()
    assert found.kind == "ilsvrc" and len(kinds) >= 10 and (found.count("train"), found.count("val")) == (4 * len(kinds), 3 * len(kinds))
    assert [(info.id, info.name, info.devkit_id) for info in found.classes] == [(k.wnid, k.words, k.devkit_id) for k in kinds]
    devkit = [info.devkit_id for info in found.classes]
    assert sorted(devkit) == list(range(1, len(kinds) + 1)) and devkit != sorted(devkit), "devkit order must differ from the labels'"
    sizes = [decode_item(item, 48)[0].shape for item in found.items("train")]
    assert set(sizes) == {(48, 48, 3)} and not found.verified


def test_labels_say_what_the_pictures_show(made):
    """The form covers the middle of the picture's side or not, in its class's strongest channel: read back from the pixels."""
    found = open_source(made)
    channel = {"red": 0, "green": 1, "blue": 2}
    for split in found.splits:
        labels = [item.label for item in found.items(split)]
        assert np.bincount(labels).tolist() == [len(labels) // len(found.classes)] * len(found.classes)
        for item in found.items(split):
            pixels, notes = decode_item(item, 48)
            colour, form = found.classes[item.label].name.split()
            # The most coloured eighth of the picture is the form's.
            vivid = np.argsort(np.ptp(pixels.reshape(-1, 3).astype(int), axis=1))[-48 * 6 :]
            assert pixels.reshape(-1, 3)[vivid].mean(axis=0).argmax() == channel[colour] and notes == []
            middle = pixels[22:26, 22:26].reshape(-1, 3).mean(axis=0)
            assert (np.ptp(middle) < 70) == (form == "ring"), f"{item.name} should show a {form}"


def test_validation_is_in_no_order_of_classes(made):
    labels = [item.label for item in open_source(made).items("val")]
    assert np.count_nonzero(np.diff(labels) == 0) < len(labels) // 3 and np.count_nonzero(np.diff(labels) == 1) < len(labels) // 3


def test_neither_form_nor_colour_is_enough():
    kinds = synthetic.kinds()
    pairs = {(kind.form, kind.colour) for kind in kinds}
    forms, colours = ({pair[i] for pair in pairs} for i in (0, 1))
    assert len(pairs) == len(kinds) == len(forms) * len(colours) and min(len(forms), len(colours)) >= 3


def test_same_seed_same_bytes_other_seed_other_pictures(made, tmp_path):
    assert content(synthetic.make(tmp_path / "a", 4, 48, 7, val_per_class=3)) == content(made)
    other = synthetic.make(tmp_path / "b", 4, 48, 8, val_per_class=3)
    assert content(other)[0] != content(made)[0] and sorted(p.name for p in other.iterdir()) == sorted((*ARCHIVES, synthetic.STAMP))


def test_pictures_are_a_function_of_their_place():
    """No picture occurs twice, none depends on what was drawn before it, and all are the same on every machine: only knobs move the sum."""
    kinds = synthetic.kinds()
    places = [(kind, split, number) for kind in kinds for split in (0, 1) for number in range(3)]
    first = [synthetic.draw(*place, size=32, seed=5) for place in places]
    assert len({pixels.tobytes() for pixels in first}) == len(places)
    again = [synthetic.draw(*place, size=32, seed=5) for place in reversed(places)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    total = zlib.crc32(b"".join(pixels.tobytes() for pixels in first))
    assert (synthetic.VERSION, total) == (1, 366399345), "pixels moved: raise VERSION and put the new sum here"
    assert all(min(a.shape[:2]) == 32 and a.dtype == np.uint8 for a in first) and len({a.shape for a in first}) > 5


def test_more_pictures_keep_the_first_ones(tmp_path):
    few, more = (synthetic.make(tmp_path / str(n), n, 32, 5) for n in (2, 3))
    few, more = ({item.name: item.read() for item in open_source(folder).items("train")} for folder in (few, more))
    assert few.items() < more.items()


def test_shuffled_labels_tell_nothing(tmp_path):
    """The colours shown under one label are those of all classes."""
    found = open_source(synthetic.make(tmp_path, 30, 16, 3, shuffled_labels=True))
    shown = np.zeros((len(found.classes), 3), int)
    for item in found.items("train"):
        pixels = decode_item(item, 16)[0].reshape(-1, 3).astype(int)
        vivid = np.argsort(np.ptp(pixels, axis=1))[-32:]
        shown[item.label, pixels[vivid].mean(axis=0).argmax()] += 1
    assert shown.sum() == 30 * len(found.classes) and shown.min() >= 2
    assert len({item.read() for item in found.items("train")}) == shown.sum()


def test_made_once(tmp_path, monkeypatch):
    options = dict(pictures_per_class=1, size=16)
    synthetic.make_if_absent(tmp_path, **options)
    before = content(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "make", lambda *_, **__: pytest.fail("what is there was made again"))
        assert synthetic.make_if_absent(tmp_path, **options) == tmp_path
    synthetic.make_if_absent(tmp_path, **options, shuffled_labels=True)
    assert content(tmp_path) != before
    (tmp_path / synthetic.STAMP).write_text("torn {")
    synthetic.make_if_absent(tmp_path, **options)
    assert content(tmp_path) == before
    (tmp_path / VAL).unlink()
    synthetic.make_if_absent(tmp_path, **options)
    assert content(tmp_path) == before


def test_interrupted_making_leaves_no_stamp(tmp_path, monkeypatch):
    synthetic.make(tmp_path, 1, 16)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic, "devkit", fail)
    with pytest.raises(OSError, match="No space"):
        synthetic.make(tmp_path, 2, 16)
    assert not (tmp_path / synthetic.STAMP).exists() and not list(tmp_path.glob(".*"))
    monkeypatch.undo()
    synthetic.make_if_absent(tmp_path, 2, 16)
    assert json.loads((tmp_path / synthetic.STAMP).read_text())["train"] == 2


@pytest.mark.parametrize("options", [dict(size=15), dict(size=257), dict(pictures_per_class=0), dict(val_per_class=0)])
def test_bad_calls(tmp_path, options):
    with pytest.raises(DataError, match="synthetic pictures need a size of 16 to 256"):
        synthetic.make(tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()
