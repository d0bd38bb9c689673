"""Every pattern of the grading is linear: 100,000 of anything take less than a second."""

import time
from collections.abc import Callable

import pytest

from nad.grading.answers import extract_answer, letter
from nad.grading.math_equality import equivalent
from nad.grading.votes import ballots

LENGTH = 100_000

WHITE = [" ", "\t", "\n", "\r", "\f", "\v", "\r\n", "\u00a0", "\u2003", "\u2028", "\u3000"]

REPEATED = [
    *("the answer is ", "Answer: ", "the answer to ", "my ", "option ", "the answer is A or ", "the answer is 1 = "),
    *(
        "\\boxed{",
        "\\boxed",
        "\\boxed{}",
        "\\boxed{1}, ",
        "#### 1\n",
        "</think>",
        "1,",
        "1,111",
        "111 ",
        "1/",
        "1.",
        "-",
    ),
    *(
        "$",
        "\\frac{",
        "\\frac{1}{",
        "2 1/",
        "0.(",
        "(",
        "{",
        "[",
        "*",
        "B",
        "B ",
        "= ",
        "\\(",
        "\\[",
        "$$",
        "'",
        "`",
        "_",
    ),
    *("^", "1e", "1:", "6:0", " thousand", "\\text{", " and ", "\\", "\u2212", "\u0305", "the answer is $x", "1\\,"),
]

TEXTS = [
    *(head + white * LENGTH + "B" for white in WHITE for head in ("", "Answer:")),
    *(repeated * (LENGTH // len(repeated)) + "x 5}" for repeated in REPEATED),
]

GRADERS: dict[str, Callable[[str], object]] = {
    "extract": extract_answer,
    "last number": lambda text: extract_answer(text, last_number=True),
    "letter": lambda text: letter(text, "ABCD"),
    "equivalent": lambda text: equivalent("5", text),
    "ballots": lambda text: ballots([text, "5", text]),
}


@pytest.mark.parametrize("grader", GRADERS)
def test_a_hundred_thousand_of_anything_take_less_than_a_second(grader: str) -> None:
    slow = []
    for text in TEXTS:
        begin = time.process_time()
        GRADERS[grader](text)
        if (seconds := time.process_time() - begin) > 1:
            slow.append((round(seconds, 2), text[:40]))
    assert slow == []
