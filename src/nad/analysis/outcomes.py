"""One recorded problem at every stop: what each method would have seen there, chosen, and cost."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from nad.analysis.statistics import auroc, pairs_above
from nad.neurons.agreement import consensus_curve
from nad.runs.records import Manifest, ProblemRecord
from nad.selection import Candidates, Consensus, NotApplicable, Selector
from nad.selection.base import SETS, consensus_of
from nad.stopping import StopRule, stop_position
from nad.types import Signals

MATCHED_WITHIN = 0.1
"""Lengths that differ by at most this share of the longer one count as equal."""


@dataclass(frozen=True)
class Outcome:
    """What one method did on one problem at one stop. `value` is its accuracy, None when it is not known."""

    value: float | None
    sampled: int
    computed: int
    auroc: float | None = None
    not_graded: bool = False
    note: str = ""


@dataclass(frozen=True)
class Matched:
    """Pairs of a right and a wrong sample of matched length, and the shares of them each score gets right."""

    pairs: int
    minact: float
    shortest: float


class Sheet:
    """One problem, and what the methods see of it at each stop."""

    def __init__(self, record: ProblemRecord, manifest: Manifest, stops: Mapping[str, StopRule]) -> None:
        self._record, self._manifest = record, manifest
        self._completions = [s.completion for s in record.samples]
        self._correct = [s.correct for s in record.samples]
        self._curve = record.group.prefixes
        self._lengths = np.array([len(c.tokens) for c in self._completions])
        tokens = [c.tokens for c in self._completions]
        self.position = {label: stop_position(rule, tokens) for label, rule in stops.items()}
        self._candidates: dict[str, Candidates] = {}
        self._consensus = cache(self._consensus_of)

    def where(self, label: str) -> tuple[int, int]:
        """The stop's position in tokens, and how many prefixes are distinct there."""
        return self.position[label], int(self._curve.distinct[self.position[label] - 1])

    def average(self) -> Outcome:
        """Avg@n: the mean over the graded samples."""
        grades = [float(c) for c in self._correct if c is not None]
        return self._full(float(np.mean(grades)) if grades else None)

    def ceiling(self) -> Outcome:
        """pass@n: whether any sample is right, the most a choice can reach."""
        grades = [c for c in self._correct if c is not None]
        return self._full(float(any(grades)) if grades else None)

    def _full(self, value: float | None) -> Outcome:
        return Outcome(value, int(self._lengths.sum()), int(self._curve.computed[-1]), not_graded=value is None)

    def outcome(self, selector: Selector, label: str) -> Outcome:
        position = self.position[label]
        if label not in self._candidates:
            self._candidates[label] = self._cut(label)
        try:
            choice = selector.choose(self._candidates[label])
        except NotApplicable as reason:
            return Outcome(None, 0, 0, note=str(reason))
        if choice.index is None:
            return self._full(0.0)
        rest = max(0, int(self._lengths[choice.index]) - position)
        value = self._correct[choice.index]
        return Outcome(
            value=None if value is None else float(value),
            sampled=int(np.minimum(self._lengths, position).sum()) + rest,
            computed=int(self._curve.computed[position - 1]) + rest,
            auroc=auroc(choice.scores, self._correct),
            not_graded=value is None,
        )

    def _cut(self, label: str) -> Candidates:
        """What selectors see. Only the stop `none` promises full answers, even where another stop comes too late."""
        position, full = self.position[label], label == "none"
        signals = [c.signals for c in self._completions]

        def agreement(of: str, weight: str) -> Consensus:
            if weight == "peak":
                if not full:
                    raise NotApplicable("recorded peaks are those of full answers: the stop none")
                return consensus_of(self._completions, of, weight)
            return self._consensus(of)[position]

        return Candidates(
            lengths=np.minimum(self._lengths, position),
            full=full,
            agreement=agreement,
            recorded=[s and _cut_signals(s, position) for s in signals],
            answers=[s.answer for s in self._record.samples] if self._manifest.votes else None,
            problem=self._record.problem,
            consistent=self._record.consistent,
        )

    def _consensus_of(self, of: str) -> dict[int, Consensus]:
        """The agreement of these sets at every stop position."""
        positions = sorted(set(self.position.values()))
        sets = SETS[of](self._completions)
        sizes = np.array([s.growth(positions[-1]) for s in sets])
        matrices = zip(positions, consensus_curve(sets, positions), strict=True)
        return {position: Consensus(similarity, sizes[:, position - 1]) for position, similarity in matrices}

    def length_matched(self, label: str) -> Matched | None:
        """How minact and shortest rank right above wrong where lengths hardly differ; None without such pairs."""
        position = self.position[label]
        lengths = np.minimum(self._lengths, position)
        apart = np.abs(lengths[:, None] - lengths[None, :])
        near = apart <= MATCHED_WITHIN * np.maximum(lengths[:, None], lengths[None, :])
        right = np.array([c is True for c in self._correct])
        wrong = np.array([c is False for c in self._correct])
        pairs = near & right[:, None] & wrong[None, :]
        fewest = -self._consensus("neurons")[position].activated.astype(float)
        minact, shortest = pairs_above(fewest, pairs), pairs_above(-lengths.astype(float), pairs)
        return Matched(int(pairs.sum()), minact, shortest) if minact is not None and shortest is not None else None


def _cut_signals(signals: Signals, position: int) -> Signals:
    return replace(
        signals,
        logprob=signals.logprob[:position],
        entropy=signals.entropy[:position],
        self_certainty=signals.self_certainty[:position],
        confidence=signals.confidence[:position],
    )
