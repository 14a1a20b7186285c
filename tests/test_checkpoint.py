"""A checkpoint comes back as it was or is refused in one sentence: formats, damage of every kind, another run's."""

from __future__ import annotations

import json
import os
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from checkpoints import STATE, arrays, refused, same, sealed
from safetensors.numpy import load_file, save_file

from minialex.checkpoint import HEADER_LIMIT, CheckpointError, load, match, save

ROOT = Path(__file__).resolve().parent.parent


# ------------------------------------------------------------------ what is kept
def test_arrays_and_state_come_back(tmp_path):
    path = save(tmp_path, "c.safetensors", arrays(), STATE)
    got, state = load(path)
    assert path == tmp_path / "c.safetensors" and same(got, arrays()) and state == STATE
    got["labels"][0] = 1                                      # the caller's own, writable
    again = save(tmp_path, "d.safetensors", arrays(), STATE)
    assert path.read_bytes() == again.read_bytes()
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0       # the data start where 8-byte numbers may


@pytest.mark.parametrize("array", [
    np.float32(2.5), np.zeros((0, 3)), np.zeros((2, 0), np.uint8), np.array([True, False]), np.arange(12.0).reshape(3, 4).T,
    np.arange(20, dtype=np.int16)[::-3], np.arange(4, dtype=">i4"), np.array([np.nan, -0.0, np.inf]), np.arange(3, dtype=np.float16),
    np.broadcast_to(np.float32(3), (2, 2))], ids=lambda a: f"{a.dtype.str}-{a.shape}")
def test_any_strides_types_and_ranks(tmp_path, array):
    got = load(save(tmp_path, "c.safetensors", {"x": array}, {}))[0]["x"]
    assert got.shape == array.shape and got.dtype == array.dtype.newbyteorder("=")
    assert got.tobytes() == array.astype(got.dtype).tobytes()


def test_the_safetensors_library_reads_the_arrays(tmp_path):
    path = save(tmp_path, "c.safetensors", arrays(), STATE)
    library = load_file(path)
    assert same({k: library[k] for k in arrays()}, arrays())


def test_the_first_format_is_read_for_ever():
    got, state = load(ROOT / "tests" / "golden/checkpoint-version1.safetensors")
    assert state == {"recipe": "tiny", "step": 3, "classes": ["a", "b"]}
    assert list(got) == ["w/fc.w", "mean"]
    assert np.array_equal(got["w/fc.w"], np.float32([[0.5, -1.25], [3.0, 1e-3]])) and np.array_equal(got["mean"], np.arange(3.0))


@pytest.mark.parametrize("bad, state, word", [
    ({"x": np.array(["a"])}, {}, "'x'"), ({"x": np.array([None])}, {}, "'x'"), ({"x": np.zeros(2, complex)}, {}, "complex"),
    ({"__metadata__": np.zeros(2)}, {}, "__metadata__"), ({}, {"a": np.zeros(2)}, "JSON"), ({}, {"a": float("nan")}, "JSON"),
    ({}, {1: 0, "1": 0}, "twice")])
def test_what_cannot_be_kept_is_refused_before_writing(tmp_path, bad, state, word):
    with pytest.raises(CheckpointError, match=word):
        save(tmp_path, "c.safetensors", bad, state)
    assert not list(tmp_path.iterdir())


def test_saving_over_the_loaded_file(tmp_path):
    path = save(tmp_path, "c.safetensors", arrays(), STATE)
    got, state = load(path)
    save(tmp_path, path.name, got, {**state, "step": 32})
    assert same(load(path)[0], arrays()) and load(path)[1]["step"] == 32


