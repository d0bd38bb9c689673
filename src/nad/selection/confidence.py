"""Choosing by the model's own confidence: what its output distribution said of each token."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from nad.errors import UsageError
from nad.selection.base import Candidates, Choice, largest

_SIGNALS = frozenset({"signals"})


def means(columns: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, " n"]:
    """The mean of each completion's values, all in one pass; a completion has at least one token."""
    lengths = np.array([len(column) for column in columns])
    flat = np.concatenate(columns, dtype=float)
    return np.add.reduceat(flat, lengths.cumsum() - lengths) / lengths


@dataclass(frozen=True)
class LogProbability:
    """Largest mean log-probability of the tokens (the length-normalised likelihood of the text)."""

    needs = _SIGNALS

    def choose(self, candidates: Candidates) -> Choice:
        return largest(means([s.logprob for s in candidates.signals]))


@dataclass(frozen=True)
class Entropy:
    """Smallest mean entropy of the next-token distribution."""

    needs = _SIGNALS

    def choose(self, candidates: Candidates) -> Choice:
        return largest(-means([s.entropy for s in candidates.signals]))


def self_certainty(candidates: Candidates) -> Float[np.ndarray, " n"]:
    """Each completion's mean self-certainty."""
    return means([s.self_certainty for s in candidates.signals])


@dataclass(frozen=True)
class SelfCertainty:
    """Largest mean self-certainty, KL(uniform || p) (Kang et al. 2025, "Scalable best-of-N selection").

    As in its authors' code, an answer that cannot be read scores minus infinity if any answer can
    (docs/decisions/0023-baselines-against-their-sources.md).
    """

    needs = _SIGNALS

    def choose(self, candidates: Candidates) -> Choice:
        return largest(np.where(candidates.answered, self_certainty(candidates), -np.inf))


_Measure = Callable[[Sequence[np.ndarray], int], np.ndarray]
"""The confidence of each completion, from the confidence of its tokens and the size of a group."""


def _group_means(confidence: Float[np.ndarray, " tokens"], window: int) -> Float[np.ndarray, " groups"]:
    """Mean confidence of every window of this many tokens, one token apart; of all tokens where they are fewer."""
    width = min(window, len(confidence))
    total = np.concatenate([[0.0], np.cumsum(confidence, dtype=float)])
    return (total[width:] - total[:-width]) / width


def _bottom10(confidence: Float[np.ndarray, " tokens"], window: int) -> float:
    groups = _group_means(confidence, window)
    lowest = max(1, len(groups) // 10)
    return float(np.partition(groups, lowest - 1)[:lowest].mean())


def _of_groups(measure: Callable[[np.ndarray, int], float]) -> _Measure:
    """A measure of each completion's groups. A single group's measures are all its mean, so none are formed then."""

    def measured(confidence: Sequence[np.ndarray], window: int) -> np.ndarray:
        if max(map(len, confidence)) <= window:
            return means(confidence)
        return np.array([measure(c, window) for c in confidence])

    return measured


MEASURES: Mapping[str, _Measure] = {
    "mean": lambda confidence, window: means(confidence),
    "bottom10": _of_groups(_bottom10),
    "tail": lambda confidence, window: means([c[-window:] for c in confidence]),
    "lowest": _of_groups(lambda confidence, window: float(_group_means(confidence, window).min())),
}


def check_measure(name: str, measure: str, window: int) -> None:
    """Raise UsageError for a measure that does not exist, or groups without a token."""
    if measure not in MEASURES:
        raise UsageError(f"{name}:measure={measure!r} is unknown; allowed: {', '.join(MEASURES)}")
    if window < 1:
        raise UsageError(f"{name}:window must be at least 1 token, got {window}")


def deep_confidence(candidates: Candidates, measure: str, window: int) -> Float[np.ndarray, " n"]:
    """Each completion's confidence as DeepConf measures it."""
    return MEASURES[measure]([s.confidence for s in candidates.signals], window)


@dataclass(frozen=True)
class DeepConf:
    """Largest confidence of DeepConf (Fu et al. 2025, "Deep think with confidence").

    A token's confidence is minus the mean log-probability of its 20 likeliest alternatives. `measure`: its mean, the
    mean of the lowest 10 % of the groups of `window` tokens, the mean of the last `window` tokens, or the lowest group.
    """

    measure: str = field(default="mean", metadata={"help": ", ".join(MEASURES)})
    window: int = field(default=2048, metadata={"help": "tokens of a group, and of the tail"})

    needs = _SIGNALS

    def __post_init__(self) -> None:
        check_measure("deepconf", self.measure, self.window)

    def choose(self, candidates: Candidates) -> Choice:
        return largest(deep_confidence(candidates, self.measure, self.window))


_AGGREGATES: Mapping[str, Callable[[Sequence[np.ndarray]], np.ndarray]] = {
    "mean": lambda logs: means([np.exp(log) for log in logs]),
    "min": lambda logs: np.array([np.exp(log.min()) for log in logs]),
    "product": lambda logs: np.exp(means(logs)),
}


@dataclass(frozen=True)
class SoftSelfConsistency:
    """Largest aggregated probability of the tokens (Wang et al. 2024, "Soft self-consistency"): needs no equal answers.

    `aggregate` is the tokens' mean, their minimum, or their product, normalised by length as in its authors' code.
    """

    aggregate: str = field(default="mean", metadata={"help": ", ".join(_AGGREGATES)})

    needs = _SIGNALS

    def __post_init__(self) -> None:
        if self.aggregate not in _AGGREGATES:
            raise UsageError(f"soft:aggregate={self.aggregate!r} is unknown; allowed: {', '.join(_AGGREGATES)}")

    def choose(self, candidates: Candidates) -> Choice:
        return largest(_AGGREGATES[self.aggregate]([s.logprob.astype(float) for s in candidates.signals]))
