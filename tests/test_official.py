"""The official ILSVRC archives, whose label order is the sorted WNIDs and never the devkit's, and CIFAR-10's binary batches."""

import hashlib
import os
import shutil

import numpy as np
import pytest
from pictures import packed, picture, tar, tree

from minialex.cli import main
from minialex.data import archive, cifar, ilsvrc, locate, matfile
from minialex.data.decode import decode_item
from minialex.data.source import DataError, open_source
from minialex.progress import Progress

# Sorted WNIDs and devkit ids disagree on purpose, as they do in the real devkit.
IDS = {"n00000001": 3, "n00000002": 1, "n00000003": 2}
TRUTH = [2, 3, 1, 1]


def devkit(path, truth=TRUTH, ids=IDS, meta=None):
    synsets = [{"ILSVRC2012_ID": number, "WNID": wnid, "words": f"words of {wnid}", "num_children": 0} for wnid, number in ids.items()]
    synsets.append({"ILSVRC2012_ID": 4, "WNID": "n00000009", "words": "all", "num_children": 3})
    content = matfile.dump("synsets", synsets) if meta is None else meta
    lead = "ILSVRC2012_devkit_t12/"
    return tar(path / ilsvrc.DEVKIT, [(lead + "readme.txt", b"x"), (lead + ilsvrc.META, content),
                                      (lead + ilsvrc.TRUTH, "".join(f"{n}\n" for n in truth).encode())], "w:gz")


def official(path, wnids=tuple(IDS), parts=("train", "val", "devkit")):
    """Pictures whose grey level is 10 * position of their WNID; validation ones follow the ground truth."""
    path.mkdir(exist_ok=True)
    level = {wnid: 10 * i for i, wnid in enumerate(sorted(IDS))}
    if "train" in parts:
        inner = {w: [(f"{w}_{i}.JPEG", picture(level[w])) for i in (7, 2)] + [("x.txt", b"")] for w in wnids}
        tar(path / ilsvrc.TRAIN, [*((f"{w}.tar", tar(path / "t", files).read_bytes()) for w, files in inner.items()), ("junk.txt", b"x")])
        (path / "t").unlink()
    if "val" in parts:
        by_id = {number: wnid for wnid, number in IDS.items()}
        order = [3, 1, 4, 2]  # an archive need not be sorted; the number in the name counts
        tar(path / ilsvrc.VAL, [(f"ILSVRC2012_val_{i:08d}.JPEG", picture(level[by_id[TRUTH[i - 1]]])) for i in order])
    if "devkit" in parts:
        devkit(path)
    return path


def test_official_layout_and_label_order(tmp_path):
    """Each picture's grey level says its sorted WNID; devkit ids taken for labels would not fit."""
    found = open_source(official(tmp_path, ("n00000003", "n00000001", "n00000002")))
    assert found.kind == "ilsvrc" and found.splits == ("train", "val") and (found.count("train"), found.count("val")) == (6, 4)
    assert [(info.id, info.name, info.devkit_id) for info in found.classes] == [(w, f"words of {w}", IDS[w]) for w in sorted(IDS)]
    for split in found.splits:
        assert all(decode_item(item, 4)[0][0, 0, 0] == 10 * item.label for item in found.items(split))
    assert [item.label for item in found.items("val")] == [1, 2, 1, 0]
    names = [item.name for item in found.items("train")]
    assert names[:2] == [f"{ilsvrc.TRAIN}:n00000003.tar:n00000003_{i}.JPEG" for i in (7, 2)]
    assert [item.name for item in found.items("train", start=4)] == names[4:]
    assert not found.verified and "not of the official size" in found.reason
    assert open_source(tmp_path).fingerprint() == found.fingerprint()


