"""`nad select`, `nad tables`, `nad figures` and `nad report` show the same numbers of one run."""

import csv
import io
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="figures need matplotlib: pip install 'nad[report]'")

from nad.analysis.comparison import parse_stops, reselect
from nad.analysis.figures import figure_6, figure_8
from nad.analysis.figures.canvas import save
from nad.analysis.report.document import report
from nad.analysis.summary import digest
from nad.analysis.tables.accuracy import METHODS, table_1, table_2
from nad.analysis.tables.formats import as_csv
from nad.cli.show_runs import comparison_json
from nad.runs.records import MemoryRun
from nad.selection import parse_selector
from nad.testing.planted_runs import planted_crowd

Rows = Mapping[tuple[str, str], Mapping[str, float]]


def crowd() -> MemoryRun:
    """Right and wrong samples of 48 to 96 tokens; of two problems some samples are not graded, of one none is."""
    run = planted_crowd(13, 8, 96, seed=3)
    dropped = {2: range(4), 7: range(1, 8), 11: range(8)}
    problems = []
    for i, problem in enumerate(run.problems):
        grades = [None if j in dropped.get(i, ()) else s.correct for j, s in enumerate(problem.samples)]
        samples = [replace(s, correct=grade) for s, grade in zip(problem.samples, grades, strict=True)]
        problems.append(replace(problem, samples=tuple(samples)))
    return replace(run, problems=problems)


RUN = crowd()
NAMES = (*(m for m in METHODS if m != "avg"), "maxact")


@pytest.fixture(scope="module")
def selected() -> Rows:
    """What `nad select --json` prints, by method and stop."""
    comparison = reselect(RUN, [parse_selector(name) for name in NAMES], parse_stops("32,64,none"))
    return {(row["method"], row["stop"]): row for row in json.loads(comparison_json(comparison))["rows"]}


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_run_tells_the_methods_apart(selected: Rows) -> None:
    """Else equal numbers would say little."""
    assert len({row["accuracy"] for row in selected.values()}) > 6
    assert len({row["sampled_tokens"] for row in selected.values()}) > 6
    assert {row["not_graded"] for row in selected.values()} >= {0, 1}


def test_tables(selected: Rows) -> None:
    labels = {label.format(n=8): name for name, label in METHODS.items()}
    for table, stop in ((table_1([digest(RUN)]), "none"), (table_2([digest(RUN)]), "32")):
        cells = [cell for cell in read(as_csv(table)) if cell["column"] == "planted"]
        assert len(cells) == len(METHODS) - (stop == "32")
        for cell in cells:
            method = labels[cell["method"]]
            row = selected[method, "none" if method in ("avg", "cons") else stop]
            shown = [float(cell[key]) for key in ("accuracy", "low", "high", "problems", "not_graded")]
            assert shown == [row[key] for key in ("accuracy", "low", "high", "problems", "not_graded")]
            if stop == "32":
                assert int(cell["tokens"]) == row["sampled_tokens"]
                assert cell["change"] == "" if method == "avg" else float(cell["change"]) == -row["saved"]


def test_figures(selected: Rows, tmp_path: Path) -> None:
    names = {"kNN": "knn", "Medoid": "medoid", "DBSCAN": "dbscan", "MinAct": "minact", "MaxAct": "maxact"}
    run = digest(RUN)
    assert run.positions[:2] == (32, 64)
    stops = {32: "32", 64: "64", run.positions[-1]: "none"}
    rows = read(save(figure_8(run), tmp_path)[2].read_text())
    assert len(rows) == 4 * 3
    for shown in rows:
        row = selected[names[shown["selector"]], stops[int(shown["position"])]]
        for key in ("accuracy", "low", "high"):
            assert float(shown[key]) == pytest.approx(100 * row[key], rel=1e-6)
        assert int(shown["tokens"]) == row["sampled_tokens"]
        assert int(shown["computed_tokens"]) == row["computed_tokens"]
    for shown in read(save(figure_6([run]), tmp_path)[2].read_text()):
        row = selected[names[shown["selector"]], "none"]
        assert float(shown["accuracy"]) == pytest.approx(100 * row["accuracy"], rel=1e-6)


def test_report(selected: Rows) -> None:
    """The summary's row: mean, kNN on full answers, kNN at 32, what it saves."""
    document = report([RUN], "nad report")
    (line,) = re.findall(r"<tr><th>planted</th>(.*?)</tr>", document)
    cells = re.findall(r"<td>(.*?)</td>", line)
    asked = (selected["avg", "none"], selected["knn", "none"], selected["knn", "32"])
    expected = [f"{100 * row['accuracy']:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}]" for row in asked]
    assert cells[5:] == [*expected, f"{asked[2]['saved']:.1%}"]
    assert cells[3:5] == [f"{asked[0]['sampled_tokens']:,}", f"{asked[2]['distinct']:.1f} of 8"]


def test_the_choices_shown_are_the_choices_counted(selected: Rows) -> None:
    """The explorer marks what `nad select` counts: its grades give the accuracy."""
    problems = digest(RUN).problems
    for name in ("knn", "medoid@tokens"):
        grades = [p.correct[p.chosen(name)[0]] for p in problems]
        assert np.nanmean(grades) == pytest.approx(selected[name, "32"]["accuracy"])
