"""What every selector sees and returns: Candidates in, Choice out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from nad.errors import UsageError
from nad.neurons.activation import ActivationSet
from nad.neurons.agreement import consensus_matrix, weighted_consensus_matrix
from nad.selection.text_sets import bigram_sets, token_sets
from nad.types import Completion, Signals

NEEDS: Mapping[str, str] = {
    "neurons": "neurons",
    "signals": "signals of the output distribution",
    "texts": "texts",
    "answers": "answers that can be compared",
    "full": "full answers (--stop-at none)",
    "verdict": "the model's own verdict (nad eval --consistency)",
}
"""What a selector can need, in words. An engine captures neurons and signals only where they are named."""
WEIGHTS = ("none", "peak")


class NotApplicable(UsageError):
    """A selector that cannot choose among these candidates; the message says why, and what to do."""


@dataclass(frozen=True)
class Consensus:
    """How far the completions agree: the matrix S (Eq. 4) and the size of each completion's set."""

    similarity: Float[np.ndarray, "n n"]
    activated: Int[np.ndarray, " n"]

    @cached_property
    def mean_distance(self) -> Float[np.ndarray, " n"]:
        """Mean of 1 - S to all others; 0 for a single completion."""
        n = len(self.similarity)
        return (n - self.similarity.sum(axis=1)) / max(1, n - 1)


@dataclass(frozen=True)
class Choice:
    """The chosen index, each completion's score (larger is better), and what the user should know about it.

    `index` is None for a vote that failed; `note` says why.
    """

    index: int | None
    scores: Float[np.ndarray, " n"]
    note: str = ""


def _neuron_sets(completions: Sequence[Completion]) -> list[ActivationSet]:
    sets = [c.activations for c in completions if c.activations is not None]
    if len(sets) < len(completions):
        raise NotApplicable("the neurons were not captured; sample again with an activation rule")
    return sets


SETS: Mapping[str, Callable[[Sequence[Completion]], Sequence[ActivationSet]]] = {
    "neurons": _neuron_sets,
    "tokens": lambda completions: token_sets([c.tokens for c in completions]),
    "bigrams": lambda completions: bigram_sets([c.tokens for c in completions]),
}
"""The sets whose agreement can be measured; the last two are the control that reads no neuron."""


def check_sets(of: str, weight: str) -> None:
    """Raise UsageError unless there are such sets, and they can be weighted so."""
    if of not in SETS:
        raise UsageError(f"of={of!r} is unknown; allowed: {', '.join(SETS)}")
    if weight not in WEIGHTS:
        raise UsageError(f"weight={weight!r} is unknown; allowed: {', '.join(WEIGHTS)}")
    if weight == "peak" and of != "neurons":
        raise UsageError(f"weight=peak needs neurons: {of} have no peaks; drop @{of} or weight=peak")


def consensus_of(completions: Sequence[Completion], of: str = "neurons", weight: str = "none") -> Consensus:
    """The agreement of these completions' sets. Raises NotApplicable for what was not captured."""
    check_sets(of, weight)
    sets = SETS[of](completions)
    if weight == "peak":
        if any(len(s) and not s.peak.any() for s in sets):
            raise NotApplicable("peak scores are not there for every completion as it was cut; take the stop none")
        return Consensus(weighted_consensus_matrix(sets), _sizes(sets))
    return Consensus(consensus_matrix(sets), _sizes(sets))


def _sizes(sets: Sequence[ActivationSet]) -> Int[np.ndarray, " n"]:
    return np.array([len(s) for s in sets])


