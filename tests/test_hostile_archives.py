"""Archives made to harm: each is read right or refused in one sentence, in constant memory, and nothing appears beside it."""

import gzip
import json
import os
import random
import subprocess
import sys
import tarfile
import zlib

import pytest
from pictures import picture

from minialex.data.prepare import prepare
from minialex.data.source import DataError, open_source
from minialex.spec import MiniAlexError

LIMIT = 32                                                      # MiB of memory beyond what the program takes anyway
END, BLOCK = bytes(1024), 512


def header(name=b"a/1.png", size=0, kind=b"0", field=None):
    """A header block by hand: tarfile writes no false ones.  `field` is what stands for the size."""
    block = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT)[:BLOCK])
    if field is None:
        field = b"%011o\0" % size if 0 <= size < 8 ** 11 else (b"\x80" if size >= 0 else b"\xff") + (size % 256 ** 11).to_bytes(11, "big")
    block[:100], block[124:136], block[156:157] = name.ljust(100, b"\0"), field, kind
    return sealed(block)


def sealed(block):
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def member(name, content=b"", kind=b"0"):
    return header(name, len(content), kind) + content + bytes(-len(content) % BLOCK)


def long_name(name, content=b"x"):
    return member(b"././@LongLink", name + b"\0", b"L") + member(b"short", content)


def record(key, value):
    """A pax record, which counts its own length."""
    size = len(key) + len(value) + 3
    size += len(str(size + len(str(size))))
    return b"%d %s=%s\n" % (size, key, value)


def pax(content, name=b"q", size=1):
    return member(b"pax", content, b"x") + member(name, b"x" * size)


def sparse(blocks):
    """The old GNU form: a map that goes on from block to block."""
    head = bytearray(header(b"a/hole.png", 1, b"S"))
    head[386:482], head[482], head[483:495] = b"00000000001\0" * 8, 1, b"00000000000\0"
    more = b"00000000001\0" * 42 + b"\1" + bytes(7)
    return sealed(head) + more * blocks + more[:504] + bytes(8)


def sparse_text(numbers):
    """The pax form: a map of decimal numbers, a line each."""
    marks = record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0") + record(b"GNU.sparse.name", b"a/hole.png")
    return member(b"pax", marks + record(b"GNU.sparse.realsize", b"9"), b"x") + header(b"x", 1 << 27) + b"5000000\n" + b"0\n" * numbers


