"""Intervals, verdicts, and result files: the figures an experiment ends in."""

from __future__ import annotations

import json

import pytest

from minialex.reproduce.result import Interval, Result, Row, direction, load
from minialex.spec import MiniAlexError


def result(**changes) -> Result:
    words = dict(name="lrn", title="Norms", section="3.3", claim="They help.", scale="quick", status="subset",
                 rows=[Row("difference", "points", 1.37, Interval.of([1.0, 2.0, 3.0]), "supported"), Row("size", "%", "as printed")],
                 seeds=[0, 1, 2], picture="lrn-quick.png")
    return Result(**words | changes)


def test_an_interval_by_hand():
    """Values 1, 2, 3: mean 2, standard deviation 1, t(2) = 4.303, half width 4.303 / sqrt(3)."""
    found = Interval.of([1.0, 2.0, 3.0])
    assert found.mean == 2 and found.high - 2 == pytest.approx(4.303 / 3**0.5) and 2 - found.low == pytest.approx(4.303 / 3**0.5)


def test_one_value_has_no_interval_and_many_use_the_normal_quantile():
    assert (Interval.of([4.0]).low, Interval.of([4.0]).high) == (None, None)
    many = Interval.of([float(i % 2) for i in range(100)])
    assert many.high - many.mean == pytest.approx(1.96 * (0.25 * 100 / 99) ** 0.5 / 10)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_an_interval_of_what_is_no_number_is_refused(values):
    with pytest.raises(ValueError, match="finite"):
        Interval.of(values)


@pytest.mark.parametrize("values, expected, verdict", [
    ([1.0, 1.1, 0.9], +1, "supported"), ([1.0, 1.1, 0.9], -1, "contradicted"), ([-1.0, -1.1, -0.9], +1, "contradicted"),
    ([-1.0, 1.0, 0.5], +1, "inconclusive"), ([5.0], +1, "inconclusive"), ([0.0, 0.0], +1, "inconclusive"),
])
def test_a_verdict_follows_from_the_interval(values, expected, verdict):
    assert direction(Interval.of(values), expected) == verdict


def test_a_result_survives_its_file(tmp_path):
    path = result().save(tmp_path)
    assert path.name == "lrn-quick.json" and load(path) == result()


def test_the_verdict_of_a_result_is_its_worst_row():
    one = Interval.of([1.0, 2.0])
    rows = [Row("a", verdict="supported", measured=one), Row("b", verdict="contradicted", measured=one)]
    assert result(rows=rows).verdict == "contradicted" and result(rows=[Row("c")]).verdict is None


def test_what_was_not_run_has_no_figures():
    with pytest.raises(ValueError, match="no measured figures"):
        result(status="not run")
    with pytest.raises(ValueError, match="status"):
        result(status="done")
    assert result(status="not run", rows=[Row("difference", "points", 1.37)]).verdict is None


@pytest.mark.parametrize("spoil", [lambda text: text[:-20], lambda text: "[]", lambda text: text.replace('"name"', '"nome"'),
                                   lambda text: text.replace('"subset"', '"done"'), lambda text: json.dumps({"rows": None})])
def test_a_file_that_is_no_result_is_named(tmp_path, spoil):
    path = result().save(tmp_path)
    path.write_text(spoil(path.read_text()))
    with pytest.raises(MiniAlexError, match=r"lrn-quick\.json is no result of an experiment"):
        load(path)
