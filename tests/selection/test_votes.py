"""Votes by hand: what counts, what is kept, and how a vote fails."""

import numpy as np
import pytest
from made import candidates, with_signal

from nad.selection import Candidates, NotApplicable, parse_selector
from nad.selection.votes import vote


def chosen(spec: str, given: Candidates) -> int | None:
    return parse_selector(spec).choose(given).index


def test_votes_and_their_ties() -> None:
    assert vote(["a", "b", "b"], np.ones(3)).index == 1
    assert vote(["a", "b", "b"], np.array([5.0, 1.0, 2.0])).index == 0
    assert vote([None, "a", None], np.ones(3)).scores.tolist() == [0, 1, 0]
    tie = vote(["a", "b", None], np.ones(3))
    assert (tie.index, tie.scores.tolist(), tie.note) == (
        None,
        [1, 1, 0],
        "the vote failed: 2 answers share the most votes",
    )
    nobody = vote([None, None], np.ones(2))
    assert (nobody.index, nobody.scores.tolist(), nobody.note) == (
        None,
        [0, 0],
        "the vote failed: no sample has an answer",
    )


def test_the_majority() -> None:
    assert chosen("cons", candidates()) == 0
    assert chosen("cons", candidates(answers=["a", "b", "b"])) == 1


def test_the_borda_vote_lies_between_the_majority_and_the_surest() -> None:
    given = with_signal("self_certainty", [[9], [1], [2]], answers=["a", "b", "b"])
    assert chosen("self-certainty-vote:0", given) == 1  # power 0: Cons@n
    assert chosen("self-certainty-vote:1", given) is None  # a: 3, b: 2 + 1, a tie
    assert chosen("self-certainty-vote:2", given) == 0  # a: 9, b: 4 + 1


def test_all_samples_are_ranked_in_the_borda_vote() -> None:
    """As its authors do: the sample without an answer takes the first place of three, and no vote."""
    given = with_signal("self_certainty", [[9], [1], [2]], answers=[None, "a", "b"])
    assert parse_selector("self-certainty-vote:1").choose(given).scores.tolist() == [0, 1, 2]


def test_the_confidence_vote_weighs_and_filters() -> None:
    given = with_signal("confidence", [[5], [3], [3], [1]], answers=["a", "b", "b", "a"])
    assert chosen("deepconf-vote", given) is None  # 5 + 1 against 3 + 3
    assert chosen("deepconf-vote:0.75", given) == 1  # 5 against 3 + 3
    assert chosen("deepconf-vote:0.1", given) == 0  # the surest alone


def test_samples_without_an_answer_take_no_place_in_the_confidence_vote() -> None:
    """The two surest have no answer; the surest two of those that have one decide."""
    answers = [None, None, "a", "b", "b", "c"]
    given = with_signal("confidence", [[9], [8], [5], [3], [4], [1]], answers=answers)
    assert chosen("deepconf-vote:0.1", given) == 2
    assert chosen("deepconf-vote:0.5", given) == 2  # 5 against 4
    assert chosen("deepconf-vote:0.75", given) == 3  # 5 against 3 + 4


@pytest.mark.parametrize(("n", "keep", "kept"), [(64, 0.1, 7), (64, 0.9, 57), (11, 0.1, 2), (10, 0.1, 1), (4, 1.0, 4)])
def test_the_share_that_votes_is_a_quantile_as_in_its_authors_code(n: int, keep: float, kept: int) -> None:
    given = with_signal("confidence", [[i + 1] for i in range(n)], answers=[str(i) for i in range(n)])
    scores = parse_selector(f"deepconf-vote:{keep}").choose(given).scores
    assert np.count_nonzero(scores) == kept


def test_nobody_with_an_answer_is_a_failed_vote() -> None:
    given = with_signal("confidence", [[5], [3]], answers=[None, None])
    assert chosen("deepconf-vote:0.1", given) is None


def test_universal_self_consistency_is_the_recorded_verdict() -> None:
    choice = parse_selector("universal").choose(candidates(consistent=2))
    assert (choice.index, choice.scores.tolist()) == (2, [0, 0, 1])


@pytest.mark.parametrize(
    ("spec", "changes", "reason"),
    [
        ("cons", {"answers": None}, "cannot be compared"),
        ("cons", {"full": False}, "needs full answers"),
        ("deepconf-vote", {"answers": None}, "cannot be compared"),
        ("deepconf-vote", {}, "no signals"),
        ("self-certainty-vote", {}, "no signals"),
        ("universal", {}, "no verdict"),
        ("universal", {"full": False, "consistent": 1}, "needs full answers"),
    ],
)
def test_what_does_not_apply_says_why(spec: str, changes: dict[str, object], reason: str) -> None:
    with pytest.raises(NotApplicable, match=reason):
        chosen(spec, candidates(**changes))
