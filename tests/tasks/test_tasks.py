"""Loaders, prompts and graders of the benchmarks, on files made here and on the real ones where they lie."""

import base64
import json
import pickle
import re
import shutil
import sys
import types
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from benchmark_data import data_file

from nad.cli.main import main
from nad.errors import NadError, UsageError
from nad.grading.programs import extract_program
from nad.tasks import ABOUT, TASKS, Options, load_task
from nad.tasks.code import CodeTask, defined_names, wanted
from nad.tasks.lcb import same_output, unpack_tests

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")


def jsonl(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


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


# Programs


HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def half(x):\n    return x / 2\n\n\ndef double(x):\n    """Twice x."""\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert half(candidate(3)) == 3\n",
}


@needs_bubblewrap
def test_humaneval_takes_whole_functions_and_the_rest_of_one(tmp_path):
    task = load_task("humaneval", jsonl(tmp_path / "h.jsonl", HUMANEVAL), limit=1)
    (problem,) = task.problems()
    assert not task.votes
    assert task.grade(problem, "```python\ndef double(x):\n    return x + x\n```") is True
    assert task.grade(problem, "    return 2 * x\n") is True
    assert task.grade(problem, "```python\ndef double(x):\n    return x * x\n```") is False
    assert task.grade(problem, "It is hard.") is False
    future = "```python\nfrom __future__ import annotations\ndef double(x: Unknown):\n    return 2 * x\n```"
    assert task.grade(problem, future) is True
    # A helper of the tests is the prompt's, whatever a program makes of it.
    cheat = "```python\ndef half(x):\n    return 3\ndef double(x):\n    return 4\n```"
    assert task.grade(problem, cheat) is False


@needs_bubblewrap
def test_a_program_may_import_what_the_benchmark_s_harness_has(tmp_path):
    human = load_task("humaneval", jsonl(tmp_path / "h.jsonl", HUMANEVAL), limit=1)
    doubles = "```python\nimport {0} as p\ndef double(x):\n    return x + x\n```"
    assert human.grade(human.problems()[0], doubles.format("numpy")) is True
    assert human.grade(human.problems()[0], doubles.format("scipy")) is False
    row = {"text": "Q", "code": "def double(x): return 2 * x", "task_id": 1, "test_setup_code": ""}
    mbpp = load_task("mbpp", jsonl(tmp_path / "m.jsonl", {**row, "test_list": ["assert double(2) == 4"]}), limit=1)
    assert mbpp.grade(mbpp.problems()[0], doubles.format("math")) is True
    assert mbpp.grade(mbpp.problems()[0], doubles.format("numpy")) is False
    contest = load_task("lcb_v5", jsonl(tmp_path / "l.jsonl", lcb_row()), limit=1)
    reads = "```python\nimport numpy as np\nprint(np.int64(input()) * 2)\n```"
    assert contest.grade(contest.problems()[0], reads) is True


@needs_bubblewrap
def test_an_answer_in_several_blocks_is_graded_as_one_program(tmp_path):
    task = load_task("lcb_v5", jsonl(tmp_path / "l.jsonl", lcb_row()), limit=1)
    (problem,) = task.problems()
    shown = "```python\nn = int(input())\n```\nThen:\n```Python3\nprint(n * 2)\n```\nFor 2 it prints\n```\n4\n```"
    assert task.grade(problem, shown) is True


@needs_bubblewrap
def test_mbpp_with_classes_setup_and_shadowed_names(tmp_path):
    row = {
        "text": "Add.",
        "code": "import math\nclass Pair:\n    def __init__(self, a, b):\n        self.a, self.b = a, b\n"
        "def sum(p):\n    return p.a + p.b",
        "task_id": 1,
        "test_setup_code": "root = Pair(3, 4)",
        "test_list": ["assert sum(Pair(1, 2)) == 3", "assert math.isclose(sum(root), 7)"],
    }
    task = load_task("mbpp", jsonl(tmp_path / "m.jsonl", row), limit=1)
    (problem,) = task.problems()
    assert problem.extra["names"] == ("Pair", "root", "sum")
    assert problem.extra["classes"] == ("Pair",)
    assert wanted(problem) == ("Pair", "sum")
    assert row["test_list"][0] in task.prompt(problem)
    assert task.grade(problem, f"```python\n{row['code']}\n```") is True
    assert task.grade(problem, f"```python\n{row['code']} + 1\n```") is False
    cheat = row["code"].replace("p.a + p.b", "3") + "\nimport math\nmath.isclose = lambda *a: True"
    assert task.grade(problem, f"```python\n{cheat}\n```") is False


