"""Tables 1 to 3 of the run worked out in hand.py, and of runs that lack something."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hand import MANY, hand_digest, hand_run, named

from nad.analysis.summary import digest
from nad.analysis.tables.accuracy import all_tables, table_1, table_2, table_3
from nad.analysis.tables.formats import FORMATS, as_csv, as_json, as_latex, as_markdown
from nad.analysis.tables.paper_values import CODE, COLUMNS, PROBLEMS, SCIENCE, TABLES, published
from nad.testing.planted_runs import planted_problem, planted_run, without

THINKING = "Qwen/Qwen3-4B-Thinking-2507"
EXPECTED = {
    "Avg@4": 7 / 12,
    "Cons@4": 1 / 3,
    "NAD-kNN": 2 / 3,
    "NAD-Medoid": 2 / 3,
    "NAD-MinAct": 2 / 3,
    "Text-kNN": 1,
    "Text-Medoid": 1,
}


def cells(table, column):
    return {row.method: row.cells.get(column) for row in table.rows}


def test_table_1_accuracies():
    found = cells(table_1([hand_digest()]), "planted")
    assert {m: found[m].accuracy.value for m in EXPECTED} == pytest.approx(EXPECTED)
    assert found["NAD-kNN"].problems == 3


def test_interval_of_three_problems():
    # Right in two of three: P(mean 0) = 1/27 and P(mean 1) = 8/27, both above 2.5 %.
    accuracy = cells(table_1([hand_digest()]), "planted")["NAD-kNN"].accuracy
    assert (accuracy.low, accuracy.high) == (0, 1)


def test_table_2_counts_tokens_as_the_paper():
    found = cells(table_2([hand_digest()]), "planted")
    assert found["Avg@4"].tokens == 3 * 4 * 64 and found["Avg@4"].change is None
    # Each problem: four prefixes of 32 and the 32 other tokens of the winner.
    assert found["NAD-kNN"].tokens == 3 * (4 * 32 + 32)
    assert found["NAD-kNN"].change == pytest.approx(480 / 768 - 1)
    assert "Cons@4" not in found


def test_average_is_over_tasks_and_only_where_the_method_applies():
    code = digest(planted_run([planted_problem("p", [replace(MANY, answer=None)] * 2)] * 2, "humaneval"))
    found = cells(table_1([hand_digest(), code]), "Avg.")
    assert found["Avg@4"] is not None
    both = named(hand_run("humaneval"), "planted", votes=False)
    table = table_1([hand_digest("gsm8k"), digest(both)])
    assert cells(table, "HumanEval")["Cons@4"] is None and cells(table, "Avg.")["Cons@4"] is None
    assert cells(table, "Avg.")["NAD-kNN"].accuracy.value == pytest.approx(2 / 3)


def test_code_goes_to_table_3_and_aime_is_pooled():
    runs = [hand_digest("aime24", THINKING), hand_digest("aime25", THINKING), hand_digest("mbpp", THINKING)]
    assert table_1(runs).columns == ("AIME24+25", "MBPP", "Avg.")
    assert table_2(runs).columns == ("AIME24+25", "Avg.") and table_3(runs).columns == ("MBPP", "Avg.")
    assert cells(table_1(runs), "AIME24+25")["NAD-kNN"].problems == 6


def test_published_values_stand_beside_ours():
    runs = [hand_digest("aime24", THINKING), hand_digest("aime25", THINKING)]
    table = table_2(runs)
    paper = cells(table, "AIME24+25")["NAD-kNN"].paper
    assert (paper.accuracy, paper.tokens, paper.change) == (80.0, 1.3, -97.6)
    assert "AIME24+25: ours are 6 problems, the paper's are 60." in table.notes
    assert cells(table, "Avg.")["NAD-kNN"].paper is None, "our average is over other tasks"
    assert cells(table_1([hand_digest("aime24", THINKING)]), "aime24")["NAD-kNN"].paper is None
    assert "66.7 [33.3, 100.0], 960 (-37.5 %); paper 80.0, 1.3 M (-97.6 %)" in as_markdown(table)


@pytest.mark.parametrize(("number", "columns"), [(1, SCIENCE + CODE), (2, SCIENCE), (3, CODE)])
def test_published_averages_are_those_of_their_rows(number, columns):
    """Typing errors would show here; the paper's own rounding is off by 0.07 at most."""
    rows = {key[:2] for key in TABLES[number] if key[2] == "Avg."}
    assert len(rows) == 15
    for model, method in rows:
        values = [TABLES[number][model, method, column].accuracy for column in columns]
        assert np.mean(values) == pytest.approx(TABLES[number][model, method, "Avg."].accuracy, abs=0.07)


