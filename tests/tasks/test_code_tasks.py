"""HumanEval, MBPP, LiveCodeBench: programs in answers and verdicts; the benchmarks' solutions, and doing nothing."""

import base64
import json
import pickle
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from benchmark_data import data_file, jsonl
from programs import needs_bwrap

from nad.errors import NadError
from nad.grading.programs import extract_program
from nad.tasks import load_task
from nad.tasks.code import CodeTask, defined_names, wanted
from nad.tasks.lcb import same_output, unpack_tests

HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def half(x):\n    return x / 2\n\n\ndef double(x):\n    """Twice x."""\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert half(candidate(3)) == 3\n",
}


@needs_bwrap
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


@needs_bwrap
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


@needs_bwrap
def test_an_answer_in_several_blocks_is_graded_as_one_program(tmp_path):
    task = load_task("lcb_v5", jsonl(tmp_path / "l.jsonl", lcb_row()), limit=1)
    (problem,) = task.problems()
    shown = "```python\nn = int(input())\n```\nThen:\n```Python3\nprint(n * 2)\n```\nFor 2 it prints\n```\n4\n```"
    assert task.grade(problem, shown) is True


@needs_bwrap
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


@needs_bwrap
@pytest.mark.slow
@pytest.mark.parametrize(("name", "file"), REFERENCES)
def test_all_reference_solutions_pass(name, file):
    task = load_task(name, data_file(file))
    assert isinstance(task, CodeTask)
    with ThreadPoolExecutor(2) as pool:
        passed = list(pool.map(lambda p: task.run(p, str(p.extra["reference"])), task.problems()))
    assert [p.id for p, ok in zip(task.problems(), passed, strict=True) if ok is not True] == []


NOTHING_DONE = {
    "returns nothing": "def {name}(*args, **kwargs): pass",
    "is not there": "pass",
    "is nothing": "{name} = None",
    "is a class": "class {name}:\n    def __init__(self, *args, **kwargs): pass",
    "raises": "def {name}(*args, **kwargs): raise NotImplementedError",
    "yields nothing": "def {name}(*args, **kwargs): yield",
    "calls itself": "def {name}(*args, **kwargs): return {name}(*args, **kwargs)",
    "exits when called": "import os\ndef {name}(*args, **kwargs): os._exit(0)",
    "exits at once": "import sys\ndef {name}(*args, **kwargs): pass\nsys.exit(0)",
}


@needs_bwrap
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("step", [100, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("done", NOTHING_DONE.values(), ids=NOTHING_DONE.keys())
@pytest.mark.parametrize(("name", "file"), REFERENCES)
def test_no_program_that_does_nothing_passes(name, file, done, step):
    """1,091 problems, 9 ways: 9,819 verdicts with -m slow."""
    task = load_task(name, data_file(file))
    assert isinstance(task, CodeTask)
    problems = task.problems()[::step]
    programs = ["\n".join(done.format(name=name) for name in wanted(problem)) for problem in problems]
    with ThreadPoolExecutor(2) as pool:
        passed = list(pool.map(task.run, problems, programs))
    assert [p.id for p, ok in zip(problems, passed, strict=True) if ok is not False] == []


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


@needs_bwrap
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


@needs_bwrap
def test_lcb_programs_that_read_and_print(tmp_path):
    task = load_task("lcb_v5", jsonl(tmp_path / "l.jsonl", lcb_row()), limit=1)
    (problem,) = task.problems()
    assert "Read the inputs from stdin" in task.prompt(problem)
    assert task.grade(problem, "```python\nprint(int(input()) * 2)\n```") is True
    assert task.grade(problem, "```python\nprint(pow(int(input()), 2) + 1)\n```") is False  # right for 1 alone
    assert task.grade(problem, "```python\nprint(2)\n```") is False
    assert task.grade(problem, "```python\n1 / 0\n```") is False


@needs_bwrap
def test_lcb_output_far_longer_than_expected_is_wrong_without_a_comparison(tmp_path, monkeypatch):
    """16 characters for one expected, and 64 KiB, are room for any honest number."""
    compared: list[int] = []
    monkeypatch.setattr("nad.tasks.lcb.same_output", lambda printed, expected: compared.append(len(printed)) is None)
    task = load_task("lcb_v5", jsonl(tmp_path / "l.jsonl", lcb_row()), limit=1)
    (problem,) = task.problems()
    assert task.grade(problem, "```python\nprint('2' * 65000)\n```") is True and compared == [65001] * 3
    assert task.grade(problem, "```python\nprint('2' * 66000)\n```") is False and compared == [65001] * 3


@needs_bwrap
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
