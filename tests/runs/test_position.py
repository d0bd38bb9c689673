"""Which position's neurons a run holds stands in its manifest: older runs, runs that go on, runs that are replayed."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from planted import PlantedEngine, PlantedTask
from sampled import sampled
from tiny import tiny_engine

from nad.engines import load_engine
from nad.errors import UsageError
from nad.neurons.activation import ActivationRule
from nad.runs import store
from nad.runs.evaluate import evaluate
from nad.runs.parquet import pack
from nad.runs.sampling import Settings
from nad.runs.store import open_run
from nad.stopping import At
from nad.tasks import Problem
from nad.types import SamplingParams

SETTINGS = Settings(n=3, params=SamplingParams(max_tokens=64))
OWN = ActivationRule(position="own")


class Anything(PlantedTask):
    def answer(self, problem: Problem, text: str) -> str:
        return text[:1]

    def grade(self, problem: Problem, text: str) -> bool:
        return len(text) % 2 == 0


def test_a_run_recorded_before_there_was_a_choice_is_one_of_emitting_positions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, file = str(tmp_path / "run"), tmp_path / "run" / "manifest.json"
    with monkeypatch.context() as older:
        older.setattr(store, "pack", lambda record, settings: pack(record, _before(settings)))
        evaluate(PlantedEngine(), PlantedTask(size=1), path, replace(SETTINGS, limit=1))
    document = json.loads(file.read_text())
    assert document["manifest"]["rule"].pop("position") == "emitting"
    file.write_text(json.dumps(document))
    assert open_run(path).manifest.rule == ActivationRule()
    assert len(list(open_run(path))) == 1
    grown = evaluate(PlantedEngine(), PlantedTask(size=2), path, replace(SETTINGS, limit=2), resume=True)
    assert len(grown) == 2
    assert not (tmp_path / "run" / "set-aside").exists()


def _before(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What parts said before there was a choice."""
    return {**settings, "rule": {key: value for key, value in settings["rule"].items() if key != "position"}}


@pytest.mark.parametrize(("had", "now"), [("emitting", "own"), ("own", "emitting")], ids=["to-own", "to-emitting"])
def test_a_run_does_not_go_on_at_another_position(had: str, now: str, tmp_path: Path) -> None:
    settings = [replace(SETTINGS, rule=ActivationRule(position=p)) for p in (had, now)]  # type: ignore[arg-type]
    evaluate(PlantedEngine(), PlantedTask(size=1), str(tmp_path / "run"), settings[0])
    with pytest.raises(UsageError, match=f"rule.position '{had}', now '{now}'"):
        evaluate(PlantedEngine(), PlantedTask(size=1), str(tmp_path / "run"), settings[1], resume=True)


def test_a_replay_gives_what_sampling_to_that_stop_would_have(tmp_path: Path) -> None:
    engine, path = tiny_engine("llama", torch.float64, eos=[256, *range(40, 70)]), f"memory://{tmp_path.name}/run"
    settings = Settings(n=6, params=SamplingParams(max_tokens=12), rule=replace(OWN, k=30, per_layer=16))
    recorded = list(evaluate(engine, Anything(size=2), path, settings))
    replay = load_engine(path, "replay")
    for record in recorded:
        params = replace(settings.params, seed=record.seed)
        live, again = (sampled(e, record.prompt_tokens, 6, params, At(5), settings.rule) for e in (engine, replay))
        assert live.computed_tokens == again.computed_tokens
        for one, other in zip(live.completions, again.completions, strict=True):
            assert (one.tokens, one.finish_reason) == (other.tokens, other.finish_reason)
            assert one.activations.neuron.tolist() == other.activations.neuron.tolist()
            assert one.activations.first_token.tolist() == other.activations.first_token.tolist()
    with pytest.raises(UsageError, match=r"recorded with activation ActivationRule\(.*position='own'"):
        sampled(replay, record.prompt_tokens, 6, params, At(5), replace(settings.rule, position="emitting"))
