"""Which answers are one vote."""

import itertools
import time

import pytest

from nad.grading import votes
from nad.grading.math_equality import equivalent
from nad.grading.votes import ballots


@pytest.mark.parametrize(
    "spellings",
    [
        ["0.5", "1/2", r"\frac{1}{2}", r"\dfrac12", ".5"],
        ["1234", "1,234", "1234.0", "$1234", "1234.00"],
        [r"2\sqrt{13}", r"\sqrt{52}"],
        ["(1, 2)", "( 1,2 )"],
        ["x = 5", "5"],
        [r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\4/2\end{pmatrix}"],
        [r"x+1", "1 + x"],
        [r"\text{Evelyn}", r"\text{ Evelyn }"],
    ],
)
def test_equal_answers_are_one_vote(spellings):
    assert set(ballots(spellings)) == {spellings[0]}


@pytest.mark.parametrize(
    "answers",
    [
        ["1", "2", "1/2", "-1", "x", r"\text{Evelyn}", "(1, 2)", "(2, 1)", "1, 2, 3"],
        ["(x,y)=(1,2)", "(x,y)=(3,4)", "(x,y)=(2,1)"],
        ["6:00", "7:00", "6:30", "0:00"],
        ["listen", "silent", "enlist", "no", "on"],
        ["east", "eats", r"\text{seat}"],
        ["1/2^80", "1/2^79", "0"],
        ["0.0000001", "0.0000002"],
        [r"1, 2, \ldots, n", r"1, 3, \ldots, 2n-1", r"1, 2, \ldots, 2n"],
        ["x+1=3", "x+2=3", "3"],
        ["1/0", "0/0", "\\infty"],
    ],
)
def test_different_answers_are_different_votes(answers: list[str]) -> None:
    assert ballots(answers) == answers


def test_the_label_is_the_first_of_its_kind_and_no_answer_stays_none() -> None:
    assert ballots([None, "1/2", "0.5", None, "3", r"\frac{1}{2}", "3.0"]) == [
        None,
        "1/2",
        "1/2",
        None,
        "3",
        "1/2",
        "3",
    ]
    assert ballots([]) == []


def test_two_answers_share_a_label_exactly_when_they_are_equal() -> None:
    answers = [
        "0.5",
        "1/2",
        r"\frac12",
        "2x+1",
        "1+2x",
        r"\sqrt{8}",
        r"2\sqrt{2}",
        "(1,2)",
        "( 1, 2 )",
        "no",
        "No.",
        "x",
        "5",
    ]
    labels = ballots(answers)
    for (one, label), (other, second) in itertools.combinations(zip(answers, labels, strict=True), 2):
        assert (label == second) is (equivalent(one, other) is True)


def test_what_cannot_be_decided_is_different_and_does_not_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def undecided(gold: str, answer: str) -> None:
        asked.append((gold, answer))
        time.sleep(0.01)

    monkeypatch.setattr(votes, "equivalent", undecided)
    monkeypatch.setattr(votes, "PATIENCE_S", 0.05)
    answers = [f"\\sqrt{{{i}}}" for i in range(20)]
    assert ballots([*answers, "7", "7.0"]) == [*answers, "7", "7"]
    assert len(asked) < 10


def test_sixty_four_answers_are_counted_in_seconds() -> None:
    different = [rf"{a}\sqrt{{{b}}} + {c}x" for a in (1, 2, 3) for b in (2, 3, 5) for c in (1, 2, 3, 4)]
    begin = time.monotonic()
    labels = ballots((different + different)[:64])
    assert len(set(labels)) == 36
    assert time.monotonic() - begin < 20
