"""The right answers of the benchmarks, as models write them; and no two different ones that are called equal."""

import random
from collections.abc import Callable

import pytest
from benchmark_data import data_file

from nad.grading.math_equality import equivalent
from nad.tasks import Task, load_task
from nad.tasks.choice import ChoiceTask


def not_right(task: Task, forms: Callable[[str], list[str]]) -> list[tuple[str, str]]:
    """The texts that should be right and are not."""
    return [
        (problem.id, text)
        for problem in task.problems()
        for text in forms(str(problem.answer))
        if task.grade(problem, text) is not True
    ]


def formula(gold: str) -> list[str]:
    return [
        f"So the answer is $\\boxed{{{gold}}}$, as wanted.",
        f"\\[\\boxed{{{gold}}}.\\]",
        f"\\boxed{{ {{{gold}}} }}",
        f"\\boxed{{{gold}}} and \\boxed{{}}",
        f"The final answer is ${gold}$.",
        f"**Answer:** \\({gold}\\)",
        f"The answer is:\n\n$$\n{gold}\n$$",
    ]


def number(gold: str) -> list[str]:
    commas = f"{int(gold):,}"
    return [
        f"The answer is {commas}.",
        f"**${gold}**",
        f"{gold} dollars",
        f"So she has {commas} of them.",
        f"\\boxed{{\\${commas}}}",
        f"\\boxed{{{gold} \\text{{ apples}}}}",
        f"#### {commas}",
        f"Answer: {gold}.0",
        "x = " + gold.replace("-", "\u2212"),
        f"it costs ${gold}.00 in all",
        f"\\[ x = {gold} \\]",
        f"the total is 2 + 3 = {commas}",
        f"The area is {gold} cm^2.",
        f"Answer: 1 * {gold} = {gold} apples",
    ]


def integer(gold: str) -> list[str]:
    return [
        f"$m+n=\\boxed{{{gold}}}$",
        f"\\boxed{{m+n={gold}}}",
        f"$\\boxed{{0{gold}}}$",
        f"\\boxed{{\\textbf{{{gold}}}}}",
        f"**Answer:** {gold}",
    ]


@pytest.mark.parametrize(
    ("name", "file", "forms"),
    [
        ("math500", "math500.jsonl", formula),
        ("gsm8k", "gsm8k_test.jsonl", number),
        ("svamp", "svamp.jsonl", number),
        ("aime24", "aime24.jsonl", integer),
        ("aime25", "aime25.jsonl", lambda gold: [*integer(gold), f"\\boxed{{{gold}^\\circ}}"]),
    ],
)
def test_right_answers_are_right_however_they_are_said(name: str, file: str, forms: Callable[[str], list[str]]) -> None:
    assert not_right(load_task(name, data_file(file)), forms) == []


def test_right_letters_are_right_however_they_are_said() -> None:
    task = load_task("arc_challenge", data_file("arc_challenge.jsonl"))
    assert isinstance(task, ChoiceTask)
    texts = {problem.answer: problem for problem in task.problems()}
    assert set(texts) == set("ABCDE")

    def forms(gold: str) -> list[str]:
        choices = texts[gold].extra["choices"]
        assert isinstance(choices, tuple)
        choice = choices["ABCDE".index(gold)]
        wraps = ["{}", "({})", "`{}`", "**{}**", "\\({}\\)", "{}.", "{}) " + choice, "{}: " + choice]
        marks = ["Answer: ", "The correct answer is ", "**Answer:** ", "Answer: \n"]
        boxes = [
            f"\\boxed{{{gold}}}",
            f"\\boxed{{\\mathrm{{{gold}}}}}",
            f"It rains.\n\n{gold}",
            f"Answer: {gold.lower()}",
        ]
        return [mark + wrap.format(gold) for mark in marks for wrap in wraps] + boxes

    assert not_right(task, forms) == []


SEVERAL_WAYS = {
    frozenset(("(-2,1)", "-2,1")): "a list without brackets may be meant as a pair",
    frozenset(("-2,1", "1,-2")): "a list without brackets has no order",
    frozenset(("10,\\!080", "10080")): "the same number",
    frozenset(("\\frac14", "\\frac{1}{4}")): "the same number",
    frozenset(("2 \\sqrt{5}", "2\\sqrt{5}")): "the same number",
    frozenset(("120", "120^\\circ")): "a unit may be left out",
    frozenset(("30", "30^\\circ")): "a unit may be left out",
    frozenset(("36", "36^\\circ")): "a unit may be left out",
    frozenset(("90", "90^\\circ")): "a unit may be left out",
    frozenset(("15", "15\\mbox{ cm}^2")): "a unit may be left out",
    frozenset(("36", "\\$36")): "a unit may be left out",
    frozenset(("40", "40_9")): "a base may be left out",
    frozenset(("5", "x=5")): "a name may be left out",
}
"""The pairs of different spellings among MATH-500's answers that are equal, and why."""


def test_of_two_thousand_pairs_of_answers_none_is_equal_without_a_reason() -> None:
    golds = [str(p.answer) for p in load_task("math500", data_file("math500.jsonl")).problems()]
    draw = random.Random(0)
    pairs = [(one, other) for one, other in (draw.sample(golds, 2) for _ in range(2600)) if one != other][:2000]
    assert len(pairs) == 2000
    verdicts = {pair: equivalent(*pair) for pair in pairs}
    assert [p for p, same in verdicts.items() if same and frozenset(p) not in SEVERAL_WAYS] == []
    assert [p for p, same in verdicts.items() if same is None] == []


@pytest.mark.slow
def test_of_all_pairs_of_answers_those_with_a_reason_are_equal_and_no_others() -> None:
    golds = sorted({str(p.answer) for p in load_task("math500", data_file("math500.jsonl")).problems()})
    equal = {frozenset((a, b)) for i, a in enumerate(golds) for b in golds[i + 1 :] if equivalent(a, b) is not False}
    assert equal == set(SEVERAL_WAYS)
