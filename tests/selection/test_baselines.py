"""Baselines: each prefers what its source prefers, and says when it does not apply."""

import numpy as np
import pytest

from nad.errors import UsageError
from nad.selection.baselines import BASELINES, Candidates, NotApplicable, vote
from nad.selection.choosers import default_methods, parse_method
from nad.selection.text_sets import bigram_sets, token_sets
from nad.types import Signals


def candidates(**changes: object) -> Candidates:
    values: dict[str, object] = {
        "problem": "p",
        "n": 3,
        "signals": None,
        "lengths": [30, 20, 40],
        "answers": ["a", "b", "a"],
    }
    return Candidates(**{**values, **changes})  # type: ignore[arg-type]


def with_signal(name: str, rows: list[list[float]], **changes: object) -> Candidates:
    """Candidates that differ in one signal only."""
    made = []
    for row in rows:
        columns = {field: np.ones(len(row), np.float32) for field in ("logprob", "entropy", "self_certainty")}
        columns["confidence"] = np.ones(len(row), np.float32)
        columns[name] = np.array(row, np.float32)
        made.append(Signals(**columns, chunk_neurons=np.zeros(1, np.uint16)))
    return candidates(signals=made, n=len(rows), **changes)


def chosen(spec: str, given: Candidates) -> int | None:
    choice = parse_method(spec).chooser.choose(given)  # type: ignore[arg-type]
    return None if choice is None else choice.index


@pytest.mark.parametrize(("spec", "index"), [("first", 0), ("shortest", 1), ("longest", 2), ("cons", 0)])
def test_what_length_place_and_votes_choose(spec: str, index: int) -> None:
    assert chosen(spec, candidates()) == index


@pytest.mark.parametrize(
    ("spec", "signal", "rows", "index"),
    [
        ("logprob", "logprob", [[-2, -2], [-1, -2], [-9, -1]], 1),  # a mean, not a sum or a maximum
        ("logprob", "logprob", [[-1, -1, -1, -1], [-1.5, -1.5]], 0),
        ("entropy", "entropy", [[2, 2], [1, 2], [9, 1]], 1),  # the smallest
        ("self-certainty", "self_certainty", [[2, 2], [1, 2], [9, 1]], 2),
        ("deepconf:mean", "confidence", [[2, 2], [1, 2], [9, 1]], 2),
        ("deepconf:tail,window=1", "confidence", [[2, 2], [1, 3], [9, 1]], 1),
        ("deepconf:lowest,window=1", "confidence", [[2, 2], [1, 3], [9, 1]], 0),
        ("deepconf:lowest,window=2", "confidence", [[1, 1, 9, 9], [2, 2, 2, 2], [9, 1, 2, 9]], 1),  # 1, 2, 1.5
        ("soft", "logprob", [[-0.1, -5], [-1, -1]], 0),  # mean probabilities 0.456 and 0.368
        ("soft:min", "logprob", [[-0.1, -5], [-1, -1]], 1),
        ("soft:product", "logprob", [[-1, -1, -1], [-1, -1.5]], 1),  # -3 and -2.5
    ],
)
def test_what_signals_choose(spec: str, signal: str, rows: list[list[float]], index: int) -> None:
    assert chosen(spec, with_signal(signal, rows)) == index


def test_bottom_ten_percent_is_the_mean_of_the_lowest_groups() -> None:
    low, dip = [1.0] * 2 + [9.0] * 18, [0.5, 8.0] + [9.0] * 18
    choice = parse_method("deepconf:bottom10,window=1").chooser.choose(with_signal("confidence", [low, dip]))  # type: ignore[arg-type]
    assert choice.scores.tolist() == [1.0, 4.25]  # type: ignore[union-attr]


def test_votes_and_their_ties() -> None:
    assert vote(["a", "b", "b"], np.ones(3)).index == 1  # type: ignore[union-attr]
    assert vote(["a", "b", "b"], np.array([5.0, 1.0, 2.0])).index == 0  # type: ignore[union-attr]
    assert vote(["a", "b", None], np.ones(3)) is None
    assert vote([None, None], np.ones(2)) is None
    assert vote([None, "a", None], np.ones(3)).scores.tolist() == [0, 1, 0]  # type: ignore[union-attr]


