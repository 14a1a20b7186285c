"""Folder trees and archives of them: what is understood, in which order, and one clear sentence for everything that is not."""

import os
import tarfile

import numpy as np
import pytest
from pictures import listing, packed, picture, tar, tree
from shared_data import shared, unpack

from minialex.data import archive, ilsvrc, source
from minialex.data.decode import decode_item
from minialex.data.folder import held_out
from minialex.data.source import DataError, ImageError, open_source

SPLIT = {"train/dog/1.png": 1, "train/dog/2.png": 2, "train/cat/deep/er/3.jpeg": 3, "val/cat/4.JPG": 4, "val/dog/5.png": 5}


# ---------------------------------------------------------------------------------------------------------------- folders and tars


@pytest.mark.parametrize("form", ["folder", "wrapped", ".tar", ".tar.gz", ".tgz", "wrapped.tar"])
def test_tree_with_splits(tmp_path, form):
    top = tree(tmp_path / "in", {("some/where/" if "wrapped" in form else "") + name: level for name, level in SPLIT.items()})
    if "." in form:
        top = packed(top, tmp_path / f"data{form}", "w:gz" if "gz" in form else "w")
    found = open_source(top)
    assert [info.id for info in found.classes] == ["cat", "dog"] and found.splits == ("train", "val")
    assert [found.count(split) for split in found.splits] == [3, 2]
    trim = [(name.replace("some/where/", ""), label) for name, label in listing(found, "train") + listing(found, "val")]
    assert trim == [("train/cat/deep/er/3.jpeg", 0), ("train/dog/1.png", 1), ("train/dog/2.png", 1),
                    ("val/cat/4.JPG", 0), ("val/dog/5.png", 1)]
    assert [decode_item(item, 4)[0][0, 0, 0] for item in found.items("train")] == [3, 1, 2]
    assert [item.label for item in found.items("train", start=1)] == [1, 1] and list(found.items("val", start=2)) == []
    assert not found.verified and "no MD5" in found.reason and found.notes == []
    assert found.fingerprint() == open_source(top).fingerprint() and len(found.fingerprint()) == 16
    with pytest.raises(DataError, match="no split 'test', only train, val"):
        list(found.items("test"))


def test_fingerprint_sees_changes(tmp_path):
    top = tree(tmp_path / "in", SPLIT)
    before = open_source(top).fingerprint()
    os.utime(top / "val/dog/5.png", ns=(1, 1))
    assert open_source(top).fingerprint() != before
    first = packed(top, tmp_path / "a.tar")
    before = open_source(first).fingerprint()
    os.utime(first, ns=(1, 1))
    assert open_source(first).fingerprint() != before


@pytest.mark.parametrize("form", ["folder", "tar", "only train"])
def test_unsplit_tree_gives_every_tenth_picture_to_validation(tmp_path, form):
    lead = "train/" if form == "only train" else ""
    files = {f"{lead}{name}/{i:02d}.png": i for name, count in (("a", 25), ("b", 3), ("c", 1)) for i in range(count)}
    top = tree(tmp_path / "in", files)
    found = open_source(packed(top, tmp_path / "x.tar") if form == "tar" else top)
    val = [f"{lead}a/09.png", f"{lead}a/19.png", f"{lead}b/02.png"]
    assert [name for name, _ in listing(found, "val")] == val
    assert [name for name, _ in listing(found, "train")] == sorted(set(files) - set(val))
    assert (found.count("train"), found.count("val")) == (26, 3) and "every tenth" in found.notes[0]


def test_rule_of_held_out_pictures():
    assert [[i for i in range(n) if held_out(i, n)] for n in (1, 2, 9, 10, 31)] == [[], [1], [8], [9], [9, 19, 29]]


def test_test_folder_stands_in_for_validation(tmp_path):
    files = {name.replace("val/", "Test/"): level for name, level in SPLIT.items()}
    found = open_source(tree(tmp_path / "a", files))
    assert found.splits == ("train", "val") and found.count("val") == 2 and "test folder" in found.notes[0]
    found = open_source(tree(tmp_path / "b", SPLIT | files))
    assert found.splits == ("train", "val", "test") and [name for name, _ in listing(found, "test")] == ["Test/cat/4.JPG", "Test/dog/5.png"]


def test_a_class_may_be_called_test(tmp_path):
    found = open_source(tree(tmp_path, {"test/x/1.png": 1, "tram/x/2.png": 2, "tram/3.png": 3, "test/4.png": 4}))
    assert [info.id for info in found.classes] == ["test", "tram"] and found.count("train") == 2


def test_class_words(tmp_path):
    top = tree(tmp_path / "in", SPLIT | {"synset_words.txt": b"dog Canis familiaris, a friend\ncat\n"})
    for found in (open_source(top), open_source(packed(top, tmp_path / "x.tar"))):
        assert [info.name for info in found.classes] == ["cat", "Canis familiaris, a friend"]


