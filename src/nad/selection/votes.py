"""Choosing by vote: the answer that most samples end with, their votes weighted or not. Only full answers vote."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from nad.errors import UsageError
from nad.selection.base import Candidates, Choice, check_at_least
from nad.selection.confidence import MEASURES, check_measure, deep_confidence, self_certainty

_BALLOTS = frozenset({"answers", "full"})


def vote(answers: Sequence[str | None], weights: Float[np.ndarray, " n"]) -> Choice:
    """The answer with the largest sum of weights; index None when several share it, or nobody votes.

    The choice is the first sample with that answer; a sample's score is its answer's weight, 0 without an answer.
    """
    total: dict[str, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            total[answer] = total.get(answer, 0.0) + float(weight)
    if not total:
        return Choice(None, np.zeros(len(answers)), "the vote failed: no sample has an answer")
    scores = np.array([0.0 if a is None else total[a] for a in answers])
    most = max(total.values())
    winners = [answer for answer, weight in total.items() if weight >= most - 1e-9 * max(1.0, abs(most))]
    if len(winners) > 1:
        return Choice(None, scores, f"the vote failed: {len(winners)} answers share the most votes")
    return Choice(answers.index(winners[0]), scores)


@dataclass(frozen=True)
class MajorityVote:
    """Cons@n: the most frequent answer (Wang et al. 2022, self-consistency); a tie chooses nothing and fails."""

    needs = _BALLOTS

    def choose(self, candidates: Candidates) -> Choice:
        return vote(candidates.ballots, np.ones(candidates.n))


@dataclass(frozen=True)
class BordaVote:
    """Vote weighted by the rank r in self-certainty, (n - r + 1)^power (Kang et al. 2025); power 0 is Cons@n.

    As in its authors' code all n samples are ranked, and those without an answer do not vote.
    """

    power: float = field(default=0.5, metadata={"help": "0: all votes count the same"})

    needs = _BALLOTS | {"signals"}

    def __post_init__(self) -> None:
        check_at_least("self-certainty-vote:power", self.power, 0)

    def choose(self, candidates: Candidates) -> Choice:
        answers = candidates.ballots
        votes = np.empty(candidates.n)
        votes[np.argsort(-self_certainty(candidates), kind="stable")] = np.arange(candidates.n, 0, -1)
        return vote(answers, votes**self.power)


@dataclass(frozen=True)
class DeepConfVote:
    """Vote weighted by confidence among the most confident share of the samples (Fu et al. 2025, offline).

    As in its authors' code only samples with an answer are ranked, and those at or above the quantile 1 - `keep` of
    their confidence vote.
    """

    keep: float = field(default=1.0, metadata={"help": "share that votes: 1 (weighted only), 0.9 or 0.1 in the paper"})
    measure: str = field(default="mean", metadata={"help": ", ".join(MEASURES)})
    window: int = field(default=2048, metadata={"help": "tokens of a group, and of the tail"})

    needs = _BALLOTS | {"signals"}

    def __post_init__(self) -> None:
        check_measure("deepconf-vote", self.measure, self.window)
        if not 0 < self.keep <= 1:
            raise UsageError(f"deepconf-vote:keep must be in (0, 1], got {self.keep}")

    def choose(self, candidates: Candidates) -> Choice:
        answers = candidates.ballots
        confidence = deep_confidence(candidates, self.measure, self.window)
        ranked = confidence[candidates.answered]
        bar = np.quantile(ranked, 1 - self.keep)
        kept = [a if c >= bar else None for a, c in zip(answers, confidence, strict=True)]
        return vote(kept, confidence)


@dataclass(frozen=True)
class UniversalSelfConsistency:
    """The answer the model itself calls most consistent (Chen et al. 2023); `nad eval --consistency` records it."""

    needs = frozenset({"full", "verdict"})

    def choose(self, candidates: Candidates) -> Choice:
        scores = np.zeros(candidates.n)
        scores[candidates.verdict] = 1.0
        return Choice(candidates.verdict, scores)
