"""The commands that show recorded runs: `nad tables`, `nad figures`, `nad report`. None of them needs a model."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nad.runs.records import Run

Runs = Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs that `nad eval` recorded.")]
Partial = Annotated[bool, typer.Option("--partial", help="Also read runs that are not finished.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(tables)
    app.command()(figures)
    app.command()(report)


def tables(
    runs: Runs,
    out: Annotated[Path | None, typer.Option(help="Write Markdown, CSV, LaTeX and JSON here; else print.")] = None,
    partial: Partial = False,
) -> None:
    """The paper's Tables 1 to 3, with intervals and the paper's own values."""
    opened = _open(runs, partial)
    from nad.analysis.summary import digest
    from nad.analysis.tables.accuracy import all_tables
    from nad.analysis.tables.formats import FORMATS, as_markdown
    from nad.cli.progress import status

    with status("reading") as watch:
        digests = [digest(run, watch=watch) for run in opened]
    found, missing = all_tables(digests)
    if out is None:
        print("\n".join(as_markdown(table) for table in found))
    else:
        for table in found:
            for kind, render in FORMATS.items():
                _write(out / f"table{table.number}.{kind}", render(table))
    _say(missing)


def figures(
    runs: Runs,
    out: Annotated[Path, typer.Option(help="Where PNG, SVG and CSV files go.")] = Path("figures"),
    partial: Partial = False,
) -> None:
    """The paper's figures as PNG and SVG, with the numbers behind each as CSV."""
    opened = _open(runs, partial)
    from nad.analysis.figures import all_figures
    from nad.analysis.figures.canvas import require_libraries, save
    from nad.analysis.summary import digest
    from nad.cli.progress import status

    require_libraries()
    with status("reading") as watch:
        digests = [digest(run, watch=watch) for run in opened]
        drawn, missing = all_figures(digests)
        paths = [path for figure in drawn for path in save(figure, out)]
    print("\n".join(map(str, paths)))
    _say(missing)


def report(
    runs: Runs,
    out: Annotated[Path, typer.Option(help="Where report.html goes.")] = Path("."),
    partial: Partial = False,
) -> None:
    """One HTML file with tables, figures and an explorer of problems and samples; it needs no network."""
    opened = _open(runs, partial)
    from nad.analysis.figures.canvas import require_libraries
    from nad.analysis.report.document import report as make
    from nad.cli.progress import status

    require_libraries()
    with status() as watch:
        document = make(opened, shlex.join(["nad", *sys.argv[1:]]), watch)
    _write(out / "report.html", document)


def _open(paths: Sequence[str], partial: bool) -> "list[Run]":
    from nad.runs.store import open_run

    return [open_run(path, partial) for path in paths]


def _write(path: Path, text: str) -> None:
    from nad.whole_files import write_whole

    write_whole(path, text.encode())
    print(path)


def _say(missing: Sequence[str]) -> None:
    for line in missing:
        print(f"not shown: {line}", file=sys.stderr)
