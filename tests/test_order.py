"""The order of an epoch: a bijection, other for each seed and epoch, the same however it is asked for, and without visible pattern."""

import numpy as np
import pytest

from minialex.data.order import epoch_order, permute
from minialex.spec import MiniAlexError

GOLDEN_10 = [5, 2, 4, 7, 0, 6, 1, 8, 9, 3]
GOLDEN_2012 = [614434, 1250951, 453288, 73892]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 10, 16, 17, 31, 97, 100, 127, 128, 129, 1000, 4097, 50_000])
@pytest.mark.parametrize("seed, epoch", [(0, 0), (1, 5), (2**63 + 11, 90)])
def test_every_picture_once(n, seed, epoch):
    assert np.array_equal(np.sort(permute(seed, epoch, n, np.arange(n))), np.arange(n))


def test_pure_function_of_each_index():
    n, whole = 1003, permute(7, 3, 1003, np.arange(1003))
    for size in (1, 2, 128, 999):
        parts = [permute(7, 3, n, np.arange(i, min(i + size, n))) for i in range(0, n, size)]
        assert np.array_equal(np.concatenate(parts), whole)
    some = np.array([[5, 1002], [0, 5]])
    assert np.array_equal(permute(7, 3, n, some), whole[some])


def test_golden_order():
    """The order is part of every run's history: a change of these numbers makes old checkpoints resume into another epoch."""
    assert permute(0, 0, 10, np.arange(10)).tolist() == GOLDEN_10
    assert permute(42, 17, 1_281_167, np.arange(4)).tolist() == GOLDEN_2012


def test_seed_and_epoch_decide():
    orders = {tuple(permute(seed, epoch, 50, np.arange(50))) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100
    assert len({tuple(permute(seed, 0, 50, np.arange(50))) for seed in (1, 1 + 2**32, 1 + 2**40)}) == 3     # all 64 bits of the seed count


def test_each_picture_at_each_place_equally_often():
    n, epochs = 12, 6000
    table = np.zeros((n, n))
    for epoch in range(epochs):
        table[np.arange(n), permute(3, epoch, n, np.arange(n))] += 1
    chi2 = float(((table - epochs / n) ** 2 / (epochs / n)).sum())
    degrees = (n - 1) ** 2                                       # rows and columns both sum to `epochs`
    assert abs(chi2 - degrees) < 5 * np.sqrt(2 * degrees)


def test_neighbours_are_not_neighbours():
    """Class-sorted sources: a batch must see the classes as a fair draw does, and steps between neighbours must spread evenly."""
    n = 100_000
    order = permute(1, 1, n, np.arange(n))
    classes = order * 100 // n
    repeats = float(np.mean(classes[1:] == classes[:-1]))
    assert abs(repeats - 0.01) < 5 * np.sqrt(0.01 / n)
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 5 / np.sqrt(n)
    steps = np.bincount((order[1:] - order[:-1]) % n * 64 // n, minlength=64)
    assert float(((steps - n / 64) ** 2 / (n / 64)).sum()) < 63 + 6 * np.sqrt(2 * 63)
    other = permute(1, 2, n, np.arange(n))
    assert abs(np.corrcoef(order, other)[0, 1]) < 5 / np.sqrt(n)
    assert int(np.sum(order == other)) < 12                      # one expected


def test_a_share_of_many_millions_costs_only_the_share():
    n = 14_197_122
    share = permute(0, 0, n, np.arange(1_000_000, 1_000_128))
    assert len(set(share.tolist())) == 128 and share.min() >= 0 and share.max() < n
    assert share.max() > n // 2 > share.min()


def test_fixed_is_one_shuffled_order():
    places = np.arange(500)
    first, later = epoch_order("fixed", 4, 0, 500, places), epoch_order("fixed", 4, 31, 500, places)
    assert np.array_equal(first, later) and not np.array_equal(first, places)
    assert not np.array_equal(epoch_order("shuffled", 4, 0, 500, places), epoch_order("shuffled", 4, 31, 500, places))


def test_bad_calls():
    with pytest.raises(MiniAlexError, match="only 0 to 9 exist"):
        permute(0, 0, 10, [10])
    with pytest.raises(MiniAlexError, match="only 0 to 9 exist"):
        permute(0, 0, 10, [-1])
    with pytest.raises(MiniAlexError, match="'shuffled' or 'fixed'"):
        epoch_order("random", 0, 0, 10, [1])
