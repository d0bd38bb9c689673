"""A table as Markdown, CSV, LaTeX and JSON."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping

from nad.analysis.tables.accuracy import Cell, Table, TableRow

_FIELDS = (
    "table",
    "model",
    "method",
    "column",
    "problems",
    "not_graded",
    "accuracy",
    "low",
    "high",
    "tokens",
    "change",
)
_PAPER = ("paper_accuracy", "paper_tokens_millions", "paper_change")


def records(table: Table) -> list[dict[str, object]]:
    """One record for each cell that has a value. Accuracy, its interval and changes are shares, not percent."""
    return [
        dict(zip((*_FIELDS, *_PAPER), _values(table, row, column), strict=True))
        for row in table.rows
        for column in table.columns
        if row.cells.get(column)
    ]


def _values(table: Table, row: TableRow, column: str) -> tuple[object, ...]:
    cell = row.cells[column]
    assert cell is not None
    estimate = (cell.accuracy.value, cell.accuracy.low, cell.accuracy.high)
    ours = (*(None if math.isnan(x) else x for x in estimate), cell.tokens, cell.change)
    paper = cell.paper
    theirs = (paper.accuracy / 100, paper.tokens, paper.change and paper.change / 100) if paper else (None, None, None)
    return (table.number, row.model, row.method, column, cell.problems, cell.not_graded, *ours, *theirs)


def as_json(table: Table) -> str:
    values = {"table": table.number, "title": table.title, "position": table.position, "notes": table.notes}
    return json.dumps({**values, "cells": records(table)}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, (*_FIELDS, *_PAPER), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records(table))
    return out.getvalue()


def as_markdown(table: Table) -> str:
    header = ["Model", "Method", *table.columns]
    lines = [f"**Table {table.number}.** {table.title}", "", _line(header), _line(["---"] * len(header))]
    lines += [_line([row.model, row.method, *cells(table, row)]) for row in table.rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes), ""])


def _line(texts: list[str]) -> str:
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"


def cells(table: Table, row: TableRow) -> list[str]:
    """The row's cells as text, one a column; an en dash where a method does not apply or a task was not run."""
    return [cell_text(cell) if (cell := row.cells.get(column)) else "–" for column in table.columns]  # noqa: RUF001


def cell_text(cell: Cell) -> str:
    """`80.0 [75.1, 84.9], 1.3 M (-97.6 %); paper 80.0, 1.3 M (-97.6 %)`."""
    low, high = cell.accuracy.low, cell.accuracy.high
    value = "not graded" if math.isnan(cell.accuracy.value) else f"{100 * cell.accuracy.value:.1f}"
    text = value if math.isnan(low) else f"{value} [{100 * low:.1f}, {100 * high:.1f}]"
    text += _cost(cell.tokens and tokens_text(cell.tokens), cell.change and 100 * cell.change)
    if cell.paper is None:
        return text
    theirs = cell.paper
    return f"{text}; paper {theirs.accuracy:.1f}" + _cost(theirs.tokens and f"{theirs.tokens:.1f} M", theirs.change)


def _cost(tokens: str | float | None, change: float | None) -> str:
    if not tokens:
        return ""
    return f", {tokens}" + ("" if change is None else f" ({change:+.1f} %)")


def tokens_text(tokens: int) -> str:
    """In millions as the paper prints them, smaller counts in thousands or plain."""
    if tokens >= 1_000_000:
        return f"{tokens / 1e6:.1f} M"
    return f"{tokens / 1e3:.1f} k" if tokens >= 10_000 else f"{tokens:,}"


_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def as_latex(table: Table) -> str:
    """A booktabs table."""
    columns = [c.translate(_LATEX) for c in table.columns]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{ll{'r' * len(columns)}}}",
        r"\toprule",
        rf"Model & Method & {' & '.join(columns)} \\",
    ]
    previous = None
    for row in table.rows:
        model = "" if row.model == previous else row.model.translate(_LATEX)
        lines += [r"\midrule"] if row.model != previous else []
        texts = [text.replace("–", "--").translate(_LATEX) for text in (row.method, *cells(table, row))]  # noqa: RUF001
        lines.append(rf"{model} & {' & '.join(texts)} \\")
        previous = row.model
    caption = " ".join([f"{table.title}.", *table.notes]).translate(_LATEX)
    end = [r"\bottomrule", r"\end{tabular}", rf"\caption{{{caption}}}", r"\end{table}"]
    return "% needs the package booktabs\n" + "\n".join([*lines, *end]) + "\n"


FORMATS: Mapping[str, Callable[[Table], str]] = {"md": as_markdown, "csv": as_csv, "tex": as_latex, "json": as_json}
