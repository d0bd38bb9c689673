"""Synthetic runs whose consensus, growth and correctness are known: test data, never a result.

A planted sample activates, with each of its tokens, `shared` new neurons that all samples of its cluster activate at
the same token, and `private` new ones of its own. So after t tokens (t no more than its length)

    |A_i(t)| = (shared + private) t,   |A_i(t) & A_j(t)| = shared t within a cluster, and 0 across clusters,

and two samples of one cluster and length agree by shared / (shared + 2 private), those of two clusters by 0.
Every run made here bears the model name "planted".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nad.neurons.activation import ActivationRule, ActivationSet, activation_set
from nad.runs.records import GradedSample, Manifest, MemoryRun, ProblemRecord
from nad.stopping import CHUNK
from nad.types import Completion, SamplingParams, Signals

MODEL = "planted"
_PROMPT = (1, 2, 3)
_COMMON_TOKEN = 7


@dataclass(frozen=True)
class PlantedSample:
    """What one sample does. `chunk_neurons` and `entropy` hold one value a chunk; () leaves the signals out.

    Self-certainty is planted as minus the entropy. The peak of a shared neuron is 2, of a private one 1.
    The first `common` tokens are the same in all samples of a problem.
    """

    tokens: int = 64
    cluster: int = 0
    shared: int = 4
    private: int = 1
    correct: bool | None = True
    answer: str | None = None
    chunk_neurons: tuple[int, ...] = ()
    entropy: tuple[float, ...] = ()
    common: int = 0
    text: str = ""


def planted_problem(name: str, samples: Sequence[PlantedSample]) -> ProblemRecord:
    """A problem with these samples, in this order."""
    layout = _Layout(
        clusters=1 + max(s.cluster for s in samples),
        block=max(rate * s.tokens for s in samples for rate in (s.shared, s.private)),
        tokens=max(s.tokens for s in samples),
    )
    graded = tuple(
        GradedSample(_completion(i, sample, layout), sample.answer, sample.correct, 1.0)
        for i, sample in enumerate(samples)
    )
    group = ProblemRecord(name, _PROMPT, graded, 0).group
    return ProblemRecord(name, _PROMPT, graded, int(group.prefixes.computed[-1]), f"The prompt of {name}")


def planted_run(problems: Sequence[ProblemRecord], task: str = "planted") -> MemoryRun:
    """A run of these problems; its manifest says that it is planted."""
    samples = [s for problem in problems for s in problem.samples]
    sets = [s.completion.activations for s in samples]
    neurons = 1 + max(int(found.neuron[-1]) for found in sets if found is not None)
    manifest = Manifest(
        model=MODEL,
        engine="none",
        task=task,
        data_sha256="0" * 64,
        n=max(len(problem.samples) for problem in problems),
        stop_at="none",
        params=SamplingParams(max_tokens=max(len(s.completion.tokens) for s in samples)),
        rule=ActivationRule(),
        layers=1,
        neurons=neurons,
        votes=any(s.answer is not None for s in samples),
        command="nad.testing.planted_runs",
    )
    return MemoryRun(manifest, problems)


@dataclass(frozen=True)
class _Layout:
    """Which ids are whose: a block of neurons for each cluster, then one for each sample."""

    clusters: int
    block: int
    tokens: int


def _text(sample: PlantedSample) -> str:
    return sample.text or f"planted answer {sample.answer}"


def _text_end(sample: PlantedSample) -> tuple[int, ...]:
    """As if every token had written as many characters."""
    return tuple(np.linspace(0, len(_text(sample)), sample.tokens + 1).astype(int)[1:].tolist())


def _completion(index: int, sample: PlantedSample, layout: _Layout) -> Completion:
    place = np.arange(sample.tokens)
    own = place + layout.tokens * (index + 1)
    tokens = tuple(np.where(place < sample.common, _COMMON_TOKEN, own).tolist())
    found, ends = _activations(index, sample, layout), _text_end(sample)
    return Completion(index, tokens, _text(sample), "stop", found, _signals(sample), ends)


def _activations(index: int, sample: PlantedSample, layout: _Layout) -> ActivationSet:
    blocks = ((sample.cluster, sample.shared, 2), (layout.clusters + index, sample.private, 1))
    neuron = [block * layout.block + np.arange(rate * sample.tokens) for block, rate, _ in blocks]
    first = [np.repeat(np.arange(sample.tokens), rate) for _, rate, _ in blocks]
    peak = [np.full(rate * sample.tokens, value) for _, rate, value in blocks]
    return activation_set(np.concatenate(neuron), np.concatenate(first), np.concatenate(peak))


def _signals(sample: PlantedSample) -> Signals | None:
    if not sample.entropy:
        return None
    entropy = np.repeat(sample.entropy, CHUNK)[: sample.tokens].astype(np.float32)
    return Signals(-entropy, entropy, -entropy, -entropy, np.array(sample.chunk_neurons, dtype=np.uint16))


def planted_crowd(problems: int, n: int, tokens: int, task: str = "planted", seed: int = 0) -> MemoryRun:
    """A large run for benchmarks and screenshots: correct samples agree more and activate fewer neurons.

    Half the problems are easy (80 % correct), half hard (20 %); correct samples share a cluster, wrong ones fall
    into three. Lengths are uniform in [tokens / 2, tokens].
    """
    rng = np.random.default_rng(seed)
    return planted_run([_crowd_problem(p, n, tokens, rng) for p in range(problems)], task)


def _crowd_problem(number: int, n: int, tokens: int, rng: np.random.Generator) -> ProblemRecord:
    samples = []
    for _ in range(n):
        correct = bool(rng.random() < (0.8 if number % 2 == 0 else 0.2))
        length = int(rng.integers(tokens // 2, tokens + 1))
        private = int(rng.integers(2, 5)) if correct else int(rng.integers(4, 7))
        neurons = rng.normal(2500 if correct else 2700, 120, -(-length // CHUNK)).astype(int)
        entropy = (neurons / 8000 + rng.normal(0, 0.03, len(neurons))).clip(0.01)
        samples.append(
            PlantedSample(
                tokens=length,
                cluster=0 if correct else int(rng.integers(1, 4)),
                shared=24,
                private=private,
                correct=correct,
                answer="1" if correct else str(rng.integers(2, 5)),
                chunk_neurons=tuple(neurons.tolist()),
                entropy=tuple(entropy.tolist()),
                common=int(rng.integers(0, 40)),
                text=" ".join(rng.choice(_WORDS, length).tolist()),
            )
        )
    return planted_problem(f"planted/{number}", samples)


_WORDS = np.array(["planted", "sum", "is", "so", "we", "have", "then", "five", "two", "x", "equals", "therefore", "if"])


def without(run: MemoryRun, *, grades: bool = False, signals: bool = False, peaks: bool = False) -> MemoryRun:
    """The same run as it would stand had it been recorded without these ingredients."""
    return replace(run, problems=[_strip(problem, grades, signals, peaks) for problem in run])


def _strip(problem: ProblemRecord, grades: bool, signals: bool, peaks: bool) -> ProblemRecord:
    samples = []
    for sample in problem.samples:
        completion = sample.completion
        if signals:
            completion = replace(completion, signals=None)
        if peaks and completion.activations is not None:
            bare = replace(completion.activations, peak=np.zeros_like(completion.activations.peak))
            completion = replace(completion, activations=bare)
        correct = None if grades else sample.correct
        samples.append(replace(sample, completion=completion, correct=correct))
    return replace(problem, samples=tuple(samples))
