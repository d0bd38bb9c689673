"""Recorded runs made by hand, and an engine and a task made for recording: no model, seconds at most."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nad.neurons.activation import ActivationRule, activation_set
from nad.prefixes import PrefixTree
from nad.runs.records import GradedSample, Manifest, ProblemRecord
from nad.stopping import Progress, StopRule, progress_of
from nad.tasks import Problem
from nad.types import Completion, Group, SamplingParams, Signals

END = 0
"""The token that ends a planted answer."""


def signals(tokens: int, confidence: float = 1.0) -> Signals:
    """Signals of which every one says the same: the larger, the surer."""
    ones = np.ones(tokens, dtype=np.float32)
    chunks = np.full(-(-tokens // 32), 3, dtype=np.uint16)
    return Signals(-ones / confidence, ones / confidence, ones * confidence, ones * confidence, chunks)


def sample(
    index: int,
    tokens: list[int],
    neurons: dict[int, int],
    correct: bool | None = None,
    answer: str | None = None,
    confidence: float = 1.0,
) -> GradedSample:
    """A finished sample; `neurons` maps each neuron to the token that first activated it."""
    ids = sorted(neurons)
    first = np.array([neurons[i] for i in ids], dtype=int)
    found = activation_set(np.array(ids, dtype=int), first, np.arange(len(ids)) + 0.5)
    text = " ".join(map(str, tokens))
    ends = np.cumsum([len(str(t)) + (i > 0) for i, t in enumerate(tokens)])
    said = signals(len(tokens), confidence)
    completion = Completion(index, tuple(tokens), text, "stop", found, said, tuple(ends.tolist()))
    return GradedSample(completion, answer, correct, 0.5)


def record(problem: str, samples: list[GradedSample], **changes: object) -> ProblemRecord:
    values = {"prompt": f"What is {problem}?", "seed": 7, **changes}
    return ProblemRecord(problem, (5, 6, len(problem)), tuple(samples), 10, **values)  # type: ignore[arg-type]


def manifest(**changes: object) -> Manifest:
    values: dict[str, object] = {
        "model": "planted",
        "engine": "replay",
        "task": "planted",
        "data_sha256": "0" * 64,
        "n": 3,
        "stop_at": "none",
        "params": SamplingParams(max_tokens=64),
        "rule": ActivationRule(),
        "layers": 2,
        "neurons": 100,
    }
    return Manifest(**{**values, **changes})  # type: ignore[arg-type]


@dataclass(frozen=True)
class PlantedTask:
    """Problems p0, p1, ...; an answer is right when its first token is even. `log` notes what was graded."""

    size: int = 4
    votes: bool = True
    name: str = "planted"
    seconds: float = 0.0
    fails: bool = False
    log: str | None = None

    def problems(self) -> list[Problem]:
        return [Problem(f"p{i}", f"question {i}", str(i)) for i in range(self.size)]

    def data_sha256(self) -> str:
        return f"{self.size:064d}"

    def prompt(self, problem: Problem) -> str:
        return problem.question

    def answer(self, problem: Problem, text: str) -> str | None:
        return text.split()[0]

    def grade(self, problem: Problem, text: str) -> bool | None:
        time.sleep(self.seconds)
        if self.fails:
            raise RuntimeError("the grader broke")
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(f"{problem.id}\n")
        first = int(text.split()[0])
        return None if first == 3 else first % 2 == 0


@dataclass(frozen=True)
class PlantedEngine:
    """Draws short sequences of small tokens from (seed, index): like a real one, the same whatever else runs."""

    seconds: float = 0.0
    name: str = "planted"
    kind: str = "planted"
    revision: str | None = None
    dtype: str = "float64"
    layers: int = 2
    neurons: int = 100
    notes: tuple[str, ...] = ()
    weights_digest: str | None = None
    thinking_tags: tuple[tuple[str, str], ...] = ()
    eos: frozenset[int] = frozenset({END})
    rollouts: int = 1
    asked: list[int] = field(default_factory=list, compare=False)

    def encode(self, prompt: object, raw: bool = False, template_args: object = None) -> tuple[int, ...]:
        text = prompt if isinstance(prompt, str) else prompt[-1].content  # type: ignore[index]
        return tuple(text.encode())

    def prompt_notes(self, prompt: object, raw: bool = False) -> tuple[str, ...]:
        return ()

    def encode_completion(self, text: str) -> tuple[int, ...]:
        return tuple(map(int, text.split()))

    def decode(self, tokens: object) -> str:
        return "".join(f"{t} " for t in tokens if t != END)  # type: ignore[attr-defined]

    def start(self, prompt_tokens, n, params, rule, signals=False) -> "PlantedRollout":  # type: ignore[no-untyped-def]
        self.asked.append(params.seed)
        time.sleep(self.seconds)
        return PlantedRollout(tuple(prompt_tokens), [self._completion(i, params, signals) for i in range(n)])

    def _completion(self, index: int, params: SamplingParams, with_signals: bool) -> Completion:
        draw = np.random.default_rng([params.seed % 2**32, index])
        tokens = (*draw.integers(1, 9, draw.integers(2, 40)).tolist(), END)
        ids = np.flatnonzero(draw.random(self.neurons) < 0.3)
        found = activation_set(ids, draw.integers(0, len(tokens), len(ids)), draw.random(len(ids)))
        made = signals(len(tokens)) if with_signals else None
        return Completion(index, tokens, self.decode(tokens), "stop", found, made)

    def score(self, prompt_tokens, completion_tokens, rule, signals=False):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    def close(self) -> None:
        pass


@dataclass
class PlantedRollout:
    """Completions that are written at once, whatever the stop."""

    prompt: tuple[int, ...]
    completions: list[Completion]

    def __enter__(self) -> "PlantedRollout":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def until(self, stop: StopRule) -> Iterator[Progress]:
        tree = PrefixTree(len(self.completions))
        for i, completion in enumerate(self.completions):
            tree.add(i, completion.tokens, ended=True)
        return progress_of(tree)

    def group(self) -> Group:
        computed = sum(len(c.tokens) for c in self.completions)
        return Group(self.prompt, tuple(self.completions), computed, 0.25, 0.25)

    def keep(self, samples: Sequence[int], capture: bool = True) -> None:
        self.completions = [c for c in self.completions if c.index in samples]
