"""The benchmarks that can be named; one module per family."""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path

from nad.errors import UsageError
from nad.tasks.arithmetic import TASKS as ARITHMETIC
from nad.tasks.base import Options, Problem, Task
from nad.tasks.choice import TASKS as CHOICE
from nad.tasks.code import TASKS as CODE
from nad.tasks.lcb import TASKS as LCB
from nad.tasks.math import TASKS as MATH

__all__ = ["ABOUT", "TASKS", "Options", "Problem", "Task", "load_task", "task_names"]

TASKS: Mapping[str, Callable[[Options], Task]] = {**ARITHMETIC, **MATH, **CHOICE, **CODE, **LCB}

ABOUT: Mapping[str, str] = {
    "arithmetic": "200 sums and products made from the seed, three levels mixed; works offline",
    "arithmetic_1": "sums of two numbers below 50",
    "arithmetic_2": "a product of two digits, and a sum",
    "arithmetic_3": "parentheses, larger factors, and a sum",
    "gsm8k": "1,319 word problems of grade school (openai/gsm8k, test)",
    "math500": "500 competition problems (HuggingFaceH4/MATH-500)",
    "svamp": "1,000 short word problems (ChilleD/SVAMP)",
    "aime24": "30 problems, AIME 2024 (HuggingFaceH4/aime_2024)",
    "aime25": "30 problems, AIME 2025 (math-ai/aime25)",
    "gpqa": "198 questions of graduate science, the diamond set (Idavidrein/gpqa; asks for a login)",
    "arc_challenge": "1,172 science questions of school (allenai/ai2_arc)",
    "humaneval": "164 functions to complete (openai/openai_humaneval); programs run in bubblewrap",
    "mbpp": "500 short programs, the test problems (google-research-datasets/mbpp); programs run in bubblewrap",
    "mbpp_sanitized": "427 of them, checked by hand; programs run in bubblewrap",
    "lcb_v5": "167 contest problems (livecodebench/code_generation_lite; --all: 880); programs run in bubblewrap",
}


def task_names() -> list[str]:
    """The names load_task knows: the table's, then those of installed packages."""
    return [*TASKS, *sorted(e.name for e in entry_points(group="nad.tasks") if e.name not in TASKS)]


def load_task(
    name: str,
    data: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    everything: bool = False,
    unsafe_code_execution: bool = False,
) -> Task:
    """The task of this name; see Options for the arguments.

    Without `limit` the number of problems is checked against the paper's. Raises UsageError for an unknown name, an
    option the task has no use for and data of another form, NadError where the data cannot be fetched.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit must be at least 1, got {limit}")
    options = Options(data, limit, seed, everything, unsafe_code_execution)
    if name in TASKS:
        return TASKS[name](options)
    found = entry_points(group="nad.tasks", name=name)
    if not found:
        raise UsageError(f"unknown task {name!r}; allowed: {', '.join(task_names())}")
    task: Task = next(iter(found)).load()(options)
    return task
