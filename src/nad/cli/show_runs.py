"""What a recorded run holds, in a few lines, and the table of `nad select` as text, JSON and CSV."""

import csv
import io
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

from nad.analysis.comparison import Comparison, ComparisonRow, LengthMatched
from nad.cli.streams import to_json
from nad.runs.store import RunStore


def run_account(store: RunStore) -> list[str]:
    """What a finished run holds, in a few lines."""
    found = store.grades()
    samples, grades = len(found), [correct for correct, _, _ in found if correct is not None]
    cut = sum(reason == "length" for _, reason, _ in found)
    broken = Counter(why for _, _, why in found if why is not None)
    manifest = store.manifest
    lines = [f"{store.path}: {len(store)} problems of {manifest.task} x {manifest.n} samples of {manifest.model}"]
    if grades:
        lines.append(f"Avg@{manifest.n} {sum(grades) / len(grades):.1%} of {len(grades)} graded samples")
    if len(grades) < samples:
        lines.append(f"{samples - len(grades)} of {samples} samples are not graded")
    for why, number in broken.most_common(1):
        lines.append(f"the grader broke on {broken.total()} of them ({number}: {why}); --resume grades them again")
    if cut:
        lines.append(
            f"{cut / samples:.0%} of the samples were cut at {manifest.params.max_tokens} tokens (--max-tokens)"
        )
    return [*lines, f"choose from it: nad select {store.path}"]


def comparison_json(comparison: Comparison) -> str:
    """The object `nad select --json` prints; its keys are a public contract (docs/reference.md)."""
    return to_json(asdict(comparison))


def comparison_csv(comparison: Comparison) -> str:
    """One line a method and stop, with the fields of ComparisonRow."""
    out = io.StringIO()
    names = [f.name for f in fields(ComparisonRow)]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in comparison.rows)
    return out.getvalue().rstrip("\n")


def comparison_text(comparison: Comparison, columns: int | None = None) -> str:
    """The table for people. What does not apply stands below it, with the reason.

    On a terminal with few `columns` the table leaves some of its own out, and says which.
    """
    manifest = comparison.manifest
    head = [
        f"{manifest.task}, {manifest.model}, {comparison.problems} problems x {manifest.n} samples",
        "accuracy with 95 % intervals (bootstrap over problems); vs avg: paired difference to the mean answer",
        "",
    ]
    shown = [row for row in comparison.rows if row.accuracy is not None]
    table, left_out = _fitted([_HEADER, *map(_cells, shown)], columns)
    notes = []
    if left_out:
        notes.append(f"no room for {', '.join(left_out)}: a wider terminal, --csv or --json shows them")
    if matched := [m for m in comparison.length_matched if m.minact is not None]:
        notes += [
            "",
            "minact among samples of matched length (is it more than shortest?)",
            *map(_matched_line, matched),
        ]
    notes += _not_shown(comparison)
    return "\n".join([*_wrapped(head, columns), *table, *_wrapped(notes, columns)])


def _wrapped(lines: Iterable[str], columns: int | None) -> list[str]:
    if columns is None:
        return list(lines)
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": "  "}
    return [textwrap.fill(line, max(20, columns), **options) for line in lines]


def _fitted(table: Sequence[Sequence[str]], columns: int | None) -> tuple[list[str], list[str]]:
    """The table in lines of at most `columns` characters, and the heads of the columns that were left out for it."""
    kept, left_out = list(range(len(_HEADER))), []
    lines = _aligned(table)
    for place in _DISPENSABLE:
        if columns is None or max(map(len, lines)) <= columns:
            break
        kept.remove(place)
        left_out.append(_HEADER[place])
        lines = _aligned([[row[i] for i in kept] for row in table])
    return lines, list(dict.fromkeys(left_out))


_HEADER = ("method", "stop", "accuracy", "95 %", "vs avg", "95 %", "sampled", "saved", "computed", "distinct", "AUROC")
_DISPENSABLE = (9, 8, 6, 7, 5, 3, 10, 4)
"""Places in the header, the first to be left out first."""


def _cells(row: ComparisonRow) -> tuple[str, ...]:
    return (
        row.method,
        row.stop,
        f"{row.accuracy:.1%}",
        _interval(row.low, row.high, ".1%"),
        "" if row.difference is None else f"{100 * row.difference:+.1f}",
        _interval(row.difference_low, row.difference_high, "+.1f", 100),
        f"{row.sampled_tokens:,}",
        "" if row.saved is None else f"{row.saved:.1%}",
        f"{row.computed_tokens:,}",
        f"{row.distinct:.1f}",
        "" if row.auroc is None else f"{row.auroc:.3f}",
    )


def _interval(low: float | None, high: float | None, form: str, scale: float = 1) -> str:
    return "" if low is None or high is None else f"{scale * low:{form}} .. {scale * high:{form}}"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def _matched_line(matched: LengthMatched) -> str:
    return (
        f"  stop {matched.stop}: AUROC minact {matched.minact:.3f}, shortest {matched.shortest:.3f} "
        f"({matched.pairs} pairs in {matched.problems} problems)"
    )


def _not_shown(comparison: Comparison) -> Iterator[str]:
    """Rows without a number and rows over fewer problems, each reason once; samples without a grade."""
    reasons: dict[str, list[str]] = {}
    for row in comparison.rows:
        if row.note:
            some = f" in {comparison.problems - row.problems} problems" if row.problems else ""
            reasons.setdefault(f"{row.note}{some}", []).append(f"{row.method} at {row.stop}")
    if reasons:
        yield ""
    for reason, names in reasons.items():
        yield f"not applicable, {reason}: {', '.join(names)}"
    if missing := comparison.not_graded:
        yield f"not graded: {missing} of {comparison.samples} samples; a choice of one of them is left out"