def test_what_is_left_out_is_said(tmp_path):
    extra = {"train/stray.png": 1, "train/.hidden/x.png": 1, "train/cat/._x.png": 1, "__MACOSX/x/y.png": 1, "notes/readme.txt": b"x"}
    top = tree(tmp_path / "in", SPLIT | extra)
    for found in (open_source(top), open_source(packed(top, tmp_path / "x.tar"))):
        assert found.count("train") == 3 and found.notes == ["1 pictures outside any class folder are left out"]


def test_links_are_followed_once(tmp_path):
    top = tree(tmp_path / "in", SPLIT)
    (top / "train/dog/loop").symlink_to(top / "train")
    (top / "train/mouse").symlink_to(tree(tmp_path / "mice", {"7.png": 7}))
    found = open_source(top)
    assert [name for name, label in listing(found, "train") if label == 2] == ["train/mouse/7.png"]
    assert found.count("train") == len(listing(found, "train")) == 4


def test_links_in_circles_end(tmp_path):
    top = tree(tmp_path / "in", SPLIT)
    (top / "train/dog/x").symlink_to(top / "train/cat")
    (top / "train/cat/y").symlink_to(top / "train/dog")
    assert open_source(top).count("train") == 3 + 1 + 2


def test_odd_names(tmp_path):
    names = ["a b/x\ny.png", "a b/ü😀.png", "c/" + os.fsdecode(b"\xff.png")]
    found = open_source(tree(tmp_path, dict.fromkeys(names, 5)))
    shown = [item.name for item in found.items("train")] + [item.name for item in found.items("val")]
    assert sorted(shown) == ["a b/x\\ny.png", "a b/ü😀.png", "c/\\udcff.png"]
    assert all(item.read() == picture(5) for item in found.items("train"))


@pytest.mark.parametrize("files, sentence", [
    ({}, "is an empty folder; put one folder of pictures per class"),
    ({"a/x.txt": b"", "b/y.md": b""}, "contains no pictures"),
    ({"a.png": 1, "b.png": 2}, "holds pictures but no class folders"),
    ({"cat/1.png": 1, "cat/2.png": 2}, r"one class only \('cat'\)"),
    ({"train/cat/1.png": 1, "val/cat/2.png": 2}, r"one class only \('cat'\)"),
    (SPLIT | {"val/cow/1.png": 1}, "class 'cow' is in the val folder but not in the train folder"),
    (SPLIT | {"train/cow/x.txt": b""}, "class folder 'cow' contains no pictures"),
    (SPLIT | {"valid/dog/1.png": 1}, r"two folders for one split \(train, val, valid\)"),
    ({"manifest.json": b"{}", "train-0": b""}, "looks like a prepared store"),
    ({"a.tar": b"x"}, "holds tar archives but no class folders"),
])
def test_bad_folders(tmp_path, files, sentence):
    top = tree(tmp_path / "in", files)
    top.mkdir(exist_ok=True)
    with pytest.raises(DataError, match=sentence) as caught:
        open_source(top)
    assert str(top) in str(caught.value)


