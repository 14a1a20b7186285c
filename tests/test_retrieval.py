"""Search among features and codes, and the file features live in."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from runs import small_store

from minialex.data import Store
from minialex.predict import trained
from minialex.retrieval import FeatureFile, features_of, hamming_nearest, nearest, recall, search, write_features
from minialex.retrieval import features as module
from minialex.retrieval.features import FeatureError
from minialex.spec import MiniAlexError
from minialex.train import run


def brute(queries: np.ndarray, index: np.ndarray, k: int, exclude=None) -> tuple[np.ndarray, np.ndarray]:
    """All distances in float64, sorted; equal ones by row."""
    d = ((queries[:, None].astype(np.float64) - index[None].astype(np.float64)) ** 2).sum(-1)
    if exclude is not None:
        d[exclude >= 0, exclude[exclude >= 0]] = np.inf
    rows = np.argsort(d, axis=1, kind="stable")[:, :k]
    return rows, np.sqrt(np.take_along_axis(d, rows, 1))


# ---------------------------------------------------------------- exact search
def test_the_nearest_by_hand():
    index = np.float32([[0, 0], [3, 4], [0, 1], [0, 1]])
    rows, distances = nearest(np.float32([[0, 0], [3, 3]]), index, 3)
    assert rows.tolist() == [[0, 2, 3], [1, 2, 3]] and distances[0].tolist() == [0, 1, 1] and distances[1][0] == 1


@pytest.mark.parametrize("n, q, D, k, offset", [(500, 20, 17, 6, 0), (700, 30, 64, 6, 1000), (100, 5, 3, 100, 0), (3, 2, 1, 1, 0),
                                                (900, 40, 33, 7, 1e5)])
def test_search_finds_what_sorting_finds(n, q, D, k, offset, rng, monkeypatch):
    """Also with a common offset that leaves nothing of the distances in a float32 product, with duplicates, and across blocks."""
    monkeypatch.setattr(search, "BLOCK_BYTES", 4 * D * 90)
    monkeypatch.setattr(search, "QUERIES", 16)
    index = (rng.normal(size=(n, D)) + offset).astype(np.float32)
    index[n // 2:n // 2 + 20] = index[:20][:n - n // 2]
    queries = np.concatenate([index[:q // 2], (rng.normal(size=(q - q // 2, D)) + offset).astype(np.float32)])
    rows, distances = nearest(queries, index, k)
    truth, exact = brute(queries, index, k)
    assert np.array_equal(rows, truth) and np.allclose(distances, exact, rtol=1e-12)


def test_a_query_does_not_find_itself_when_told(rng):
    index = rng.normal(size=(200, 8)).astype(np.float32)
    exclude = np.arange(10)
    exclude[5:] = -1
    rows, _ = nearest(index[:10], index, 4, exclude)
    assert np.array_equal(rows, brute(index[:10], index, 4, exclude)[0])
    assert (rows[:5, 0] != np.arange(5)).all() and (rows[5:, 0] == np.arange(5, 10)).all()


def test_the_float32_product_alone_would_be_wrong(rng):
    """The control: with a large offset the order by |x|^2 - 2qx in float32 is not that of the distances."""
    index = (rng.normal(size=(700, 64)) + 1000).astype(np.float32)
    low = (index**2).sum(1) - 2 * index[:20] @ index.T
    assert not np.array_equal(np.argsort(low, axis=1, kind="stable")[:, :6], brute(index[:20], index, 6)[0])


def test_search_holds_little_memory(rng, monkeypatch):
    monkeypatch.setattr(search, "BLOCK_BYTES", 1 << 20)
    index, queries = rng.normal(size=(40_000, 64)).astype(np.float32), rng.normal(size=(50, 64)).astype(np.float32)
    tracemalloc.start()
    nearest(queries, index, 5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20 < index.nbytes


# ---------------------------------------------------------------- codes
def test_hamming_by_hand():
    codes = np.array([[0b0000, 0], [0b0111, 0], [0b0001, 1], [0b0011, 0]], np.uint64)
    rows, bits = hamming_nearest(np.array([[0b0001, 0]], np.uint64), codes, 4)
    assert rows.tolist() == [[0, 2, 3, 1]] and bits.tolist() == [[1, 1, 1, 2]]


@pytest.mark.parametrize("words, n", [(1, 300), (2, 20_000), (5, 9000)])
def test_hamming_finds_what_sorting_finds(words, n, rng):
    codes = rng.integers(0, 2**63, (n, words), dtype=np.uint64)
    codes[:, -1] &= np.uint64(7)                                # many ties
    queries, exclude = codes[:: n // 20].copy(), np.arange(0, n, n // 20)
    exclude[::2] = -1
    d = np.bitwise_count(queries[:, None] ^ codes[None]).sum(-1).astype(int)
    d[exclude >= 0, exclude[exclude >= 0]] = 10_000
    truth = np.argsort(d, axis=1, kind="stable")[:, :6]
    rows, bits = hamming_nearest(queries, codes, 6, exclude)
    assert np.array_equal(rows, truth) and np.array_equal(bits, np.take_along_axis(d, truth, 1))


def test_recall_counts_neighbours_found():
    assert recall(np.array([[3, 1, 2], [5, 6, 7]]), np.array([[1, 9], [6, 5]])) == 0.75


@pytest.mark.parametrize("call", [nearest, hamming_nearest])
def test_too_few_rows_and_other_widths_are_one_sentence(call):
    kind = np.float32 if call is nearest else np.uint64
    with pytest.raises(MiniAlexError, match=r"6 neighbours were asked for, but there are 4 pictures .*\(-k 4\)"):
        call(np.zeros((1, 2), kind), np.zeros((4, 2), kind), 6)
    with pytest.raises(MiniAlexError, match="were they made by the same layer"):
        call(np.zeros((1, 3), kind), np.zeros((4, 2), kind), 1)


# ---------------------------------------------------------------- feature files
@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    small_store(folder)
    for seed in (0, 1):
        run({"data": str(folder / "store"), "recipe": "tiny", "batch": 24, "epochs": 1, "limit_batches": 1, "seed": seed,
             "output_dir": str(folder / f"run{seed}")}, quiet=True, pictures=False)
    return folder


@pytest.fixture(scope="module")
def model(place):
    return trained(place / "run0", batch=16)


def test_features_are_what_the_classifier_reads(place, model):
    """The last layer's product with them, through the softmax, is the network's answer; and they do not depend on the batch."""
    store = Store(place / "store")
    images = store.split("val").read(np.arange(20))
    found = features_of(model, images)
    assert found.shape == (20, 512) and (found >= 0).all() and found.any()
    w, b = (model.net.params.numpy(("fc8", name)) for name in "wb")
    logits = found.astype(np.float64) @ w.T.astype(np.float64) + b
    p = np.exp(logits - logits.max(1, keepdims=True))
    last = model.net.ops.to_host(model.net.probabilities[:4])           # of the second batch, 16 .. 19
    assert np.allclose((p / p.sum(1, keepdims=True))[16:], last, atol=1e-5)
    assert np.array_equal(features_of(model, images[16:]), found[16:])


def test_a_feature_file_is_the_features(place, model, tmp_path):
    store = Store(place / "store")
    split = store.split("train")
    said = []
    made = write_features(model, store, split, tmp_path / "f.safetensors", progress=lambda done, total: said.append((done, total)))
    assert said[-1] == (96, 96) and len(said) == 6 and sorted(p.name for p in tmp_path.iterdir()) == ["f.safetensors"]
    opened = FeatureFile.open(tmp_path / "f.safetensors")
    assert np.array_equal(opened.features, features_of(model, split.read(np.arange(96)))) and np.array_equal(opened.labels, split.labels)
    assert opened.metadata["layer"] == model.net.layers[-2].name and opened.names == made.names and opened.intact()
    assert isinstance(opened.features, np.memmap) and opened.must_be_of(model) == opened.metadata["layer"]
    from safetensors.numpy import load_file
    reference = load_file(tmp_path / "f.safetensors")
    assert np.array_equal(reference["features"], opened.features) and np.array_equal(reference["labels"], opened.labels)


def test_another_layer_can_be_asked_and_one_that_is_not_there_not(place, model):
    images = Store(place / "store").split("val").read([0, 1])
    assert features_of(model, images, "pool5").shape == (2, 2 * 3 * 3 * 16)
    with pytest.raises(FeatureError, match=r"has no layer 'fc9' to read; it has .*fc8"):
        features_of(model, images, "fc9")
    over = next(one.name for one, after in zip(model.net.layers, model.net.layers[1:], strict=False)
                if after.in_place and "y" not in one.bprop_reads)
    with pytest.raises(FeatureError, match="overwritten by"):
        features_of(model, images, over)


def test_features_of_another_network_are_refused(place, model, tmp_path):
    store = Store(place / "store")
    made = write_features(model, store, store.split("val"), tmp_path / "f.safetensors")
    with pytest.raises(FeatureError, match=r"f\.safetensors is of another network \(tiny, checkpoint-1\.safetensors\) than .*run1"):
        made.must_be_of(trained(place / "run1"))


def test_a_writing_that_fails_leaves_nothing(place, model, tmp_path, monkeypatch):
    store, real, calls = Store(place / "store"), module.features_of, []

    def failing(*args):
        calls.append(1)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        return real(*args)

    monkeypatch.setattr(module, "features_of", failing)
    with pytest.raises(OSError, match="No space"):
        write_features(model, store, store.split("train"), tmp_path / "f.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_file_cut_anywhere_or_changed_is_refused(place, model, tmp_path):
    store, path = Store(place / "store"), tmp_path / "f.safetensors"
    write_features(model, store, store.split("val"), path)
    content = path.read_bytes()
    for length in [*range(0, 3000, 61), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(FeatureError, match=r"f\.safetensors: no feature file, or cut short"):
            FeatureFile.open(path)
    path.write_bytes(content + b"0")
    with pytest.raises(FeatureError, match="cut short"):
        FeatureFile.open(path)
    path.write_bytes(content[:-500] + bytes([content[-500] ^ 1]) + content[-499:])
    assert not FeatureFile.open(path).intact()
    with pytest.raises(FeatureError, match="there is no such file"):
        FeatureFile.open(tmp_path / "none")
