"""Answers written by hand, and what must be made of them."""

import io
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from benchmark_data import data_file

from nad.errors import NadError
from nad.grading import math_equality
from nad.grading.answers import extract_answer, letter
from nad.grading.math_equality import canonical, equivalent
from nad.tasks import load_task


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"first \boxed{1}, no: \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\left\{1, 2\right\}}", r"\left\{1, 2\right\}"),
        (r"\fbox{7}", "7"),
        (r"\boxed 7.", "7"),
        ("The answer is 12.", "12"),
        ("The final answer is: $x + 1$. Done.", "x + 1"),
        ("**Answer:** 12", "12"),
        ("so 3 + 4\n#### 7", "7"),
        ("To answer: add 3 and 4.", None),
        ("Therefore, the final answer is \\(x^2\\).", "x^2"),
        (r"\boxed{}", None),
        (r"\boxed{1 + ", None),
        ("I do not know 12 of them.", None),
        ("", None),
        ("<think>it is \\boxed{1}</think> \\boxed{2}", "2"),
        ("it is \\boxed{1}</think> \\boxed{2}", "2"),
        ("<think>it is \\boxed{1}", None),
        ("<think>a</think> <think>\\boxed{1}", None),
        ("<think>\\boxed{1}</think> I cannot say", None),
    ],
)
def test_the_answer_of_a_text(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She has 3 apples and 1,234 pears", "1,234"),
        ("That makes $18.50.", "$18.50"),
        ("The answer is 12 dollars, not 13.", "12"),
        (r"\boxed{5}, checked 17 times", "5"),
        ("it is -4", "-4"),
        ("nothing here", None),
        ("Answer: Janet sells 16 - 3 - 4 = 9 eggs.\nShe makes 9 * 2 = 18 dollars.", "18"),
        ("To answer: add 3 and 4.", "4"),
        (r"The answer is $\frac{1}{2}$, or 50 percent.", r"\frac{1}{2}"),
        ("**The final answer is:** $18$", "18"),
        ("The answer is: 7\n\nLet me check: 3 + 4.", "7"),
    ],
)
def test_the_last_number_where_a_number_is_asked_for(text, answer):
    assert extract_answer(text, last_number=True) == answer


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("Answer: B", "B"),
        ("Answer: $B", "B"),
        ("**Answer: C**", "C"),
        ("The answer is (D).", "D"),
        ("Answer: A\nno, wait.\nAnswer: B", "B"),
        (r"\boxed{C}", "C"),
        (r"\boxed{\text{A}}", "A"),
        (r"\boxed{\textbf{(B)}}", "B"),
        ("C", "C"),
        ("**Answer:** B", "B"),
        ("Answer: **B**", "B"),
        (r"Answer: \boxed{B}", "B"),
        ("The correct answer is B) it rains", "B"),
        ("the answer is option C", "C"),
        (r"\boxed{D) it rains}", "D"),
        ("(c)", None),
        ("Answer: E", None),
        ("Answer: Because", None),
        ("A cat sat on a Bat.", None),
        ("<think>Answer: A</think>Answer: B", "B"),
        ("<think>Answer: A", None),
    ],
)
def test_the_letter_of_a_text(text, chosen):
    assert letter(text, "ABCD") == chosen


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
    assert len({canonical(s) for s in spellings}) == 1


def test_different_answers_are_different_votes():
    assert len({canonical(s) for s in ["1", "2", "1/2", "-1", "x", r"\text{Evelyn}", "(1, 2)", "(2, 1)"]}) == 8


def test_grading_from_many_threads_at_once():
    with ThreadPoolExecutor(8) as pool:
        same = list(pool.map(lambda i: equivalent(str(i), f"{2 * i}/2"), range(40)))
    assert same == [True] * 40


def test_a_comparison_that_hangs_is_not_graded_and_the_next_one_is(monkeypatch):
    assert equivalent("1", "1") is True
    process = math_equality._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)  # as a formula would that never ends
    monkeypatch.setattr(math_equality, "TIMEOUT_S", 0.2)
    assert equivalent("1", "1.0") is None
    monkeypatch.undo()
    assert equivalent("1", "1.0") is True


def test_a_comparing_process_that_died_is_not_graded_and_the_next_one_is():
    assert equivalent("1", "1") is True
    process = math_equality._process
    assert process is not None
    process.kill()
    process.wait()
    assert equivalent("1", "1.0") is None
    assert equivalent("1", "1.0") is True


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
    boxed = "\\boxed{{{}}}"
    assert [p.id for p, s in pairs if task.answer(p, s) != task.answer(p, boxed.format(p.answer))] == []


def test_the_answer_of_the_next_problem_of_math500_is_wrong():
    task = load_task("math500", data_file("math500.jsonl"), limit=60)
    problems = task.problems()
    wrong = [(p, q) for p, q in pairwise(problems) if p.answer != q.answer.removeprefix("x=")]
    assert [p.id for p, q in wrong if task.grade(p, f"\\boxed{{{q.answer}}}") is not False] == []


def test_an_answer_the_parser_breaks_on_is_not_graded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parser's failure says nothing about the answer; what is no mathematics at all parses, and is wrong."""
    equivalence = pytest.importorskip(
        "nad.grading.math_equality_process", reason="needs math-verify: pip install 'nad[eval]'"
    )
    parse = equivalence._parsed

    def breaks(text: str) -> list[object]:
        if text == "7":
            raise ValueError("broken")
        return parse(text)

    monkeypatch.setattr(equivalence, "_parsed", breaks)
    monkeypatch.setattr("logging.disable", lambda level: None)  # it would silence the tests behind this one
    asked = [{"gold": "4", "answer": answer} for answer in ("7", "x^{", "4")]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(json.dumps(question) + "\n" for question in asked)))
    equivalence.main()
    assert capsys.readouterr().out.split() == ["ready", "null", "false", "true"]
