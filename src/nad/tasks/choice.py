"""Multiple choice: the answer is a letter.

Sources: the hub data sets Idavidrein/gpqa (gpqa_diamond, train; its authors ask that it not stand in plain text, so
no item of it is shown here) and allenai/ai2_arc (ARC-Challenge, test). Sample item (arc_challenge):
    question "An astronomer observes that a planet rotates faster after a meteorite impact. Which is the most likely
    effect of this increase in rotation?", choices A "Planetary density will decrease." ... D "Planetary gravity will
    become stronger.", answerKey "C"
Choices are shuffled by the seed and the problem's id, so that no letter is right more often than another. The prompt
is the one of OpenAI's simple-evals, in which GPQA is usually reported; the paper names none.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nad.errors import UsageError
from nad.grading.answers import letter
from nad.tasks.base import Options, Problem, Task
from nad.tasks.source import Row, Source, load_problems, sha256

LETTERS = "ABCDE"
_PROMPT = (
    "Answer the following multiple choice question. The last line of your response should be of the following format: "
    "'Answer: $LETTER' (without quotes) where LETTER is one of {letters}. Think step by step before answering.\n\n"
    "{question}\n\n{choices}"
)


@dataclass(frozen=True)
class ChoiceTask:
    """Each problem's `extra["choices"]` are its options in the order of the letters."""

    name: str
    items: tuple[Problem, ...]
    votes: bool = True

    def problems(self) -> Sequence[Problem]:
        return self.items

    def data_sha256(self) -> str:
        return sha256(self.items)

    def prompt(self, problem: Problem) -> str:
        lines = [f"{label}) {text}" for label, text in zip(LETTERS, _choices(problem), strict=False)]
        return _PROMPT.format(letters=_letters(problem), question=problem.question, choices="\n".join(lines))

    def answer(self, problem: Problem, text: str) -> str | None:
        return letter(text, _letters(problem))

    def grade(self, problem: Problem, text: str) -> bool | None:
        return letter(text, _letters(problem)) == problem.answer


def _choices(problem: Problem) -> Sequence[str]:
    choices = problem.extra["choices"]
    assert isinstance(choices, Sequence)
    return choices


def _letters(problem: Problem) -> str:
    return LETTERS[: len(_choices(problem))]


def _shuffled(id: str, question: str, right: str, wrong: Sequence[str], seed: int) -> Problem:
    """The right choice stands first before the shuffle and is found by that place: two choices may read the same."""
    order = list(range(1 + len(wrong)))
    random.Random(f"{seed}:{id}").shuffle(order)
    choices = tuple((right, *wrong)[i].strip() for i in order)
    return Problem(id, question.strip(), LETTERS[order.index(0)], {"choices": choices})


def _gpqa(row: Row, index: int, seed: int) -> Problem:
    wrong = [row[f"Incorrect Answer {i}"] for i in (1, 2, 3)]
    return _shuffled(row["Record ID"], row["Question"], row["Correct Answer"], wrong, seed)


def _arc(row: Row, index: int, seed: int) -> Problem:
    """Labels are letters or digits; the key is one of them."""
    labels, texts = row["choices"]["label"], row["choices"]["text"]
    if row["answerKey"] not in labels:
        raise UsageError(f"problem {row['id']} of arc_challenge has the key {row['answerKey']!r}; allowed: {labels}")
    right = labels.index(row["answerKey"])
    return _shuffled(row["id"], row["question"], texts[right], [*texts[:right], *texts[right + 1 :]], seed)


def _loader(name: str, source: Source, problem: Callable[[Row, int, int], Problem]) -> Callable[[Options], Task]:
    def load(options: Options) -> Task:
        items = load_problems(name, source, lambda row, index: problem(row, index, options.seed), options)
        return ChoiceTask(name, items)

    return load


GPQA = Source(
    "Idavidrein/gpqa",
    198,
    ("Record ID", "Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
    config="gpqa_diamond",
    split="train",
)
ARC = Source("allenai/ai2_arc", 1172, ("id", "question", "choices", "answerKey"), config="ARC-Challenge")

TASKS: Mapping[str, Callable[[Options], Task]] = {
    "gpqa": _loader("gpqa", GPQA, _gpqa),
    "arc_challenge": _loader("arc_challenge", ARC, _arc),
}