# ------------------------------------------------------------------ damage
def test_every_flipped_bit_of_the_header_is_noticed(tmp_path):
    path = save(tmp_path, "c.safetensors", arrays(), STATE)
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    with open(path, "r+b", buffering=0) as file:
        for bit in range(8 * header):
            place, right = bit // 8, content[bit // 8]
            os.pwrite(file.fileno(), bytes([right ^ 1 << bit % 8]), place)
            with pytest.raises(CheckpointError):
                load(path)
            os.pwrite(file.fileno(), bytes([right]), place)
    assert load(path)[1] == STATE


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.long)])
def test_flipped_bits_of_the_data_name_their_array(tmp_path, count):
    path = save(tmp_path, "c.safetensors", arrays(size=2000), STATE)
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    draw = random.Random(0)
    places = {start * 8, len(content) * 8 - 1, *(draw.randrange(start * 8, len(content) * 8) for _ in range(count))}
    spoilt = tmp_path / "spoilt.safetensors"
    for bit in places:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        spoilt.write_bytes(changed)
        offset = bit // 8 - start
        refused(spoilt, "damaged", "w/conv1.w" if offset < 72 else "v/conv1.w" if offset < 16072 else "labels")


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_every_truncation_is_noticed(tmp_path, count):
    path = save(tmp_path, "c.safetensors", arrays(size=2000), STATE)
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    draw = random.Random(1)
    short = tmp_path / "short.safetensors"
    for length in [*range(start + 1), *(draw.randrange(start, len(content)) for _ in range(count)), len(content) - 1]:
        short.write_bytes(content[:length])
        refused(short, "damaged or cut short")
    short.write_bytes(content + b"\0")
    refused(short, "damaged")


def test_what_is_not_a_checkpoint(tmp_path):
    refused(tmp_path / "none.safetensors", "no such checkpoint")
    refused(tmp_path, "is a folder")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": np.zeros(3)}, foreign, metadata={"format": "np"})
    refused(foreign, "not a checkpoint of MiniAlex")
    foreign.write_bytes(b"\x80\x05\x95" + b"pickled" * 99)
    refused(foreign, "damaged")
    newer = save(tmp_path, "newer.safetensors", arrays(), STATE)
    newer.write_bytes(newer.read_bytes().replace(b'"version":"1"', b'"version":"2"'))
    refused(newer, "newer MiniAlex", "format 2")


def test_a_file_that_cannot_be_read(tmp_path):
    path = tmp_path / "c.safetensors"
    path.symlink_to("/proc/self/mem")                         # opens, and fails to read with EIO
    refused(path, "cannot be read (Input/output error)")


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize("entries", [
    {"x": {**F32, "shape": [4194305, 4194305, 211106198978564]}}, {"x": {**F32, "shape": [2**62]}}, {"x": {**F32, "shape": [-2]}},
    {"x": {**F32, "shape": [2.0]}}, {"x": {**F32, "shape": [True, 2]}}, {"x": {**F32, "shape": "2"}},
    {"x": {**F32, "shape": [1] * 40 + [2]}},
    {"x": {**F32, "dtype": "F33"}}, {"x": {**F32, "dtype": ["F32"]}}, {"x": {**F32, "data_offsets": [0, 8, 8]}},
    {"x": {**F32, "data_offsets": [-8, 0]}}, {"x": {**F32, "data_offsets": [0, 1e999]}}, {"x": {"dtype": "F32", "shape": [2]}}, {"x": 5},
    {"x": F32, "y": F32}, {"x": {**F32, "data_offsets": [4, 12]}}, {"x": {**F32, "shape": [1], "data_offsets": [0, 4]}},
    {"x": F32, "y": {"dtype": "F32", "shape": [0], "data_offsets": [4, 4]}}, {},
    {"y": {"dtype": "F64", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}, "x": F32}], ids=lambda e: json.dumps(e)[:60])
def test_a_well_sealed_header_of_nonsense(tmp_path, entries):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(sealed(entries) + bytes(8))
    refused(path)
    path.write_bytes(sealed({"x": F32}) + bytes(8))           # the helper is right: this one loads
    assert np.array_equal(load(path)[0]["x"], [0, 0])