def test_published_changes_follow_from_the_published_tokens():
    for number in (2, 3):
        for (model, _, column), cell in TABLES[number].items():
            if cell.change is not None:
                full = TABLES[number][model, "avg", column].tokens
                assert 100 * (cell.tokens / full - 1) == pytest.approx(cell.change, abs=100 * 0.05 / full + 0.06)


def test_published_knows_only_the_papers_models():
    assert published(1, "/models/DeepSeek-R1-0528-Qwen3-8B/", "cons", "GPQA").accuracy == 62.6
    assert published(1, "planted", "cons", "GPQA") is None
    assert set(PROBLEMS) == set(COLUMNS)


def test_runs_with_other_settings_make_other_rows():
    other = digest(named(hand_run(), "planted", params=replace(hand_run().manifest.params, seed=5)))
    labels = {row.model for row in table_1([hand_digest(), other]).rows}
    assert labels == {"planted (seed 0)", "planted (seed 5)"}
    assert {row.model for row in table_1([hand_digest(), hand_digest()]).rows} == {"planted (run 1)", "planted (run 2)"}


def test_what_was_not_graded_is_left_out_and_said():
    run = hand_run()
    ungraded = [replace(s, correct=None) for s in run.problems[0].samples]
    run = replace(run, problems=[replace(run.problems[0], samples=tuple(ungraded)), *run.problems[1:]])
    table = table_1([digest(run)])
    cell = cells(table, "planted")["NAD-kNN"]
    assert (cell.accuracy.value, cell.problems, cell.not_graded) == (1 / 2, 2, 1)
    assert any("not graded" in note for note in table.notes)


def test_missing_tables_say_how_to_record_them():
    one = planted_run([planted_problem("p", [MANY])])
    stopped = named(hand_run(), "planted", stop_at="32")
    for run, said in (
        (without(hand_run(), grades=True), "no sample is graded"),
        (one, "nad eval -n 64"),
        (stopped, "--stop-at none"),
    ):
        tables, missing = all_tables([digest(run)])
        assert tables == [] and len(missing) == 3
        assert said in missing[0] and "\n" not in missing[0]
    tables, missing = all_tables([hand_digest(), digest(one)])
    assert [t.number for t in tables] == [1, 2] and missing[0].startswith("Table 3: no run of a code task")
    assert any("Left out" in note for note in tables[0].notes)


def test_one_problem_has_no_interval():
    table = table_1([digest(planted_run([hand_run().problems[0]]))])
    assert np.isnan(cells(table, "planted")["NAD-kNN"].accuracy.low)
    assert "| 100.0 |" in as_markdown(table) and '"low": null' in as_json(table)


def test_formats_hold_the_same_numbers():
    table = table_2([hand_digest()])
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    values = json.loads(as_json(table))["cells"]
    assert len(rows) == len(values) == 2 * 8
    assert [float(r["accuracy"]) for r in rows] == [v["accuracy"] for v in values]
    assert rows[2]["tokens"] == "480" and rows[2]["method"] == "NAD-kNN"
    assert set(FORMATS) == {"md", "csv", "tex", "json"}


def test_untrusted_names_are_escaped():
    table = table_1([hand_digest(task="a|b", model="50%_#{x}")])
    assert "a\\|b" in as_markdown(table)
    assert r"50\%\_\#\{x\}" in as_latex(table) and as_latex(table).count(r"\midrule") == 1


def test_majority_needs_a_single_most_frequent_answer():
    assert [p.outcome("cons").value for p in hand_digest().problems] == [1, 0, 0]