REFERENCES = [("humaneval", "humaneval.jsonl"), ("mbpp", "mbpp_test.jsonl"), ("mbpp_sanitized", "mbpp_sanitized.jsonl")]


@needs_bubblewrap
@pytest.mark.slow
@pytest.mark.parametrize(("name", "file"), REFERENCES)
def test_all_reference_solutions_pass(name, file):
    task = load_task(name, data_file(file))
    assert isinstance(task, CodeTask)
    with ThreadPoolExecutor(2) as pool:
        passed = list(pool.map(lambda p: task.run(p, str(p.extra["reference"])), task.problems()))
    assert [p.id for p, ok in zip(task.problems(), passed, strict=True) if ok is not True] == []


def answers(program: str, names: tuple[str, ...]) -> dict[str, str]:
    """A program as models wrap it in Markdown."""
    program = program.replace("\r\n", "\n").rstrip() + "\n"
    call = f"print({names[0]})\n"
    fenced = f"```python\n{program}```\n"
    listed = "".join(f"   {line}\n" if line.strip() else "\n" for line in fenced.removesuffix("\n").split("\n"))
    ran = f"Run it:\n```bash\npython a.py\n```\nIt prints:\n```\n4\n```\nand\n```python\n{call}```\nEnd.\n"
    head, _, rest = program.partition("\ndef ")
    split = f"First:\n```py\n{head}\n```\nThen:\n```Python3 title=a.py\ndef {rest}```\n" if rest else fenced
    typed = "".join(f"{'...' if line[:1].isspace() or not line else '>>>'} {line}\n" for line in program.split("\n"))
    return {
        "plain": f"Here:\n\n{fenced}\nIt works.",
        "followed": f"Here:\n\n{fenced}\n{ran}",
        "preceded": f"Install:\n```sh\npip install it\n```\n```json\n{{}}\n```\n{fenced}{ran}",
        "listed": f"1. First think.\n2. Then write:\n\n{listed}\n3. Then stop.\n",
        "tildes": f"~~~py3\n{program}~~~\n{ran}",
        "cut": f"Here:\n```python\n{program}\n\nprint((",
        "documented": f'```python\n"""Solves it.\n\n```\n{call}```\n"""\n{program}```\n{ran}',
        "in Markdown": f"````markdown\n# Solution\n\n{fenced}{ran}````\n",
        "split": split + ran,
        "typed": f"```pycon\n{typed}```\n",
        "Windows": f"Here:\n\n{fenced}\n{ran}".replace("\n", "\r\n"),
    }


@pytest.mark.parametrize("step", [20, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "file"), REFERENCES)
def test_reference_solutions_are_found_in_markdown(name, file, step):
    """Most come back as they are; the others, put together from their parts, define the same."""
    for problem in load_task(name, data_file(file), unsafe_code_execution=True).problems()[::step]:
        program, sought = str(problem.extra["reference"]), wanted(problem)
        for way, text in answers(program, sought).items():
            found = extract_program(text, sought)
            assert found is not None, (problem.id, way)
            assert defined_names(found).issuperset(sought), (problem.id, way)
            if way in ("plain", "followed", "preceded", "listed", "tildes", "in Markdown", "Windows"):
                assert found.split() == program.split(), (problem.id, way)


@needs_bubblewrap
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("way", ["listed", "cut", "documented", "split", "typed"])
@pytest.mark.parametrize(("name", "file"), REFERENCES)
def test_all_reference_solutions_pass_in_markdown(name, file, way):
    task = load_task(name, data_file(file))
    texts = [answers(str(p.extra["reference"]), wanted(p))[way] for p in task.problems()]
    with ThreadPoolExecutor(2) as pool:
        passed = list(pool.map(task.grade, task.problems(), texts))
    assert [p.id for p, ok in zip(task.problems(), passed, strict=True) if ok is not True] == []


# LiveCodeBench


def packed(cases: list[dict[str, str]]) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def case(given: str, wanted: str, kind: str = "stdin") -> dict[str, str]:
    return {"input": given, "output": wanted, "testtype": kind}


def lcb_row(**changes: object) -> dict[str, object]:
    row = {
        "question_content": "Double it.",
        "question_id": "a_1",
        "contest_date": "2024-10-05T00:00:00",
        "starter_code": "",
        "public_test_cases": json.dumps([case("1\n", "2\n")]),
        "private_test_cases": packed([case("2\n", "4\n"), case("3\n", "6\n")]),
        "metadata": "{}",
    }
    return {**row, **changes}


