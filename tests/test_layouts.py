"""Other layouts than that of 2012 through the same door: ILSVRC-2010, one tar per synset, Kaggle's, a flat val beside a list."""

import shutil
from collections import namedtuple
from itertools import islice

import pytest
from drawn import contents
from pictures import listing, picture, tar, tree

from minialex.cli import main
from minialex.data import ilsvrc, matfile, open_source, prepare
from minialex.data import kaggle as kaggle_module
from minialex.data.shard import StoreError
from minialex.data.source import DataError

IDS = {"n00000001": 3, "n00000002": 1, "n00000003": 2}
EDITION = ilsvrc.EDITIONS[1]


def of_2010(path, truth=(2, 3, 1, 1), key="ILSVRC2010_ID"):
    path.mkdir()
    inner = [(f"{wnid}.tar", tar(path / "t", [(f"{wnid}_{n}.JPEG", picture(10 * n)) for n in (1, 2)]).read_bytes()) for wnid in IDS]
    (path / "t").unlink()
    tar(path / EDITION.train, inner)
    tar(path / EDITION.val, [(f"val/ILSVRC2010_val_{n:08d}.JPEG", picture(n)) for n in range(1, len(truth) + 1)])
    synsets = [{key: number, "WNID": wnid, "words": wnid, "num_children": 0} for wnid, number in IDS.items()]
    lead = "ILSVRC2010_devkit-1.0/devkit-1.0/"
    tar(path / EDITION.devkit, [(lead + ilsvrc.META, matfile.dump("synsets", synsets)),
                                (lead + EDITION.truth, "".join(f"{n}\n" for n in truth).encode())], "w:gz")
    return path


def test_ilsvrc_2010(tmp_path):
    found = open_source(of_2010(tmp_path / "archives"))
    assert [(entry.id, entry.devkit_id) for entry in found.classes] == sorted(IDS.items())
    assert found.count("train") == 6 and [label for _, label in listing(found, "train")] == [0, 0, 1, 1, 2, 2]
    assert [label for _, label in listing(found, "val")] == [2, 0, 1, 1]           # sorted WNIDs, not the devkit's numbers
    assert not found.verified and "no official MD5 of ILSVRC-2010" in found.reason
    store = prepare(found, tmp_path / "store", 8, 2, False)
    assert len(store.split("train")) == 6 and len(store.split("val")) == 4


@pytest.mark.parametrize("name", ["ILSVRC2010_images_test.tar", "ILSVRC2012_img_test.tar", "ILSVRC2012_img_test_v10102019.tar"])
def test_the_test_archive_is_left_out(tmp_path, name):
    top = of_2010(tmp_path / "archives")
    assert open_source(top).notes == []
    tar(top / name, [("test/ILSVRC2010_test_00000001.JPEG", picture())])
    found = open_source(top)
    assert found.splits == ("train", "val") and found.notes == [f"{name} is left out: its pictures have no labels"]
    with pytest.raises(DataError, match=f"{name} holds test pictures, without labels; give the folder of those for training"):
        open_source(top / name)


def test_years_are_not_mixed(tmp_path):
    top = of_2010(tmp_path / "archives")
    (top / ilsvrc.VAL).write_bytes(b"")
    with pytest.raises(DataError, match="has archives of 2012 and 2010, whose classes are not the same"):
        open_source(top)
    with pytest.raises(DataError, match="is an archive of ILSVRC-2010; give its folder, "):
        open_source(top / EDITION.train)


def test_a_devkit_of_another_year_under_this_name(tmp_path):
    with pytest.raises(DataError, match="is not as published"):
        open_source(of_2010(tmp_path / "archives", key="ILSVRC2012_ID"))
    with pytest.raises(DataError, match="the ground truth has ILSVRC2010_ID 9"):
        open_source(of_2010(tmp_path / "other", truth=(2, 9)))


def of_synsets(path, counts):
    path.mkdir()
    for wnid, count in counts.items():
        tar(path / f"{wnid}.tar", [(f"{wnid}_{3 * n + 1}.JPEG", picture(n)) for n in range(count)] + [("README", b"x")])
    (path / "synset_words.txt").write_text("n00000004 kite, bird\n")
    return path


