"""Schedules followed on recorded answers equal the same schedules followed while sampling."""

import pytest
from planted import manifest, record, sample

from nad.analysis.comparison import parse_stops, reselect
from nad.analysis.outcomes import Sheet
from nad.decoding import Finished, Request, stream
from nad.runs.records import MemoryRun, ProblemRecord
from nad.runs.replay_engine import ReplayEngine
from nad.selection import parse_selector
from nad.stopping import parse_prune, parse_stop, stop_label
from nad.types import SamplingParams


def tokens(first: int, length: int) -> list[int]:
    return [1, 2, *range(first, first + length - 3), 0]


def answers() -> ProblemRecord:
    """Five answers that begin alike; the first three share neurons, more of them the later."""
    lengths = (20, 24, 30, 28, 26)
    samples = []
    for i, length in enumerate(lengths):
        cluster = 0 if i < 3 else i
        neurons = {100 * cluster + t: t for t in range(length)} | {1000 + 100 * i + t: t for t in range(3, length, 2)}
        samples.append(sample(i, tokens(100 * (i + 1), length), neurons, i < 3, str(cluster)))
    return record("p", samples)


RECORD = answers()
RUN = MemoryRun(manifest(n=5, layers=1, neurons=2000), [RECORD])


@pytest.mark.parametrize("spec", ["5:4,3:10,2:20", "5:4,2:64", "auto", "auto:tokens=90", "auto:window=1,distinct=0.2"])
@pytest.mark.parametrize("selector", ["medoid", "knn@tokens"])
def test_a_record_gives_what_sampling_gave(spec: str, selector: str) -> None:
    rule, chooser = parse_stop(spec), parse_selector(selector)
    outcome = Sheet(RECORD, RUN.manifest, {spec: rule}).outcomes({selector: chooser}, [spec])[selector, spec]
    request = Request("p", 5, rule, chooser, SamplingParams(max_tokens=64, seed=7))
    *_, finished = stream(ReplayEngine(RUN), request)
    assert isinstance(finished, Finished)
    result = finished.result
    assert outcome.index == result.selected
    assert outcome.position == result.group.position
    assert outcome.computed == result.group.computed_tokens + result.continued_tokens
    assert outcome.sampled == result.group.sampled_tokens + result.continued_tokens


def test_the_table_has_schedules_beside_stops() -> None:
    prune = parse_prune("5:4,2:20")
    stops = parse_stops("auto,none") | {stop_label(prune): prune}
    rows = {row.stop: row for row in reselect(RUN, [parse_selector("medoid")], stops).rows if row.method == "medoid"}
    # 4 positions of 5 samples, the first 2 tokens shared, then 16 more tokens of 2; the winner goes on to its end
    winner = Sheet(RECORD, RUN.manifest, stops).outcomes({"m": parse_selector("medoid")}, ["5:4,2:20"])["m", "5:4,2:20"]
    assert winner.index is not None
    rest = len(RECORD.samples[winner.index].completion.tokens) - 20
    assert rows["5:4,2:20"].computed_tokens == 2 + 5 * 2 + 2 * 16 + rest
    assert rows["5:4,2:20"].sampled_tokens == 5 * 4 + 2 * 16 + rest
    assert rows["none"].accuracy == 1.0


def test_a_pruning_of_another_number_of_samples_does_not_apply() -> None:
    prune = parse_prune("4:4,2:20")
    (row,) = [
        row
        for row in reselect(RUN, [parse_selector("medoid")], {stop_label(prune): prune}).rows
        if row.method == "medoid"
    ]
    assert row.accuracy is None
    assert row.note == "begins with 4 samples; the run has 5"