def packed(*parts):
    """gzip of parts, a part of (count, bytes) that many times: archives that are large only when read."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    found = [packer.compress(content) for count, content in (part if isinstance(part, tuple) else (1, part) for part in parts)
             for _ in range(count)]
    return b"".join(found) + packer.flush()


GOOD = member(b"a/1.png", b"x") + member(b"b/2.png", b"x")
DAMAGED, TWO = "no tar archive, or damaged or truncated", ["a/1.png", "b/2.png"]
# Name: (content, the members that are taken or words of the sentence)
HOSTILE = {
    "two hundred long names.tar": (member(b"././@LongLink", b"q/z.png\0", b"L") * 100 + GOOD + END, ["q/z.png", "b/2.png"]),
    "chain of long names.tar": (member(b"././@LongLink", b"q/z.png\0", b"L") * 10_000 + GOOD + END, "headers without end"),
    "chain of long links.tar": (member(b"././@LongLink", b"q\0", b"K") * 10_000 + GOOD + END, "headers without end"),
    "chain of pax headers.tar": (member(b"p", record(b"path", b"q"), b"x") * 10_000 + GOOD + END, "headers without end"),
    "chain of global headers.tar": (member(b"g", record(b"path", b"q"), b"g") * 10_000 + GOOD + END, "headers without end"),
    "long name of itself.tar": (header(b"././@LongLink", 512, b"L") * 3 + GOOD + END, DAMAGED),
    "long name without end.tar": (GOOD + header(b"././@LongLink", 512, b"L"), DAMAGED),
    "deep.tar": (long_name(b"a/" * 2000 + b"1.png") + long_name(b"a/" * 2100 + b"2.png") + GOOD + END, ["a/" * 2000 + "1.png", *TWO]),
    "deeper than any path.tar": (long_name(b"a/" * 2100 + b"1.png") + GOOD + END, TWO),
    "very deep.tar": (long_name(b"a/" * 400_000 + b"1.png") + GOOD + END, "longer than any name"),
    "one part of 4000.tar": (long_name(b"a/" + b"n" * 3990 + b".png") + GOOD + END, ["a/" + "n" * 3990 + ".png", *TWO]),
    "digits.tar": (pax(b"1" * 1_000_000) + GOOD + END, "longer than any name"),
    "digits in a record.tar": (pax(record(b"comment", b"1" * 900_000)) + GOOD + END, "longer than any name"),
    "no records.tar": (pax(b"5 a b" * 200_000 + b"=") + GOOD + END, "longer than any name"),
    "records of no length.tar": (pax(b"0 a=b\n" * 20_000) + GOOD + END, "longer than any name"),
    "records of a wrong length.tar": (pax(b"7 a=bcd" * 20_000) + GOOD + END, "longer than any name"),
    "many records.tar": (pax(b"".join(record(b"k%06d" % i, b"v") for i in range(20_000)), b"a/0.png") + GOOD + END, ["a/0.png", *TWO]),
    "global records.tar": (member(b"g", b"".join(record(b"k%06d" % i, b"v") for i in range(2000)), b"g") + GOOD + END, "global records"),
    "a few global records.tar": (member(b"g", record(b"comment", b"c"), b"g") * 20 + GOOD + END, TWO),
    "large headers.tar.gz": (packed((60, member(b"p", record(b"k", bytes(1 << 19)), b"g")), GOOD, END), "headers without end"),
    "a large attribute.tar": (pax(record(b"SCHILY.xattr.user.x", bytes(900_000)), b"a/0.png") + GOOD + END, ["a/0.png", *TWO]),
    "larger than any header.tar": (pax(record(b"k", bytes(2 << 20))) + GOOD + END, "absurd size"),
    "odd numbers.tar": (pax(record(b"mtime", b"nan") + record(b"uid", b"1e9"), b"a/0.png") + GOOD + END, ["a/0.png", *TWO]),
    "sparse map.tar.gz": (packed(sparse(30_000), GOOD, END), "headers without end"),
    "short sparse map.tar": (sparse(20) + bytes(BLOCK) + GOOD + END, TWO),
    "sparse text.tar.gz": (packed(sparse_text(5_000_000), GOOD, END), "headers without end"),
    "bomb.tar.gz": (packed(GOOD, header(b"a/bomb.png", 64 << 20), (64, bytes(1 << 20)), END), [*TWO, "a/bomb.png"]),
    "bomb of words.tar.gz": (packed(*((1, header(b"c%d/classes.txt" % i, 4 << 20)) if j < 0 else (4, bytes(1 << 20))
                                      for i in range(12) for j in (-1, 0)), GOOD, END), TWO),
    "names of folders.tar.gz": (packed(*(long_name(b"c%06d/" % i + (b"n" * 250 + b"/") * 15 + b"x.png") for i in range(10_000)), END),
                                "folders; is this an archive of a data set"),
    "empty.tar.gz": (packed((5000, header(b"a/1.png") + header(b"b/2.png")), END), TWO * 5000),
    "names twice.tar": (GOOD * 3 + END, TWO * 3),
    "NUL and no UTF-8.tar": (pax(record(b"path", b"a/x\0y.png")) + pax(record(b"path", b"b/\xff\xfe.png")) + GOOD + END,
                             ["a/x\\x00y.png", "b/\\udcff\\udcfe.png", *TWO]),
    "climbing.tar": (pax(record(b"path", b"../../up.png")) + GOOD + END, TWO),
    "absolute.tar": (pax(record(b"path", b"/up.png")) + GOOD + END, TWO),
    "nameless.tar": (pax(record(b"path", b""), b"/") + GOOD + END, TWO),
    "size of words.tar": (GOOD + header(b"a/h.png", field=b"99999999999\0") + END, DAMAGED),
    "pax size.tar": (GOOD + pax(record(b"size", b"9" * 30)) + END, DAMAGED),
    "negative pax size.tar": (GOOD + pax(record(b"size", b"-512")) + END, DAMAGED),
}
SIZES = [2 ** 62, 2 ** 63 - 1024, 2 ** 63 - 1, 2 ** 63, 2 ** 64 + 5, 2 ** 87, -1, -512, -2 ** 62, -2 ** 63, -2 ** 80]
CHILD = """
import json, resource, sys
from minialex.data import archive
from minialex.data.source import DataError, open_source
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))     # a fault must not take the machine's memory
archive.Member.read.__defaults__ = (4 << 20,)
def memory(word):
    return next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith(word))
