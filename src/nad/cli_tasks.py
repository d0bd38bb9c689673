"""`nad tasks`: what --task can name, and what a model is asked."""

from pathlib import Path
from typing import Annotated

import typer

from nad.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    tasks = typer.Typer(invoke_without_command=True, help="What --task can name; `show` prints a task's prompts.")
    tasks.callback()(list_tasks)
    tasks.command("show")(show)
    app.add_typer(tasks, name="tasks")


def list_tasks(context: typer.Context) -> None:
    """What --task can name."""
    if context.invoked_subcommand is not None:
        return
    from nad.tasks import ABOUT, task_names

    for name in task_names():
        print(f"{name:<16} {ABOUT.get(name, 'from an installed package')}")


def show(
    name: Annotated[str, typer.Argument(help="A task; see `nad tasks`.")],
    data: Annotated[Path | None, typer.Option(help="A local .jsonl or .csv file instead of the hub.")] = None,
    index: Annotated[int, typer.Option(help="Which problem, from 0.")] = 0,
    seed: Annotated[int, typer.Option(help="Made-up problems; the order of choices.")] = 0,
) -> None:
    """The prompt of one problem of a task, as the model gets it, and the right answer."""
    from nad.tasks import load_task

    if index < 0:
        raise UsageError(f"--index must be at least 0, got {index}")
    # No program of anyone's runs here, so bubblewrap need not be there.
    task = load_task(name, data, limit=index + 1, seed=seed, unsafe_code_execution=True)
    problems = task.problems()
    if index >= len(problems):
        raise UsageError(f"{name} has {len(problems)} problems; --index must be less")
    problem = problems[index]
    print(f"problem {problem.id} of {name}, data {task.data_sha256()[:8]}\n")
    print(task.prompt(problem))
    print(f"\nanswer: {'decided by running its tests' if problem.answer is None else problem.answer}")
