"""Choosing again from a recorded run: every method at every stop, without the model (Tables 1-3, Fig. 8)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nad.analysis.outcomes import AVERAGE, FULL, Matched, Outcome, Sheet, Tally, tallies
from nad.analysis.statistics import Estimate, estimates, mean
from nad.errors import NadError, UsageError
from nad.runs.records import Manifest, ProblemRecord, Run
from nad.selection import Selector, selector_spec
from nad.stopping import StopRule, parse_stop, stop_label


@dataclass(frozen=True)
class ComparisonRow:
    """One method at one stop, over the `problems` of the run where it applies and its choice is graded.

    Tokens are sums over the problems where it applies. `sampled_tokens` counts as the paper does: n prefixes and the
    winner's rest; `saved` is its difference to n full answers, as a share of them. `computed_tokens` counts identical
    prefixes once. `difference` is to the mean accuracy of the same problems' samples (Avg@n). `low` and `high` bound
    95 % intervals, None with fewer than two problems. `distinct` and `position` are means over all problems.
    """

    method: str
    stop: str
    problems: int
    not_graded: int
    accuracy: float | None
    low: float | None
    high: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    sampled_tokens: int
    saved: float | None
    computed_tokens: int
    distinct: float
    position: float
    auroc: float | None
    auroc_problems: int
    note: str = ""


@dataclass(frozen=True)
class LengthMatched:
    """Is minact more than "shortest"? Among right and wrong samples of one problem with lengths at most 10 % apart.

    `minact` and `shortest` are the shares of those pairs in which the right one has fewer neurons, or fewer tokens,
    ties counted half, in the mean over `problems`.
    """

    stop: str
    problems: int
    pairs: int
    minact: float | None
    shortest: float | None


@dataclass(frozen=True)
class Comparison:
    """The table of a run. `not_graded` counts its samples without a grade."""

    manifest: Manifest
    problems: int
    samples: int
    not_graded: int
    rows: tuple[ComparisonRow, ...]
    length_matched: tuple[LengthMatched, ...]


def parse_stops(specs: str) -> dict[str, StopRule]:
    """`32,256,budget:1000,none` as stop rules by their labels, in that order."""
    rules = [parse_stop(spec.strip()) for spec in specs.split(",") if spec.strip()]
    if not rules:
        raise UsageError("--at needs at least one stop rule, such as 32,budget,none")
    return {stop_label(rule): rule for rule in rules}


@dataclass(frozen=True)
class _Judged:
    """One problem: what each method did at each stop, and its length-matched pairs."""

    outcomes: Mapping[tuple[str, str], Outcome]
    matched: Mapping[str, Matched | None]
    grades: tuple[bool | None, ...]


def reselect(run: Run, selectors: Sequence[Selector], stops: Mapping[str, StopRule]) -> Comparison:
    """What each selector would have chosen at each stop, over all problems of the run.

    Raises UsageError for a run of prefixes, NadError for one without problems.
    """
    if run.manifest.stop_at != FULL:
        raise UsageError(
            f"the run was recorded with --stop-at {run.manifest.stop_at}: its answers have no end and no grade; "
            "record one with --stop-at none"
        )
    named = {selector_spec(selector): selector for selector in selectors}
    judged = [_judge(record, run.manifest, named, stops) for record in run]
    if not judged:
        raise NadError("the run holds no problem")
    grades = [grade for problem in judged for grade in problem.grades]
    return Comparison(
        manifest=run.manifest,
        problems=len(judged),
        samples=len(grades),
        not_graded=grades.count(None),
        rows=tuple(_rows(judged)),
        length_matched=tuple(_length_matched(label, [p.matched[label] for p in judged]) for label in stops),
    )


def _judge(
    record: ProblemRecord, manifest: Manifest, selectors: Mapping[str, Selector], stops: Mapping[str, StopRule]
) -> _Judged:
    sheet = Sheet(record, manifest, stops)
    return _Judged(
        outcomes=sheet.outcomes(selectors, stops),
        matched={label: sheet.length_matched(label) for label in stops},
        grades=tuple(s.correct for s in record.samples),
    )


def _rows(judged: Sequence[_Judged]) -> list[ComparisonRow]:
    keys = list(judged[0].outcomes)
    columns = [[problem.outcomes[key] for problem in judged] for key in keys]
    average = [problem.outcomes[AVERAGE, FULL].value for problem in judged]
    paired = [
        [None if o.value is None or a is None else o.value - a for o, a in zip(column, average, strict=True)]
        for column in columns
    ]
    differences = estimates(np.array(paired, dtype=float).T)  # None becomes nan
    return [_row(*row) for row in zip(keys, columns, tallies(columns), differences, strict=True)]


def _row(
    key: tuple[str, str],
    outcomes: Sequence[Outcome],
    tally: Tally,
    difference: Estimate,
) -> ComparisonRow:
    accuracy, low, high = _known(tally.accuracy)
    apart, apart_low, apart_high = _known(difference)
    rankings = [o.auroc for o in outcomes if o.auroc is not None]
    return ComparisonRow(
        method=key[0],
        stop=key[1],
        problems=tally.problems,
        not_graded=tally.not_graded,
        accuracy=accuracy,
        low=low,
        high=high,
        difference=apart,
        difference_low=apart_low,
        difference_high=apart_high,
        sampled_tokens=tally.sampled,
        saved=tally.saved,
        computed_tokens=tally.computed,
        distinct=float(np.mean([o.distinct for o in outcomes])),
        position=float(np.mean([o.position for o in outcomes])),
        auroc=mean(rankings),
        auroc_problems=len(rankings),
        note=next((o.note for o in outcomes if o.note), ""),
    )


def _known(estimate: Estimate) -> tuple[float | None, float | None, float | None]:
    """Its numbers, with None instead of nan."""
    value, low, high = (None if math.isnan(x) else x for x in (estimate.value, estimate.low, estimate.high))
    return value, low, high


def _length_matched(label: str, found: Sequence[Matched | None]) -> LengthMatched:
    some = [m for m in found if m is not None]
    return LengthMatched(
        label, len(some), sum(m.pairs for m in some), mean([m.minact for m in some]), mean([m.shortest for m in some])
    )
