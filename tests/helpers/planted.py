"""Recorded runs made by hand, and an engine and a task made for recording: no model, seconds at most."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nad.errors import NadError
from nad.neurons.activation import ActivationRule, activation_set
from nad.prefixes import PrefixTree
from nad.runs.records import GradedSample, Manifest, ProblemRecord
from nad.stopping import Progress, StopRule, progress_of
from nad.tasks import Problem
from nad.types import Completion, Group, SamplingParams, Signals

END = 0
"""The token that ends a planted answer."""


def signals(tokens: int, confidence: float = 1.0) -> Signals:
    """Signals that all say the same: the larger, the surer."""
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
    ends = tuple(np.cumsum([len(str(t)) + (i > 0) for i, t in enumerate(tokens)]).tolist())
    completion = Completion(index, tuple(tokens), text, "stop", found, signals(len(tokens), confidence), ends)
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
    """Problems p0, p1, ...; an answer is right when its first token is even. `log` notes what was graded.

    Grading breaks on texts whose first token is in `breaks`, and stops the run on those in `stops`.
    """

    size: int = 4
    votes: bool = True
    name: str = "planted"
    seconds: float = 0.0
    breaks: tuple[int, ...] = ()
    stops: tuple[int, ...] = ()
    log: str | None = None
    golds: str = ""

    def problems(self) -> list[Problem]:
        return [Problem(f"p{i}", f"question {i}", f"{self.golds}{i}") for i in range(self.size)]

    def data_sha256(self) -> str:
        return f"{self.size:064d}"

    def prompt(self, problem: Problem) -> str:
        return problem.question

    def answer(self, problem: Problem, text: str) -> str | None:
        return text.split()[0]

    def grade(self, problem: Problem, text: str) -> bool | None:
        time.sleep(self.seconds)
        first = int(text.split()[0])
        if first in self.breaks:
            raise RuntimeError("the grader\nbroke")
        if first in self.stops:
            raise NadError("no sandbox")
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(f"{problem.id}\n")
        return None if first == 3 else first % 2 == 0


@dataclass(frozen=True)
class PlantedEngine:
    """Draws short sequences of small tokens from (seed, index): like a real one, the same whatever else runs.

    Each position takes `seconds`. A rollout whose prompt is in `fails` breaks after its first position. `open` counts
    the rollouts that are open, `most` how many were at once, `asked` and `drawn` the seeds and the samples.
    """

    seconds: float = 0.0
    rollouts: int = 1
    fails: tuple[str, ...] = ()
    name: str = "planted"
    kind: str = "planted"
    revision: str | None = None
    dtype: str = "float64"
    layers: int = 2
    neurons: int = 100
    experts: int = 1
    notes: tuple[str, ...] = ()
    weights_digest: str | None = None
    thinking_tags: tuple[tuple[str, str], ...] = ()
    context_window: int | None = None
    eos: frozenset[int] = frozenset({END})
    asked: list[int] = field(default_factory=list, compare=False)
    drawn: list[int] = field(default_factory=list, compare=False)
    open: set[object] = field(default_factory=set, compare=False)
    most: list[int] = field(default_factory=list, compare=False)

    def encode(self, prompt: object, raw: bool = False, template_args: object = None) -> tuple[int, ...]:
        text = prompt if isinstance(prompt, str) else prompt[-1].content  # type: ignore[index]
        return tuple(text.encode())

    def prompt_notes(self, prompt: object, raw: bool = False) -> tuple[str, ...]:
        return ()

    def encode_completion(self, text: str) -> tuple[int, ...]:
        return tuple(map(int, text.split()))

    def decode(self, tokens: object) -> str:
        return "".join(f"{t} " for t in tokens if t != END)  # type: ignore[attr-defined]

    def start(
        self,
        prompt_tokens: Sequence[int],
        n: int,
        params: SamplingParams,
        rule: ActivationRule | None,
        signals: bool = False,
    ) -> "PlantedRollout":
        self.asked.append(params.seed)
        return PlantedRollout(self, tuple(prompt_tokens), n, params)

    def score(
        self,
        prompt_tokens: Sequence[int],
        completion_tokens: Sequence[int],
        rule: ActivationRule,
        signals: bool = False,
    ) -> Completion:
        time.sleep(self.seconds)
        tokens = tuple(completion_tokens)
        return self.completion(0, tokens, np.random.default_rng(tokens))

    def close(self) -> None:
        pass

    def completion(self, index: int, tokens: tuple[int, ...], draw: np.random.Generator) -> Completion:
        ids = np.flatnonzero(draw.random(self.neurons) < 0.3)
        found = activation_set(ids, draw.integers(0, len(tokens), len(ids)), draw.random(len(ids)))
        reason = "stop" if tokens[-1] == END else "length"
        return Completion(index, tokens, self.decode(tokens), reason, found, signals(len(tokens)))


class PlantedRollout:
    """All samples are known from the start; `until` walks along them."""

    def __init__(self, engine: PlantedEngine, prompt: tuple[int, ...], n: int, params: SamplingParams) -> None:
        self._engine, self._prompt = engine, prompt
        self._samples = {i: self._sample(i, params.seed) for i in range(n)}
        self._tree = PrefixTree(n)

    def _sample(self, index: int, seed: int) -> Completion:
        draw = np.random.default_rng([seed % 2**32, index])
        tokens = (*draw.integers(1, 9, draw.integers(2, 40)).tolist(), END)
        return self._engine.completion(index, tokens, draw)

    def __enter__(self) -> "PlantedRollout":
        self._engine.open.add(self)
        self._engine.most.append(len(self._engine.open))
        return self

    def __exit__(self, *error: object) -> None:
        self._engine.open.discard(self)

    def keep(self, samples: Sequence[int], capture: bool = True) -> None:
        self._tree.keep(samples)

    def until(self, stop: StopRule) -> Iterator[Progress]:
        self._engine.drawn.extend(self._tree.tokens)
        for i in self._tree.tokens:
            self._tree.add(i, self._samples[i].tokens, ended=True)
        for progress in progress_of(self._tree):
            time.sleep(self._engine.seconds)
            yield progress
            if bytes(self._prompt).decode() in self._engine.fails:
                raise NadError("the model broke")
            if stop.reached(progress):
                return

    def group(self) -> Group:
        kept = [self._samples[i] for i in self._tree.tokens]
        return Group(self._prompt, tuple(kept), self._tree.computed, 0.05 * len(kept), 0.05 * len(kept))