def test_one_tar_per_synset(tmp_path):
    found = open_source(of_synsets(tmp_path / "fall", {"n00000004": 21, "n00000002": 3, "n00000009": 10}))
    assert [(entry.id, entry.name) for entry in found.classes] == [
        ("n00000002", "n00000002"), ("n00000004", "kite, bird"), ("n00000009", "n00000009")]
    train, val = listing(found, "train"), listing(found, "val")
    assert val == [("n00000002_7.JPEG", 0), ("n00000004_28.JPEG", 1), ("n00000004_58.JPEG", 1), ("n00000009_28.JPEG", 2)]
    assert len(train) == 30 and not set(train) & set(val)
    for start in range(31):                                     # a resumed preparation begins anywhere
        assert [item.label for item in found.items("train", start)] == [label for _, label in train[start:]]


def test_synsets_prepared_in_one_go_or_two(tmp_path):
    found = open_source(of_synsets(tmp_path / "fall", {"n00000004": 21, "n00000002": 3}))
    prepare(found, tmp_path / "one", 8, 2, False, 5)

    class Stopped(type(found)):
        def items(self, split, start=0):
            for number, item in enumerate(super().items(split, start)):
                if number == 8 and not start:
                    raise KeyboardInterrupt
                yield item
    with pytest.raises(KeyboardInterrupt):
        prepare(Stopped(found.path), tmp_path / "two", 8, 2, False, 5)
    prepare(open_source(tmp_path / "fall"), tmp_path / "two", 8, 2, False, 5)
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() == two.keys() and all(one[name] == two[name] for name in one if name.endswith(".shard"))


@pytest.mark.parametrize("inner", ["", "fall11_whole/"])
def test_all_synsets_in_one_tar(tmp_path, inner):
    """The same records, whichever way the archives come, and from wherever a resumed run begins."""
    top = of_synsets(tmp_path / "fall", {"n00000004": 21, "n00000002": 3, "n00000009": 10})
    (tmp_path / "one").mkdir()
    order = ("n00000009", "n00000002", "n00000004")
    whole = tar(tmp_path / "one" / "fall11_whole.tar", [(f"{inner}{w}.tar", (top / f"{w}.tar").read_bytes()) for w in order])
    (tmp_path / "one" / "synset_words.txt").write_text("n00000004 kite, bird\n")
    loose = open_source(top)
    for path in (whole, whole.parent):
        found = open_source(path)
        assert found.classes == loose.classes and found.notes == loose.notes
        assert all(listing(found, split) == listing(loose, split) for split in found.splits)
    train = listing(found, "train")
    for start in (1, 2, 3, 20, 30, 31):
        assert [item.label for item in found.items("train", start)] == [label for _, label in train[start:]]
    assert next(found.items("val")).name == "fall11_whole.tar:n00000002.tar:n00000002_7.JPEG"
    stores = [prepare(source, tmp_path / f"store{i}", 8, 2, False, 5) for i, source in enumerate((loose, found))]
    assert all((tmp_path / f"store{i}" / "train-00000.shard").stat().st_size for i in (0, 1))
    assert (stores[0].split("train").labels == stores[1].split("train").labels).all()
    assert (stores[0].split("train").read(range(30)) == stores[1].split("train").read(range(30))).all()


def test_a_synset_may_be_empty(tmp_path):
    top = of_synsets(tmp_path / "fall", {"n00000004": 3, "n00000002": 3})
    tar(top / "n00000003.tar", [])
    store = prepare(open_source(top), tmp_path / "store", 8, 2, False)
    assert store.split("train").labels.tolist() == [0, 0, 2, 2]
    assert "1 of 3 classes have no train pictures, the first is n00000003" in (tmp_path / "store" / "audit.txt").read_text()


def test_archives_of_synsets_that_are_refused(tmp_path, monkeypatch):
    inner = [(f"n0000000{n}.tar", tar(tmp_path / "t", [(f"n0000000{n}_1.JPEG", picture())]).read_bytes()) for n in (1, 2)]
    with pytest.raises(DataError, match=r"one class only \(n00000001\)"):
        open_source(tar(tmp_path / "x.tar", inner[:1]))
    with pytest.raises(DataError, match="holds a class twice"):
        open_source(tar(tmp_path / "x.tar", inner + inner[:1]))
    with pytest.raises(DataError, match=r"x\.tar\.gz is a packed archive of archives, .*; unpack it to a \.tar"):
        open_source(tar(tmp_path / "x.tar.gz", inner, "w:gz"))
    renamed = tar(tmp_path / "mine.tar", inner)
    monkeypatch.setitem(ilsvrc.ARCHIVES, ilsvrc.TRAIN, ilsvrc.ARCHIVES[ilsvrc.TRAIN]._replace(size=renamed.stat().st_size))
    with pytest.raises(DataError, match=rf"mine\.tar has the size of {ilsvrc.TRAIN}; give it that name, and give the folder"):
        open_source(renamed)