for path in sys.argv[1:]:
    with open("/proc/self/clear_refs", "w") as file:            # the peak is counted from here on
        file.write("5")
    before, taken = memory("VmRSS"), []
    try:
        found = open_source(path)
        counts = [sum(1 for _ in found.items(split)) for split in found.splits]
        assert counts == [found.count(split) for split in found.splits]
        taken = [item.name.partition(":")[2] for split in found.splits for item in found.items(split)] if sum(counts) < 99 else counts
    except DataError as error:
        taken = str(error)
    print(json.dumps([path, memory("VmHWM") - before, taken]), flush=True)
"""


def everything(folder):
    """All that lies anywhere below, links not followed."""
    return sorted((os.path.join(top, name), os.lstat(os.path.join(top, name)).st_mtime_ns)
                  for top, folders, files in os.walk(folder) for name in folders + files)


def through_a_child(folder, names):
    run = subprocess.run([sys.executable, "-c", CHILD, *names], cwd=folder, capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"})
    assert run.returncode == 0, run.stderr[-2000:]
    return {name: (peak, taken) for name, peak, taken in map(json.loads, run.stdout.splitlines())}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """All of them through one process, in a folder that stays as it is: {name: (MiB at the peak, names taken or sentence)}."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("no /proc to ask for peaks of memory")
    top = tmp_path_factory.mktemp("hostile")
    (folder := top / "a" / "b").mkdir(parents=True)
    for name, (content, _) in HOSTILE.items():
        (folder / name).write_bytes(content)
    before = everything(top)
    found = through_a_child(folder, HOSTILE)
    assert everything(top) == before
    return found


@pytest.mark.parametrize("name", HOSTILE)
def test_read_right_or_refused_in_constant_memory(name, outcomes):
    (peak, taken), (_, want) = outcomes[name], HOSTILE[name]
    assert peak < {"names of folders.tar.gz": 4 * LIMIT, "empty.tar.gz": 4}.get(name, LIMIT)
    if isinstance(want, str):
        assert isinstance(taken, str) and want in taken and taken.startswith(name) and len(taken.splitlines()) == 1
    elif len(want) > 99:
        assert sum(taken) == len(want)
    else:
        assert sorted(taken) == sorted(want)


def test_memory_is_measured(tmp_path, monkeypatch):
    """A reader that keeps what it has read."""
    (tmp_path / "bomb.tar.gz").write_bytes(HOSTILE["bomb.tar.gz"][0])
    monkeypatch.setitem(globals(), "CHILD", CHILD.replace("(4 << 20,)", "(256 << 20,)"))
    assert through_a_child(tmp_path, ["bomb.tar.gz"])["bomb.tar.gz"][0] > LIMIT


@pytest.mark.long
def test_a_million_empty_members(tmp_path):
    """2 GiB of headers; the memory is that of ten thousand."""
    (tmp_path / "empty.tar.gz").write_bytes(packed((500_000, header(b"a/1.png") + header(b"b/2.png")), END))
    peak, taken = through_a_child(tmp_path, ["empty.tar.gz"])["empty.tar.gz"]
    assert sum(taken) == 1_000_000 and peak < LIMIT


@pytest.mark.parametrize("kind", [b"0", b"1", b"5", b"7", b"L", b"K", b"S", b"x", b"g", b"?"])
@pytest.mark.parametrize("size", SIZES)
def test_sizes_that_no_file_has(tmp_path, kind, size):
    """Sizes as base-256 numbers, in a plain archive and in a packed one: refused, or what has no content is passed over."""
    content = GOOD + header(b"a/h.png", size, kind) + bytes(8 * BLOCK) + END
    for name, written in (("x.tar", content), ("x.tar.gz", gzip.compress(content, 1))):
        (tmp_path / name).write_bytes(written)
        try:
            found = open_source(tmp_path / name)
        except DataError as error:
            assert str(error).startswith(name) and DAMAGED in str(error)
        else:
            assert [item.name for item in found.items("train")] == [f"{name}:{one}" for one in TWO]
    assert sorted(os.listdir(tmp_path)) == ["x.tar", "x.tar.gz"]


