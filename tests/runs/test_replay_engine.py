"""A recorded run as an engine: it gives back what was recorded, and nothing else."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from planted import END, PlantedEngine, PlantedTask, manifest, record, sample
from sampled import sampled

from nad.decoding import Finished, Request, Selected, Text, stream
from nad.engines import load_engine
from nad.errors import UsageError
from nad.runs.evaluate import Settings, evaluate
from nad.runs.records import MemoryRun
from nad.runs.replay_engine import ReplayEngine
from nad.runs.store import RunStore
from nad.selection.agreement import MinAct
from nad.stopping import At, Never
from nad.types import SamplingParams

PARAMS = SamplingParams(max_tokens=64)
RUN = MemoryRun(
    manifest(n=2),
    [record("p0", [sample(0, [4, 2, 7, END], {1: 0, 5: 2}), sample(1, [4, 3, END], {2: 1})])],
)


def test_a_prompt_is_named_by_its_text_or_its_problem() -> None:
    engine = ReplayEngine(RUN)
    assert engine.encode("What is p0?") == engine.encode("p0") == (5, 6, 2)
    assert engine.eos == {END}
    with pytest.raises(UsageError, match="no such prompt"):
        engine.encode("What is p1?")


def test_samples_are_cut_where_the_stop_says() -> None:
    group = sampled(ReplayEngine(RUN), (5, 6, 2), 2, PARAMS, At(2), RUN.manifest.rule, signals=True)
    first, second = group.completions
    assert (first.tokens, first.text, first.finish_reason) == ((4, 2), "4 2", None)
    assert (second.tokens, second.text) == ((4, 3), "4 3")
    assert first.activations.neuron.tolist() == [1]
    assert second.activations.neuron.tolist() == [2]
    assert first.signals is not None and len(first.signals.logprob) == 2
    assert group.computed_tokens == 3  # the first token is shared


def test_full_samples_are_the_recorded_ones() -> None:
    group = sampled(ReplayEngine(RUN), (5, 6, 2), 2, PARAMS, Never(), RUN.manifest.rule)
    for replayed, recorded in zip(group.completions, RUN.problems[0].samples, strict=True):
        assert replayed == replace(recorded.completion, signals=None)


def test_decoding_goes_on_with_the_winner() -> None:
    events = list(stream(ReplayEngine(RUN), Request("p0", 2, At(2), MinAct(), PARAMS)))
    assert isinstance(events[-1], Finished)
    result = events[-1].result
    assert result.completion.tokens == (4, 2, 7, END)
    assert "".join(e.text for e in events if isinstance(e, Text)) == result.text == "4 2 7 0"


def test_a_run_of_prefixes_has_no_ends_to_write() -> None:
    prefix = sample(0, [4, 2], {1: 0})
    cut = replace(prefix, completion=replace(prefix.completion, finish_reason=None))
    engine = ReplayEngine(MemoryRun(manifest(n=1, stop_at="2"), [record("p0", [cut])]))
    events = stream(engine, Request("p0", 1, At(2), MinAct(), PARAMS))
    assert any(isinstance(next(events), Selected) for _ in range(3))
    with pytest.raises(UsageError, match="recorded with --stop-at 2: it does not hold the answers' ends"):
        list(events)


@pytest.mark.parametrize(
    ("params", "n", "message"),
    [
        (replace(PARAMS, temperature=1.0), 2, r"recorded with temperature 0\.6, not 1\.0"),
        (replace(PARAMS, max_tokens=9), 2, "recorded with max_tokens 64, not 9"),
        (replace(PARAMS, seed=3), 2, "recorded with seed 0, not 3"),
        (PARAMS, 3, "has 2 samples a problem, not 3"),
    ],
)
def test_what_was_not_recorded_is_refused(params: SamplingParams, n: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sampled(ReplayEngine(RUN), (5, 6, 2), n, params, Never(), None)


def test_new_texts_cannot_be_read() -> None:
    engine = ReplayEngine(RUN)
    assert engine.score((5, 6, 2), (4, 3, END), RUN.manifest.rule).activations.neuron.tolist() == [2]
    with pytest.raises(UsageError, match="cannot read new texts"):
        engine.score((5, 6, 2), (4, 4), RUN.manifest.rule)
    with pytest.raises(UsageError, match="no tokenizer"):
        engine.decode([9, 9])


def test_a_replayed_run_can_be_recorded_again(tmp_path: Path) -> None:
    path = str(tmp_path / "run")
    settings = Settings(n=3, params=PARAMS)
    evaluate(PlantedEngine(), PlantedTask(size=2), path, settings)
    engine = load_engine(path, "replay")
    again = evaluate(engine, PlantedTask(size=2), f"memory://{tmp_path.name}/again", settings)
    for mine, theirs in zip(again, RunStore.open(path), strict=True):
        assert [s.completion.tokens for s in mine.samples] == [s.completion.tokens for s in theirs.samples]
        assert [s.correct for s in mine.samples] == [s.correct for s in theirs.samples]


PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "read-a-run.md"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", ["pandas", "polars", "duckdb", "nad"])
def test_the_examples_of_the_docs_run(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(library)
    (code,) = [
        c for c in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if library in c.split("\n")[0]
    ]
    store = RunStore.create(str(tmp_path / "runs" / "try"), manifest(n=2), ["p0"])
    store.write(
        0,
        record("p0", [sample(0, [4, *[2] * 40, END], {1: 0, 5: 40}, True, "4"), sample(1, [4, END], {}, False, "5")]),
    )
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    assert capsys.readouterr().out
    if library == "pandas":
        assert names["run"]["activated"].tolist() == [2, 0]  # type: ignore[index]
    if library == "polars":
        assert names["at_32"].collect()["activated"].to_list() == [1, 0]  # type: ignore[attr-defined]
    if library == "duckdb":
        votes = {row[:4] for row in names["votes"].fetchall()}  # type: ignore[attr-defined]
        assert votes == {("p0", "4", 1, True), ("p0", "5", 1, False)}
