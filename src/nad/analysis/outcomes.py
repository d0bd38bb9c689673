"""From a record to numbers: what each method chooses on a problem at each stop, whether it is right, what it costs.

`nad select`, `nad tables`, `nad figures` and `nad report` all read their accuracies and tokens off these outcomes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nad.analysis.statistics import Estimate, auroc, estimates, pairs_above
from nad.analysis.steps import Followed, follow
from nad.neurons.agreement import consensus_curve
from nad.runs.records import Manifest, ProblemRecord
from nad.selection import Candidates, Consensus, NotApplicable, Selector
from nad.selection.base import SETS, consensus_of
from nad.stopping import Never, Prune, Schedule, StopRule, stop_position

AVERAGE, CEILING = "avg", "pass"
"""Methods that choose nothing: the mean over the samples (Avg@n), and whether any is right (pass@n)."""
FULL = "none"
"""The label of the stop at which all samples have run to their end."""
MATCHED_WITHIN = 0.1
"""Lengths that differ by at most this share of the longer one count as equal."""


@dataclass(frozen=True)
class Outcome:
    """What one method did on one problem at one stop.

    `index` is the sample it chose, None for none, at `position` in tokens, where `distinct` of all prefixes differ.
    `value` is its accuracy. It is None when that is not known: what it chose is not graded, or the method does not
    apply, and `note` says why. `sampled` counts tokens as the paper does (n prefixes and the winner's rest), `computed`
    counts identical prefixes once, `full` counts n full answers; all are 0 where it does not apply.
    """

    value: float | None
    sampled: int
    computed: int
    full: int
    position: int
    distinct: int
    index: int | None = None
    auroc: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Matched:
    """Pairs of a right and a wrong sample of matched length, and the share of pairs that each score gets right."""

    pairs: int
    minact: float
    shortest: float


class Sheet:
    """One recorded problem at several stops, the end of all answers always among them."""

    def __init__(self, record: ProblemRecord, manifest: Manifest, stops: Mapping[str, StopRule]) -> None:
        self._record, self._manifest = record, manifest
        self._completions = [s.completion for s in record.samples]
        self._correct = np.array([np.nan if s.correct is None else float(s.correct) for s in record.samples])
        self._curve = record.group.prefixes
        tokens = [c.tokens for c in self._completions]
        self._lengths = np.array([len(t) for t in tokens])
        self.position = {label: stop_position(rule, tokens) for label, rule in {FULL: Never(), **stops}.items()}
        self._tokens, self._rules = tokens, {FULL: Never(), **stops}
        self._kept: dict[tuple[str, str], dict[int, Consensus]] = {}

    def _where(self, position: int) -> tuple[int, int]:
        """The position, and how many prefixes differ pairwise there."""
        return position, int(self._curve.distinct[position - 1])

    def outcomes(self, selectors: Mapping[str, Selector], labels: Iterable[str]) -> dict[tuple[str, str], Outcome]:
        """What the mean, the ceiling and, at these stops, each selector did: by method and stop."""
        graded = self._correct[np.isfinite(self._correct)]
        found = {
            (AVERAGE, FULL): self._whole(float(graded.mean()) if len(graded) else None),
            (CEILING, FULL): self._whole(float(graded.max()) if len(graded) else None),
        }
        for label in labels:
            found |= {(name, label): self._outcome(s, label) for name, s in selectors.items()}
        return found

    def _whole(self, value: float | None) -> Outcome:
        full = int(self._lengths.sum())
        return Outcome(value, full, int(self._curve.computed[-1]), full, *self._where(self.position[FULL]))

    def _outcome(self, selector: Selector, label: str) -> Outcome:
        try:
            end = self._followed(selector, label)
        except NotApplicable as reason:
            return Outcome(None, 0, 0, 0, *self._where(self.position[label]), note=str(reason))
        if end.index is None:  # a vote that failed is a wrong answer (section 5.1)
            return self._whole(0.0)
        value, (position, distinct) = self._correct[end.index], self._where(end.position)
        rest = max(0, int(self._lengths[end.index]) - end.position)
        ranking = auroc(end.scores[self._correct == 1], end.scores[self._correct == 0])
        return Outcome(
            value=float(value) if np.isfinite(value) else None,
            sampled=end.sampled + rest,
            computed=end.computed + rest,
            full=int(self._lengths.sum()),
            position=position,
            distinct=distinct,
            index=end.index,
            auroc=ranking if np.isfinite(ranking) else None,
        )

    def _followed(self, selector: Selector, label: str) -> Followed:
        """The selector's choice at this stop, or at the end of the schedule that stands for it."""
        rule, position = self._rules[label], self.position[label]
        if isinstance(rule, Prune) and rule.stages[0][0] != len(self._tokens):
            raise NotApplicable(f"begins with {rule.stages[0][0]} samples; the run has {len(self._tokens)}")
        if isinstance(rule, Schedule):
            return follow(rule, self._tokens, lambda some, at: selector.choose(self._candidates(at, False, some)))
        everyone = range(len(self._tokens))
        choice = selector.choose(self._candidates(position, self._full(label), everyone))
        sampled, computed = int(np.minimum(self._lengths, position).sum()), int(self._curve.computed[position - 1])
        return Followed(choice.index, choice.scores, position, sampled, computed)

    def _full(self, label: str) -> bool:
        """Only the stop `none` promises full answers, even where another stop comes too late."""
        return label == FULL and self._manifest.stop_at == FULL

    def _candidates(self, position: int, full: bool, samples: Sequence[int]) -> Candidates:
        """What selectors see of these samples, cut at a position."""

        def agreement(of: str, weight: str) -> Consensus:
            if weight != "none" and not full:
                raise NotApplicable("recorded peaks are those of full answers: the stop none")
            return _among(samples, self._consensus_at(position, of, weight))

        completions, record = [self._completions[i] for i in samples], self._record
        return Candidates(
            lengths=np.minimum(self._lengths[samples], position),
            full=full,
            agreement=agreement,
            recorded=[c.signals and c.signals.prefix(position) for c in completions],
            answers=[record.samples[i].answer for i in samples] if self._manifest.votes else None,
            problem=record.problem,
            consistent=record.consistent,
        )

    def consensus(self, of: str, weight: str = "none") -> dict[int, Consensus]:
        """The agreement of these sets at the position of every stop; weighted, at the end of all answers alone."""
        if (of, weight) not in self._kept:
            if weight == "none":
                self._kept[of, weight] = self._at(of, sorted(set(self.position.values())))
            else:
                self._kept[of, weight] = {self.position[FULL]: consensus_of(self._completions, of, weight)}
        return self._kept[of, weight]

    def _consensus_at(self, position: int, of: str, weight: str) -> Consensus:
        """The same at any position: a schedule looks at others too."""
        kept = self.consensus(of, weight)
        if position not in kept:
            kept |= self._at(of, [position])
        return kept[position]

    def _at(self, of: str, positions: Sequence[int]) -> dict[int, Consensus]:
        sets = SETS[of](self._completions)
        sizes = np.array([s.growth(positions[-1])[np.array(positions) - 1] for s in sets])
        matrices = zip(positions, consensus_curve(sets, positions), sizes.T, strict=True)
        return {position: Consensus(similarity, activated) for position, similarity, activated in matrices}

    def length_matched(self, label: str) -> Matched | None:
        """How well minact and shortest rank right above wrong where lengths hardly differ; None without such pairs."""
        position = self.position[label]
        lengths = np.minimum(self._lengths, position)
        apart = np.abs(lengths[:, None] - lengths[None, :])
        near = apart <= MATCHED_WITHIN * np.maximum(lengths[:, None], lengths[None, :])
        pairs = near & (self._correct == 1)[:, None] & (self._correct == 0)[None, :]
        fewest = -self.consensus("neurons")[position].activated.astype(float)
        minact, shortest = pairs_above(fewest, pairs), pairs_above(-lengths.astype(float), pairs)
        return Matched(int(pairs.sum()), minact, shortest) if minact is not None and shortest is not None else None


def _among(samples: Sequence[int], consensus: Consensus) -> Consensus:
    """The agreement of some of the samples."""
    if len(samples) == len(consensus.activated):
        return consensus
    return Consensus(consensus.similarity[np.ix_(samples, samples)], consensus.activated[list(samples)])


@dataclass(frozen=True)
class Tally:
    """What one method did at one stop over problems. `problems` is the number of those whose value is known.

    `not_graded` are those whose choice is not graded. Tokens are sums over all problems where the method applies.
    """

    accuracy: Estimate
    problems: int
    not_graded: int
    sampled: int
    computed: int
    full: int

    @property
    def saved(self) -> float | None:
        """The difference to n full answers, as a share of them; None where nothing applies."""
        return 1 - self.sampled / self.full if self.full else None


def tallies(columns: Sequence[Sequence[Outcome]]) -> list[Tally]:
    """Each method's outcomes on the problems, a column for each method, in one bootstrap: they share its draws."""
    values = np.array([[o.value for o in column] for column in columns], dtype=float).T  # None becomes nan
    return [
        Tally(
            accuracy=accuracy,
            problems=sum(o.value is not None for o in column),
            not_graded=sum(o.value is None and not o.note for o in column),
            sampled=sum(o.sampled for o in column),
            computed=sum(o.computed for o in column),
            full=sum(o.full for o in column),
        )
        for accuracy, column in zip(estimates(values), columns, strict=True)
    ]
