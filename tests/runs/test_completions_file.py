"""Answers from elsewhere: scored, graded and stored like sampled ones; what is wrong with the file is one line."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from planted import END, PlantedEngine, PlantedTask
from tiny import tiny_engine

from nad.errors import UsageError
from nad.neurons.activation import ActivationRule
from nad.runs.completions_file import read_completions
from nad.runs.evaluate import evaluate
from nad.runs.sampling import Settings
from nad.runs.store import open_run
from nad.stopping import At
from nad.tasks import Problem
from nad.types import SamplingParams

SETTINGS = Settings(params=SamplingParams(max_tokens=64))
TASK = PlantedTask(size=2)


def written(path: Path, *lines: object) -> str:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Two answers to each of two problems, in no order."""
    return written(
        tmp_path / "api.jsonl",
        {"problem": "p1", "completion": "3 8"},
        {"problem": "p0", "completion": "4 5", "finish_reason": "length"},
        "",
        {"problem": "p1", "completion_tokens": [2, 7, END], "completion": "is not read", "model": "left alone"},
        {"problem": "p0", "completion_tokens": [1, 6]},
    )


def test_answers_become_a_run_like_any_other(file: str, tmp_path: Path) -> None:
    path = str(tmp_path / "run")
    answers = read_completions(file, TASK, None)
    store = evaluate(PlantedEngine(), TASK, path, SETTINGS, completions=answers)
    assert store.manifest.n == 2
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    assert store.manifest.completions == {"file": "api.jsonl", "sha256": digest}
    first, second = open_run(path)
    found = [
        (s.completion.index, s.completion.tokens, s.completion.text, s.completion.finish_reason, s.answer, s.correct)
        for s in (*first.samples, *second.samples)
    ]
    assert found == [
        (0, (4, 5), "4 5", "length", "4", True),
        (1, (1, 6), "1 6 ", "length", "1", False),
        (0, (3, 8), "3 8", "stop", "3", None),
        (1, (2, 7, END), "2 7 ", "stop", "2", True),
    ]
    engine = PlantedEngine()
    assert first.samples[0].completion.activations == engine.score((), (4, 5), SETTINGS.rule).activations
    assert first.samples[0].completion.text_end == (2, 3)
    assert (first.seed, first.computed_tokens, first.prompt) == (None, 4, "question 0")


def test_scoring_goes_on_where_it_was_and_only_with_the_same_file(file: str, tmp_path: Path) -> None:
    path = f"memory://{tmp_path.name}/run"
    answers = read_completions(file, PlantedTask(size=1), 1)  # the lines of other problems are left out
    evaluate(PlantedEngine(), PlantedTask(size=1), path, replace(SETTINGS, limit=1), completions=answers)
    store = evaluate(PlantedEngine(), TASK, path, SETTINGS, resume=True, completions=read_completions(file, TASK, None))
    assert [r.problem for r in store] == ["p0", "p1"]
    with open(file, "a") as more:
        more.write("\n")
    with pytest.raises(UsageError, match=r"completions.sha256 .*, now "):
        evaluate(PlantedEngine(), TASK, path, SETTINGS, resume=True, completions=read_completions(file, TASK, None))
    with pytest.raises(UsageError, match=r"n 2, now 64|completions"):
        evaluate(PlantedEngine(), TASK, path, SETTINGS, resume=True)


class Anything(PlantedTask):
    def answer(self, problem: Problem, text: str) -> str:
        return text[:1]

    def grade(self, problem: Problem, text: str) -> bool:
        return len(text) % 2 == 0


@pytest.mark.parametrize("position", ["emitting", "own"])
def test_a_models_own_answers_scored_are_those_it_sampled(position: Any, tmp_path: Path) -> None:
    engine, task, rule = tiny_engine("llama", torch.float64), Anything(size=2), ActivationRule(position=position)
    settings = Settings(n=3, params=SamplingParams(max_tokens=12, temperature=1.5), rule=rule)
    sampled = list(evaluate(engine, task, f"memory://{tmp_path.name}/sampled", settings))
    lines = [{"problem": r.problem, "completion_tokens": list(s.completion.tokens)} for r in sampled for s in r.samples]
    answers = read_completions(written(tmp_path / "own.jsonl", *lines), task, None)
    scored = list(evaluate(engine, task, f"memory://{tmp_path.name}/scored", settings, completions=answers))
    for mine, theirs in zip(scored, sampled, strict=True):
        assert (mine.prompt_tokens, mine.computed_tokens) == (theirs.prompt_tokens, theirs.computed_tokens)
        for a, b in zip(mine.samples, theirs.samples, strict=True):
            assert (a.answer, a.correct, a.completion.text) == (b.answer, b.correct, b.completion.text)
            assert a.completion.activations == b.completion.activations
            assert a.completion.signals is not None and b.completion.signals is not None
            assert a.completion.signals.logprob == pytest.approx(b.completion.signals.logprob, abs=1e-6)


GOOD = {"problem": "p0", "completion": "4"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([GOOD, "{"], "line 2 is not JSON"),
        ([GOOD, "[" * 100_000], "line 2 cannot be read as JSON"),
        (["9" * 5000], "line 1 cannot be read as JSON|line 1 must be"),
        ([[]], "line 1 must be"),
        ([GOOD, {"problem": "p1"}], "line 2 must be"),
        ([{"problem": 3, "completion": "x"}], "line 1 must be"),
        ([{"problem": "p0", "completion": ["x"]}], "line 1 must be"),
        ([{"problem": "p0", "completion_tokens": [1, "2"]}], "line 1: completion_tokens must be a list of token ids"),
        ([{"problem": "p0", "completion_tokens": [-1]}], "line 1: completion_tokens must be"),
        ([{"problem": "p0", "completion_tokens": [True]}], "line 1: completion_tokens must be"),
        ([{**GOOD, "finish_reason": "eos"}], 'line 1: finish_reason must be "stop" or "length", not "eos"'),
        ([GOOD, {"problem": "p1", "completion": ""}], "line 2: the answer is empty"),
        ([GOOD, {"problem": "p7", "completion": "x"}], "line 2: planted has no problem 'p7'; it has p0, p1"),
        ([GOOD], "has 1 answers to 'p0' and 0 to 'p1'; each problem needs as many"),
        ([], "has no answer to any of the 2 problems"),
    ],
)
def test_what_is_wrong_with_the_file_is_one_line(lines: list[object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_completions(written(tmp_path / "bad.jsonl", *lines), TASK, None)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_no_file_and_no_text_are_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        read_completions(str(tmp_path / "none"), TASK, None)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        read_completions(str(tmp_path / "bytes"), TASK, None)


def test_a_token_the_model_does_not_have_is_named_by_its_line(tmp_path: Path) -> None:
    lines = [{"problem": "p0", "completion": "fine"}, {"problem": "p0", "completion_tokens": [99_999]}]
    answers = read_completions(written(tmp_path / "a.jsonl", *lines), Anything(size=1), None)
    with pytest.raises(UsageError, match="line 2: no token 99999"):
        evaluate(tiny_engine("llama"), Anything(size=1), f"memory://{tmp_path.name}/x", SETTINGS, completions=answers)


def test_whole_answers_have_no_stop_position(file: str, tmp_path: Path) -> None:
    settings = replace(SETTINGS, stop=At(3))
    with pytest.raises(UsageError, match="drop --stop-at"):
        evaluate(PlantedEngine(), TASK, str(tmp_path / "x"), settings, completions=read_completions(file, TASK, None))
