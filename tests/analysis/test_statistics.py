"""Intervals and separation, against closed forms and by hand."""

import numpy as np
import pytest

from nad.analysis.statistics import auroc, correlation, drawn_means, estimates, pairs_above


def test_auroc_counts_ties_half() -> None:
    assert auroc(np.array([3.0]), np.array([1.0, 2])) == 1
    assert auroc(np.array([1.0, 2]), np.array([1.0, 3])) == (0.5 + 0 + 1 + 0) / 4
    assert auroc(np.array([3.0, 2.0]), np.array([2.0])) == 0.75
    assert auroc(np.array([-np.inf, 1.0]), np.array([-np.inf])) == 0.75
    assert np.isnan(auroc(np.array([]), np.array([1.0])))


def test_auroc_is_the_share_of_pairs() -> None:
    rng = np.random.default_rng(0)
    right, wrong = rng.integers(0, 9, 40), rng.integers(0, 9, 30)
    above, level = (right[:, None] > wrong).mean(), (right[:, None] == wrong).mean()
    assert auroc(right, wrong) == pytest.approx(above + level / 2)


def test_no_pairs_have_no_share() -> None:
    assert pairs_above(np.array([1.0]), np.zeros((1, 1), bool)) is None


def test_the_bootstrap_interval_is_that_of_a_mean() -> None:
    """For 400 problems, half of them right, the interval is 0.5 -+ 1.96 * 0.5 / 20."""
    values = np.array([[0.0, 1.0] * 200, [1.0, np.nan] * 200, [np.nan] * 400]).T
    half, ones, nothing = estimates(values)
    assert (half.value, half.low, half.high) == pytest.approx((0.5, 0.451, 0.549), abs=0.006)
    assert (ones.value, ones.low, ones.high) == (1.0, 1.0, 1.0)
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()


def test_fewer_than_two_values_have_no_interval() -> None:
    one, two = estimates(np.array([[1.0, 1.0], [np.nan, 0.0], [np.nan, np.nan]]))
    assert one.value == 1 and np.isnan([one.low, one.high]).all()
    assert (two.value, two.low, two.high) == (0.5, 0, 1)


def test_columns_share_their_draws_and_seeds_do_not() -> None:
    values = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    first, second = drawn_means(values).T
    assert (first == second).all()
    assert (drawn_means(values, seed=1)[:, 0] != first).any()


def test_a_correlation_is_pearsons_over_all_values_with_problems_drawn() -> None:
    draw = np.random.default_rng(1)
    x = [draw.normal(size=size) for size in (5, 40, 17)]
    y = [values + draw.normal(size=len(values)) for values in x]
    found = correlation(x, y)
    assert found.value == pytest.approx(np.corrcoef(np.concatenate(x), np.concatenate(y))[0, 1])
    assert found.low < found.value < found.high
    one = correlation(x[:1], y[:1])
    assert one.value == pytest.approx(np.corrcoef(x[0], y[0])[0, 1])
    assert np.isnan(one.low)
    assert np.isnan(correlation([np.ones(3)], [np.arange(3.0)]).value)
