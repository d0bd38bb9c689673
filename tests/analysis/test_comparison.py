"""The table of `nad select`, on a run small enough to do by hand."""

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from planted import manifest, record, sample

from nad.analysis.comparison import Comparison, ComparisonRow, parse_stops, reselect
from nad.cli.main import main
from nad.errors import UsageError
from nad.runs.records import MemoryRun
from nad.runs.store import RunStore
from nad.selection import default_selectors, parse_selector
from nad.stopping import parse_stop, stop_position

RUN = MemoryRun(
    manifest(),
    [
        # the two that agree are right; the shortest is wrong
        record(
            "a",
            [
                sample(0, [1, 2, 3, 0], {1: 0, 2: 0, 3: 1}, True, "4", 3.0),
                sample(1, [1, 5, 3, 0], {1: 0, 2: 1, 3: 1, 4: 2}, True, "4", 1.0),
                sample(2, [6, 0], {8: 0, 9: 1}, False, "7", 2.0),
            ],
        ),
        # the two that agree are wrong
        record(
            "b",
            [
                sample(0, [1, 2, 0], {1: 0, 2: 0, 3: 1}, False, "1", 1.0),
                sample(1, [1, 2, 2, 0], {1: 0, 2: 0, 3: 1}, False, "1", 2.0),
                sample(2, [7, 8, 9, 7, 0], {50: 0}, True, "9", 3.0),
            ],
        ),
    ],
)


def table(specs: list[str], at: str = "none", run: MemoryRun = RUN) -> Comparison:
    return reselect(run, [parse_selector(spec) for spec in specs], parse_stops(at))


def row(comparison: Comparison, method: str, stop: str = "none") -> ComparisonRow:
    (found,) = [r for r in comparison.rows if (r.method, r.stop) == (method, stop)]
    return found


def test_accuracies_and_differences_by_hand() -> None:
    found = table(["knn:k=1", "minact", "cons", "shortest", "longest", "deepconf"])
    accuracies = {r.method: r.accuracy for r in found.rows}
    expected = {"avg": 0.5, "pass": 1.0, "knn:k=1": 0.5, "minact": 0.5, "cons": 0.5, "shortest": 0.0, "longest": 1.0}
    assert {name: accuracies[name] for name in expected} == pytest.approx(expected)
    assert accuracies["deepconf"] == 1.0
    assert row(found, "longest").difference == pytest.approx(0.5)  # 1 - 2/3 and 1 - 1/3
    assert row(found, "avg").difference == 0


def test_tokens_as_the_paper_counts_them() -> None:
    """At position 1: 3 + 3 prefixes of one token, then the winners' rest; full answers are 10 + 12 tokens."""
    found = table(["first", "longest"], "1,none")
    first = row(found, "first", "1")
    assert first.sampled_tokens == (3 + 3) + (3 + 2)
    assert first.saved == pytest.approx(1 - first.sampled_tokens / 22)
    assert first.computed_tokens == (2 + 3) + (2 + 2)  # two of the three first tokens are equal in both problems
    assert (first.distinct, first.position) == (2, 1)
    assert row(found, "first").sampled_tokens == 22
    assert row(found, "first").computed_tokens == (4 + 3 + 2) + (3 + 2 + 5)
    assert row(found, "avg").sampled_tokens == 22


def test_the_choice_at_a_position_sees_the_prefix_alone() -> None:
    """Neurons of problem b at position 1: {1, 2}, {1, 2}, {50}; of a: {1, 2}, {1}, {8}."""
    found = table(["minact"], "1")
    assert row(found, "minact", "1").accuracy == 1.0  # a: sample 1 before 2, ties to the first; b: sample 2


def test_auroc_within_problems_by_hand() -> None:
    """minact on full answers: a: -3, -4 against -2; b: -1 against -3, -3."""
    found = row(table(["minact"]), "minact")
    assert found.auroc == pytest.approx((0.0 + 1.0) / 2)
    assert found.auroc_problems == 2


def test_a_tied_vote_fails_and_a_choice_without_a_grade_is_left_out() -> None:
    tied = record("c", [sample(0, [1, 0], {1: 0}, True, "1"), sample(1, [2, 0], {2: 0}, None, "2")])
    run = MemoryRun(manifest(n=2), [tied])
    found = table(["cons", "first", "longest:"], run=run)
    assert row(found, "cons").accuracy == 0
    assert row(found, "first").accuracy == 1
    one = replace(tied, samples=(tied.samples[1], tied.samples[0]))
    found = table(["first"], run=MemoryRun(manifest(n=2), [one]))
    first = row(found, "first")
    assert (first.accuracy, first.problems, first.not_graded, found.not_graded) == (None, 0, 1, 1)
    assert row(found, "avg").accuracy == 1.0  # over graded samples


def test_what_needs_full_answers_does_not_apply_before() -> None:
    found = table(["cons", "shortest", "knn"], "2,budget:99,none")
    for stop in ("2", "budget:tokens=99"):
        assert row(found, "cons", stop).accuracy is None
        assert row(found, "cons", stop).note == "needs full answers: the stop none"
    assert row(found, "cons").note == ""


