"""What a benchmark is: problems, a prompt for each, and a grade for each answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Problem:
    """One problem: its stable id, the question, the right answer (None where tests decide) and what its family adds."""

    id: str
    question: str
    answer: str | None
    extra: Mapping[str, object] = field(default_factory=dict)


@runtime_checkable
class Task(Protocol):
    """A benchmark. Third parties add one with an entry point of the group `nad.tasks`: name -> (Options -> Task)."""

    @property
    def name(self) -> str: ...

    @property
    def votes(self) -> bool:
        """Whether answers can be compared for a vote: False for programs."""
        ...

    def problems(self) -> Sequence[Problem]: ...

    def data_sha256(self) -> str:
        """Hash of the problems as used: two runs with the same hash answered the same questions."""
        ...

    def prompt(self, problem: Problem) -> str: ...

    def answer(self, problem: Problem, text: str) -> str | None:
        """What a text answers, as it is written; None: it has no answer.

        Which answers are one vote is decided when a problem is graded (nad.grading.votes).
        """
        ...

    def grade(self, problem: Problem, text: str) -> bool | None:
        """Whether a text is right; one without an answer is wrong. None: the grader failed, so it is not graded."""
        ...


@dataclass(frozen=True)
class Options:
    """How a task is loaded.

    `data`: a local file instead of the hub; `limit`: the first problems only, with no check of their number;
    `seed`: made-up problems and the order of choices; `everything`: all of a release, not the paper's part of it;
    `unsafe_code_execution`: run programs without bubblewrap.
    """

    data: Path | None = None
    limit: int | None = None
    seed: int = 0
    everything: bool = False
    unsafe_code_execution: bool = False