def test_space_and_time_of_synsets_are_estimates(tmp_path, monkeypatch, capsys):
    top = of_synsets(tmp_path / "fall", {f"n000000{n}": 10 + n % 7 for n in range(10, 40)})
    found = open_source(top)
    exact = sum(10 + n % 7 for n in range(10, 40))
    guess = found.about("train") + found.about("val")
    assert found.count("train") is None and abs(guess / exact - 1) < 0.2 and 8 * found.about("val") < found.about("train")
    assert len(found._counts) <= 15                             # a sample, not a pass
    free = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free(0, 0, int(0.7 * guess * 192)))
    with pytest.raises(StoreError, match=rf"needs {guess * 192:,} more bytes, for about {guess} pictures, an estimate from the sizes"):
        prepare(found, tmp_path / "store", 8, 2, False)
    assert not (tmp_path / "store").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free(0, 0, int(0.9 * guess * 192)))      # an estimate may be wrong by that
    prepare(found, tmp_path / "store", 8, 2, True)
    assert f" of about {found.about('train')} (" in capsys.readouterr().err


@pytest.mark.parametrize("files, sentence", [
    ([("n00000008_1.JPEG", picture())], "a picture of another class; get n00000003.tar again"),
    ([("x.JPEG", picture())], r"n00000003.tar holds no picture n00000003_NUMBER.JPEG"),
])
def test_synsets_that_are_not_what_they_say(tmp_path, files, sentence):
    top = of_synsets(tmp_path / "fall", {"n00000001": 2})
    tar(top / "n00000003.tar", files)
    with pytest.raises(DataError, match=sentence):
        list(open_source(top).items("train"))


WNIDS = ("n00000002", "n00000005", "n00000007")


def flat(path, outer=""):
    """Two training pictures of each class, four validation pictures in a flat folder."""
    return tree(path, {f"{outer}train/{wnid}/{wnid}_{n}.JPEG": 10 * n for wnid in WNIDS for n in (1, 2)} | {
        f"{outer}val/ILSVRC2012_val_{n:08d}.JPEG": n for n in (1, 2, 3, 4)})


def kaggle(path):
    flat(path, "ILSVRC/Data/CLS-LOC/")
    shows = {4: WNIDS[0], 1: WNIDS[2], 2: WNIDS[1], 3: WNIDS[2]}
    rows = [f"ILSVRC2012_val_{n:08d},{wnid} 1 2 30 40 {wnid} 5 6 7 8 " for n, wnid in shows.items()]
    return tree(path, {"LOC_val_solution.csv": "\n".join(["ImageId,PredictionString", *rows]).encode(),
                       "LOC_synset_mapping.txt": b"n00000002 kite, bird\nn00000005 tench\n"})


def test_kaggles_layout(tmp_path):
    found = open_source(kaggle(tmp_path / "kaggle"))
    assert [(entry.id, entry.name) for entry in found.classes] == [
        ("n00000002", "kite, bird"), ("n00000005", "tench"), ("n00000007", "n00000007")]
    assert found.count("train") == 6 and found.count("val") == 4 and [label for _, label in listing(found, "train")] == [0, 0, 1, 1, 2, 2]
    assert [label for _, label in listing(found, "val")] == [2, 1, 2, 0]
    store = prepare(found, tmp_path / "store", 8, 2, False)
    assert store.split("val").labels.tolist() == [2, 1, 2, 0] and store.split("val").read([3]).max() == 4
    before = found.fingerprint()
    (tmp_path / "kaggle" / "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000002.JPEG").touch()
    assert open_source(tmp_path / "kaggle").fingerprint() != before