def test_recorded_peaks_weigh_full_answers_alone() -> None:
    """Neurons of problem a have peaks 0.5, 1.5, ... by their order; {1, 2, 3} and {1, 2, 3, 4} share all but 3.5."""
    found = table(["medoid:weight=peak", "knn:k=1,weight=peak", "knn@tokens:k=1"], "2,none")
    assert row(found, "medoid:weight=peak", "2").note == "recorded peaks are those of full answers: the stop none"
    assert row(found, "medoid:weight=peak", "2").sampled_tokens == 0
    assert row(found, "knn:k=1,weight=peak").accuracy == 0.5
    assert row(found, "knn@tokens:k=1", "2").note == ""


def test_votes_on_programs_do_not_apply() -> None:
    run = MemoryRun(manifest(votes=False), RUN.problems)
    assert row(table(["cons"], run=run), "cons").note.startswith("the task's answers cannot be compared")


def test_length_matched_pairs_by_hand() -> None:
    """On full answers no right and wrong sample of one problem are within 10 %; at position 2 all are."""
    found = table(["minact"], "2,none")
    at_two, full = found.length_matched
    assert (full.pairs, full.minact) == (0, None)
    assert (at_two.pairs, at_two.problems) == (4, 2)
    # a: 3, 3 neurons against 2; b: 1 against 3 and 3
    assert (at_two.minact, at_two.shortest) == (0.5, 0.5)


def test_a_run_of_prefixes_is_refused() -> None:
    with pytest.raises(UsageError, match="recorded with --stop-at 32"):
        table(["knn"], run=MemoryRun(manifest(stop_at="32"), RUN.problems))


def test_stop_positions() -> None:
    tokens = [[1, 2, 3, 0], [1, 5, 3, 0], [6, 0]]
    assert [stop_position(parse_stop(s), tokens) for s in ("2", "9", "none")] == [2, 4, 4]
    assert stop_position(parse_stop("distinct"), tokens) == 2
    assert stop_position(parse_stop("distinct:1"), tokens) == 1
    assert [stop_position(parse_stop(f"budget:{b}"), tokens) for b in (1, 2, 3, 5, 6, 99)] == [1, 1, 2, 2, 3, 4]


def test_the_paired_difference_is_narrower_than_the_accuracy() -> None:
    """Problems differ, the method is right wherever the mean is high: its difference hardly varies."""
    problems = [
        record(f"p{i}", [sample(0, [1, 0], {1: 0}, i % 2 == 0), sample(1, [2, 0], {2: 0}, i % 2 == 0)])
        for i in range(40)
    ]
    first = row(table(["first"], run=MemoryRun(manifest(n=2), problems)), "first")
    assert (first.difference_low, first.difference_high) == (0, 0)
    assert first.low < 0.4 and first.high > 0.6  # type: ignore[operator]


@pytest.fixture
def stored(tmp_path: Path) -> str:
    path = str(tmp_path / "run")
    store = RunStore.create(path, manifest(), ["a", "b", "c"][:2])
    for index, problem in enumerate(RUN.problems):
        store.write(index, problem)
    return path


def test_the_command_prints_the_table_of_the_run(stored: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", stored, "--at", "1,none", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    expected = reselect(RUN, default_selectors(), parse_stops("1,none"))
    assert [r["accuracy"] for r in document["rows"]] == [r.accuracy for r in expected.rows]
    assert main(["select", stored, "--at", "1,none", "--csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(lines) == len(expected.rows)
    assert {line["stop"] for line in lines} == {"1", "none"}


def test_the_table_for_people(stored: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", stored, "--at", "1,none", "--selector", "knn", "--selector", "cons"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "planted, planted, 2 problems x 3 samples"
    assert "not applicable, needs full answers: the stop none: cons at 1" in out
    # a: 2, 1 neurons against 1; b: 1 against 2 and 2
    assert "stop 1: AUROC minact 0.625, shortest 0.500 (4 pairs in 2 problems)" in out
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--at", "soon"], 2),
        (["--at", ","], 2),
        (["--selector", "best"], 2),
        (["--json", "--csv"], 2),
    ],
)
def test_wrong_calls_are_one_line(
    stored: str, arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["select", stored, *arguments]) == code
    assert capsys.readouterr().err.startswith("nad: error: ")


def test_an_unfinished_run_needs_partial(stored: str, capsys: pytest.CaptureFixture[str]) -> None:
    RunStore.open(stored).remove(1, "parts")
    assert main(["select", stored]) == 1
    assert "lacks 1 of 2 problems (b)" in capsys.readouterr().err
    assert main(["select", stored, "--partial", "--at", "none", "--selector", "first"]) == 0
    assert "1 of 2 problems are not there yet" in capsys.readouterr().err
    assert main(["select", stored + os.sep + "nowhere"]) == 2