@pytest.mark.parametrize("size", [2 ** 62, 2 ** 63 - 1, 2 ** 87, -512, 1 << 30])
def test_an_archive_within_an_archive_ends_with_it(tmp_path, size):
    """The inner archive claims a size, or a member of it does, that lies beyond the outer one."""
    inner = member(b"n00000001_1.JPEG", b"x") + header(b"n00000001_2.JPEG", size) + END
    for content in (member(b"n00000001.tar", inner), header(b"n00000001.tar", size) + inner):
        (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(content + member(b"n00000002.tar", END) + END)
        with pytest.raises(MiniAlexError, match=r"ILSVRC2012_img_train\.tar.*(no tar archive, or damaged|ends within this file)"):
            list(open_source(tmp_path).items("train"))


def test_nothing_but_the_store_appears(tmp_path):
    """A preparation from an archive of every bad name: the store is all that is new, and its pictures are the good ones."""
    good = [(f"{name}/{number}.png".encode(), picture(level)) for number, level in enumerate((10, 90)) for name in "ab"]
    bad = [b"../up.png", b"a/../../up.png", str(tmp_path).encode() + b"/absolute.png", b"a/" * 3000 + b"deep.png", b"\\\\host\\x.png",
           b"a/n\nl\x1b[2J.png", b"a/\xff\xfe.png", b"CON.png", b"a/.png"]
    content = b"".join(member(name, data) for name, data in good)
    content += b"".join(pax(record(b"path", name), b"q", 1) for name in [*bad, b"a/nul\0.png", b"/"])
    content += b"".join(member(name, b"", kind) for name in (b"a/l.png", b"../l.png") for kind in b"1 2 3 4 6 7".split())
    content += pax(record(b"path", b"a/s.png") + record(b"linkpath", b"/etc/passwd"), b"q", 1)
    (folder := tmp_path / "in").mkdir()
    (folder / "x.tar").write_bytes(content + END)
    before = everything(tmp_path)
    source = open_source(folder / "x.tar")
    assert everything(tmp_path) == before
    out = tmp_path / "out" / "store"
    out.parent.mkdir()
    store = prepare(source, out, 4, 1, False)
    new = [path for path, _ in everything(tmp_path) if path not in dict(before)]
    assert all(path.startswith(str(out.parent)) for path in new) and set(os.listdir(out.parent)) == {"store"}
    assert sum(len(store.split(split)) for split in store.splits) == len(good)
    names = "".join(p.read_text("utf-8") for p in out.rglob("*") if p.suffix in (".md", ".json", ".txt"))
    assert "\x1b" not in names and "up.png" not in names.replace("a/up.png", "")


def test_cut_and_changed_anywhere(tmp_path):
    """Every kind of member in one archive; every length, and hundreds of changes: right names or a sentence."""
    draw = random.Random(5)
    whole = (GOOD + long_name(b"a/" + b"l" * 120 + b".png") + pax(record(b"path", b"b/p.png")) + sparse(2) + bytes(BLOCK)
             + member(b"a/l.png", b"", b"2") + GOOD + END)
    names = {item.name for item in _items(tmp_path, whole)}
    assert len(names) == 4
    for end in range(1, len(whole) - len(END), 97):
        with pytest.raises(MiniAlexError):
            _items(tmp_path, whole[:end])
    refused = 0
    for _ in range(400):
        changed = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            changed[draw.randrange(len(whole))] = draw.randrange(256)
        try:
            _items(tmp_path, bytes(changed))
        except MiniAlexError:
            refused += 1
    assert 40 < refused < 400 and os.listdir(tmp_path) == ["x.tar"]


def _items(folder, content):
    (folder / "x.tar").write_bytes(content)
    found = open_source(folder / "x.tar")
    return [item for split in found.splits for item in found.items(split)]
