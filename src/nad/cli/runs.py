"""The commands that record runs and choose from them again: `nad eval`, `nad select`."""

import sys
from shutil import get_terminal_size
from typing import Annotated

import typer

from nad.cli.evaluate import evaluate_task
from nad.cli.streams import note


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(name="eval")(evaluate_task)
    app.command(name="select")(select)


def select(
    run: Annotated[str, typer.Argument(help="A run that `nad eval` recorded.")],
    selector: Annotated[
        list[str] | None,
        typer.Option(help="A selector; may be repeated; knn@tokens looks at text. Default: all."),
    ] = None,
    at: Annotated[str, typer.Option(help="Stop rules, comma-separated.")] = "32,budget,distinct,none",
    prune: Annotated[
        list[str] | None,
        typer.Option(help="Also a pruning, such as 64:32,16:128,4:512; may be repeated."),
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Also read a run that is not finished.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The table as CSV.")] = False,
) -> None:
    """What every selector would have chosen in a recorded run, at every stop, without the model."""
    from nad.analysis.comparison import parse_stops, reselect
    from nad.errors import UsageError
    from nad.runs.store import open_run
    from nad.selection import default_selectors, parse_selector
    from nad.stopping import parse_prune, stop_label

    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other; drop one")
    selectors = [parse_selector(spec) for spec in selector] if selector else default_selectors()
    stops = parse_stops(at) | {stop_label(rule): rule for rule in map(parse_prune, prune or ())}
    from nad.cli.progress import status
    from nad.cli.show_runs import comparison_csv, comparison_json, comparison_text

    store = open_run(run, partial)
    if missing := store.missing():
        note(f"{len(missing)} of {len(store.problems)} problems are not there yet")
    with status("reading the run"):
        comparison = reselect(store, selectors, stops)
    if as_json or as_csv:
        print(comparison_json(comparison) if as_json else comparison_csv(comparison))
    else:
        print(comparison_text(comparison, get_terminal_size().columns if sys.stdout.isatty() else None))
