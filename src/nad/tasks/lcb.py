"""LiveCodeBench v5: contest problems with hidden tests.

Source: the hub data set livecodebench/code_generation_lite, release_v5. Sample item, shortened:
    question_content "You are given an integer sequence A=(A_1, ..., A_N) ... Which element in A is the second
    largest?", question_id "abc365_b", contest_date "2024-08-03T00:00:00", starter_code "" (stdin; else the head of a
    class Solution, whose method `metadata` names), public_test_cases '[{"input": "4\\n8 2 5 1\\n", "output": "3\\n",
    "testtype": "stdin"}]', private_test_cases (the same; as base64 of zlib of a pickled JSON string)
The paper's part are the 167 problems dated 2024-10-01 to 2025-02-01. Prompt, prelude and comparison are the
benchmark's own (Jain et al. 2024).
"""

import base64
import binascii
import io
import json
import pickle
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from nad.errors import NadError
from nad.grading.programs import extract_program, joined
from nad.grading.sandbox import Limits, Tests, check_inputs, check_sandbox, run_tests
from nad.tasks.base import Options, Problem, Task
from nad.tasks.source import Row, Source, check_size, read_rows, sha256

FIRST, LAST = "2024-10-01", "2025-02-01"
RELEASE_SIZE = 880
LCB = Source(
    "livecodebench/code_generation_lite",
    167,
    (
        *("question_content", "question_id", "contest_date", "starter_code"),
        *("public_test_cases", "private_test_cases", "metadata"),
    ),
    files=("test.jsonl", "test2.jsonl", "test3.jsonl", "test4.jsonl", "test5.jsonl"),
)
_PROMPT = (
    "You will be given a question (problem specification) and will generate a correct Python program that matches the "
    "specification and passes all tests.\n\nQuestion: {question}\n\n{instruction}\n```python\n{starter}\n```\n"
)
_STARTER = (
    "You will use the following starter code to write the solution to the problem and enclose your code within "
    "delimiters."
)
_STDIN = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample "
    "inputs). Enclose your code within delimiters as follows. Ensure that when the python program runs, it reads the "
    "inputs, runs the algorithm and writes output to STDOUT."
)
_PRELUDE = "\n".join(
    [
        *(f"from {m} import *" for m in ("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math")),
        *(f"from {m} import *" for m in ("random", "statistics", "itertools", "functools", "operator", "io", "sys")),
        *(f"from {m} import *" for m in ("json", "builtins", "typing")),
        "import string, re, datetime, collections, heapq, bisect, copy, math, random, statistics, itertools",
        "import functools, operator, io, sys, json",
        "sys.setrecursionlimit(50000)\n",
    ]
)
_CASES = """
import json
for arguments, expected in json.loads({cases!r}):
    found = nad_solve(*arguments)
    assert (list(found) if type(found) is tuple else found) == expected
"""
_ROOM = 16  # characters printed for each expected one (0.3 as 0.30000000000000004); longer output is not compared


