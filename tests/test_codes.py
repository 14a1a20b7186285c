"""Binary codes: an autoencoder of our own layers, and random hyperplanes to beat."""

from __future__ import annotations

import numpy as np
import pytest

from minialex.retrieval import Codes, hamming_nearest, hyperplanes, nearest, recall, train_codes
from minialex.retrieval import codes as codes_module
from minialex.retrieval.codes import Autoencoder
from minialex.spec import MiniAlexError


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Points about a curved surface of six dimensions in forty."""
    rng = np.random.default_rng(7)
    inner = rng.normal(size=(1500, 6))
    return np.maximum(np.tanh(inner @ rng.normal(size=(6, 40))) + 0.2 * inner @ rng.normal(size=(6, 40)), 0).astype(np.float32)


def test_the_gradient_of_the_autoencoder_is_that_of_differences():
    rng = np.random.default_rng(0)
    net, x, noise = Autoencoder(5, 64, seed=3), rng.normal(size=(7, 5)).astype(np.float32), rng.normal(size=(7, 64)).astype(np.float32)

    def loss() -> float:
        return 0.5 * float(((net.fprop(x, noise).astype(np.float64) - x) ** 2).sum())

    net.bprop(net.fprop(x, noise) - x)
    for key in net.params:
        analytic, w = net.grads.numpy(key), net.params.numpy(key)
        direction = np.sign(analytic).astype(np.float32)
        step = np.float32(1e-3)
        net.params.fill(key, w + step * direction)
        above = loss()
        net.params.fill(key, w - step * direction)
        below = loss()
        net.params.fill(key, w)
        assert (above - below) / (2 * step) == pytest.approx(float((analytic * direction).sum()), rel=0.02, abs=1e-3), key


def test_codes_are_learnt_the_same_each_time_and_differ_by_seed(rows):
    one, again, other = (train_codes(rows[:400], bits=64, seed=seed, epochs=2) for seed in (0, 0, 1))
    assert np.array_equal(one.encode(rows), again.encode(rows)) and not np.array_equal(one.encode(rows), other.encode(rows))
    assert one.encode(rows).shape == (1500, 1) and one.encode(rows).dtype == np.uint64


def test_each_bit_is_one_for_half_of_the_rows(rows):
    for codes in (train_codes(rows, bits=64, epochs=2), hyperplanes(rows, bits=64)):
        ones = np.unpackbits(codes.encode(rows).view(np.uint8), axis=1).mean(0)
        assert ones.shape == (64,) and np.abs(ones - 0.5).max() < 0.01


def test_bits_are_thresholded_logits(rows):
    codes = hyperplanes(rows, bits=128, seed=2)
    bits = np.unpackbits(codes.encode(rows[:9]).view(np.uint8), axis=1, bitorder="little")
    assert np.array_equal(bits.astype(bool), codes.logits(rows[:9]) > codes.thresholds)


def test_the_coder_is_the_autoencoder_up_to_its_code(rows, monkeypatch):
    kept = []
    made = codes_module.Autoencoder
    monkeypatch.setattr(codes_module, "Autoencoder", lambda *words: kept.append(made(*words)) or kept[0])
    codes = train_codes(rows[:300], bits=64, epochs=1)
    x = (rows[:50] - codes.mean) / np.float32(codes.scale)
    kept[0].fprop(x, np.zeros((50, 64), np.float32))
    assert np.allclose(codes.logits(rows[:50]), kept[0].values[3][0, :50].reshape(50, 64), atol=1e-5)
    assert kept[0].values[2][0, :50].min() == 0          # the ReLU between is at work


def test_the_loss_falls_and_codes_find_neighbours(rows):
    losses = []
    codes = train_codes(rows, bits=64, epochs=12, progress=lambda epoch, loss: losses.append(loss))
    assert len(losses) == 12 and losses[-1] < 0.5 * losses[0]
    queries, index = rows[:100], rows[100:]
    truth = nearest(queries, index, 6)[0]
    found = recall(hamming_nearest(codes.encode(queries), codes.encode(index), 60)[0], truth)
    assert found > 0.5 > 5 * 60 / 1400                          # picking 60 of 1,400 blindly finds 4 %


def test_codes_survive_their_file(rows, tmp_path):
    codes = train_codes(rows[:300], bits=64, epochs=1)
    path = codes.save(tmp_path / "codes.safetensors", {"layer": "fc7"})
    again, state = Codes.load(path)
    assert np.array_equal(again.encode(rows), codes.encode(rows)) and state["layer"] == "fc7"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(MiniAlexError, match=r"codes\.safetensors"):
        Codes.load(path)


@pytest.mark.parametrize("bits, n, words", [(100, 300, "a multiple of 64 is needed"), (32, 300, "multiple of 64"), (64, 1, "there are 1")])
def test_what_cannot_be_coded_is_one_sentence(rows, bits, n, words):
    with pytest.raises(MiniAlexError, match=words):
        train_codes(rows[:n], bits=bits)


def test_features_of_another_width_are_refused(rows):
    with pytest.raises(MiniAlexError, match="another layer or network"):
        hyperplanes(rows, bits=64).encode(rows[:, :-1])