def test_parts_of_the_official_set(tmp_path):
    only = open_source(official(tmp_path / "a", parts=("train",)))
    assert only.splits == ("train",) and only.classes[0].devkit_id is None and "no words" in only.notes[0]
    assert open_source(official(tmp_path / "b", parts=("val", "devkit"))).splits == ("val",)
    assert open_source(official(tmp_path / "c", ("n00000002",))).notes == ["2 of 3 classes have no training pictures"]
    with pytest.raises(DataError, match="holds the validation labels; put it beside"):
        open_source(official(tmp_path / "d", parts=("train", "val")))
    with pytest.raises(DataError, match=f"neither {ilsvrc.TRAIN} nor"):
        open_source(official(tmp_path / "e", parts=("devkit",)))


@pytest.mark.parametrize("options, sentence", [
    (dict(truth=[1, 9]), "ILSVRC2012_ID 9, which data/meta.mat does not list"),
    (dict(truth=["x"]), "is not as published"),
    (dict(ids={"n00000001": 1, "n00000002": 1, "n00000003": 2}), "lists no classes or one twice"),
    (dict(ids={"n00000001": 1, "n00000004": 3, "n00000003": 2}), "has class n00000002, unknown to data/meta.mat of the devkit"),
    (dict(meta=b"no"), "no MATLAB 5 file"),
    (dict(meta=matfile.dump("other", [{"a": 1}])), "is not as published"),
])
def test_bad_devkits(tmp_path, options, sentence):
    official(tmp_path)
    devkit(tmp_path, **options)
    with pytest.raises(DataError, match=sentence):
        open_source(tmp_path)


def test_bad_official_archives(tmp_path):
    official(tmp_path)
    devkit(tmp_path, truth=TRUTH[:2])
    with pytest.raises(DataError, match=r"val_00000003\.JPEG has no label: the devkit's ground truth has 2 lines"):
        list(open_source(tmp_path).items("val"))
    inner = tar(tmp_path / "t", [("n00000001_1.JPEG", picture())] * 2).read_bytes()
    tar(tmp_path / ilsvrc.TRAIN, [("n00000001.tar", inner), ("n00000002.tar", inner)])
    with pytest.raises(DataError, match=r"n00000002\.tar holds n00000001_1\.JPEG, a picture of another class"):
        list(open_source(tmp_path).items("train"))
    tar(tmp_path / ilsvrc.TRAIN, [("n00000001.tar", inner[:1500]), ("n00000002.tar", inner)])
    with pytest.raises(DataError, match=rf"{ilsvrc.TRAIN}:n00000001\.tar.*truncated"):
        list(open_source(tmp_path).items("train"))
    tar(tmp_path / ilsvrc.TRAIN, [("n00000001.tar", inner)] * 2)
    with pytest.raises(DataError, match="holds a class twice"):
        open_source(tmp_path)
    tar(tmp_path / ilsvrc.TRAIN, [("x.jpg", picture())])
    with pytest.raises(DataError, match="holds no class archives"):
        open_source(tmp_path)


def test_official_size_demands_the_official_sum(tmp_path, monkeypatch):
    top, seen = official(tmp_path), []
    real = {name: archive.Official((top / name).stat().st_size, hashlib.md5((top / name).read_bytes()).hexdigest(), entry.pictures)
            for name, entry in ilsvrc.ARCHIVES.items()}
    for name, entry in real.items():
        monkeypatch.setitem(ilsvrc.ARCHIVES, name, entry)
    found = open_source(top, progress=lambda done, total: seen.append((done, total)))
    assert found.verified and found.reason.startswith("official MD5 of") and found.count("train") == 1281167
    assert seen[-1] == (sum(entry.size for entry in real.values()),) * 2

    monkeypatch.setitem(ilsvrc.ARCHIVES, ilsvrc.VAL, real[ilsvrc.VAL]._replace(md5="0" * 32))
    with pytest.raises(DataError, match=rf"{ilsvrc.VAL} has the official size but MD5 .* instead of 0{{32}}, .*download it again, or"):
        open_source(top)
    allowed = open_source(top, allow_unverified=True)
    assert not allowed.verified and f"wrong MD5 of {ilsvrc.VAL}" in allowed.reason and allowed.count("val") == 4
    # One archive of another size does not excuse the wrong sum of another.
    monkeypatch.setitem(ilsvrc.ARCHIVES, ilsvrc.TRAIN, real[ilsvrc.TRAIN]._replace(size=1))
    with pytest.raises(DataError, match="has the official size but MD5"):
        open_source(top)


