"""The small MATLAB reader: what we write, what SciPy writes, and damage of every kind as one typed error in bounded time and memory."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from minialex.data import matfile
from minialex.data.source import DataError

SYNSETS = [
    {"ILSVRC2012_ID": 2, "WNID": "n01440764", "words": "tench, Tinca tinca", "num_children": 0, "children": np.zeros((1, 0))},
    {"ILSVRC2012_ID": 1, "WNID": "n01443537", "words": "poupée", "num_children": 2, "children": np.array([[4.0, 5.0]])},
    {"ILSVRC2012_ID": 300, "WNID": "", "words": "abc", "num_children": 0, "children": np.arange(6.0).reshape(2, 3)},
]


def same(found, wanted):
    assert len(found) == len(wanted)
    for got, want in zip(found, wanted, strict=True):
        assert list(got) == list(want)
        for field, value in want.items():
            if isinstance(value, str):
                assert (got[field] if np.size(got[field]) else "") == value
            else:
                np.testing.assert_array_equal(np.asarray(got[field]).reshape(np.atleast_2d(value).shape), np.atleast_2d(value))


def test_what_we_write_we_read():
    same(matfile.load(matfile.dump("synsets", SYNSETS))["synsets"], SYNSETS)


def test_field_names_are_limited():
    with pytest.raises(DataError, match="31 letters"):
        matfile.dump("x", [{"a" * 32: 1}])


@pytest.mark.parametrize("packed", [True, False])
def test_against_scipy(packed):
    """Both directions, with the types the devkit has and those it might have."""
    scipy_io = pytest.importorskip("scipy.io", reason="SciPy is the judge here and is not installed")
    loaded = scipy_io.loadmat(io.BytesIO(matfile.dump("synsets", SYNSETS)), squeeze_me=True, uint16_codec="utf-16-le")
    loaded = loaded["synsets"]
    assert loaded["WNID"].tolist()[:2] == ["n01440764", "n01443537"] and loaded["words"][1] == "poupée"
    assert loaded["ILSVRC2012_ID"].tolist() == [2, 1, 300] and loaded["children"][2].tolist() == [[0, 1, 2], [3, 4, 5]]

    fields = ("WNID", "words", "ILSVRC2012_ID", "children")
    table = np.array([tuple(s[field] for field in fields) for s in SYNSETS], dtype=[(field, object) for field in fields])
    types = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
    numbers = {f"v_{kind}": np.arange(6).reshape(2, 3).astype(kind) for kind in types}
    buffer = io.BytesIO()
    cell = np.array(["ab", np.eye(2)], dtype=object)
    scipy_io.savemat(buffer, {"synsets": table, "cell": cell, "rows": np.array(["one", "two"]), **numbers}, do_compression=packed)
    found = matfile.load(buffer.getvalue())
    assert [s["WNID"] for s in found["synsets"]][:2] == ["n01440764", "n01443537"]
    assert found["synsets"][1]["words"] == "poupée" and [int(s["ILSVRC2012_ID"].item()) for s in found["synsets"]] == [2, 1, 300]
    np.testing.assert_array_equal(found["synsets"][2]["children"], SYNSETS[2]["children"])
    assert found["cell"][0] == "ab" and found["rows"] == "one\ntwo"
    np.testing.assert_array_equal(found["cell"][1], np.eye(2))
    for name, value in numbers.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_big_endian():
    """The same numbers as a big-endian machine writes them."""
    def element(kind, data):
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    inner = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">ii", 1, 2)) + element(1, b"x")
    inner += element(9, struct.pack(">dd", 1.5, -2))
    content = b"MATLAB 5.0".ljust(124) + struct.pack(">H", 0x0100) + b"MI" + element(14, inner)
    assert matfile.load(content)["x"].tolist() == [[1.5, -2.0]]


@pytest.mark.parametrize("content, sentence", [
    (b"", "no MATLAB 5 file"), (b"x" * 200, "no MATLAB 5 file"), (b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM", "save it again with -v7"),
    (matfile.dump("s", SYNSETS)[:-30], "damaged MATLAB 5 file"),
])
def test_no_matlab_file(content, sentence):
    with pytest.raises(DataError, match=f"meta.mat is .*{sentence}"):
        matfile.load(content, "meta.mat")


def plain(content):
    """An unpacked form, so that damage reaches the parser and not only zlib."""
    return content[:128] + zlib.decompress(content[136:])


def test_damage_is_one_typed_error():
    whole, rng, refused = plain(matfile.dump("synsets", SYNSETS)), np.random.default_rng(7), 0
    tracemalloc.start()
    for trial in range(3000):
        data = bytearray(whole)
        for _ in range(1 + trial % 3):
            at = int(rng.integers(128, len(data)))
            if trial % 2:
                data[at] ^= 1 << int(rng.integers(8))
            else:
                data[at : at + 4] = struct.pack("<I", int(rng.choice([0, 1, 15, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])))
        try:
            matfile.load(bytes(data), "meta.mat")
        except DataError as error:
            assert "meta.mat" in str(error)
            refused += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused > 500 and peak < 64 << 20
    for length in range(128, len(whole), 7):
        try:
            matfile.load(whole[:length], "meta.mat")
        except DataError:
            continue
        assert length == 128, "a truncated file was taken for whole"


def test_bombs_are_refused():
    packed = zlib.compress(bytes(matfile.MAX_BYTES + 1000))
    head = matfile.dump("s", SYNSETS)[:128]
    with pytest.raises(DataError, match="truncated or too large"):
        matfile.load(head + struct.pack("<II", 15, len(packed)) + packed)

    def element(kind, data):
        return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

    def array(kind, shape, content):
        return element(14, element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack("<ii", *shape)) + element(1, b"x") + content)

    with pytest.raises(DataError, match="absurd shape"):
        matfile.load(head + array(2, (30_000_000, 1), element(5, struct.pack("<i", 8)) + element(1, b"")))
    nested = b""
    for _ in range(matfile.MAX_DEPTH + 2):
        nested = array(1, (1, 1), nested or array(6, (1, 1), element(9, bytes(8))))
    with pytest.raises(DataError, match="nested too deeply"):
        matfile.load(head + nested)
