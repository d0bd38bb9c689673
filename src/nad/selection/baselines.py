"""What else could choose among n answers: votes, the model's own confidence, length, chance.

They see the same completions at the same stop position as the selectors, but no neuron.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from nad.errors import UsageError
from nad.selection.selectors import Choice, best
from nad.types import Signals


class NotApplicable(Exception):
    """A baseline that says nothing about these candidates; its message says why."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """The completions of one problem, cut at a stop position.

    `answers` and `lengths` (tokens) are those of the full answers and None while answers are cut. `signals` belong to
    the tokens up to the cut. `consistent` is the model's own verdict (universal self-consistency).
    """

    problem: str
    n: int
    signals: Sequence[Signals] | None
    lengths: Sequence[int] | None
    answers: Sequence[str | None] | None
    votes: bool = True
    consistent: int | None = None

    def full_lengths(self) -> Sequence[int]:
        if self.lengths is None:
            raise NotApplicable("needs full answers")
        return self.lengths

    def votable(self) -> Sequence[str | None]:
        if not self.votes:
            raise NotApplicable("the task's answers cannot be compared")
        if self.answers is None:
            raise NotApplicable("needs full answers")
        return self.answers

    def recorded_signals(self) -> Sequence[Signals]:
        if self.signals is None:
            raise NotApplicable("the run has no signals")
        return self.signals


@runtime_checkable
class Baseline(Protocol):
    """Chooses one candidate, or none (a vote that ends in a tie). Raises NotApplicable."""

    def choose(self, candidates: Candidates) -> Choice | None: ...


def _largest(scores: Sequence[float] | Float[np.ndarray, " n"]) -> Choice:
    values = np.asarray(scores, dtype=float)
    return Choice(best(values), values)


def vote(answers: Sequence[str | None], weights: Float[np.ndarray, " n"]) -> Choice | None:
    """The answer with the largest sum of weights; None when two answers share it, or nobody votes.

    The choice is the first sample with that answer; a sample's score is its answer's weight, 0 without an answer.
    """
    total: dict[str, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            total[answer] = total.get(answer, 0.0) + float(weight)
    if not total:
        return None
    scores = np.array([0.0 if a is None else total[a] for a in answers])
    most = max(total.values())
    winners = [answer for answer, weight in total.items() if weight >= most - 1e-9 * max(1.0, abs(most))]
    return Choice(answers.index(winners[0]), scores) if len(winners) == 1 else None


@dataclass(frozen=True)
class MajorityVote:
    """Cons@n: the most frequent answer (Wang et al. 2022, self-consistency); a tie chooses nothing and fails."""

    def choose(self, candidates: Candidates) -> Choice | None:
        answers = candidates.votable()
        return vote(answers, np.ones(len(answers)))


@dataclass(frozen=True)
class Random:
    """One of the candidates by chance: what Avg@n is the expectation of."""

    seed: int = field(default=0, metadata={"help": "with the problem's id it decides"})

    def choose(self, candidates: Candidates) -> Choice:
        digest = hashlib.sha256(f"{self.seed}:{candidates.problem}".encode()).digest()
        return _largest(np.random.default_rng(int.from_bytes(digest[:8], "big")).random(candidates.n))


@dataclass(frozen=True)
class First:
    """The first sample: no selection at all."""

    def choose(self, candidates: Candidates) -> Choice:
        return _largest(-np.arange(candidates.n, dtype=float))


@dataclass(frozen=True)
class Shortest:
    """The answer with the fewest tokens."""

    def choose(self, candidates: Candidates) -> Choice:
        return _largest(-np.asarray(candidates.full_lengths(), dtype=float))


@dataclass(frozen=True)
class Longest:
    """The answer with the most tokens."""

    def choose(self, candidates: Candidates) -> Choice:
        return _largest(np.asarray(candidates.full_lengths(), dtype=float))


def _means(columns: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, " n"]:
    """The mean of each completion's values, all in one pass; a completion has at least one token."""
    lengths = np.array([len(column) for column in columns])
    flat = np.concatenate(columns, dtype=float)
    return np.add.reduceat(flat, lengths.cumsum() - lengths) / lengths