def test_bad_paths(tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist; check the path"):
        open_source(tmp_path / "nowhere")
    tree(tmp_path, {"x.png": 1, "a.tar": b"no tar at all", "empty.tar": b"", ilsvrc.TRAIN: b""})
    with pytest.raises(DataError, match=r"x\.png is a single file"):
        open_source(tmp_path / "x.png")
    with pytest.raises(DataError, match="is an archive of ILSVRC-2012; give its folder, "):
        open_source(tmp_path / ilsvrc.TRAIN)
    for name in ("a.tar", "empty.tar"):
        with pytest.raises(DataError, match=rf"{name} is no tar archive, or damaged"):
            open_source(tmp_path / name)
    with pytest.raises(DataError, match="contains no pictures"):
        open_source(tar(tmp_path / "none.tar", []))
    with pytest.raises(DataError, match="archive of archives"):
        open_source(tar(tmp_path / "outer.tar", [("x.tar", b"x")]))


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    top = tree(tmp_path, SPLIT)
    found = open_source(top)
    first, second, third = found.items("train")
    (top / "train/dog/1.png").unlink()
    os.mkfifo(top / "train/dog/1.png")
    (top / "train/dog/2.png").unlink()
    with pytest.raises(ImageError, match=r"train/dog/1\.png is not a regular file"):
        second.read()
    with pytest.raises(ImageError, match=r"train/dog/2\.png cannot be read \(No such file"):
        third.read()
    with pytest.raises(DataError, match="'dog' came or went while it was read"):
        list(found.items("train"))
    monkeypatch.setattr(source.read_file, "__defaults__", (10,))
    with pytest.raises(ImageError, match=r"3\.jpeg has \d+ bytes, more than the 10"):
        first.read()


# ------------------------------------------------------------------------------------------------------------------ hostile archives


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


def test_nothing_in_an_archive_is_ever_a_path(tmp_path):
    """Climbing and absolute names, links, devices and pipes are left out, and nothing appears on disk."""
    victim = tmp_path / "victim.png"
    good = [("train/a/1.png", picture(1)), ("train/b/2.png", picture(2))]
    bad = [("../train/a/up.png", picture()), ("train/a/../../x.png", picture()), (str(victim), picture()),
           special("train/a/sym.png", tarfile.SYMTYPE, "/etc/passwd"), special("train/b/hard.png", tarfile.LNKTYPE, "train/a/1.png"),
           special("train/a/tty.png", tarfile.CHRTYPE), special("train/a/disk.png", tarfile.BLKTYPE),
           special("train/a/pipe.png", tarfile.FIFOTYPE)]
    box = tmp_path / "box"
    box.mkdir()
    path = tar(box / "x.tar", bad[:4] + good + bad[4:])
    found = open_source(path)
    assert sorted(name for split in found.splits for name, _ in listing(found, split)) == ["train/a/1.png", "train/b/2.png"]
    assert "3 members with absolute, climbing or endless names are left out" in found.notes
    assert not victim.exists() and os.listdir(box) == ["x.tar"] and sorted(os.listdir(tmp_path)) == ["box"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_truncated_archives_are_refused_at_every_block(tmp_path, mode):
    """Also at a member's edge, where tarfile alone takes the archive for a shorter one."""
    rng = np.random.default_rng(0)
    path = tar(tmp_path / "x.tar", [(f"{'ab'[i % 2]}/{i}.png", rng.bytes(700)) for i in range(6)], mode)
    whole = path.read_bytes()
    ends = range(0, 6 * 1536 + 1, 512) if mode == "w" else range(0, len(whole), 400)
    for end in ends:
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"x\.tar.*(truncated|damaged)"):
            list(open_source(path).items("train"))


def test_cut_while_it_is_read(tmp_path):
    """No member is handed out short."""
    path = tar(tmp_path / "x.tar", [(f"{'ab'[i % 2]}/{i}.png", bytes(3000)) for i in range(4)])
    found = open_source(path)
    os.truncate(path, 2000)
    with pytest.raises(DataError, match=r"x\.tar:a/0\.png: the archive ends within this file"):
        next(found.items("train"))


def test_a_damaged_header_is_not_the_end(tmp_path):
    path = tar(tmp_path / "x.tar", [(f"{'ab'[i % 2]}/{i}.png", picture(i)) for i in range(6)])
    data = bytearray(path.read_bytes())
    data[3 * 1024] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"x\.tar.*damaged"):
        open_source(path)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.REGTYPE])
@pytest.mark.parametrize("size", [1 << 40, -512])
def test_absurd_sizes_cost_nothing(tmp_path, kind, size):
    """A long name of a terabyte is what tarfile would read into memory, a negative size what it would loop on."""
    info = tarfile.TarInfo("a/1.png")
    info.type, info.size = kind, size
    head = info.tobuf(tarfile.GNU_FORMAT)
    # A good member goes before, so that a size of -512 points back to its own header for ever.
    before = tarfile.TarInfo("a/0.png").tobuf()
    (tmp_path / "x.tar").write_bytes(before + head + bytes(4096))
    with pytest.raises(DataError, match=r"x\.tar.*damaged"):
        open_source(tmp_path / "x.tar")


def test_a_member_too_large_is_the_audits(tmp_path, monkeypatch):
    path = tar(tmp_path / "x.tar", [("a/0.png", bytes(5000)), ("a/1.png", picture(1)), ("b/2.png", picture(2)), ("b/3.png", picture(3))])
    monkeypatch.setattr(archive.Member.read, "__defaults__", (4000,))
    items = list(open_source(path).items("train"))
    assert [item.label for item in items] == [0, 1] and items[1].read() == picture(2)
    with pytest.raises(ImageError, match=r"x\.tar:a/0\.png has 5000 bytes, more than the 4000"):
        items[0].read()


# ------------------------------------------------------------------------------------------------------------------- real photographs


def test_real_photographs(tmp_path):
    found = open_source(shared("caltech10_sample.tar"))
    assert len(found.classes) == 10 and (found.count("train"), found.count("val")) == (300, 100)
    odd = [note for item in found.items("val") for note in decode_item(item, 32)[1]]
    assert set(odd) == {"grey"} and 0 < len(odd) < 45
    tiny = open_source(unpack("tiny_imagenet12_jpeg", tmp_path / "tiny", train=5, val=3))
    assert (len(tiny.classes), tiny.count("train"), tiny.count("val")) == (12, 60, 36)
    assert all(decode_item(item, 64)[0].std() > 5 for item in tiny.items("train"))
