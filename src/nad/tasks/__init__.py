"""The benchmarks that can be named; one module per family."""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path

from nad.errors import UsageError
from nad.tasks.arithmetic import TASKS as ARITHMETIC
from nad.tasks.base import Options, Problem, Task

__all__ = ["TASKS", "Options", "Problem", "Task", "load_task", "task_names"]

TASKS: Mapping[str, Callable[[Options], Task]] = {**ARITHMETIC}


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
