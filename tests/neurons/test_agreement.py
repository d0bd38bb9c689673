"""Eq. 4 by hand, against Python sets, and against scipy's Jaccard distance."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import activation_sets, of
from oracle import jaccard, weighted_jaccard
from scipy.spatial.distance import cdist

from nad.neurons.activation import ActivationSet
from nad.neurons.agreement import consensus_curve, consensus_matrix, weighted_consensus_matrix

several = st.lists(activation_sets(), min_size=1, max_size=6)


def as_sets(found: Sequence[ActivationSet]) -> list[set[int]]:
    return [set(s.neuron.tolist()) for s in found]


def test_sets_sharing_one_of_three_neurons() -> None:
    matrix = consensus_matrix([of([1, 2]), of([2, 3])])
    assert matrix.tolist() == [[1, 1 / 3], [1 / 3, 1]]


def test_two_empty_sets_agree_fully_and_an_empty_with_a_full_one_not_at_all() -> None:
    assert consensus_matrix([of([]), of([]), of([7])]).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert consensus_matrix([of([])]).tolist() == [[1]]


def test_the_curve_follows_first_tokens_in_the_order_asked() -> None:
    a, b = of([1, 2], first=[0, 2]), of([1, 3], first=[1, 2])
    curve = consensus_curve([a, b], [3, 0, 1, 2, 1])
    assert curve[:, 0, 1].tolist() == [1 / 3, 1, 0, 1, 0]


def test_no_sets_and_too_many_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        consensus_matrix([])
    with pytest.raises(ValueError, match="255"):
        consensus_curve([of([1])], range(256))
    assert len(consensus_curve([of([1], first=[254])], range(255))) == 255


@given(several)
def test_matrix_equals_python_sets(found: list[ActivationSet]) -> None:
    expected = [[jaccard(a, b) for b in as_sets(found)] for a in as_sets(found)]
    np.testing.assert_allclose(consensus_matrix(found), expected, rtol=1e-12)


@given(several)
def test_matrix_equals_scipy(found: list[ActivationSet]) -> None:
    table = np.zeros((len(found), 12), dtype=bool)
    for row, s in zip(table, found, strict=True):
        row[s.neuron] = True
    np.testing.assert_allclose(consensus_matrix(found), 1 - cdist(table, table, "jaccard"), rtol=1e-12)


@given(several)
def test_matrix_is_symmetric_bounded_and_one_on_the_diagonal(found: list[ActivationSet]) -> None:
    matrix = consensus_matrix(found)
    assert np.array_equal(matrix, matrix.T)
    assert (np.diagonal(matrix) == 1).all()
    assert ((matrix >= 0) & (matrix <= 1)).all()


@given(several, st.lists(st.integers(0, 10), min_size=1, max_size=5))
def test_curve_equals_the_matrix_of_the_prefixes(found: list[ActivationSet], positions: list[int]) -> None:
    curve = consensus_curve(found, positions)
    for matrix, position in zip(curve, positions, strict=True):
        np.testing.assert_allclose(matrix, consensus_matrix([s.prefix(position) for s in found]), rtol=1e-12)


@given(several)
def test_blocks_of_any_width_give_the_same(found: list[ActivationSet]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        whole = consensus_curve(found, [2, 5])
        patch.setattr("nad.neurons.agreement._BLOCK_BYTES", 4 * len(found) * 3)
        patch.setattr("nad.neurons.agreement._BLOCK_COLUMNS", 1)
        assert np.array_equal(consensus_curve(found, [2, 5]), whole)


def by_neuron(found: Sequence[ActivationSet]) -> list[dict[int, float]]:
    return [dict(zip(s.neuron.tolist(), s.peak.astype(float).tolist(), strict=True)) for s in found]


def test_peaks_weigh_by_hand() -> None:
    """Minima 1 + 0, maxima 3 + 2; a negative peak counts as none."""
    a, b, c = of([1, 2], peak=[3, 2]), of([1], peak=[1]), of([1], peak=[-4])
    expected = [[1, 1 / 5, 0], [1 / 5, 1, 0], [0, 0, 1]]
    assert weighted_consensus_matrix([a, b, c]).tolist() == expected
    assert weighted_consensus_matrix([c, of([])]).tolist() == [[1, 1], [1, 1]]


@given(several)
def test_weighted_matrix_equals_plain_loops_exactly(found: list[ActivationSet]) -> None:
    expected = [[weighted_jaccard(a, b) for b in by_neuron(found)] for a in by_neuron(found)]
    assert weighted_consensus_matrix(found).tolist() == expected


def test_the_weighted_matrix_of_large_sets_is_exact() -> None:
    """Neurons over several blocks, peaks from 1e-6 to 60,000."""
    rng = np.random.default_rng(0)
    ids = [np.flatnonzero(rng.random(40_000) < share) for share in (0.01, 0.3, 0.5, 0.3)]
    found = [of(i.tolist(), peak=(10 ** rng.uniform(-6, 4.7, len(i))).tolist()) for i in ids]
    expected = [[weighted_jaccard(a, b) for b in by_neuron(found)] for a in by_neuron(found)]
    assert weighted_consensus_matrix(found).tolist() == expected


@given(several)
def test_equal_peaks_weigh_nothing(found: list[ActivationSet]) -> None:
    flat = [of(s.neuron.tolist(), peak=[2.0] * len(s)) for s in found]
    np.testing.assert_allclose(weighted_consensus_matrix(flat), consensus_matrix(flat), rtol=1e-12)