@dataclass(frozen=True)
class LogProbability:
    """Largest mean log-probability of the tokens (the length-normalised likelihood of the text)."""

    def choose(self, candidates: Candidates) -> Choice:
        return _largest(_means([s.logprob for s in candidates.recorded_signals()]))


@dataclass(frozen=True)
class Entropy:
    """Smallest mean entropy of the next-token distribution."""

    def choose(self, candidates: Candidates) -> Choice:
        return _largest(-_means([s.entropy for s in candidates.recorded_signals()]))


def _self_certainty(candidates: Candidates) -> Float[np.ndarray, " n"]:
    return _means([s.self_certainty for s in candidates.recorded_signals()])


@dataclass(frozen=True)
class SelfCertainty:
    """Largest mean self-certainty, KL(uniform || p) (Kang et al. 2025, "Scalable best-of-N selection")."""

    def choose(self, candidates: Candidates) -> Choice:
        return _largest(_self_certainty(candidates))


@dataclass(frozen=True)
class BordaVote:
    """Vote weighted by the rank r in self-certainty, (N - r + 1)^power (Kang et al. 2025); power 0 is Cons@n.

    Only samples with an answer are ranked, N of them.
    """

    power: float = field(default=0.5, metadata={"help": "0: all votes count the same"})

    def __post_init__(self) -> None:
        if self.power < 0:
            raise UsageError(f"self-certainty-vote:power must be at least 0, got {self.power}")

    def choose(self, candidates: Candidates) -> Choice | None:
        answers = candidates.votable()
        certainty = np.where([a is None for a in answers], -np.inf, _self_certainty(candidates))
        voters = sum(a is not None for a in answers)
        rank = np.empty(len(answers))
        rank[np.argsort(-certainty, kind="stable")] = np.arange(1, len(answers) + 1)
        return vote(answers, np.maximum(voters - rank + 1, 0.0) ** self.power)


_Measure = Callable[[Sequence[np.ndarray], int], np.ndarray]
"""The confidence of each completion, from the confidence of its tokens and the size of a group."""


def _group_means(confidence: Float[np.ndarray, " tokens"], window: int) -> Float[np.ndarray, " groups"]:
    """Mean confidence of every window of this many tokens, one token apart; of all tokens where they are fewer."""
    width = min(window, len(confidence))
    total = np.concatenate([[0.0], np.cumsum(confidence, dtype=float)])
    return (total[width:] - total[:-width]) / width


def _bottom10(confidence: Float[np.ndarray, " tokens"], window: int) -> float:
    groups = _group_means(confidence, window)
    lowest = max(1, round(0.1 * len(groups)))
    return float(np.partition(groups, lowest - 1)[:lowest].mean())


def _of_groups(measure: Callable[[np.ndarray, int], float]) -> _Measure:
    """A measure of each completion's groups; with one group only, which the mean is, no groups are formed."""

    def measured(confidence: Sequence[np.ndarray], window: int) -> np.ndarray:
        if max(map(len, confidence)) <= window:
            return _means(confidence)
        return np.array([measure(c, window) for c in confidence])

    return measured


_MEASURES: Mapping[str, _Measure] = {
    "mean": lambda confidence, window: _means(confidence),
    "bottom10": _of_groups(_bottom10),
    "tail": lambda confidence, window: _means([c[-window:] for c in confidence]),
    "lowest": _of_groups(lambda confidence, window: float(_group_means(confidence, window).min())),
}


def _check_measure(name: str, measure: str, window: int) -> None:
    if measure not in _MEASURES:
        raise UsageError(f"{name}:measure={measure!r} is unknown; allowed: {', '.join(_MEASURES)}")
    if window < 1:
        raise UsageError(f"{name}:window must be at least 1 token, got {window}")