def test_data_with_a_hole_are_refused(tmp_path):
    path = tmp_path / "hole.safetensors"
    path.write_bytes(sealed({"x": {**F32, "data_offsets": [4, 12]}}) + bytes(12))
    refused(path, "x is not described as it should be")


@pytest.mark.parametrize("metadata", [
    {"state": "[]"}, {"state": "{"}, {"state": 5}, {"state": None}, {"state": "[" * 100_000}, {"state": '{"a": ' * 100_000},
    {"state": '{"a": NaN}'}, {"state": '{"a": -Infinity}'}, {"state": '{"a": 1e999}'},
    {"state": '{"a": 1, "a": 2}'}, {"crc32": "{}"}, {"crc32": '{"x": "7"}'}], ids=lambda m: str(m)[:30])
def test_well_sealed_metadata_of_nonsense(tmp_path, metadata):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(sealed({"x": F32}, metadata) + bytes(8))
    refused(path, "damaged")


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**9, 0])
def test_absurd_lengths_take_no_memory(tmp_path, length):
    path = tmp_path / "sparse.safetensors"
    with open(path, "wb") as file:
        file.write(length.to_bytes(8, "little"))
        file.truncate(2 * 10**9)                              # sparse: takes no room
    tracemalloc.start()
    refused(path, "header claims")
    path.write_bytes(sealed({"x": {"dtype": "F32", "shape": [2**33], "data_offsets": [0, 2**35]}}) + bytes(8))
    refused(path, "bytes of data instead of")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("metadata, entries", [
    pytest.param({"state": '{"a":[' + "[]," * 2_600_000 + "1]}"}, {"x": F32}, marks=pytest.mark.long),
    pytest.param({"state": '{"a":[' + "{}," * 2_600_000 + "1]}"}, {"x": F32}, marks=pytest.mark.long),
    ({}, {str(k): {} for k in range(200_000)}), ({"crc32": json.dumps(dict.fromkeys(map(str, range(400_000)), 0))}, {"x": F32}),
], ids=["lists", "dicts", "entries", "sums"])
def test_the_largest_heads_take_little_memory(tmp_path, metadata, entries):
    """Of the well-sealed ones; what has no seal is not parsed at all."""
    path = tmp_path / "large.safetensors"
    path.write_bytes(sealed(entries, metadata) + bytes(8))
    tracemalloc.start()
    try:
        load(path)
    except CheckpointError as error:
        assert str(path) in str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 2**22 < peak < 2**28
    path.write_bytes((HEADER_LIMIT + 1).to_bytes(8, "little") + b"{" * (HEADER_LIMIT + 1))
    refused(path, f"its header claims {HEADER_LIMIT + 1:,}")


# ------------------------------------------------------------------ does it fit this run
def test_a_fitting_checkpoint_passes():
    match(STATE, {"recipe": "tiny", "classes": ["n01", "n02"], "shapes": {"labels": [3]}}, arrays())


@pytest.mark.parametrize("expected, words", [
    ({"recipe": "paper"}, ("recipe tiny", "has paper")),
    ({"classes": ["n01", "n03"]}, ("class 1", "n02 there", "n03 here")),
    ({"classes": ["n01"]}, ("2 classes", "has 1", "class 1", "n02 there", "missing here")),
    ({"classes": ["n02", "n01"]}, ("class 0",)),
    ({"shapes": {"w/conv1.w": (3, 3, 3, 1)}}, ("w/conv1.w", "(2, 3, 3, 1)", "(3, 3, 3, 1)")),
    ({"shapes": {"w/conv9.w": (1,)}}, ("w/conv9.w of shape None", "(1,)")),
    ({"dtype": "float64"}, ("dtype None", "float64"))])
def test_what_does_not_fit_is_named(expected, words):
    with pytest.raises(CheckpointError) as caught:
        match(STATE, expected, arrays())
    assert all(word in str(caught.value) for word in words), str(caught.value)
