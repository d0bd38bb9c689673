"""Answers written by hand, and whether they are the same."""

import importlib
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from benchmark_data import data_file
from hypothesis import given, settings
from hypothesis import strategies as st

from nad.errors import NadError
from nad.grading import math_equality
from nad.grading.answers import extract_answer, letter
from nad.grading.exact import decide
from nad.grading.math_equality import equivalent
from nad.grading.votes import ballots
from nad.tasks import load_task


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        (r"\frac{1}{2}", "0.5", True),
        (r"\frac{1}{2}", "1/2", True),
        (r"\frac{1}{2}", r"\dfrac12", True),
        (r"\frac{1}{2}", r"\frac{1}{3}", False),
        ("1234", "1,234", True),
        ("10080", r"10{,}080", True),
        ("1234", r"1\,234", True),
        ("10", r"10\text{ cm}", True),
        ("18", r"\$18", True),
        ("18", "18 dollars", True),
        ("18", r"18\%", True),  # math-verify's rule: the sign may be left out
        ("0.18", r"18\%", True),
        ("18", "18 x", False),
        ("18", "18.", True),
        ("18", "19 dollars", False),
        ("18.5", "$18.50", True),
        ("90", r"90^\circ", True),
        ("204", "204.0", True),
        ("204", "205", False),
        (r"2\sqrt{13}", r"\sqrt{52}", True),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)", True),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(\pi/2, 3)", False),
        ("1,-2", "-2, 1", True),
        ("p - q", "-q + p", True),
        (r"\text{Evelyn}", r"\text{Evelyn}", True),
        (r"\text{Evelyn}", r"\text{Carla}", False),
        ("5", "", False),
        ("5", "what?", False),
        ("5", r"\frac{", False),
    ],
)
def test_answers_that_are_equal_as_mathematics(gold, answer, same):
    assert equivalent(gold, answer) is same


def test_grading_from_many_threads_at_once():
    with ThreadPoolExecutor(8) as pool:
        same = list(pool.map(lambda i: equivalent(str(i), rf"\sqrt{{{i * i}}}"), range(40)))
    assert same == [True] * 40


def test_a_comparison_that_hangs_is_not_graded_and_the_next_one_is(monkeypatch):
    assert equivalent("2", r"\sqrt{4}") is True
    process = math_equality._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)  # as a formula would that never ends
    monkeypatch.setattr(math_equality, "TIMEOUT_S", 0.2)
    assert equivalent("1", r"\sqrt{1}") is None
    monkeypatch.undo()
    assert equivalent("1", r"\sqrt{1}") is True


def test_a_comparing_process_that_died_is_not_graded_and_the_next_one_is():
    assert equivalent("2", r"\sqrt{4}") is True
    process = math_equality._process
    assert process is not None
    process.kill()
    process.wait()
    assert equivalent("1", r"\sqrt{1}") is None
    assert equivalent("1", r"\sqrt{1}") is True


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(math_equality, "find_spec", lambda name: None)
    with pytest.raises(NadError, match=r"pip install 'nad\[eval\]'"):
        load_task("arithmetic")


def test_grading_does_not_touch_the_signals_of_this_process():
    found = []
    before = signal.getsignal(signal.SIGALRM)
    thread = threading.Thread(target=lambda: found.append(equivalent("9^{9^{9^9}}", "3")))
    thread.start()
    thread.join()
    assert found[0] is not True
    assert signal.getsignal(signal.SIGALRM) is before


def test_the_solutions_of_math500_are_right_and_vote_for_their_answer():
    path = data_file("math500.jsonl")
    task = load_task("math500", path)
    solutions = [json.loads(line)["solution"] for line in path.read_text().splitlines()]
    pairs = list(zip(task.problems(), solutions, strict=True))
    assert [p.id for p, solution in pairs if task.grade(p, solution) is not True] == []
    votes = [(p, ballots([task.answer(p, f"\\boxed{{{p.answer}}}"), task.answer(p, s)])) for p, s in pairs]
    assert [p.id for p, (first, second) in votes if first != second] == []


def test_the_answer_of_the_next_problem_of_math500_is_wrong():
    task = load_task("math500", data_file("math500.jsonl"), limit=60)
    problems = task.problems()
    wrong = [(p, q) for p, q in pairwise(problems) if p.answer != q.answer.removeprefix("x=")]
    assert [p.id for p, q in wrong if task.grade(p, f"\\boxed{{{q.answer}}}") is not False] == []


def test_an_answer_the_algebra_breaks_on_is_not_graded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure says nothing about the answer; what is not mathematics at all is read, and is wrong."""
    formulas = pytest.importorskip("nad.grading.formulas", reason="needs math-verify: pip install 'nad[eval]'")
    process = importlib.import_module("nad.grading.math_equality_process")
    equal = formulas._equal

    def breaks(a: object, b: object) -> bool | None:
        if str(b) == "sqrt(7)":
            raise ValueError("broken")
        return equal(a, b)

    monkeypatch.setattr(formulas, "_equal", breaks)
    asked = [{"gold": "4", "answer": answer} for answer in (r"\sqrt{7}", "x^{", r"\sqrt{16}")]
    assert list(process.replies(map(json.dumps, asked))) == ["ready", "null", "false", "true"]


PIECES = [
    *(
        "\\frac",
        "{",
        "}",
        "\\boxed{",
        "(",
        ")",
        "[",
        "]",
        "1",
        "0",
        "12",
        "x",
        "=",
        ",",
        ";",
        " and ",
        "\\pm",
        "\\cup",
        "$",
    ),
    *(
        "\\text{",
        " ",
        "\\(",
        "\\)",
        "-",
        "\u2212",
        "+",
        "/",
        "^",
        "_",
        "%",
        "°",
        "\\overline",
        "...",
        "|",
        "!",
        "'",
        "sqrt",
    ),
    *("NaN", "sNaN", "inf", "1e999", "0.0", "/0", ":", "6:00", "<", "\\leq", "\\begin{pmatrix}", "\\end{pmatrix}", "&"),
    *(
        "\\\\",
        "\ud800",
        "\x00",
        "\n",
        "cm",
        "per ",
        "thousand",
        "The answer is ",
        "²",
        "½",
        "\u0305",
        "9" * 5000,
        "٣",
        "①",
    ),
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@settings(max_examples=300, deadline=None)
def test_whatever_a_sample_says_nothing_is_raised(text: str) -> None:
    for answer in (extract_answer(text), extract_answer(text, last_number=True), letter(text, "ABCD"), text):
        assert decide("5", answer or "") in (True, False, None)
        assert decide(answer or "", "x = 1, y = 2") in (True, False, None)


@pytest.mark.parametrize(
    "answer", ["sNaN", "\ud800", "\x00", "9" * 5000, "1/0", "0^{-1}", "{" * 500, "\\frac" * 200, "\n"]
)
def test_no_answer_breaks_the_comparing_process(answer: str) -> None:
    assert equivalent("5", answer) is not True
    assert equivalent("2", r"\sqrt{4}") is True
