"""From a record to numbers: what each method chooses on a problem at each stop, whether it is right, what it costs.

`nad select`, `nad tables`, `nad figures` and `nad report` all read their accuracies and tokens off these outcomes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nad.analysis.statistics import Estimate, auroc, estimates, pairs_above
from nad.neurons.agreement import consensus_curve
from nad.runs.records import Manifest, ProblemRecord
from nad.selection import Candidates, Consensus, NotApplicable, Selector
from nad.selection.base import SETS, consensus_of
from nad.stopping import Never, StopRule, stop_position

AVERAGE, CEILING = "avg", "pass"
"""Methods that choose nothing: the mean over the samples (Avg@n), and whether any is right (pass@n)."""
FULL = "none"
"""The label of the stop at which all samples have run to their end."""
MATCHED_WITHIN = 0.1
"""Lengths that differ by at most this share of the longer one count as equal."""


@dataclass(frozen=True)
class Outcome:
    """What one method did on one problem at one stop.

    `index` is the sample it chose, None for none. `value` is its accuracy. It is None when that is not known: what it
    chose is not graded, or the method does not apply, and `note` says why. `sampled` counts tokens as the paper does
    (n prefixes and the winner's rest), `computed` counts identical prefixes once, `full` counts n full answers; all
    are 0 where it does not apply.
    """

    value: float | None
    sampled: int
    computed: int
    full: int
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
        self._kept: dict[tuple[str, str], Mapping[int, Consensus]] = {}

    def where(self, label: str) -> tuple[int, int]:
        """The stop's position in tokens, and how many prefixes are distinct there."""
        return self.position[label], int(self._curve.distinct[self.position[label] - 1])

    def outcomes(self, selectors: Mapping[str, Selector], labels: Iterable[str]) -> dict[tuple[str, str], Outcome]:
        """What the mean, the ceiling and, at these stops, each selector did: by method and stop."""
        graded = self._correct[np.isfinite(self._correct)]
        found = {
            (AVERAGE, FULL): self._whole(float(graded.mean()) if len(graded) else None),
            (CEILING, FULL): self._whole(float(graded.max()) if len(graded) else None),
        }
        for label in labels:
            candidates = self._candidates(label)
            found |= {(name, label): self._outcome(s, candidates, label) for name, s in selectors.items()}
        return found

    def _whole(self, value: float | None) -> Outcome:
        full = int(self._lengths.sum())
        return Outcome(value, full, int(self._curve.computed[-1]), full)

    def _outcome(self, selector: Selector, candidates: Candidates, label: str) -> Outcome:
        try:
            choice = selector.choose(candidates)
        except NotApplicable as reason:
            return Outcome(None, 0, 0, 0, note=str(reason))
        if choice.index is None:  # a vote that failed is a wrong answer (section 5.1)
            return self._whole(0.0)
        position, value = self.position[label], self._correct[choice.index]
        rest = max(0, int(self._lengths[choice.index]) - position)
        ranking = auroc(choice.scores[self._correct == 1], choice.scores[self._correct == 0])
        return Outcome(
            value=float(value) if np.isfinite(value) else None,
            sampled=int(np.minimum(self._lengths, position).sum()) + rest,
            computed=int(self._curve.computed[position - 1]) + rest,
            full=int(self._lengths.sum()),
            index=choice.index,
            auroc=ranking if np.isfinite(ranking) else None,
        )

    def _candidates(self, label: str) -> Candidates:
        """What selectors see. Only the stop `none` promises full answers, even where another stop comes too late."""
        position, full = self.position[label], label == FULL and self._manifest.stop_at == FULL

        def agreement(of: str, weight: str) -> Consensus:
            if weight != "none" and not full:
                raise NotApplicable("recorded peaks are those of full answers: the stop none")
            return self.consensus(of, weight)[position]

        return Candidates(
            lengths=np.minimum(self._lengths, position),
            full=full,
            agreement=agreement,
            recorded=[c.signals and c.signals.prefix(position) for c in self._completions],
            answers=[s.answer for s in self._record.samples] if self._manifest.votes else None,
            problem=self._record.problem,
            consistent=self._record.consistent,
        )

    def consensus(self, of: str, weight: str = "none") -> Mapping[int, Consensus]:
        """The agreement of these sets at the position of every stop; weighted, at the end of all answers alone."""
        if (of, weight) not in self._kept:
            if weight == "none":
                self._kept[of, weight] = self._at_every_stop(of)
            else:
                self._kept[of, weight] = {self.position[FULL]: consensus_of(self._completions, of, weight)}
        return self._kept[of, weight]

    def _at_every_stop(self, of: str) -> Mapping[int, Consensus]:
        positions = sorted(set(self.position.values()))
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
