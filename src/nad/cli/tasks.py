"""`nad tasks`: what --task can name, and what a model is asked."""

from pathlib import Path
from typing import Annotated

import typer

from nad.cli.streams import entry_text
from nad.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("tasks")(tasks)


def tasks(
    action: Annotated[str | None, typer.Argument(metavar="[show", help="Nothing: the list of tasks.")] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME]", help="The task whose prompt is shown.")] = None,
    data: Annotated[Path | None, typer.Option(help="A local .jsonl or .csv file instead of the hub.")] = None,
    index: Annotated[int, typer.Option(help="Which problem, from 0.")] = 0,
    seed: Annotated[int, typer.Option(help="Made-up problems; the order of choices.")] = 0,
) -> None:
    """What --task can name; `nad tasks show NAME` prints a task's prompt."""
    if action is None:
        _list()
    elif action == "show" and name is not None:
        _show(name, data, index, seed)
    else:
        raise UsageError("`nad tasks` lists the tasks, `nad tasks show NAME` shows the prompt of one")


def _list() -> None:
    from nad.tasks import ABOUT, task_names

    for name in task_names():
        print(entry_text(name, [ABOUT.get(name, "from an installed package")], 16))


def _show(name: str, data: Path | None, index: int, seed: int) -> None:
    """The prompt of one problem, as the model gets it, and the right answer."""
    from nad.tasks import load_task

    if index < 0:
        raise UsageError(f"--index must be at least 0, got {index}")
    # No model's program runs here, so bubblewrap need not be there.
    task = load_task(name, data, limit=index + 1, seed=seed, unsafe_code_execution=True)
    problems = task.problems()
    if index >= len(problems):
        raise UsageError(f"{name} has {len(problems)} problems; --index must be less")
    problem = problems[index]
    print(f"problem {problem.id} of {name}, data {task.data_sha256()[:8]}\n")
    print(task.prompt(problem))
    print(f"\nanswer: {'decided by running its tests' if problem.answer is None else problem.answer}")
