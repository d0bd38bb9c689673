"""Agreement by hand, ties included; DBSCAN against scikit-learn; nothing depends on the samples' order."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import activation_sets, agreeing, completion, of
from sklearn.cluster import DBSCAN as Clustering

from nad.errors import UsageError
from nad.neurons.activation import ActivationSet
from nad.neurons.agreement import consensus_matrix
from nad.selection import Candidates, Choice, Consensus, NotApplicable, Selector, parse_selector
from nad.selection.agreement import DBSCAN, KNN, ConsensusMax, ConsensusMin, MaxAct, Medoid, MinAct
from nad.selection.base import largest
from nad.selection.text_sets import bigram_sets, token_sets
from nad.types import Completion

groups = st.lists(activation_sets(), min_size=1, max_size=9)
EVERY = (KNN(), Medoid(), DBSCAN(), MinAct(), MaxAct(), ConsensusMin(), ConsensusMax())


def of_sets(*sets: ActivationSet, tokens: Sequence[Sequence[int]] | None = None) -> Candidates:
    """Completions with these sets; their texts are all the same unless given."""
    texts = tokens or [(1,)] * len(sets)
    return Candidates.of([completion(i, s, t) for i, (s, t) in enumerate(zip(sets, texts, strict=True))], full=False)


def chosen(selector: Selector, consensus: Consensus) -> Choice:
    return selector.choose(agreeing(consensus))


def consensus(rows: list[list[float]], activated: list[int] | None = None) -> Consensus:
    """A symmetric matrix from its upper triangle, row by row without the diagonal."""
    n = len(rows) + 1
    matrix = np.eye(n)
    for i, row in enumerate(rows):
        matrix[i, i + 1 :] = matrix[i + 1 :, i] = row
    return Consensus(matrix, np.array(activated or [1] * n))


def test_knn_sums_the_k_largest_agreements_with_others() -> None:
    of_four = consensus([[0.9, 0.1, 0.0], [0.5, 0.5], [0.2]])
    assert chosen(KNN(1), of_four).scores.tolist() == [0.9, 0.9, 0.5, 0.5]
    assert chosen(KNN(2), of_four).scores.tolist() == [1.0, 1.4, 0.7, 0.7]
    assert chosen(KNN(2), of_four).index == 1


def test_knn_counts_at_most_the_others() -> None:
    of_three = consensus([[0.5, 0.25], [0.125]])
    assert chosen(KNN(10), of_three).scores.tolist() == chosen(KNN(2), of_three).scores.tolist() == [0.75, 0.625, 0.375]


def test_knn_ties_go_to_the_smaller_mean_distance_then_to_the_smaller_index() -> None:
    assert chosen(KNN(1), consensus([[0.8, 0.0, 0.0], [0.3, 0.0], [0.0]])).index == 1
    assert chosen(KNN(1), consensus([[0.0, 0.0, 0.8], [0.8, 0.0], [0.0]])).index == 0


def test_medoid_takes_the_largest_row_sum_and_the_smaller_index_of_a_tie() -> None:
    of_three = consensus([[0.5, 0.0], [0.25]])
    assert chosen(Medoid(), of_three).scores.tolist() == [1.5, 1.75, 1.25]
    assert chosen(Medoid(), of_three).index == 1
    assert chosen(Medoid(), consensus([[0.5, 0.5], [0.5]])).index == 0


def test_rounding_does_not_decide_a_tie() -> None:
    of_three = consensus([[0.5, 0.5], [0.5]])
    of_three.similarity[2, 0] += 1e-15
    assert chosen(Medoid(), of_three).index == 0


@pytest.mark.parametrize(("scores", "index"), [([1, np.inf, np.inf], 1), ([-np.inf, -np.inf], 0), ([-np.inf, 3], 1)])
def test_infinite_scores_are_scores(scores: Sequence[float], index: int) -> None:
    assert largest(scores).index == index


def test_minact_and_maxact_count_neurons_and_take_the_smaller_index_of_a_tie() -> None:
    counted = consensus([[0.0, 0.0, 0.0], [0.0, 0.0], [0.0]], [5, 3, 3, 5])
    assert chosen(MinAct(), counted).index == 1
    assert chosen(MaxAct(), counted).index == 0
    assert chosen(MinAct(), counted).scores.tolist() == [-5, -3, -3, -5]


TWO_CLUSTERS = consensus([[0.9, 0.8, 0.0, 0.0], [0.9, 0.0, 0.0], [0.0, 0.0], [0.9]])
"""0, 1, 2 belong together, with 1 in the middle; 3 and 4 are a pair."""


def test_dbscan_takes_the_medoid_of_the_largest_cluster() -> None:
    choice = chosen(DBSCAN(quantile=0.4, min_samples=2), TWO_CLUSTERS)
    assert choice.index == 1
    assert choice.scores.tolist() == pytest.approx([2.7, 2.8, 2.7, -np.inf, -np.inf])
    assert choice.note == ""


def test_dbscan_prefers_the_tighter_of_two_clusters_then_the_first() -> None:
    def pairs(first: float, second: float) -> Consensus:
        return consensus([[first, 0.0, 0.0], [0.0, 0.0], [second]])

    two = DBSCAN(quantile=0.3, min_samples=2)
    assert chosen(two, pairs(0.8, 0.9)).index == 2
    assert chosen(two, pairs(0.9, 0.8)).index == 0
    assert chosen(two, pairs(0.9, 0.9)).index == 0


def test_dbscan_without_a_cluster_says_that_it_took_the_global_medoid() -> None:
    for of_some in (consensus([[0.5]]), consensus([]), consensus([[0.6, 0.1], [0.5]])):
        choice = chosen(DBSCAN(quantile=0.0), of_some)
        assert choice.index == chosen(Medoid(), of_some).index
        assert choice.note == "dbscan found no cluster; the global medoid was chosen"


def test_dbscan_of_identical_completions_is_one_cluster() -> None:
    choice = chosen(DBSCAN(), consensus([[1.0, 1.0], [1.0]]))
    assert (choice.index, choice.note) == (0, "")


def test_consensus_min_takes_the_winner_with_the_fewest_neurons() -> None:
    votes = consensus([[0.9, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.5, 0.5], [0.5]], [9, 8, 1, 1, 1])
    winners = {chosen(selector, votes).index for selector in (KNN(), Medoid(), DBSCAN())}
    assert winners == {0}
    choice = chosen(ConsensusMin(), votes)
    assert (choice.index, choice.scores[0], choice.scores[2]) == (0, -9, -np.inf)
    choice = chosen(ConsensusMax(), votes)
    assert (choice.index, choice.scores[0], choice.scores[2]) == (0, 9, -np.inf)


def test_consensus_between_different_winners() -> None:
    """0 to 3 agree closely, 4 agrees well with all: knn chooses 0, the medoid and dbscan 4."""
    close, well = 0.9, 0.7
    similarity = np.full((7, 7), 0.1)
    similarity[:4, :4] = close
    similarity[4] = similarity[:, 4] = well
    np.fill_diagonal(similarity, 1)
    votes = Consensus(similarity, np.array([5, 1, 1, 1, 9, 1, 1]))
    assert [chosen(s, votes).index for s in (KNN(), Medoid(), DBSCAN())] == [0, 4, 4]
    assert (chosen(ConsensusMin(), votes).index, chosen(ConsensusMax(), votes).index) == (0, 4)
    assert chosen(ConsensusMax(), votes).scores.tolist() == [5, *[-np.inf] * 3, 9, *[-np.inf] * 2]


@pytest.mark.parametrize("selector", EVERY, ids=repr)
def test_one_completion_is_chosen(selector: Selector) -> None:
    assert selector.choose(of_sets(of([1, 2]))).index == 0


@pytest.mark.parametrize("selector", EVERY, ids=repr)
def test_completions_without_neurons_are_all_alike(selector: Selector) -> None:
    assert selector.choose(of_sets(*[of([])] * 4)).index == 0


def test_parameters_outside_their_range() -> None:
    for make in (lambda: KNN(0), lambda: DBSCAN(min_samples=0), lambda: DBSCAN(quantile=-0.1)):
        with pytest.raises(UsageError, match="must be"):
            make()


@given(groups)
def test_dbscan_finds_the_clusters_of_scikit_learn(sets: list[ActivationSet]) -> None:
    similarity = consensus_matrix(sets)
    n = len(sets)
    distance = 1 - similarity
    choice = DBSCAN().choose(of_sets(*sets))
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
    choice = selector.choose(of_sets(*sets))
    again = selector.choose(of_sets(*[sets[i] for i in order]))
    np.testing.assert_allclose(again.scores, choice.scores[list(order)], rtol=1e-9, atol=1e-9)
    if unambiguous(choice.scores):
        assert again.index is not None and order[again.index] == choice.index


def test_texts_as_sets_of_tokens_and_pairs() -> None:
    """7 stands first at place 0; the pair (7, 8) ends at place 1."""
    texts = [[7, 8, 7, 9], [8, 7, 8]]
    first, second = token_sets(texts)
    assert (first.neuron.tolist(), first.first_token.tolist()) == ([0, 1, 2], [0, 1, 3])
    assert (second.neuron.tolist(), second.first_token.tolist()) == ([0, 1], [1, 0])
    first, second = bigram_sets(texts)  # pairs 78, 87, 79 and 87, 78; sorted 78, 79, 87
    assert (first.neuron.tolist(), first.first_token.tolist()) == ([0, 1, 2], [1, 3, 2])
    assert (second.neuron.tolist(), second.first_token.tolist()) == ([0, 2], [2, 1])


def test_what_agrees_may_be_neurons_tokens_or_pairs() -> None:
    """Samples 0 and 1 share their neurons, 0 and 2 a token of three, 1 and 2 a pair of three."""
    sets = [of([1, 2]), of([1, 2]), of([8])]
    given = of_sets(*sets, tokens=[(1, 5), (3, 4), (3, 4, 1)])
    assert KNN(1).choose(given).scores.tolist() == [1, 1, 0]
    by_tokens = KNN(1, of="tokens").choose(given)
    assert by_tokens.scores.tolist() == pytest.approx([1 / 4, 2 / 3, 2 / 3])
    assert KNN(1, of="bigrams").choose(given).scores.tolist() == pytest.approx([0, 1 / 2, 1 / 2])
    assert Medoid(of="tokens").choose(given).index == 2
    assert KNN(of="tokens").needs == {"texts"} and KNN().needs == {"neurons"}


def test_peaks_weigh_the_agreement() -> None:
    """0 and 1 share the strong neuron, 0 and 2 the two weak ones."""
    sets = [of([1, 2, 3], peak=[8, 1, 1]), of([1], peak=[6]), of([2, 3], peak=[1, 1])]
    given = of_sets(*sets)
    assert KNN(1).choose(given).scores.tolist() == pytest.approx([2 / 3, 1 / 3, 2 / 3])
    weighted = KNN(1, weight="peak").choose(given)
    assert weighted.scores.tolist() == pytest.approx([6 / 10, 6 / 10, 2 / 10])


def test_without_neurons_only_texts_agree() -> None:
    bare = Candidates.of([Completion(i, (1,), "", None) for i in (0, 1)], full=False)
    assert Medoid(of="tokens").choose(bare).index == 0
    for selector in EVERY:
        with pytest.raises(NotApplicable, match="not captured"):
            selector.choose(bare)


def test_peaks_that_were_not_recorded_are_not_zero() -> None:
    with pytest.raises(NotApplicable, match="peak scores are not there"):
        KNN(weight="peak").choose(of_sets(of([1], peak=[0]), of([1], peak=[0])))


def test_a_consensus_is_computed_once() -> None:
    given = of_sets(of([1]), of([1, 2]))
    first = given.consensus()
    assert given.consensus("neurons", "none") is first
    assert given.consensus("tokens") is not first


@pytest.mark.parametrize("spec", ["knn@letters", "knn:weight=heavy", "knn@tokens:weight=peak", "minact@tokens"])
def test_what_cannot_agree_is_refused(spec: str) -> None:
    with pytest.raises(UsageError):
        parse_selector(spec)
