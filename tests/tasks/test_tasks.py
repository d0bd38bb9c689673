"""Loaders, prompts and graders of the benchmarks, on files made here and on the real ones where they lie."""

import json
import re
import sys
import types
from collections import Counter

import pytest
from benchmark_data import data_file, jsonl

from nad.cli.main import main
from nad.errors import NadError, UsageError
from nad.tasks import ABOUT, TASKS, Options, load_task

# Arithmetic


@pytest.mark.parametrize("name", ["arithmetic", "arithmetic_1", "arithmetic_2", "arithmetic_3"])
def test_arithmetic_has_exact_answers_to_different_problems(name):
    problems = load_task(name).problems()
    assert len(problems) == 200
    for problem in problems:
        found = re.fullmatch(r"What is ([-+*() 0-9]+)\?", problem.question)
        assert found and str(eval(found[1])) == problem.answer
    assert len({p.id for p in problems}) == 200
    assert len({p.question for p in problems}) > 150


def test_arithmetic_depends_on_its_seed_alone():
    assert load_task("arithmetic", seed=3).problems() == load_task("arithmetic", seed=3).problems()
    assert load_task("arithmetic", seed=3).data_sha256() != load_task("arithmetic", seed=4).data_sha256()
    assert load_task("arithmetic", limit=7).problems() == load_task("arithmetic").problems()[:7]
    assert Counter(p.extra["level"] for p in load_task("arithmetic", limit=9).problems()) == {1: 3, 2: 3, 3: 3}


def test_an_answer_is_graded_and_votes():
    task = load_task("arithmetic", limit=1)
    (problem,) = task.problems()
    assert problem.question == "What is 14 - 24?"
    assert task.votes
    assert task.grade(problem, "That is $\\boxed{-10}$.") is True
    assert task.grade(problem, "That is -10.0, I think") is True
    assert task.grade(problem, "That is 10") is False
    assert task.grade(problem, "I do not know") is False
    assert task.grade(problem, "<think>-10") is False
    assert task.answer(problem, "-10.0") == "-10.0"
    assert task.answer(problem, "\\boxed{-10}") == "-10"
    assert task.answer(problem, "I do not know") is None
    assert problem.question in task.prompt(problem)


# Files


def test_the_questions_and_answers_of_each_form(tmp_path):
    rows = {
        "gsm8k": {"question": "Q", "answer": "2 * 600 = <<2*600=1200>>1,200\n#### 1,200"},
        "svamp": {"ID": "chal-1", "Body": "B", "Question": "Q?", "Answer": 145.0},
        "aime24": {"id": 60, "problem": "Q", "answer": "033"},
        "math500": {"problem": "Q", "answer": "\\pi", "subject": "Algebra", "level": 2, "unique_id": "t/1.json"},
    }
    made = {
        name: load_task(name, jsonl(tmp_path / f"{name}.jsonl", row), limit=1).problems()[0]
        for name, row in rows.items()
    }
    assert [(p.id, p.question, p.answer) for p in made.values()] == [
        ("gsm8k/0", "Q", "1200"),
        ("chal-1", "B. Q?", "145"),
        ("aime/60", "Q", "33"),
        ("t/1.json", "Q", "\\pi"),
    ]


def test_golds_keep_all_their_digits(tmp_path):
    golds = {
        1201565.0: "1201565",
        22090603.0: "22090603",
        0.5: "0.5",
        1e-7: "0.0000001",
        1e22: "1" + 22 * "0",
        "145": "145",
    }
    rows = [{"ID": str(i), "Body": "B", "Question": "Q?", "Answer": answer} for i, answer in enumerate(golds)]
    task = load_task("svamp", jsonl(tmp_path / "svamp.jsonl", *rows), limit=len(rows))
    assert [p.answer for p in task.problems()] == list(golds.values())
    assert all(task.grade(p, f"The answer is {p.answer}.") for p in task.problems())
    with pytest.raises(UsageError, match="problem x of svamp has the answer 'many'; it must be a number"):
        load_task("svamp", jsonl(tmp_path / "s.jsonl", {**rows[0], "ID": "x", "Answer": "many"}), limit=1)


@pytest.mark.parametrize(
    ("name", "file", "size"),
    [
        ("gsm8k", "gsm8k_test.jsonl", 1319),
        ("math500", "math500.jsonl", 500),
        ("svamp", "svamp.jsonl", 1000),
        ("aime24", "aime24.jsonl", 30),
        ("aime25", "aime25.jsonl", 30),
        ("arc_challenge", "arc_challenge.jsonl", 1172),
        ("humaneval", "humaneval.jsonl", 164),
        ("mbpp", "mbpp_test.jsonl", 500),
        ("mbpp_sanitized", "mbpp_sanitized.jsonl", 427),
    ],
)
def test_real_files_have_the_paper_s_size_and_different_ids(name, file, size):
    task = load_task(name, data_file(file), unsafe_code_execution=True)
    assert len({p.id for p in task.problems()}) == size
    assert all(task.prompt(p) for p in task.problems())


def test_the_worked_solutions_of_gsm8k_are_right():
    path = data_file("gsm8k_test.jsonl")
    task = load_task("gsm8k", path, limit=200)
    solutions = [json.loads(line)["answer"] for line in path.read_text().splitlines()]
    assert [p.id for p, s in zip(task.problems(), solutions, strict=False) if task.grade(p, s) is not True] == []