def kaggle_archive(tmp_path, files=None, mode="w:gz"):
    """Kaggle's folder packed in an order of its own, with what lies beside it."""
    top = tree(kaggle(tmp_path / "unpacked"), {"ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG": 99,
                                               "ILSVRC/ImageSets/CLS-LOC/val.txt": b"ILSVRC2012_val_00000001 1\n"} | (files or {}))
    beside = tmp_path / "download"
    beside.mkdir()
    for name in ("LOC_val_solution.csv", "LOC_synset_mapping.txt"):
        (top / name).rename(beside / name)
    files = sorted((str(file.relative_to(top)) for file in top.rglob("*.*")), key=lambda name: ("/train/" in name, name[::-1]))
    return tar(beside / "imagenet_object_localization_patched2019.tar.gz", [(name, (top / name).read_bytes()) for name in files], mode)


@pytest.mark.parametrize("give", ["archive", "folder"])
def test_kaggles_archive_as_it_is(tmp_path, give):
    archive = kaggle_archive(tmp_path)
    found = open_source(archive if give == "archive" else archive.parent)
    assert [(entry.id, entry.name) for entry in found.classes] == [
        ("n00000002", "kite, bird"), ("n00000005", "tench"), ("n00000007", "n00000007")]
    train, val = listing(found, "train"), listing(found, "val")
    assert sorted(label for _, label in train) == [0, 0, 1, 1, 2, 2] and train != sorted(train)        # the archive's own order
    assert {name[-6:-5]: label for name, label in val} == {"1": 2, "2": 1, "3": 2, "4": 0}
    assert listing(found, "train")[3:] == [(item.name.rpartition(":")[2], item.label) for item in found.items("train", 3)]
    store = prepare(found, tmp_path / "store", 8, 2, False)
    assert len(store.split("train")) == 6 and sorted(store.split("val").read([0, 1, 2, 3]).max(axis=(1, 2, 3))) == [1, 2, 3, 4]
    assert "note: test pictures have no labels and are left out" in (tmp_path / "store" / "audit.txt").read_text()
    before = found.fingerprint()
    solution = archive.parent / "LOC_val_solution.csv"
    solution.write_text(solution.read_text().replace("_00000002,n00000005", "_00000002,n00000007"))
    assert open_source(archive).fingerprint() != before
    whole = archive.read_bytes()
    for part in (0.3, 0.6, 0.9):
        archive.write_bytes(whole[:int(part * len(whole))])
        with pytest.raises(DataError, match=r"patched2019\.tar\.gz.*(damaged|truncated)"):
            listing(open_source(archive), "train")