def test_a_sum_is_taken_once(tmp_path, monkeypatch, capsys):
    """The 148 GB of the training archive are not summed again by a resumed preparation; a changed archive is."""
    top, out = official(tmp_path / "archives"), tmp_path / "store"
    for name, entry in ilsvrc.ARCHIVES.items():
        content = (top / name).read_bytes()
        monkeypatch.setitem(ilsvrc.ARCHIVES, name, archive.Official(len(content), hashlib.md5(content).hexdigest(), entry.pictures))
    kept, read = tmp_path / "sums.json", []

    def bytes_read():
        read.clear()
        found = open_source(top, progress=lambda done, total: read.append(done), kept=kept)
        assert found.verified
        return len(read)
    assert bytes_read() == 3 and bytes_read() == 0
    (top / ilsvrc.VAL).touch()
    assert bytes_read() == 1 and bytes_read() == 0
    kept.write_text('{"x": [')                              # a torn note only costs the sums
    assert bytes_read() == 3 and bytes_read() == 0

    content = (top / ilsvrc.VAL).read_bytes()
    (top / ilsvrc.VAL).write_bytes(content[:-1] + b"x")
    with pytest.raises(DataError, match=r"MD5 .* download it again, or take it as it is with minialex prepare --allow-unverified"):
        bytes_read()
    words = ["prepare", "--src", str(top), "--out", str(out), "--record", "8"]
    assert main([*words, "-q"]) == 2 and "--allow-unverified" in capsys.readouterr().err and not out.exists()
    monkeypatch.setitem(ilsvrc.ARCHIVES, ilsvrc.TRAIN, ilsvrc.ARCHIVES[ilsvrc.TRAIN]._replace(pictures=0))
    monkeypatch.setitem(ilsvrc.ARCHIVES, ilsvrc.VAL, ilsvrc.ARCHIVES[ilsvrc.VAL]._replace(pictures=0))
    (top / ilsvrc.VAL).write_bytes(content[:-1] + b"\1")    # in the padding behind the end mark
    assert main([*words, "--allow-unverified"]) == 0
    assert f"wrong MD5 of {ilsvrc.VAL}" in capsys.readouterr().out


def test_a_quiet_run_says_nothing_of_sums(tmp_path, monkeypatch, capsys):
    top = official(tmp_path / "archives")
    for name, entry in ilsvrc.ARCHIVES.items():
        content = (top / name).read_bytes()
        monkeypatch.setitem(ilsvrc.ARCHIVES, name, archive.Official(len(content), hashlib.md5(content).hexdigest(), entry.pictures))
    monkeypatch.setitem(Progress.__init__.__kwdefaults__, "interval", 0)
    monkeypatch.chdir(tmp_path)
    for quiet in (False, True):
        locate(top, quiet)
        assert capsys.readouterr().err.count("MD5 of the archives") == (0 if quiet else 3)
        (tmp_path / "stores" / "md5.json").unlink()