def test_a_file_of_another_size_needs_a_limit(tmp_path):
    path = jsonl(tmp_path / "aime24.jsonl", *({"id": i, "problem": "Q", "answer": "1"} for i in range(29)))
    with pytest.raises(NadError, match=r"has 30 problems, .* has 29"):
        load_task("aime24", path)
    assert len(load_task("aime24", path, limit=30).problems()) == 29
    assert len(load_task("aime24", path, limit=2).problems()) == 2


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ('{"id": 1, "problem": "Q"}\n', "a.jsonl", "row 1 .* lacks the columns answer"),
        ('{"id": 1,\n', "a.jsonl", "line 1 is no JSON"),
        ("[1]\n", "a.jsonl", "line 1 is no JSON object"),
        ("", "a.jsonl", "has no problems"),
        ("", "a.parquet", r"must be a \.jsonl or \.csv file"),
        (None, "a.jsonl", "no file"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, content, name, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=message):
        load_task("aime24", tmp_path / name, limit=1)


def test_calls_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(UsageError, match="unknown task 'x'; allowed: arithmetic,"):
        load_task("x")
    with pytest.raises(UsageError, match="limit must be at least 1"):
        load_task("arithmetic", limit=0)
    with pytest.raises(UsageError, match="makes its own problems"):
        load_task("arithmetic", tmp_path / "a.jsonl")
    for name in ("arithmetic", "aime24"):
        with pytest.raises(UsageError, match="--all has no use"):
            load_task(name, everything=True)


# The hub


def test_the_hub_data_set_gives_the_same_problems_as_a_file(monkeypatch, tmp_path):
    row = {"id": 60, "problem": "Q", "answer": "7", "url": "other columns are ignored"}
    asked = []

    def load_dataset(*args: object, **kwargs: object) -> list[dict[str, object]]:
        asked.append((args, kwargs))
        return [row] * 30

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    from_hub = load_task("aime24")
    assert asked == [(("HuggingFaceH4/aime_2024", None), {"split": "train"})]
    assert from_hub.data_sha256() == load_task("aime24", jsonl(tmp_path / "a.jsonl", *[row] * 30)).data_sha256()


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(NadError, match=r"pip install 'nad\[eval\]'"):
        load_task("aime24")


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    def load_dataset(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no\nroute")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(NadError, match=r"cannot load .*: ConnectionError: no route; .* pass --data FILE"):
        load_task("aime24")


def test_packages_add_tasks(monkeypatch):
    made = load_task("arithmetic", limit=1)
    asked = []

    class Point:
        name = "theirs"

        def load(self):
            return lambda options: asked.append(options) or made

    monkeypatch.setattr("nad.tasks.entry_points", lambda group, name=None: [Point()] if group == "nad.tasks" else [])
    assert load_task("theirs", seed=5) is made
    assert asked == [Options(seed=5)]


# Multiple choice

ARC = {
    "id": "m1",
    "question": "Which?",
    "choices": {"label": ["1", "2", "3", "4"], "text": ["w", "x", "y", "z"]},
    "answerKey": "3",
}


def test_choices_are_shuffled_by_the_seed_and_the_key_moves_along(tmp_path):
    path = jsonl(tmp_path / "arc.jsonl", *({**ARC, "id": f"m{i}"} for i in range(40)))
    task = load_task("arc_challenge", path, limit=40)
    for problem in task.problems():
        assert problem.extra["choices"]["ABCD".index(problem.answer)] == "y"
        assert sorted(problem.extra["choices"]) == ["w", "x", "y", "z"]
    assert set(Counter(p.answer for p in task.problems())) == set("ABCD")
    assert task.problems() == load_task("arc_challenge", path, limit=40).problems()
    assert task.problems() != load_task("arc_challenge", path, limit=40, seed=1).problems()
    first, (letter, text) = (
        task.problems()[0],
        next(iter(zip("ABCD", task.problems()[0].extra["choices"], strict=True))),
    )
    assert f"\n{letter}) {text}\n" in task.prompt(first)


def test_a_letter_is_graded(tmp_path):
    task = load_task("arc_challenge", jsonl(tmp_path / "arc.jsonl", ARC), limit=1)
    (problem,) = task.problems()
    wrong = "ABCD".replace(str(problem.answer), "")[0]
    assert task.grade(problem, f"Because.\nAnswer: {problem.answer}") is True
    assert task.grade(problem, f"Because.\nAnswer: {wrong}") is False
    assert task.grade(problem, "Answer: E") is False
    assert task.answer(problem, f"Answer: {wrong}") == wrong
    assert task.answer(problem, "no idea") is None


def test_gpqa_from_the_csv_of_its_authors(tmp_path):
    path = tmp_path / "gpqa.csv"
    head = "Record ID,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n"
    path.write_text(head + 'r1,"Which, then?",right,"a\nb",c,d\n')
    (problem,) = load_task("gpqa", path, limit=1).problems()
    assert problem.question == "Which, then?"
    assert problem.extra["choices"]["ABCD".index(problem.answer)] == "right"
    assert "a\nb" in problem.extra["choices"]
    path.write_text(head + "".join(f"r{i},Q,right,a,b,c\n" for i in range(198)))
    assert len(load_task("gpqa", path).problems()) == 198


# The command


def test_every_task_is_listed_with_a_line_about_it(capsys):
    assert main(["tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(TASKS) == list(ABOUT)


def test_a_task_s_prompt_is_shown(capsys):
    assert main(["tasks", "show", "arithmetic", "--index", "1"]) == 0
    out = capsys.readouterr().out
    assert "What is 3 * 3 + 46?" in out and "boxed" in out and "answer: 55" in out


def test_showing_what_is_not_there_is_a_wrong_call(capsys):
    assert main(["tasks", "show", "nothing"]) == 2
    assert main(["tasks", "show", "arithmetic", "--index", "-1"]) == 2
    assert all(line.startswith("nad: error: ") for line in capsys.readouterr().err.splitlines())