@needs_bubblewrap
def test_lcb_programs_that_read_and_print(tmp_path):
    task = load_task("lcb_v5", jsonl(tmp_path / "l.jsonl", lcb_row()), limit=1)
    (problem,) = task.problems()
    assert "Read the inputs from stdin" in task.prompt(problem)
    assert task.grade(problem, "```python\nprint(int(input()) * 2)\n```") is True
    assert task.grade(problem, "```python\nprint(pow(int(input()), 2) + 1)\n```") is False  # right for 1 alone
    assert task.grade(problem, "```python\nprint(2)\n```") is False
    assert task.grade(problem, "```python\n1 / 0\n```") is False


@needs_bubblewrap
def test_lcb_output_far_longer_than_expected_is_wrong_without_a_comparison(tmp_path, monkeypatch):
    """16 characters for one expected, and 64 KiB, are room for any honest number."""
    compared: list[int] = []
    monkeypatch.setattr("nad.tasks.lcb.same_output", lambda printed, expected: compared.append(len(printed)) is None)
    task = load_task("lcb_v5", jsonl(tmp_path / "l.jsonl", lcb_row()), limit=1)
    (problem,) = task.problems()
    assert task.grade(problem, "```python\nprint('2' * 65000)\n```") is True and compared == [65001] * 3
    assert task.grade(problem, "```python\nprint('2' * 66000)\n```") is False and compared == [65001] * 3


@needs_bubblewrap
def test_lcb_classes_whose_method_is_called(tmp_path):
    row = lcb_row(
        starter_code="class Solution:\n    def pair(self, a: List[int], b: int) -> List[int]:\n        ",
        metadata='{"func_name": "pair"}',
        public_test_cases=json.dumps([case("[1, 2]\n3", "[3, 3]", "functional")]),
        private_test_cases=packed([case('[4]\n"x"', '[4, "x"]', "functional")]),
    )
    task = load_task("lcb_v5", jsonl(tmp_path / "l.jsonl", row), limit=1)
    (problem,) = task.problems()
    assert "class Solution" in task.prompt(problem)
    head = "```python\nclass Solution:\n    def pair(self, a: List[int], b: int):\n        return "
    assert task.grade(problem, f"{head}[sum(a), b]\n```") is True
    assert task.grade(problem, f"{head}(sum(a), b)\n```") is True
    assert task.grade(problem, f"{head}[b, b]\n```") is False
    assert task.grade(problem, "```python\ndef pair(a, b): return [sum(a), b]\n```") is False


def test_lcb_is_the_paper_s_part_unless_all_is_asked_for(tmp_path):
    dates = ["2024-09-30", "2024-10-01", "2025-01-31", "2025-02-02"]
    rows = [lcb_row(question_id=d, contest_date=f"{d}T00:00:00") for d in dates]
    path = jsonl(tmp_path / "l.jsonl", *rows)
    kept = load_task("lcb_v5", path, limit=9, unsafe_code_execution=True).problems()
    assert [p.id for p in kept] == ["2024-10-01", "2025-01-31"]
    every = load_task("lcb_v5", path, limit=9, everything=True, unsafe_code_execution=True).problems()
    assert [p.id for p in every] == dates
    with pytest.raises(NadError, match=r"has 167 problems, .* has 2"):
        load_task("lcb_v5", path, unsafe_code_execution=True)


class Harmful:
    def __reduce__(self):
        return print, ("a pickle ran code",)


@pytest.mark.parametrize(
    "value",
    [Harmful(), [Harmful()], ["a list"], b"bytes", 3, "no JSON", '[{"input": "1"}]'],
    ids=["code", "code within", "list", "bytes", "number", "no JSON", "no output"],
)
def test_hidden_tests_are_read_as_a_text_or_not_at_all(value, capsys):
    data = base64.b64encode(zlib.compress(pickle.dumps(value))).decode()
    with pytest.raises(NadError, match="damaged hidden tests"):
        unpack_tests(data)
    assert capsys.readouterr().out == ""


def test_hidden_tests_in_both_their_forms():
    cases = [case("1\n", "2\n")]
    assert unpack_tests(packed(cases)) == unpack_tests(json.dumps(cases)) == cases


@pytest.mark.parametrize(
    ("out", "wanted", "same"),
    [
        ("3\n", "3", True),
        (" 1 2 \n3\n", "1 2\n3", True),
        ("1.50", "1.5", True),
        ("yes", "Yes", False),
        ("1 2", "1\n2", False),
        ("1", "1\n2", False),
        ("", "1", False),
        ("1.0 a", "1 a", False),
    ],
)
def test_printed_output_is_compared_line_by_line(out, wanted, same):
    assert same_output(out, wanted) is same


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