@dataclass(frozen=True)
class LiveCodeBench:
    """Each problem's `extra` holds its hub columns. The limits hold for one input, or for all calls of a class.

    `packages` is what programs may import beside the standard library: the benchmark's own harness loads numpy.
    """

    name: str
    items: tuple[Problem, ...]
    unsafe: bool = False
    packages: tuple[str, ...] = ("numpy",)
    stdin_limits: Limits = Limits(wall_s=24, cpu_s=8, memory=2 << 30)
    call_limits: Limits = Limits(wall_s=90, cpu_s=30, memory=2 << 30)
    votes: bool = False

    def problems(self) -> Sequence[Problem]:
        return self.items

    def data_sha256(self) -> str:
        return sha256(self.items)

    def prompt(self, problem: Problem) -> str:
        starter = str(problem.extra["starter_code"])
        return _PROMPT.format(
            question=problem.question,
            instruction=_STARTER if starter else _STDIN,
            starter=starter or "# YOUR CODE HERE",
        )

    def answer(self, problem: Problem, text: str) -> str | None:
        """The program; programs are not voted on."""
        return extract_program(text, ("Solution",) if problem.extra["starter_code"] else ())

    def grade(self, problem: Problem, text: str) -> bool | None:
        program = self.answer(problem, text)
        if program is None:
            return False
        cases = hidden_tests(problem)
        if problem.extra["starter_code"]:
            return self._call(problem, program, cases)
        return self._stdin(program, cases)

    def _call(self, problem: Problem, program: str, cases: Sequence[Mapping[str, str]]) -> bool | None:
        method = json.loads(str(problem.extra["metadata"]))["func_name"]
        entry = f"\ndef nad_solve(*arguments):\n    return Solution().{method}(*arguments)\n"
        values = [[[json.loads(a) for a in c["input"].split("\n") if a], json.loads(c["output"])] for c in cases]
        tests = Tests(_CASES.format(cases=json.dumps(values)), ("nad_solve",))
        return run_tests(joined(_PRELUDE, program, entry), tests, self.call_limits, self.unsafe, self.packages).passed

    def _stdin(self, program: str, cases: Sequence[Mapping[str, str]]) -> bool | None:
        def accepts(number: int, printed: str) -> bool:
            expected = cases[number]["output"]
            return len(printed) <= _ROOM * len(expected) + (1 << 16) and same_output(printed, expected)

        inputs = [case["input"] for case in cases]
        whole = joined(_PRELUDE, program)
        return check_inputs(whole, inputs, accepts, self.stdin_limits, self.unsafe, self.packages).passed


class _OnlyText(pickle.Unpickler):
    """A pickle is a program; one that needs any name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def unpack_tests(packed: str) -> list[dict[str, str]]:
    """Hidden tests from base64 of zlib of a pickled JSON string (or from plain JSON). NadError for anything else."""
    try:
        if packed.lstrip().startswith("["):
            text = packed
        else:
            text = _OnlyText(io.BytesIO(zlib.decompress(base64.b64decode(packed, validate=True)))).load()
        if type(text) is not str:
            raise pickle.UnpicklingError(f"it holds a {type(text).__name__}, not a text")
        return [{key: case[key] for key in ("input", "output", "testtype")} for case in json.loads(text)]
    except (binascii.Error, zlib.error, pickle.UnpicklingError, EOFError, ValueError, KeyError, TypeError) as error:
        raise NadError(f"damaged hidden tests of LiveCodeBench: {error}; fetch the data set again") from error


def hidden_tests(problem: Problem) -> list[dict[str, str]]:
    """All tests of a problem, the public ones first."""
    return [
        *unpack_tests(str(problem.extra["public_test_cases"])),
        *unpack_tests(str(problem.extra["private_test_cases"])),
    ]


def same_output(printed: str, expected: str) -> bool:
    """Line by line without the space around them: the same text, or the same numbers."""
    lines = [[line.strip() for line in text.strip().split("\n")] for text in (printed, expected)]
    return len(lines[0]) == len(lines[1]) and all(
        one == two or (_numbers(one) is not None and _numbers(one) == _numbers(two))
        for one, two in zip(*lines, strict=True)
    )


def _numbers(line: str) -> list[Decimal] | None:
    try:
        return [Decimal(word) for word in line.split()]
    except InvalidOperation:
        return None


def _problem(row: Row) -> Problem:
    """The hub's date is a datetime or a text, as its reader takes it."""
    kept = ("starter_code", "public_test_cases", "private_test_cases", "metadata")
    extra = {**{key: str(row[key]) for key in kept}, "contest_date": str(row["contest_date"])[:10]}
    return Problem(row["question_id"], row["question_content"], None, extra)


def _load(options: Options) -> Task:
    check_sandbox(options.unsafe_code_execution)
    found: list[Problem] = []
    for row in read_rows(LCB, options.data):
        if len(found) == options.limit:
            break
        if options.everything or FIRST <= str(row["contest_date"])[:10] <= LAST:
            found.append(_problem(row))
    check_size("lcb_v5", len(found), RELEASE_SIZE if options.everything else LCB.size, options)
    return LiveCodeBench("lcb_v5", tuple(found), options.unsafe_code_execution)


TASKS: Mapping[str, Callable[[Options], Task]] = {"lcb_v5": _load}
