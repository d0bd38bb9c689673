"""Programs, graded by running all tests of their problem in the sandbox.

Sources: the hub data sets openai/openai_humaneval (test) and google-research-datasets/mbpp (full, test; sanitized, all
splits). Sample item (mbpp):
    text "Write a python function to remove first and last occurrence of a given character from the string.",
    test_list ['assert remove_Occ("hello","l") == "heo"', ...]
The paper names no prompt. HumanEval's is the function to complete, MBPP's the task and its tests, as Austin et al. 2021
give them; both ask for one block of code, from which the program is taken.
"""

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from nad.grading.programs import extract_program, joined
from nad.grading.sandbox import Limits, Tests, check_sandbox, run_tests
from nad.tasks.base import Options, Problem, Task
from nad.tasks.source import Row, Source, load_problems, sha256

_HUMANEVAL = (
    "Complete the following Python function. Answer with the whole function, and what it needs, in one block of code "
    "that begins with ```python.\n\n```python\n{question}```"
)
_MBPP = (
    "You are an expert Python programmer, and here is your task: {question} Your code should pass these tests:\n\n"
    "{tests}\n\nAnswer with the whole code in one block that begins with ```python."
)


@dataclass(frozen=True)
class CodeTask:
    """Each problem's `extra` holds what sandbox.Tests takes, `head` and `setup` around the program, and `reference`.

    `packages` is what programs may import beside the standard library: what the benchmark's own harness has.
    """

    name: str
    items: tuple[Problem, ...]
    template: str
    unsafe: bool = False
    packages: tuple[str, ...] = ()
    limits: Limits = Limits()
    votes: bool = False

    def problems(self) -> Sequence[Problem]:
        return self.items

    def data_sha256(self) -> str:
        return sha256(self.items)

    def prompt(self, problem: Problem) -> str:
        return self.template.format(question=problem.question, tests=problem.extra.get("shown", ""))

    def answer(self, problem: Problem, text: str) -> str | None:
        """The program; programs are not voted on."""
        return extract_program(text, wanted(problem))

    def grade(self, problem: Problem, text: str) -> bool | None:
        found = self.answer(problem, text)
        return False if found is None else self.run(problem, found)

    def run(self, problem: Problem, program: str) -> bool | None:
        """Whether a program passes. HumanEval's prompt comes before it, MBPP's `setup` (which may use it) after."""
        tests = Tests(str(problem.extra["tests"]), names(problem), str(problem.extra["before"]), classes(problem))
        whole = joined(str(problem.extra["head"]), program, str(problem.extra["setup"]))
        return run_tests(whole, tests, self.limits, self.unsafe, self.packages).passed


def names(problem: Problem) -> tuple[str, ...]:
    return _texts(problem, "names")


def classes(problem: Problem) -> tuple[str, ...]:
    """Those of the names that are classes in the reference: their operators are part of what is tested."""
    return _texts(problem, "classes")


def _texts(problem: Problem, key: str) -> tuple[str, ...]:
    found = problem.extra[key]
    assert isinstance(found, Sequence)
    return tuple(found)


def wanted(problem: Problem) -> tuple[str, ...]:
    """What the program must define: those of the reference's names that the tests, or their setup, use."""
    setup, reference = str(problem.extra["setup"]), str(problem.extra["reference"])
    return tuple(sorted((set(names(problem)) - defined_names(setup)) | (defined_names(reference) & _used(setup))))


def defined_names(code: str) -> set[str]:
    """What code defines at its top level: functions, classes, variables; no imports."""
    found: set[str] = set()
    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    return found


def _defined_classes(code: str) -> set[str]:
    return {node.name for node in ast.parse(code).body if isinstance(node, ast.ClassDef)}


def _imports(code: str) -> str:
    nodes = [n for n in ast.parse(code).body if isinstance(n, ast.Import | ast.ImportFrom)]
    return "\n".join(ast.unparse(n) for n in nodes)


def _used(tests: str) -> set[str]:
    return {n.id for n in ast.walk(ast.parse(tests)) if isinstance(n, ast.Name)}


def _humaneval(row: Row, index: int) -> Problem:
    """The prompt is Python itself: it defines the helpers that some tests use."""
    extra = {
        "tests": f"{row['test']}\ncheck({row['entry_point']})",
        "names": (row["entry_point"],),
        "classes": (),
        "before": row["prompt"],
        "head": row["prompt"],
        "setup": "",
        "reference": row["prompt"] + row["canonical_solution"],
    }
    return Problem(row["task_id"], row["prompt"], None, extra)


def _mbpp_problem(row: Row, question: str, setup: str, imports: Iterable[str]) -> Problem:
    """The tests may use what the reference defines (a class of its own, say), and what it imports."""
    tests = "\n".join(row["test_list"])
    used = _used(tests)
    extra = {
        "tests": tests,
        "names": tuple(sorted((defined_names(setup) | defined_names(row["code"])) & used)),
        "classes": tuple(sorted((_defined_classes(setup) | _defined_classes(row["code"])) & used)),
        "before": "\n".join([*imports, _imports(row["code"])]),
        "head": "",
        "setup": setup,
        "reference": row["code"],
        "shown": tests,
    }
    return Problem(f"mbpp/{row['task_id']}", question, None, extra)


def _mbpp(row: Row, index: int) -> Problem:
    return _mbpp_problem(row, row["text"], row["test_setup_code"], ())


def _sanitized(row: Row, index: int) -> Problem:
    return _mbpp_problem(row, row["prompt"], "", row["test_imports"])


def _loader(
    name: str,
    source: Source,
    problem: Callable[[Row, int], Problem],
    template: str,
    packages: tuple[str, ...] = (),
) -> Callable[[Options], Task]:
    def load(options: Options) -> Task:
        check_sandbox(options.unsafe_code_execution)
        items = load_problems(name, source, problem, options)
        return CodeTask(name, items, template, options.unsafe_code_execution, packages)

    return load


HUMANEVAL = Source("openai/openai_humaneval", 164, ("task_id", "prompt", "entry_point", "canonical_solution", "test"))
MBPP = Source(
    "google-research-datasets/mbpp", 500, ("text", "code", "task_id", "test_setup_code", "test_list"), config="full"
)
SANITIZED = Source(
    "google-research-datasets/mbpp",
    427,
    ("prompt", "code", "task_id", "test_imports", "test_list"),
    config="sanitized",
    split="train+test+validation+prompt",
)

TASKS: Mapping[str, Callable[[Options], Task]] = {
    "humaneval": _loader("humaneval", HUMANEVAL, _humaneval, _HUMANEVAL, ("numpy",)),
    "mbpp": _loader("mbpp", MBPP, _mbpp, _MBPP),
    "mbpp_sanitized": _loader("mbpp_sanitized", SANITIZED, _sanitized, _MBPP),
}