def test_kaggles_archive_goes_on_where_it_was_stopped(tmp_path, capsys, monkeypatch):
    archive = kaggle_archive(tmp_path)
    prepare(open_source(archive), tmp_path / "one", 8, 2, True, 2)
    assert "read past" not in capsys.readouterr().err
    whole = kaggle_module.KaggleArchive.items

    def stopped(source, split, start=0):
        yield from islice(whole(source, split, start), 5)
        raise KeyboardInterrupt
    monkeypatch.setattr(kaggle_module.KaggleArchive, "items", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare(open_source(archive), tmp_path / "two", 8, 1, False, 2)
    monkeypatch.undo()
    done = len(list((tmp_path / "two").glob("train-*.shard")))
    assert 0 < done < 3
    prepare(open_source(archive), tmp_path / "two", 8, 2, True, 2)
    assert f"prepare train: a packed archive cannot be entered in the middle, so the {2 * done} pictures" in capsys.readouterr().err
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_kaggles_archive_and_what_is_wrong_with_it(tmp_path):
    archive = kaggle_archive(tmp_path, {"ILSVRC/Data/CLS-LOC/train/n00000008/n00000008_1.JPEG": 5,
                                        "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000005.JPEG": 5})
    with pytest.raises(DataError, match=r"has n00000008, which the files beside do not list; put LOC_synset_mapping\.txt beside"):
        listing(open_source(archive), "train")
    with pytest.raises(DataError, match=r"val_00000005\.JPEG has no label; put the right LOC_val_solution\.csv beside the archive"):
        listing(open_source(archive), "val")
    tar(archive, [("x/y.JPEG", picture())], "w:gz")
    with pytest.raises(DataError, match=r"holds no pictures in Data/CLS-LOC/train; it is not Kaggle's archive"):
        listing(open_source(archive), "train")
    solution = archive.parent / "LOC_val_solution.csv"
    solution.write_text("ImageId,PredictionString\n")
    with pytest.raises(DataError, match=r"LOC_val_solution\.csv has no row 'picture,WNID \.\.\.'"):
        open_source(archive)
    solution.unlink()
    with pytest.raises(DataError, match=r"does not say what .* show: LOC_val_solution\.csv does, from the same page of Kaggle's"):
        open_source(archive)


@pytest.mark.parametrize("lines", [
    [f"val/ILSVRC2012_val_{n:08d}.JPEG {wnid}" for n, wnid in ((1, WNIDS[2]), (2, WNIDS[1]), (3, WNIDS[2]), (4, WNIDS[0]))],
    [f"ILSVRC2012_val_{n:08d}.JPEG {label}" for n, label in ((1, 2), (2, 1), (3, 2), (4, 0))],
])
def test_a_flat_val_with_a_list(tmp_path, lines):
    found = open_source(tree(flat(tmp_path / "flat"), {"val.txt": "\n".join(lines).encode()}))
    assert [label for _, label in listing(found, "val")] == [2, 1, 2, 0] and "validation labels by val.txt" in found.notes
    assumed = [note for note in found.notes if "nothing proves it" in note]
    assert len(assumed) == ("n0" not in lines[0]) and all("ILSVRC2012_ID - 1, a trained network scores 0.1 %" in note for note in assumed)


def test_an_assumed_order_is_said_before_and_after(tmp_path, capsys):
    lines = "".join(f"ILSVRC2012_val_{n:08d}.JPEG {label}\n" for n, label in ((1, 2), (2, 1), (3, 2), (4, 0)))
    top = tree(flat(tmp_path / "flat"), {"val.txt": lines.encode()})
    assert main(["prepare", str(top), "--out", str(tmp_path / "store"), "--record", "8"]) == 0
    sentence = "note: val.txt has numbers from 0, taken for positions in the sorted class ids; nothing proves it"
    said = capsys.readouterr()
    assert sentence in said.err.splitlines()[0] + said.err.splitlines()[1] and sentence in said.out
    assert sentence in (tmp_path / "store" / "audit.txt").read_text()


@pytest.mark.parametrize("labels, sentence", [
    ((3, 2, 3, 1), r"labels from 1 to 3 for 3 classes, not sorted ids from 0; ILSVRC2012_IDs would .*0\.1 %"),
    ((0, 2, 3, 1), "labels from 0 to 3 for 3 classes"),
    ((2, 1, 2, 1), "labels from 1 to 2 for 3 classes"),
    ((0, "\u00b2", 1, 2), "which is no class"),
    ((0, "9" * 5000, 1, 2), "which is no class"),
    (("n00000002", 2, 1, 0), "names '2', which is no class; .*mixed conventions give an accuracy of chance"),
    (("n00000002", "n00000003", "n00000002", "n00000005"), "names 'n00000003', which is no class"),
    ((0, 1, 2), r"does not say what ILSVRC2012_val_00000004\.JPEG shows"),
])
def test_labels_of_unknown_or_mixed_order_are_refused(tmp_path, labels, sentence):
    lines = [f"ILSVRC2012_val_{n:08d}.JPEG {label}" for n, label in enumerate(labels, 1)]
    with pytest.raises(DataError, match=sentence):
        open_source(tree(flat(tmp_path / "flat"), {"val.txt": "\n".join(lines).encode()}))


def test_the_ground_truth_without_its_devkit_is_refused(tmp_path):
    top = tree(flat(tmp_path / "flat"), {"ILSVRC2012_validation_ground_truth.txt": b"490\n361\n171\n822\n"})
    with pytest.raises(DataError, match=r"holds ILSVRC2012_IDs, which are in another order .* accuracy of 0\.1 %"):
        open_source(top)
    (top / "ILSVRC2012_validation_ground_truth.txt").unlink()
    with pytest.raises(DataError, match=r"without class folders; put LOC_val_solution\.csv, the devkit or val\.txt beside"):
        open_source(top)


DEVKIT_IDS = dict(zip(WNIDS, (3, 1, 2), strict=True))
TRUTH = b"2\n1\n2\n3\n"                                        # WNIDs 2, 1, 2, 0 in sorted order


def devkit(path, form, lead="", ids=DEVKIT_IDS):
    synsets = [{"ILSVRC2012_ID": number, "WNID": wnid, "words": f"words {wnid}", "num_children": 0} for wnid, number in ids.items()]
    files = {"meta.mat": matfile.dump("synsets", synsets), "ILSVRC2012_validation_ground_truth.txt": TRUTH}
    if form == "archive":
        tar(path / lead / ilsvrc.DEVKIT, [(f"ILSVRC2012_devkit_t12/data/{name}", content) for name, content in files.items()], "w:gz")
        return path
    return tree(path, {f"{lead}{form}{name}": content for name, content in files.items()})


@pytest.mark.parametrize("form", ["archive", "", "data/", "ILSVRC2012_devkit_t12/data/", "val/"])
def test_a_flat_val_with_the_devkit(tmp_path, form):
    """The devkit's number to WNID to sorted position; where the numbers were taken for labels, 2 1 2 3 would come out."""
    found = open_source(devkit(flat(tmp_path / "flat"), form))
    assert [label for _, label in listing(found, "val")] == [2, 1, 2, 0] and found.count("train") == 6
    assert [(entry.id, entry.name, entry.devkit_id) for entry in found.classes] == [(w, f"words {w}", DEVKIT_IDS[w]) for w in WNIDS]
    assert prepare(found, tmp_path / "store", 8, 2, False).split("val").labels.tolist() == [2, 1, 2, 0]


@pytest.mark.parametrize("inner", ["", "val/"])
def test_validation_pictures_alone_with_the_devkit(tmp_path, inner):
    top = devkit(tree(tmp_path / "only", {f"{inner}ILSVRC2012_val_{n:08d}.JPEG": n for n in (1, 2, 3, 4)}), "")
    found = open_source(top)
    assert found.splits == ("val",) and [label for _, label in listing(found, "val")] == [2, 1, 2, 0] and len(found.classes) == 3
    assert prepare(found, tmp_path / "store", 8, 2, False).split("val").labels.tolist() == [2, 1, 2, 0]
    (top / "meta.mat").unlink()
    with pytest.raises(DataError, match=r"accuracy of 0\.1 %\.  Put meta\.mat of the devkit, or the devkit's archive, beside it"):
        open_source(top)


@pytest.mark.parametrize("by", ["devkit", "Kaggle"])
def test_a_list_of_numbers_is_proved_or_refused(tmp_path, by):
    top = devkit(flat(tmp_path / "flat"), "archive") if by == "devkit" else kaggle(tmp_path / "flat")
    listed = (top if by == "devkit" else top / "ILSVRC/Data/CLS-LOC") / "val.txt"

    def write(*labels):
        listed.write_text("".join(f"ILSVRC2012_val_{n:08d} {label}\n" for n, label in enumerate(labels, 1)))
    write(2, 1, 2, 0)
    found = open_source(top)
    assert [label for _, label in listing(found, "val")] == [2, 1, 2, 0]
    assert any("val.txt, which agrees with" in note for note in found.notes) and not any("nothing proves" in note for note in found.notes)
    write(1, 0, 1, 2)
    with pytest.raises(DataError, match=r"val_00000001 shows n00000005, but .* says n00000007; .* ILSVRC2012_ID - 1 .* chance, 0\.1 %"):
        open_source(top)
    write(2, 1, 0, 0)                                           # neither order
    with pytest.raises(DataError, match=r"val_00000003 shows n00000002, but .* says n00000007;"):
        open_source(top)


def test_two_files_of_labels_must_agree(tmp_path):
    top = devkit(kaggle(tmp_path / "kaggle"), "archive")
    assert [label for _, label in listing(open_source(top), "val")] == [2, 1, 2, 0] and open_source(top).classes[1].devkit_id == 1
    devkit(top, "archive", ids={WNIDS[0]: 1, WNIDS[1]: 2, WNIDS[2]: 3})
    with pytest.raises(DataError, match=r"is n00000002 by LOC_val_solution\.csv and n00000007 by .*devkit_t12\.tar\.gz; remove"):
        open_source(top)


def test_a_stray_picture_beside_class_folders_makes_no_flat_val(tmp_path):
    top = tree(tmp_path / "tree", {f"{split}/{wnid}/x.JPEG": 3 for split in ("train", "val") for wnid in WNIDS} | {"val/stray.JPEG": 5})
    found = open_source(top)
    assert found.kind == "folder" and found.count("val") == 3 and "1 pictures outside any class folder are left out" in found.notes
