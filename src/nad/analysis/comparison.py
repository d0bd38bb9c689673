"""Choosing again from a recorded run: every method at every stop, without the model (Tables 1-3, Fig. 8)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nad.analysis.outcomes import Matched, Outcome, Sheet
from nad.analysis.statistics import bootstrap_means
from nad.errors import NadError, UsageError
from nad.runs.records import Manifest, ProblemRecord, Run
from nad.selection import Selector, selector_spec
from nad.stopping import Never, StopRule, parse_stop, stop_label

AVERAGE, CEILING = "avg", "pass"


@dataclass(frozen=True)
class Row:
    """One method at one stop; of the run's problems `problems` count: those where it applies and its choice is graded.

    Tokens are sums over those problems. `sampled_tokens` counts as the paper does: n prefixes and the winner's rest;
    `saved` is its difference to n full answers, as a share of them. `computed_tokens` counts identical prefixes once.
    `difference` is to the mean accuracy of the same problems' samples (Avg@n). `low` and `high` bound 95 % intervals.
    `distinct` and `position` are means over all problems.
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
class Selection:
    """The table of a run. `not_graded` counts its samples without a grade."""

    manifest: Manifest
    problems: int
    samples: int
    not_graded: int
    rows: tuple[Row, ...]
    length_matched: tuple[LengthMatched, ...]


def parse_stops(specs: str) -> dict[str, StopRule]:
    """`32,256,budget:1000,none` as stop rules by their labels, in that order."""
    rules = [parse_stop(spec.strip()) for spec in specs.split(",") if spec.strip()]
    if not rules:
        raise UsageError("--at needs at least one stop rule, such as 32,budget,none")
    return {stop_label(rule): rule for rule in rules}


@dataclass(frozen=True)
class _Judged:
    """One problem: what each method did at each stop, where the stops lay, and its length-matched pairs."""

    outcomes: Mapping[tuple[str, str], Outcome]
    where: Mapping[str, tuple[int, int]]
    matched: Mapping[str, Matched | None]
    grades: tuple[bool | None, ...]


def reselect(run: Run, selectors: Sequence[Selector], stops: Mapping[str, StopRule]) -> Selection:
    """What each selector would have chosen at each stop, over all problems of the run.

    Raises UsageError for a run of prefixes, NadError for one without problems.
    """
    if run.manifest.stop_at != "none":
        raise UsageError(
            f"the run was recorded with --stop-at {run.manifest.stop_at}: its answers have no end and no grade; "
            "record one with --stop-at none"
        )
    named = {selector_spec(selector): selector for selector in selectors}
    judged = [_judge(record, run.manifest, named, stops) for record in run]
    if not judged:
        raise NadError("the run holds no problem")
    reference, *_ = keys = list(judged[0].outcomes)
    columns = {key: [problem.outcomes[key] for problem in judged] for key in keys}
    places = {label: np.mean([problem.where[label] for problem in judged], axis=0) for label in judged[0].where}
    rows = [_row(key, columns[key], columns[reference], *places[key[1]]) for key in keys]
    grades = [grade for problem in judged for grade in problem.grades]
    return Selection(
        manifest=run.manifest,
        problems=len(judged),
        samples=len(grades),
        not_graded=grades.count(None),
        rows=tuple(_with_intervals(rows, list(columns.values()), columns[reference])),
        length_matched=tuple(_length_matched(label, [p.matched[label] for p in judged]) for label in stops),
    )


def _judge(
    record: ProblemRecord, manifest: Manifest, selectors: Mapping[str, Selector], stops: Mapping[str, StopRule]
) -> _Judged:
    sheet = Sheet(record, manifest, {"none": Never(), **stops})
    chosen = {(name, label): sheet.outcome(selectors[name], label) for label in stops for name in selectors}
    return _Judged(
        outcomes={(AVERAGE, "none"): sheet.average(), (CEILING, "none"): sheet.ceiling(), **chosen},
        where={label: sheet.where(label) for label in sheet.position},
        matched={label: sheet.length_matched(label) for label in stops},
        grades=tuple(s.correct for s in record.samples),
    )


def _row(
    key: tuple[str, str], outcomes: Sequence[Outcome], average: Sequence[Outcome], position: float, distinct: float
) -> Row:
    known = [i for i, o in enumerate(outcomes) if o.value is not None]
    rankings = [o.auroc for o in outcomes if o.auroc is not None]
    sampled, everything = sum(outcomes[i].sampled for i in known), sum(average[i].sampled for i in known)
    return Row(
        method=key[0],
        stop=key[1],
        problems=len(known),
        not_graded=sum(o.not_graded for o in outcomes),
        accuracy=_mean([o.value for o in outcomes]),
        low=None,
        high=None,
        difference=_mean(_differences(outcomes, average)),
        difference_low=None,
        difference_high=None,
        sampled_tokens=sampled,
        saved=1 - sampled / everything if everything else None,
        computed_tokens=sum(outcomes[i].computed for i in known),
        distinct=float(distinct),
        position=float(position),
        auroc=_mean(rankings),
        auroc_problems=len(rankings),
        note=next((o.note for o in outcomes if o.note), ""),
    )


def _differences(outcomes: Sequence[Outcome], average: Sequence[Outcome]) -> list[float | None]:
    """Each problem's difference to the mean over its samples; None where either is not known."""
    pairs = zip(outcomes, average, strict=True)
    return [None if o.value is None or a.value is None else o.value - a.value for o, a in pairs]


def _with_intervals(
    rows: Sequence[Row], columns: Sequence[Sequence[Outcome]], average: Sequence[Outcome]
) -> Iterator[Row]:
    """The rows with their 95 % intervals: one bootstrap for all, so that they share their draws of problems."""
    values = [[o.value for o in column] for column in columns]
    differences = [_differences(column, average) for column in columns]
    intervals = bootstrap_means(np.array([*values, *differences], dtype=float).T)  # None becomes NaN
    bounds = [tuple(None if np.isnan(b) else float(b) for b in pair) for pair in intervals.T]
    for row, own, difference in zip(rows, bounds[: len(rows)], bounds[len(rows) :], strict=True):
        low, high = own
        difference_low, difference_high = difference
        yield replace(row, low=low, high=high, difference_low=difference_low, difference_high=difference_high)


def _length_matched(label: str, found: Sequence[Matched | None]) -> LengthMatched:
    some = [m for m in found if m is not None]
    return LengthMatched(
        label, len(some), sum(m.pairs for m in some), _mean([m.minact for m in some]), _mean([m.shortest for m in some])
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