@dataclass(frozen=True, eq=False)
class Candidates:
    """The n completions of one problem as they stand at a stop position, and what a selector may ask of them.

    `full` promises finished answers; `lengths` are tokens so far. `agreement` gives the consensus of (of, weight),
    `recorded` each completion's signals up to the stop. `answers` is what each votes for, None where answers cannot
    be compared; `problem` names the problem; `consistent` is the model's own verdict. A selector asks through the
    properties below, which raise NotApplicable for what is not there.
    """

    lengths: Int[np.ndarray, " n"]
    full: bool
    agreement: Callable[[str, str], Consensus]
    recorded: Sequence[Signals | None]
    answers: Sequence[str | None] | None = None
    problem: str = ""
    consistent: int | None = None

    @classmethod
    def of(
        cls,
        completions: Sequence[Completion],
        full: bool,
        answers: Sequence[str | None] | None = None,
        problem: str = "",
        consistent: int | None = None,
    ) -> "Candidates":
        """These completions; a consensus is computed when it is first asked for, and kept."""
        return cls(
            lengths=np.array([len(c.tokens) for c in completions]),
            full=full,
            agreement=cache(lambda of, weight: consensus_of(completions, of, weight)),
            recorded=[c.signals for c in completions],
            answers=answers,
            problem=problem,
            consistent=consistent,
        )

    @property
    def n(self) -> int:
        return len(self.lengths)

    def consensus(self, of: str = "neurons", weight: str = "none") -> Consensus:
        """How far the completions agree in their neurons, tokens or bigrams."""
        return self.agreement(of, weight)

    @property
    def signals(self) -> Sequence[Signals]:
        """What the model's output distribution said, up to the stop."""
        there = [s for s in self.recorded if s is not None]
        if len(there) < self.n:
            raise NotApplicable("no signals are there; record the run again with nad eval")
        return there

    @property
    def full_lengths(self) -> Int[np.ndarray, " n"]:
        """Tokens of the finished answers."""
        self._check_full()
        return self.lengths

    @property
    def ballots(self) -> Sequence[str | None]:
        """What each finished answer votes for; None for one that ends without an answer."""
        self._check_full()
        if self.answers is None:
            raise NotApplicable("the task's answers cannot be compared; choose by agreement or confidence")
        return self.answers

    @property
    def answered(self) -> Bool[np.ndarray, " n"]:
        """Which completions end with an answer; all of them where that is not known, or where none does."""
        found = np.array([a is not None for a in self.answers or ()], dtype=bool)
        return found if self.full and found.any() else np.ones(self.n, dtype=bool)

    @property
    def verdict(self) -> int:
        """The sample that the model itself called the most consistent."""
        self._check_full()
        if self.consistent is None:
            raise NotApplicable("no verdict of the model is there; nad eval --consistency records it")
        return self.consistent

    def _check_full(self) -> None:
        if not self.full:
            raise NotApplicable("needs full answers: the stop none")


@runtime_checkable
class Selector(Protocol):
    """Scores completions and chooses one; a frozen dataclass whose fields are its parameters, all with defaults.

    `needs` is a subset of NEEDS. `choose` raises NotApplicable where the candidates lack what it needs.
    """

    @property
    def needs(self) -> frozenset[str]: ...

    def choose(self, candidates: Candidates) -> Choice: ...


def best(scores: Float[np.ndarray, " n"], tie: Float[np.ndarray, " n"] | None = None) -> int:
    """Index of the largest score; ties go to the smaller `tie`, then to the smaller index.

    Scores are sums over rows of one symmetric matrix, whose rounding depends on the order of the terms:
    what differs by less than 1e-9 of the largest is a tie.
    """
    top = float(scores.max())
    close = np.flatnonzero(scores >= top - (1e-9 * max(1.0, abs(top)) if np.isfinite(top) else 0.0))
    if tie is not None:
        close = close[tie[close] <= tie[close].min() + 1e-9]
    return int(close[0])


def largest(scores: Sequence[float] | Float[np.ndarray, " n"] | Int[np.ndarray, " n"]) -> Choice:
    """The candidate with the largest score."""
    values = np.asarray(scores, dtype=float)
    return Choice(best(values), values)


def check_at_least(name: str, value: float, low: float) -> None:
    """Raise UsageError for a parameter below its lowest value."""
    if not value >= low:
        raise UsageError(f"{name} must be at least {low}, got {value}")
