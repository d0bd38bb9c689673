"""Recording runs: what is recorded, what a resumed run keeps and refuses, and what survives a kill."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from planted import PlantedEngine, PlantedTask, record, sample
from tiny import tiny_engine

from nad.engines import load_engine
from nad.errors import NadError, UsageError
from nad.runs.evaluate import EvalProgress, evaluate
from nad.runs.grading_process import graded
from nad.runs.sampling import Settings, problem_seed
from nad.runs.store import PARTS, PENDING, RunStore, open_run
from nad.runs.text_ends import Spans
from nad.runs.universal_self_consistency import named_response
from nad.stopping import At
from nad.tasks import Problem, load_task
from nad.types import SamplingParams

SETTINGS = Settings(n=5, params=SamplingParams(max_tokens=64))


def content(path: str) -> list[object]:
    """Grades, answers and tokens of a run."""
    return [
        (r.problem, r.seed, [(s.completion.tokens, s.completion.text, s.answer, s.correct) for s in r.samples])
        for r in open_run(path)
    ]


@pytest.fixture
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}/run"


def test_a_run_holds_what_was_sampled_and_its_grades(memory: str) -> None:
    task = PlantedTask()
    store = evaluate(PlantedEngine(), task, memory, SETTINGS)
    assert [r.problem for r in store] == ["p0", "p1", "p2", "p3"]
    for problem in store:
        for s in problem.samples:
            first = s.completion.tokens[0]
            assert s.answer == str(first)
            assert s.correct is (None if first == 3 else first % 2 == 0)
            assert s.seconds == pytest.approx(0.1)
            assert s.completion.text[: s.completion.text_end[1]] == PlantedEngine().decode(s.completion.tokens[:2])
    manifest = store.manifest
    assert (manifest.task, manifest.model, manifest.n, manifest.neurons) == ("planted", "planted", 5, 100)
    assert manifest.versions["python"] and manifest.hardware and manifest.created


def test_grading_beside_gives_what_grading_here_gives(tmp_path: Path, memory: str) -> None:
    evaluate(PlantedEngine(), PlantedTask(), memory, SETTINGS)
    store = evaluate(PlantedEngine(), PlantedTask(), str(tmp_path / "run"), SETTINGS)
    assert content(memory) == content(store.path)
    assert not list((tmp_path / "run" / PENDING).iterdir())  # all that was pending is graded


def test_problems_have_seeds_of_their_own_whatever_else_is_in_the_run(memory: str) -> None:
    engine = PlantedEngine()
    evaluate(engine, PlantedTask(size=3), memory, SETTINGS)
    assert engine.asked == [problem_seed(0, f"p{i}") for i in range(3)]
    assert len({*engine.asked, problem_seed(1, "p0")}) == 4


def test_a_text_without_an_end_is_not_graded() -> None:
    unfinished = sample(0, [4, 2], {})
    unfinished = replace(unfinished, completion=replace(unfinished.completion, finish_reason=None))
    found = graded(PlantedTask(), PlantedTask().problems()[0], record("p0", [unfinished, sample(1, [4, 2], {})]))
    assert [(s.answer, s.correct) for s in found.samples] == [(None, None), ("4", True)]


def test_a_block_the_template_opened_and_nobody_closed_has_no_answer() -> None:
    """Only the prompt shows that such a text is still thinking."""
    task = load_task("arithmetic_1", limit=1)
    (problem,) = task.problems()
    one = sample(0, [1, 2], {})
    cut = replace(one, completion=replace(one.completion, text=f"so far it is \\boxed{{{problem.answer}}}"))
    closed = replace(one, completion=replace(one.completion, text=f"yes</think> \\boxed{{{problem.answer}}}"))
    for thinking, expected in ((True, [False, True]), (False, [True, True])):
        found = graded(task, problem, record(problem.id, [cut, closed], thinking=thinking)).samples
        assert [s.correct for s in found] == expected
        assert [s.answer is not None for s in found] == expected


def test_equal_answers_are_one_vote_of_the_record() -> None:
    """The recorded answer is the first that is equal, as it is written."""
    task = load_task("arithmetic_1", limit=1)
    (problem,) = task.problems()
    texts = ["It is 0.50.", "so \\boxed{\\frac{1}{2}}", "I do not know", "\\boxed{1/3}", "\\boxed{2/4}"]
    samples = [sample(i, [1, 2], {}) for i in range(len(texts))]
    samples = [replace(s, completion=replace(s.completion, text=t)) for s, t in zip(samples, texts, strict=True)]
    found = graded(task, problem, record(problem.id, samples)).samples
    assert [s.answer for s in found] == ["0.50", "0.50", None, "1/3", "0.50"]


@pytest.mark.parametrize("opened", [True, False])
def test_an_opened_thinking_block_is_seen_in_the_prompt(opened: bool, memory: str) -> None:
    class Anything(PlantedTask):
        def answer(self, problem: Problem, text: str) -> None:
            return None

        def grade(self, problem: Problem, text: str) -> bool:
            return False

    settings = replace(SETTINGS, n=2, params=SamplingParams(max_tokens=3), template_args={"enable_thinking": opened})
    store = evaluate(tiny_engine("llama"), Anything(), memory, settings)
    assert [r.thinking for r in store] == [opened] * 4


def test_equal_texts_are_graded_once(tmp_path: Path) -> None:
    task = PlantedTask(log=str(tmp_path / "log"))
    graded(task, task.problems()[0], record("p0", [sample(i, [4, 2], {}) for i in range(3)]))
    assert (tmp_path / "log").read_text() == "p0\n"


def test_resuming_does_only_what_is_missing(memory: str) -> None:
    evaluate(PlantedEngine(), PlantedTask(), memory, SETTINGS)
    before = content(memory)
    store = RunStore.open(memory)
    store.remove(2, PARTS)
    engine = PlantedEngine()
    evaluate(engine, PlantedTask(), memory, SETTINGS, resume=True)
    assert engine.asked == [problem_seed(0, "p2")]
    assert content(memory) == before


def test_a_sampled_problem_is_graded_without_sampling_it_again(memory: str) -> None:
    evaluate(PlantedEngine(), PlantedTask(), memory, SETTINGS)
    before, store = content(memory), RunStore.open(memory)
    bare = store.read(1)
    bare = replace(bare, samples=tuple(replace(s, answer=None, correct=None) for s in bare.samples))
    store.remove(1, PARTS)
    store.write(1, bare, PENDING)
    engine = PlantedEngine()
    evaluate(engine, PlantedTask(), memory, SETTINGS, resume=True)
    assert (engine.asked, content(memory)) == ([], before)


def test_damaged_parts_are_named_and_done_again(tmp_path: Path) -> None:
    path = str(tmp_path / "run")
    evaluate(PlantedEngine(), PlantedTask(), path, SETTINGS)
    before = content(path)
    (part,) = (tmp_path / "run" / PARTS).glob("000002-*")
    part.write_bytes(part.read_bytes()[:-7])
    notes: list[str] = []
    engine = PlantedEngine()
    evaluate(engine, PlantedTask(), path, SETTINGS, resume=True, report=notes.append)
    assert len(notes) == 1 and "damaged" in notes[0] and "problem p2" in notes[0] and "moved to" in notes[0]
    assert (tmp_path / "run" / "set-aside" / PARTS / part.name).exists()
    assert (engine.asked, content(path)) == ([problem_seed(0, "p2")], before)


def test_a_run_with_other_settings_is_refused_and_the_differences_named(memory: str) -> None:
    evaluate(PlantedEngine(), PlantedTask(), memory, SETTINGS)
    other = Settings(n=4, params=SamplingParams(max_tokens=64, temperature=1.0))
    with pytest.raises(UsageError) as caught:
        evaluate(PlantedEngine(), PlantedTask(), memory, other, resume=True)
    message = str(caught.value)
    assert "n 5, now 4" in message and "params.temperature 0.6, now 1.0" in message and "max_tokens" not in message
    with pytest.raises(UsageError, match="problem 0 'p0', which now asks something else"):
        evaluate(PlantedEngine(), PlantedTask(golds="other"), memory, SETTINGS, resume=True)
    with pytest.raises(UsageError, match=r"4 problems \(limit None\), now 3 \(limit None\)"):
        evaluate(PlantedEngine(), PlantedTask(size=3), memory, SETTINGS, resume=True)
    with pytest.raises(UsageError, match="exists; continue a run with --resume"):
        evaluate(PlantedEngine(), PlantedTask(), memory, SETTINGS)


def test_a_sample_the_grader_breaks_on_is_not_graded_with_its_reason(memory: str) -> None:
    broken = evaluate(PlantedEngine(), PlantedTask(breaks=(2, 4)), memory, SETTINGS)
    samples = [s for problem in broken for s in problem.samples]
    assert {s.completion.tokens[0] for s in samples} & {1, 2, 4} == {2, 4}
    for s in samples:
        broke = s.completion.tokens[0] in (2, 4)
        assert s.not_graded == ("RuntimeError: the grader broke" if broke else None)
        assert s.answer == str(s.completion.tokens[0])  # that part of the grading worked
    engine, other = PlantedEngine(), f"{memory}-other"
    evaluate(engine, PlantedTask(), memory, SETTINGS, resume=True)  # with a grader that was mended
    evaluate(PlantedEngine(), PlantedTask(), other, SETTINGS)
    assert (engine.asked, content(memory)) == ([], content(other))


def test_a_grader_that_cannot_work_stops_the_run_and_loses_no_sample(tmp_path: Path) -> None:
    path = str(tmp_path / "run")
    with pytest.raises(NadError, match="no sandbox"):
        evaluate(PlantedEngine(), PlantedTask(size=1, stops=tuple(range(9))), path, SETTINGS)
    assert RunStore.open(path).pending() == [0]


def test_progress_counts_problems_and_tells_the_time_left(memory: str) -> None:
    seen: list[EvalProgress] = []
    evaluate(PlantedEngine(seconds=0.001), PlantedTask(size=3), memory, SETTINGS, watch=seen.append)
    done = [p for p in seen if p.position == 0]
    assert [p.done for p in done] == [1, 2, 3]
    assert [p.position for p in seen[: seen.index(done[0])]] == list(range(1, seen.index(done[0]) + 1))
    assert (seen[0].seconds_left, done[0].seconds_left) == (None, pytest.approx(2 * 0.4, rel=20))
    assert done[-1].seconds_left == 0
    assert {p.in_hand for p in seen} == {1}


def test_spans_are_where_each_token_ends() -> None:
    """Token 9 is the first half of a character, which stands only when token 10 completes it."""
    texts = {1: "ab", 2: " c", 0: ""}

    def decode(tokens: object) -> str:
        joined, pieces = list(tokens), ""  # type: ignore[call-overload]
        while joined:
            if joined[:2] == [9, 10]:
                pieces, joined = pieces + "é", joined[2:]
            else:
                pieces, joined = pieces + texts.get(joined[0], "\ufffd"), joined[1:]
        return pieces

    assert Spans(decode).ends((1, 2, 2, 0), "ab c c") == (2, 4, 6, 6)
    assert Spans(decode).ends((1, 9, 10, 2, 0), "abé c") == (2, 2, 3, 5, 5)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("The most consistent response is Response 2, since", 2),
        ("The most consistent response is **Response 0**.", 0),
        ("the most consistent response is response 5", None),
        ("Response 1 is wrong.", None),
        ("", None),
    ],
)
def test_the_response_a_model_names(reply: str, expected: int | None) -> None:
    assert named_response(reply, 5) == expected


@pytest.mark.model
def test_recording_arithmetic_with_the_default_model_and_choosing_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nad.cli.main import main

    path = str(tmp_path / "run")
    options = ["--task", "arithmetic_1", "--limit", "2", "-n", "2", "--max-tokens", "8", "--out", path]
    assert main(["eval", *options]) == 0
    assert "2 problems of arithmetic_1 x 2 samples" in capsys.readouterr().out
    assert main(["eval", *options, "--resume"]) == 0
    capsys.readouterr()
    assert main(["select", path, "--at", "4,none", "--csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("method,stop,problems")
    assert {line.split(",")[0] for line in lines[1:]} >= {"avg", "pass", "knn", "knn@tokens", "cons"}
    store = open_run(path)
    for problem in store:
        for s in problem.samples:
            signals = s.completion.signals
            assert signals is not None
            assert len(signals.logprob) == len(s.completion.tokens) == len(s.completion.text_end)
            assert s.correct is not None


class Templateless(PlantedEngine):
    """A model without a chat template; what it was asked stands in `prompts`."""

    prompts: ClassVar[list[str]] = []

    def encode(self, prompt: object, raw: bool = False, template_args: object = None) -> tuple[int, ...]:
        if not raw:
            raise UsageError("no chat template; use --raw")
        self.prompts.append(str(prompt))
        return super().encode(prompt)


def test_a_model_without_a_template_is_asked_for_consistency_as_it_was_asked_the_question(memory: str) -> None:
    settings = replace(SETTINGS, raw=True, consistency=True)
    store = evaluate(Templateless(), PlantedTask(size=2), memory, settings)
    assert [r.consistent for r in store] == [None, None]  # a planted answer names none
    asked = [prompt for prompt in Templateless.prompts if "most consistent response" in prompt]
    assert len(asked) == 3 and "question 1" in asked[-1]  # once before anything is sampled


@pytest.mark.parametrize("consistency", [False, True])
def test_prompts_that_cannot_be_sent_are_found_before_anything_is_sampled(consistency: bool, tmp_path: Path) -> None:
    engine = Templateless()
    with pytest.raises(UsageError, match="no chat template"):
        evaluate(engine, PlantedTask(), str(tmp_path / "run"), replace(SETTINGS, consistency=consistency))
    evaluate(PlantedEngine(), PlantedTask(), str(tmp_path / "other"), SETTINGS)
    if consistency:
        replay = load_engine(str(tmp_path / "other"), "replay")
        with pytest.raises(UsageError, match="no such prompt"):
            evaluate(replay, PlantedTask(), str(tmp_path / "run"), replace(SETTINGS, consistency=True))
    assert not engine.asked and not (tmp_path / "run").exists()


def test_a_stop_position_past_the_answers_end_is_refused() -> None:
    with pytest.raises(UsageError, match=r"stop position 65 lies past max_tokens \(64\)"):
        replace(SETTINGS, stop=At(65))
