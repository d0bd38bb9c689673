"""A recorded run in memory: what was sampled for each problem, and how it was graded.

Whatever reads runs (selection, tables, figures) takes a `Run`; `store.py` reads one from disk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from nad.grading.thinking import Tags
from nad.neurons.activation import ActivationRule
from nad.types import Completion, Group, SamplingParams


@dataclass(frozen=True)
class Manifest:
    """What a run was made with. `neurons` is layers x neurons of a layer; `data_sha256` names the problems.

    `votes` is whether the task's answers can be compared; each problem was sampled with a seed of its own, made from
    `params.seed` and its id. `thinking_tags` open and close a thinking block beside the known ones.
    """

    model: str
    engine: str
    task: str
    data_sha256: str
    n: int
    stop_at: str
    params: SamplingParams
    rule: ActivationRule
    layers: int
    neurons: int
    revision: str | None = None
    limit: int | None = None
    template_args: dict[str, object] = field(default_factory=dict)
    dtype: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    hardware: str = ""
    created: str = ""
    command: str = ""
    votes: bool = True
    system: str | None = None
    raw: bool = False
    consistency: bool = False
    thinking_tags: tuple[Tags, ...] = ()


@dataclass(frozen=True)
class GradedSample:
    """One completion and its grade.

    `answer` is what it votes for (None: no answer could be extracted, or the task has none); `correct` is None when
    it was not graded, which is not the same as wrong. `seconds` is its share of the group's time.
    """

    completion: Completion
    answer: str | None
    correct: bool | None
    seconds: float


@dataclass(frozen=True)
class ProblemRecord:
    """All samples of one problem. `seed` is what they were drawn with.

    `consistent` is the sample the model itself called the most consistent (universal self-consistency), when asked.
    `thinking` is whether the chat template opened a thinking block, so that the completions begin inside it.
    """

    problem: str
    prompt_tokens: tuple[int, ...]
    samples: tuple[GradedSample, ...]
    computed_tokens: int
    prompt: str = ""
    seed: int | None = None
    consistent: int | None = None
    thinking: bool = False

    @property
    def group(self) -> Group:
        """The completions as a Group, for selectors."""
        return Group(self.prompt_tokens, tuple(s.completion for s in self.samples), self.computed_tokens)


@runtime_checkable
class Run(Protocol):
    """A recorded run: its manifest and its problems, in the task's order; each pass reads them anew."""

    @property
    def manifest(self) -> Manifest: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[ProblemRecord]: ...


@dataclass(frozen=True)
class MemoryRun:
    """A run held in memory: for tests, and for runs made in one process."""

    manifest: Manifest
    problems: Sequence[ProblemRecord]

    def __len__(self) -> int:
        return len(self.problems)

    def __iter__(self) -> Iterator[ProblemRecord]:
        return iter(self.problems)
