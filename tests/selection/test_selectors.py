"""Selectors by hand, ties included; DBSCAN against scikit-learn; none depends on the samples' order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import activation_sets, group, of
from sklearn.cluster import DBSCAN as Clustering

from nad.errors import UsageError
from nad.neurons.activation import ActivationSet
from nad.neurons.agreement import consensus_matrix
from nad.selection.selectors import DBSCAN, KNN, SELECTORS, Consensus, ConsensusMin, MaxAct, Medoid, MinAct, Selector

groups = st.lists(activation_sets(), min_size=1, max_size=9)


def consensus(rows: list[list[float]], activated: list[int] | None = None) -> Consensus:
    """A symmetric matrix from its upper triangle, row by row without the diagonal."""
    n = len(rows) + 1
    matrix = np.eye(n)
    for i, row in enumerate(rows):
        matrix[i, i + 1 :] = matrix[i + 1 :, i] = row
    return Consensus(matrix, np.array(activated or [1] * n))


def test_knn_sums_the_k_largest_agreements_with_others() -> None:
    of_four = consensus([[0.9, 0.1, 0.0], [0.5, 0.5], [0.2]])
    assert KNN(1).choose(of_four).scores.tolist() == [0.9, 0.9, 0.5, 0.5]
    assert KNN(2).choose(of_four).scores.tolist() == [1.0, 1.4, 0.7, 0.7]
    assert KNN(2).choose(of_four).index == 1


def test_knn_counts_at_most_the_others() -> None:
    of_three = consensus([[0.5, 0.25], [0.125]])
    assert KNN(10).choose(of_three).scores.tolist() == KNN(2).choose(of_three).scores.tolist() == [0.75, 0.625, 0.375]


def test_knn_ties_go_to_the_smaller_mean_distance_then_to_the_smaller_index() -> None:
    assert KNN(1).choose(consensus([[0.8, 0.0, 0.0], [0.3, 0.0], [0.0]])).index == 1
    assert KNN(1).choose(consensus([[0.0, 0.0, 0.8], [0.8, 0.0], [0.0]])).index == 0


def test_medoid_takes_the_largest_row_sum_and_the_smaller_index_of_a_tie() -> None:
    of_three = consensus([[0.5, 0.0], [0.25]])
    assert Medoid().choose(of_three).scores.tolist() == [1.5, 1.75, 1.25]
    assert Medoid().choose(of_three).index == 1
    assert Medoid().choose(consensus([[0.5, 0.5], [0.5]])).index == 0


def test_rounding_does_not_decide_a_tie() -> None:
    of_three = consensus([[0.5, 0.5], [0.5]])
    of_three.similarity[2, 0] += 1e-15
    assert Medoid().choose(of_three).index == 0


def test_minact_and_maxact_count_neurons_and_take_the_smaller_index_of_a_tie() -> None:
    counted = consensus([[0.0, 0.0, 0.0], [0.0, 0.0], [0.0]], [5, 3, 3, 5])
    assert MinAct().choose(counted).index == 1
    assert MaxAct().choose(counted).index == 0
    assert MinAct().choose(counted).scores.tolist() == [-5, -3, -3, -5]


TWO_CLUSTERS = consensus([[0.9, 0.8, 0.0, 0.0], [0.9, 0.0, 0.0], [0.0, 0.0], [0.9]])
"""0, 1, 2 belong together, with 1 in the middle; 3 and 4 are a pair."""


def test_dbscan_takes_the_medoid_of_the_largest_cluster() -> None:
    choice = DBSCAN(quantile=0.4, min_samples=2).choose(TWO_CLUSTERS)
    assert choice.index == 1
    assert choice.scores.tolist() == pytest.approx([2.7, 2.8, 2.7, -np.inf, -np.inf])
    assert choice.note == ""


def test_dbscan_prefers_the_tighter_of_two_clusters_then_the_first() -> None:
    def pairs(first: float, second: float) -> Consensus:
        return consensus([[first, 0.0, 0.0], [0.0, 0.0], [second]])

    two = DBSCAN(quantile=0.3, min_samples=2)
    assert two.choose(pairs(0.8, 0.9)).index == 2
    assert two.choose(pairs(0.9, 0.8)).index == 0
    assert two.choose(pairs(0.9, 0.9)).index == 0


def test_dbscan_without_a_cluster_says_that_it_took_the_global_medoid() -> None:
    for of_some in (consensus([[0.5]]), consensus([]), consensus([[0.6, 0.1], [0.5]])):
        choice = DBSCAN(quantile=0.0).choose(of_some)
        assert choice.index == Medoid().choose(of_some).index
        assert choice.note == "dbscan found no cluster; the global medoid was chosen"


def test_dbscan_of_identical_completions_is_one_cluster() -> None:
    choice = DBSCAN().choose(consensus([[1.0, 1.0], [1.0]]))
    assert (choice.index, choice.note) == (0, "")


def test_consensus_min_takes_the_winner_with_the_fewest_neurons() -> None:
    votes = consensus([[0.9, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.5, 0.5], [0.5]], [9, 8, 1, 1, 1])
    winners = {selector.choose(votes).index for selector in (KNN(), Medoid(), DBSCAN())}
    assert winners == {0}
    choice = ConsensusMin().choose(votes)
    assert (choice.index, choice.scores[0], choice.scores[2]) == (0, -9, -np.inf)


def test_consensus_min_between_different_winners() -> None:
    votes = Consensus(TWO_CLUSTERS.similarity, np.array([7, 4, 7, 2, 2]))
    by_hand = {s.choose(votes).index for s in (KNN(), Medoid(), DBSCAN())}
    assert ConsensusMin().choose(votes).index == min(by_hand, key=lambda i: (votes.activated[i], i))


@pytest.mark.parametrize("selector", [cls() for cls in SELECTORS.values()], ids=list(SELECTORS))
def test_one_completion_is_chosen(selector: Selector) -> None:
    assert selector.choose(Consensus.of(group(of([1, 2])))).index == 0


@pytest.mark.parametrize("selector", [cls() for cls in SELECTORS.values()], ids=list(SELECTORS))
def test_completions_without_neurons_are_all_alike(selector: Selector) -> None:
    assert selector.choose(Consensus.of(group(*[of([])] * 4))).index == 0


def test_parameters_outside_their_range() -> None:
    for make in (lambda: KNN(0), lambda: DBSCAN(min_samples=0), lambda: DBSCAN(quantile=-0.1)):
        with pytest.raises(UsageError, match="must be"):
            make()


@given(groups)
def test_dbscan_finds_the_clusters_of_scikit_learn(sets: list[ActivationSet]) -> None:
    similarity = consensus_matrix(sets)
    n = len(sets)
    distance = 1 - similarity
    choice = DBSCAN().choose(Consensus.of(group(*sets)))
    if n == 1:
        assert choice.note
        return
    eps = np.quantile([distance[i, j] for i in range(n) for j in range(n) if i != j], 0.3)
    labels = Clustering(eps=eps + 1e-12, min_samples=3, metric="precomputed").fit_predict(distance)
    if labels.max() < 0:
        assert choice.note
        return
    sizes = np.bincount(labels[labels >= 0])
    chosen = np.flatnonzero(np.isfinite(choice.scores))
    assert len(chosen) == sizes.max()
    assert len(set(labels[chosen])) == 1
    assert choice.index in chosen


def unambiguous(scores: np.ndarray) -> bool:
    finite = np.sort(scores[np.isfinite(scores)])
    return len(finite) < 2 or finite[-1] - finite[-2] > 1e-6


@pytest.mark.parametrize("selector", [KNN(), KNN(1), Medoid(), MinAct(), MaxAct()], ids=repr)
@given(sets=groups, data=st.data())
def test_the_order_of_the_samples_does_not_matter(
    selector: Selector, sets: list[ActivationSet], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(sets))))
    choice = selector.choose(Consensus.of(group(*sets)))
    again = selector.choose(Consensus.of(group(*[sets[i] for i in order])))
    np.testing.assert_allclose(again.scores, choice.scores[list(order)], rtol=1e-9, atol=1e-9)
    if unambiguous(choice.scores):
        assert order[again.index] == choice.index
