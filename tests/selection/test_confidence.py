"""Confidence by hand: each measure prefers what its source prefers."""

import pytest
from made import candidates, with_signal

from nad.selection import NotApplicable, parse_selector


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
        ("soft:product", "logprob", [[-1, -1, -1], [-1, -1.5]], 0),  # geometric means 0.37 and 0.29: length counts not
    ],
)
def test_what_signals_choose(spec: str, signal: str, rows: list[list[float]], index: int) -> None:
    for full in (True, False):
        assert parse_selector(spec).choose(with_signal(signal, rows, full=full)).index == index


@pytest.mark.parametrize(
    ("tokens", "scores"),
    [
        (20, [1.0, 4.25]),  # the two lowest of 20 groups
        (29, [1.0, 4.25]),  # as in its authors' code, 2.9 groups are two
        (9, [1.0, 0.5]),  # at least one
    ],
)
def test_bottom_ten_percent_is_the_mean_of_the_lowest_groups(tokens: int, scores: list[float]) -> None:
    low, dip = [1.0] * 2 + [9.0] * (tokens - 2), [0.5, 8.0] + [9.0] * (tokens - 2)
    choice = parse_selector("deepconf:bottom10,window=1").choose(with_signal("confidence", [low, dip]))
    assert choice.scores.tolist() == scores


def test_an_answer_that_cannot_be_read_is_not_the_surest() -> None:
    """As in the authors' code of self-certainty; while no answer can be read, or at a prefix, nothing is ruled out."""
    rows = [[9], [1], [2]]
    assert (
        parse_selector("self-certainty").choose(with_signal("self_certainty", rows, answers=[None, "a", "b"])).index
        == 2
    )
    for changes in ({"answers": [None] * 3}, {"answers": None}, {"answers": [None, "a", "b"], "full": False}):
        assert parse_selector("self-certainty").choose(with_signal("self_certainty", rows, **changes)).index == 0


@pytest.mark.parametrize("spec", ["logprob", "entropy", "self-certainty", "deepconf", "soft"])
def test_without_signals_it_does_not_apply(spec: str) -> None:
    with pytest.raises(NotApplicable, match="no signals"):
        parse_selector(spec).choose(candidates())
