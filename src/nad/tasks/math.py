"""Problems whose answer is a number or a formula."""

from collections.abc import Sequence
from dataclasses import dataclass

from nad.grading import canonical, equivalent, extract_answer
from nad.tasks.base import Problem
from nad.tasks.source import sha256


@dataclass(frozen=True)
class MathTask:
    """Answers are boxed formulas; with `last_number`, a text without a box answers with its last number."""

    name: str
    items: tuple[Problem, ...]
    last_number: bool = False
    votes: bool = True

    def problems(self) -> Sequence[Problem]:
        return self.items

    def data_sha256(self) -> str:
        return sha256(self.items)

    def prompt(self, problem: Problem) -> str:
        return f"{problem.question}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}."

    def answer(self, problem: Problem, text: str) -> str | None:
        found = extract_answer(text, self.last_number)
        return None if found is None else canonical(found)

    def grade(self, problem: Problem, text: str) -> bool | None:
        found = extract_answer(text, self.last_number)
        return False if found is None else equivalent(str(problem.answer), found)