def test_the_borda_vote_lies_between_the_majority_and_the_surest() -> None:
    given = with_signal("self_certainty", [[9], [1], [2]], answers=["a", "b", "b"])
    assert chosen("self-certainty-vote:0", given) == 1  # power 0: Cons@n
    assert chosen("self-certainty-vote:1", given) is None  # a: 3, b: 2 + 1, a tie
    assert chosen("self-certainty-vote:2", given) == 0  # a: 9, b: 4 + 1


def test_only_answers_are_ranked_in_the_borda_vote() -> None:
    given = with_signal("self_certainty", [[9], [1], [2]], answers=[None, "a", "b"])
    choice = parse_method("self-certainty-vote:1").chooser.choose(given)  # type: ignore[arg-type]
    assert choice.scores.tolist() == [0, 1, 2]  # type: ignore[union-attr]


def test_the_confidence_vote_weighs_and_filters() -> None:
    given = with_signal("confidence", [[5], [3], [3], [1]], answers=["a", "b", "b", "a"])
    assert chosen("deepconf-vote", given) is None  # 5 + 1 against 3 + 3
    assert chosen("deepconf-vote:0.75", given) == 1  # 5 against 3 + 3
    assert chosen("deepconf-vote:0.1", given) == 0  # the surest alone


def test_random_depends_on_the_problem_and_covers_all() -> None:
    draws = [chosen("random", candidates(problem=f"p{i}")) for i in range(60)]
    assert draws == [chosen("random", candidates(problem=f"p{i}")) for i in range(60)]
    assert {*draws} == {0, 1, 2}
    assert draws != [chosen("random:1", candidates(problem=f"p{i}")) for i in range(60)]


def test_universal_self_consistency_is_the_recorded_verdict() -> None:
    assert chosen("universal", candidates(consistent=2)) == 2


@pytest.mark.parametrize(
    ("spec", "changes", "reason"),
    [
        ("cons", {"votes": False}, "cannot be compared"),
        ("cons", {"answers": None}, "needs full answers"),
        ("shortest", {"lengths": None}, "needs full answers"),
        ("logprob", {}, "no signals"),
        ("universal", {}, "no verdict"),
        ("deepconf-vote", {"votes": False}, "cannot be compared"),
    ],
)
def test_what_does_not_apply_says_why(spec: str, changes: dict[str, object], reason: str) -> None:
    with pytest.raises(NotApplicable, match=reason):
        chosen(spec, candidates(**changes))


@pytest.mark.parametrize(
    "spec", ["nosuch", "knn@letters", "cons@tokens", "deepconf:median", "deepconf-vote:0", "soft:max", "knn:k=0"]
)
def test_unknown_methods_and_parameters_are_refused(spec: str) -> None:
    with pytest.raises(UsageError):
        parse_method(spec)


def test_every_selector_and_baseline_is_in_the_default_table() -> None:
    names = {m.name.partition(":")[0] for m in default_methods()}
    assert names >= {*BASELINES, "knn", "knn@tokens", "medoid@bigrams", "dbscan@tokens"}
    assert all((cls.__doc__ or "").strip() for cls in BASELINES.values())


def test_texts_as_sets_of_tokens_and_pairs() -> None:
    """7 stands first at place 0; the pair (7, 8) ends at place 1."""
    texts = [[7, 8, 7, 9], [8, 7, 8]]
    first, second = token_sets(texts)
    assert (first.neuron.tolist(), first.first_token.tolist()) == ([0, 1, 2], [0, 1, 3])
    assert (second.neuron.tolist(), second.first_token.tolist()) == ([0, 1], [1, 0])
    first, second = bigram_sets(texts)  # pairs 78, 87, 79 and 87, 78; sorted 78, 79, 87
    assert (first.neuron.tolist(), first.first_token.tolist()) == ([0, 1, 2], [1, 3, 2])
    assert (second.neuron.tolist(), second.first_token.tolist()) == ([0, 2], [2, 1])