def _deep_confidence(candidates: Candidates, measure: str, window: int) -> Float[np.ndarray, " n"]:
    return _MEASURES[measure]([s.confidence for s in candidates.recorded_signals()], window)


@dataclass(frozen=True)
class DeepConf:
    """Largest confidence of DeepConf (Fu et al. 2025, "Deep think with confidence").

    A token's confidence is minus the mean log-probability of its 20 likeliest alternatives. `measure`: its mean, the
    mean of the lowest 10 % of the groups of `window` tokens, the mean of the last `window` tokens, or the lowest group.
    """

    measure: str = field(default="mean", metadata={"help": ", ".join(_MEASURES)})
    window: int = field(default=2048, metadata={"help": "tokens of a group, and of the tail"})

    def __post_init__(self) -> None:
        _check_measure("deepconf", self.measure, self.window)

    def choose(self, candidates: Candidates) -> Choice:
        return _largest(_deep_confidence(candidates, self.measure, self.window))


@dataclass(frozen=True)
class DeepConfVote:
    """Vote weighted by confidence among the most confident share of the samples (Fu et al. 2025, offline)."""

    keep: float = field(default=1.0, metadata={"help": "share that votes: 1 (weighted only), 0.9 or 0.1 in the paper"})
    measure: str = field(default="mean", metadata={"help": ", ".join(_MEASURES)})
    window: int = field(default=2048, metadata={"help": "tokens of a group, and of the tail"})

    def __post_init__(self) -> None:
        _check_measure("deepconf-vote", self.measure, self.window)
        if not 0 < self.keep <= 1:
            raise UsageError(f"deepconf-vote:keep must be in (0, 1], got {self.keep}")

    def choose(self, candidates: Candidates) -> Choice | None:
        answers = candidates.votable()
        confidence = _deep_confidence(candidates, self.measure, self.window)
        kept = np.argsort(-confidence, kind="stable")[: max(1, round(self.keep * len(confidence)))]
        ballots = [answers[i] if i in set(kept.tolist()) else None for i in range(len(answers))]
        return vote(ballots, confidence)


@dataclass(frozen=True)
class SoftSelfConsistency:
    """Largest aggregated probability of the tokens (Wang et al. 2024, "Soft self-consistency"): needs no equal answers.

    `aggregate` is mean, min or product, as in their paper; product is the likelihood, which favours short texts.
    """

    aggregate: str = field(default="mean", metadata={"help": "mean, min or product"})

    def __post_init__(self) -> None:
        if self.aggregate not in ("mean", "min", "product"):
            raise UsageError(f"soft:aggregate={self.aggregate!r} is unknown; allowed: mean, min, product")

    def choose(self, candidates: Candidates) -> Choice:
        logs = [s.logprob.astype(float) for s in candidates.recorded_signals()]
        if self.aggregate == "product":
            return _largest([float(log.sum()) for log in logs])  # in logarithms: products of thousands vanish
        if self.aggregate == "min":
            return _largest([float(np.exp(log.min())) for log in logs])
        return _largest(_means([np.exp(log) for log in logs]))


@dataclass(frozen=True)
class UniversalSelfConsistency:
    """The answer the model itself calls most consistent (Chen et al. 2023); `nad eval --consistency` records it."""

    def choose(self, candidates: Candidates) -> Choice:
        candidates.full_lengths()
        if candidates.consistent is None:
            raise NotApplicable("no verdict of the model (nad eval --consistency records it)")
        scores = np.zeros(candidates.n)
        scores[candidates.consistent] = 1.0
        return Choice(candidates.consistent, scores)


BASELINES: Mapping[str, type[Baseline]] = {
    "cons": MajorityVote,
    "random": Random,
    "first": First,
    "shortest": Shortest,
    "longest": Longest,
    "logprob": LogProbability,
    "entropy": Entropy,
    "self-certainty": SelfCertainty,
    "self-certainty-vote": BordaVote,
    "deepconf": DeepConf,
    "deepconf-vote": DeepConfVote,
    "soft": SoftSelfConsistency,
    "universal": UniversalSelfConsistency,
}