@pytest.mark.parametrize("words", [["prepare", "--out", "store"], ["prepare", "here", "--src", "there", "--out", "store"]])
def test_what_to_prepare_is_said_once(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2 and "say once what to prepare" in capsys.readouterr().err


def test_published_sizes_and_sums():
    assert {name: (entry.size, entry.md5[:8], entry.pictures) for name, entry in ilsvrc.ARCHIVES.items()} == {
        "ILSVRC2012_img_train.tar": (147897477120, "1d675b47", 1281167),
        "ILSVRC2012_img_val.tar": (6744924160, "29b22e29", 50000),
        "ILSVRC2012_devkit_t12.tar.gz": (2568145, "fa75699e", 0)}


# --------------------------------------------------------------------------------------------------------------------------- CIFAR-10

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def batches(folder, per_batch=3):
    """Record r of batch b: label (b + r) % 10, red 10 b + r everywhere, green the row, blue the column."""
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:32, :32].astype(np.uint8)
    for b, name in enumerate((*cifar.BATCHES["train"], *cifar.BATCHES["val"])):
        records = [bytes([(b + r) % 10]) + np.stack([np.full_like(rows, 10 * b + r), rows, columns]).tobytes() for r in range(per_batch)]
        (folder / name).write_bytes(b"".join(records))
    (folder / cifar.NAMES_FILE).write_text("\n".join(NAMES) + "\n\n")
    return folder


@pytest.mark.parametrize("form", ["inside", "beside", "archive", "folder of archive"])
def test_cifar10(tmp_path, form):
    inside = batches(tmp_path / cifar.FOLDER)
    path = {"inside": inside, "beside": tmp_path}.get(form)
    if path is None:
        path = packed(tmp_path, tmp_path / cifar.ARCHIVE, "w:gz")
        shutil.rmtree(inside)
        path = path if form == "archive" else tmp_path
    found = open_source(path)
    assert [info.id for info in found.classes] == NAMES and found.kind == "cifar10"
    assert (found.count("train"), found.count("val")) == (15, 3) and not found.verified
    items = list(found.items("train"))
    assert [item.label for item in items[3:6]] == [1, 2, 3] and items[4].name == "data_batch_2.bin[1]"
    np.testing.assert_array_equal(items[4].pixels[5, 9], [11, 5, 9])
    assert [item.name for item in found.items("train", start=4)] == [item.name for item in items[4:]]
    assert [item.label for item in found.items("val")] == [5, 6, 7] and len(found.fingerprint()) == 16


def test_cifar10_of_official_size(tmp_path, monkeypatch):
    batches(tmp_path / "in" / cifar.FOLDER)
    path = packed(tmp_path / "in", tmp_path / cifar.ARCHIVE, "w:gz")
    entry = archive.Official(path.stat().st_size, hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setitem(cifar.ARCHIVES, cifar.ARCHIVE, entry)
    assert open_source(path).verified
    monkeypatch.setitem(cifar.ARCHIVES, cifar.ARCHIVE, entry._replace(md5="0" * 32))
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz has the official size but MD5"):
        open_source(path)
    assert not open_source(path, allow_unverified=True).verified


def test_bad_cifar10(tmp_path):
    folder = batches(tmp_path / "in")
    with open(folder / "data_batch_3.bin", "r+b") as file:
        file.seek(3073)
        file.write(b"\x0a")
    with pytest.raises(DataError, match=r"data_batch_3\.bin has label 10 in record 1"):
        list(open_source(folder).items("train"))
    os.truncate(folder / "data_batch_3.bin", 5000)
    with pytest.raises(DataError, match=r"data_batch_3\.bin has 5000 bytes, which is no whole number of 3073-byte records"):
        open_source(folder)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_3\.bin"):
        open_source(folder)


@pytest.mark.parametrize("name", ["cifar-10-batches-py/data_batch_1", "data_batch_1", "cifar-10-python.tar.gz"])
def test_pickles_are_refused_unopened(tmp_path, name):
    tree(tmp_path, {name: b"cposix\nsystem\n(S'touch owned'\ntR."})
    for path in {tmp_path, tmp_path / name if name.endswith("gz") else tmp_path}:
        with pytest.raises(DataError, match=r"Python version, made of pickles.*download the binary version, cifar-10-binary\.tar\.gz"):
            open_source(path)
