"""`nad eval` on the command line, with a recorded run in the model's place."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from planted import PlantedEngine

from nad.cli.main import main
from nad.runs.evaluate import evaluate
from nad.runs.sampling import Settings
from nad.runs.store import open_run
from nad.tasks import load_task
from nad.types import SamplingParams

SETTINGS = Settings(n=3, params=SamplingParams(max_tokens=64), limit=3)
OPTIONS = ["--task", "arithmetic_1", "--engine", "replay", "--max-tokens", "64"]


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    evaluate(PlantedEngine(), load_task("arithmetic_1", limit=3), "recorded", SETTINGS)
    return "recorded"


def test_a_run_grows_where_the_default_put_it(recorded: str, capsys: pytest.CaptureFixture[str]) -> None:
    eval_ = ["eval", *OPTIONS, "--model", recorded]
    assert main([*eval_, "--limit", "1", "-n", "2"]) == 0
    path = "runs/arithmetic_1-planted-t0.6-s0"
    assert f"{path}: 1 problems of arithmetic_1 x 2 samples" in capsys.readouterr().out
    assert main([*eval_, "--limit", "3", "-n", "3"]) == 2
    assert "exists; continue a run with --resume" in capsys.readouterr().err
    assert main([*eval_, "--limit", "3", "-n", "3", "--resume"]) == 0
    assert f"{path}: 3 problems of arithmetic_1 x 3 samples" in capsys.readouterr().out
    assert [len(r.samples) for r in open_run(path)] == [3, 3, 3]
    assert main([*eval_, "--limit", "1", "--resume"]) == 2
    assert "3 problems (limit 3), now 1 (limit 1)" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_known_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *OPTIONS, "--model", "no such run", "--out", "nowhere", "--resume"]) == 2
    assert "no run at nowhere" in capsys.readouterr().err


def test_answers_from_a_file_become_a_run(recorded: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = [(r.problem, s.completion) for r in open_run(recorded) for s in r.samples]
    lines = [json.dumps({"problem": p, "completion_tokens": list(c.tokens)}) for p, c in samples]
    file = tmp_path / "api.jsonl"
    file.write_text("\n".join(reversed(lines)))
    eval_ = ["eval", *OPTIONS, "--model", recorded, "--limit", "3", "--completions", str(file)]
    assert main([*eval_, "-n", "4"]) == 2
    assert "has 3 answers to each problem, not 4; drop -n" in capsys.readouterr().err
    assert main(eval_) == 0
    assert "runs/arithmetic_1-planted-api: 3 problems of arithmetic_1 x 3 samples" in capsys.readouterr().out
    run = list(open_run("runs/arithmetic_1-planted-api"))
    found = [
        (r.problem, replace(s.completion, index=2 - i, signals=None)) for r in run for i, s in enumerate(r.samples)
    ]
    assert sorted(found, key=lambda pair: (pair[0], pair[1].index)) == [
        (problem, replace(completion, signals=None)) for problem, completion in samples
    ]
    file.write_text("{}")
    assert main([*eval_, "--out", "x"]) == 2
    assert "line 1 must be" in capsys.readouterr().err and not Path("x").exists()
