"""Runs that grow: more problems, more samples of each; the result is the run that was larger from the start."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from planted import PlantedEngine, PlantedTask
from tiny import tiny_engine

from nad.engines import load_engine
from nad.engines.base import Engine
from nad.errors import NadError, UsageError
from nad.runs.evaluate import evaluate
from nad.runs.records import ProblemRecord
from nad.runs.sampling import Settings, problem_seed
from nad.runs.store import PARTS, PENDING, open_run
from nad.stopping import At, Budget
from nad.tasks import Problem
from nad.types import SamplingParams

SETTINGS = Settings(n=3, params=SamplingParams(max_tokens=64))


def timeless(records: Sequence[ProblemRecord]) -> list[ProblemRecord]:
    """Everything but the seconds and the signals, which are compared apart: they are not compared by value."""
    return [
        replace(
            r,
            samples=tuple(replace(s, seconds=0.0, completion=replace(s.completion, signals=None)) for s in r.samples),
        )
        for r in records
    ]


def signals(records: Sequence[ProblemRecord]) -> list[list[float]]:
    return [
        [*s.completion.signals.logprob, *s.completion.signals.entropy, *s.completion.signals.chunk_neurons]
        for r in records
        for s in r.samples
        if s.completion.signals is not None
    ]


@pytest.fixture(params=["folder", "memory"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "folder" else f"memory://{tmp_path.name}/run"


def test_more_problems_are_added_to_those_that_are_there(address: str, tmp_path: Path) -> None:
    evaluate(PlantedEngine(), PlantedTask(size=3), address, replace(SETTINGS, limit=3))
    with pytest.raises(UsageError, match="exists; continue a run with --resume"):
        evaluate(PlantedEngine(), PlantedTask(size=5), address, replace(SETTINGS, limit=5))
    engine = PlantedEngine()
    grown = evaluate(engine, PlantedTask(size=5), address, replace(SETTINGS, limit=5), resume=True)
    assert engine.asked == [problem_seed(0, "p3"), problem_seed(0, "p4")]
    whole = evaluate(PlantedEngine(), PlantedTask(size=5), f"{address}-whole", replace(SETTINGS, limit=5))
    assert timeless(list(grown)) == timeless(list(whole))
    assert (grown.problems, grown.digests, grown.manifest.settings) == (
        whole.problems,
        whole.digests,
        whole.manifest.settings,
    )
    assert (grown.manifest.limit, grown.manifest.data_sha256) == (5, whole.manifest.data_sha256)
    for size, message in ((4, r"5 problems \(limit 5\), now 4 \(limit 4\)"), (9, "problem 0 'p0', which now asks")):
        task = PlantedTask(size=size, golds="x" if size == 9 else "")
        with pytest.raises(UsageError, match=message):
            evaluate(PlantedEngine(), task, address, replace(SETTINGS, limit=size), resume=True)


def test_more_samples_are_added_to_those_that_are_there(address: str) -> None:
    evaluate(PlantedEngine(), PlantedTask(), address, SETTINGS)
    engine = PlantedEngine()
    grown = evaluate(engine, PlantedTask(), address, replace(SETTINGS, n=5), resume=True)
    assert engine.drawn == [3, 4] * 4
    whole = evaluate(PlantedEngine(), PlantedTask(), f"{address}-whole", replace(SETTINGS, n=5))
    assert timeless(list(grown)) == timeless(list(whole))
    assert grown.manifest.n == 5 and not grown.damaged() and not grown.pending()


def test_a_growth_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    """p0 is grown when the model breaks at p1: until the rest is done the run lacks problems, and reads as partial."""
    path = str(tmp_path / "run")
    evaluate(PlantedEngine(), PlantedTask(), path, SETTINGS)
    larger = replace(SETTINGS, n=5)
    with pytest.raises(NadError, match="the model broke"):
        evaluate(PlantedEngine(fails=("question 1",)), PlantedTask(), path, larger, resume=True)
    with pytest.raises(NadError, match="lacks"):
        open_run(path)
    assert len(list((tmp_path / "run" / PARTS).iterdir())) + len(list((tmp_path / "run" / PENDING).iterdir())) >= 4
    with pytest.raises(UsageError, match="n 5, now 3"):
        evaluate(PlantedEngine(), PlantedTask(), path, SETTINGS, resume=True)
    grown = evaluate(PlantedEngine(), PlantedTask(), path, larger, resume=True)
    whole = evaluate(PlantedEngine(), PlantedTask(), f"{path}-whole", larger)
    assert timeless(list(grown)) == timeless(list(whole))
    assert not (tmp_path / "run" / "set-aside").exists()
    assert len(list((tmp_path / "run" / PARTS).iterdir())) == 4


def test_samples_that_stop_together_cannot_grow(tmp_path: Path) -> None:
    path = f"memory://{tmp_path.name}/run"
    together = replace(SETTINGS, stop=Budget())
    evaluate(PlantedEngine(), PlantedTask(), path, together)
    with pytest.raises(UsageError, match="n 3, now 5"):
        evaluate(PlantedEngine(), PlantedTask(), path, replace(together, n=5), resume=True)


class Anything(PlantedTask):
    def answer(self, problem: Problem, text: str) -> str:
        return text[:1]

    def grade(self, problem: Problem, text: str) -> bool:
        return len(text) % 2 == 0


@pytest.mark.parametrize("stop", [None, At(4)])
def test_a_real_model_draws_the_samples_that_are_missing_alone(stop: At | None, tmp_path: Path) -> None:
    """In float64 the logits do not depend on the rows of the batch, so everything is equal, bit for bit."""
    engine, path = tiny_engine("llama", torch.float64), f"memory://{tmp_path.name}/run"
    settings = Settings(n=3, params=SamplingParams(max_tokens=12, temperature=1.5))
    settings = replace(settings, stop=stop) if stop else settings
    evaluate(engine, Anything(size=2), path, settings)
    larger = replace(settings, n=8)
    grown = list(evaluate(engine, Anything(size=2), path, larger, resume=True))
    whole = list(evaluate(engine, Anything(size=2), f"{path}-whole", larger))
    assert timeless(grown) == timeless(whole)
    for mine, theirs in zip(signals(grown), signals(whole), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6)
    assert [s.completion.index for s in grown[0].samples] == list(range(8))


def test_a_replayed_run_grows_too(tmp_path: Path) -> None:
    recorded, path = str(tmp_path / "recorded"), f"memory://{tmp_path.name}/run"
    whole = evaluate(PlantedEngine(), PlantedTask(), recorded, replace(SETTINGS, n=5))
    engine: Engine = load_engine(recorded, "replay")
    evaluate(engine, PlantedTask(), path, SETTINGS)
    grown = evaluate(engine, PlantedTask(), path, replace(SETTINGS, n=5), resume=True)
    assert timeless(list(grown)) == timeless(list(whole))
