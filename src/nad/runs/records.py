"""A recorded run in memory: what was sampled for each problem, and how it was graded.

Whatever reads runs (selection, tables, figures) takes a `Run`; `store.py` reads one from disk.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Protocol, runtime_checkable

from nad.neurons.activation import ActivationRule
from nad.thinking import Tags
from nad.types import Completion, Group, SamplingParams

_CIRCUMSTANCES = ("versions", "hardware", "created", "command")
"""Where and when a run was made, not what it is: they may differ between its sittings."""
_SIZE = ("n", "limit", "data_sha256")
"""How much of a run there is. It may grow: more problems after those it has, more samples after theirs."""
_TASK = ("task", "data_sha256", "limit", "votes", "consistency", "completions")
"""What may differ between runs that stand in one row of a table, where each task has a column."""


@dataclass(frozen=True)
class Manifest:
    """What a run was made with. `data_sha256` names the problems.

    The neurons' numbers are below `neurons`. Each of the `layers` has an equal part of them, in a mixture of experts
    divided into `experts` equal parts (docs/run-schema.md).

    `votes` is whether the task's answers can be compared; each problem was sampled with a seed of its own, made from
    `params.seed` and its id. `weights_digest` tells the model from others of its name, where the engine knows it.
    `thinking_tags` open and close a thinking block beside the known ones. `completions` names the file that answers
    from elsewhere came from, with its sha256; None: they were sampled.
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
    weights_digest: str | None = None
    completions: dict[str, str] | None = None
    thinking_tags: tuple[Tags, ...] = ()
    experts: int = 1

    @property
    def settings(self) -> dict[str, object]:
        """What everything recorded in one run shares, whatever its size."""
        return {name: value for name, value in asdict(self).items() if name not in (*_CIRCUMSTANCES, *_SIZE)}

    @property
    def circumstances(self) -> dict[str, object]:
        """Where and when the run was made."""
        return {name: getattr(self, name) for name in _CIRCUMSTANCES}

    @property
    def comparable(self) -> dict[str, object]:
        """What two runs share if they differ in the task alone; each sampling parameter has its own name."""
        names = {f.name for f in fields(self)} - {*_CIRCUMSTANCES, *_TASK, "params"}
        return asdict(self.params) | {name: getattr(self, name) for name in sorted(names)}


def with_defaults(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings of an older version, with what it did not know yet at its default; as JSON has them."""
    known = {f.name: f.default for f in fields(Manifest) if f.default is not MISSING}
    new = {name: value for name, value in known.items() if name not in (*_CIRCUMSTANCES, *_SIZE)}
    parts = {"rule": asdict(ActivationRule()), "params": asdict(SamplingParams())}
    filled = {name: {**defaults, **_mapping(settings.get(name))} for name, defaults in parts.items()}
    whole: dict[str, object] = json.loads(json.dumps({**new, **settings, **filled}))
    return whole


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """How settings differ, one text for each; of a setting with parts only the parts that differ."""
    found = []
    for name in {**old, **new}:
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += [f"{name}.{text}" for text in differences(a, b)]
        elif a != b:
            found.append(f"{name} {a!r}, now {b!r}")
    return found


@dataclass(frozen=True)
class GradedSample:
    """One completion and its grade.

    `answer` is what it votes for (None: no answer could be extracted, or the task has none); `correct` is None when
    it was not graded, which is not the same as wrong, and `not_graded` says why where the grader broke. `seconds` is
    its share of the group's time.
    """

    completion: Completion
    answer: str | None
    correct: bool | None
    seconds: float
    not_graded: str | None = None


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
    def largest_neuron(self) -> int:
        """The largest number of a neuron that any sample activated; -1 where none did."""
        found = [s.completion.activations for s in self.samples]
        return max((int(a.neuron[-1]) for a in found if a is not None and len(a)), default=-1)

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
