"""What all figures share: style, the Drawn value, and writing it as PNG, SVG and CSV."""

import csv
import io
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nad.analysis.summary import RunDigest
from nad.errors import NadError
from nad.whole_files import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which stay apart for all common kinds of colour blindness.
CORRECT, INCORRECT, NOT_GRADED = "#0072B2", "#D55E00", "#767676"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKS = ("o", "s", "^", "D", "v", "P")
SELECTOR_LABELS = {"knn": "kNN", "medoid": "Medoid", "dbscan": "DBSCAN", "minact": "MinAct"}

_STYLE = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "nad",
    "svg.fonttype": "path",
}
_DPI = 150


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure, its caption, and its numbers: columns of one length, by name."""

    name: str
    title: str
    caption: str
    figure: "Figure"
    data: Mapping[str, "Sequence[Any] | np.ndarray"]


def require_libraries() -> None:
    """Raises NadError with the install command where the extra is missing."""
    missing = [name for name in ("matplotlib", "sklearn", "scipy") if find_spec(name) is None]
    if missing:
        raise NadError(f"figures need {', '.join(missing)}; install it: pip install 'nad[report]'")


@contextmanager
def _style() -> "Iterator[None]":
    """Our settings, whatever the user's are; some count when a figure is made, some when it is written."""
    matplotlib = _matplotlib()
    # A context does not restore the backend, and we need none: a figure has its canvas.
    default = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
    with matplotlib.rc_context({**default, **_STYLE}):
        yield


def _matplotlib() -> Any:
    """matplotlib. Importing it fails where $MPLBACKEND names a backend that is not here, as below a notebook."""
    named = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        matplotlib = import_module("matplotlib")
    finally:
        if named is not None:
            os.environ["MPLBACKEND"] = named
    if named:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = named
    return matplotlib


@contextmanager
def canvas(width: float, height: float, columns: int = 1, rows: int = 1) -> "Iterator[tuple[Figure, list[Axes]]]":
    """An empty figure of this size in inches with its axes, row by row; drawn in our style, without global state."""
    require_libraries()
    with _style():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False)
        yield figure, list(axes.flat)


def settings(run: RunDigest) -> str:
    """Model, task, n and sampling of a run, for captions."""
    m, p = run.manifest, run.manifest.params
    problems = f"{len(run.problems)} problem{'s' * (len(run.problems) != 1)}"
    rule = f"{m.rule.keep}, k = {m.rule.k}, {m.rule.per_layer} a layer, per {m.rule.per}"
    rule += ", at own positions" if m.rule.position == "own" else ""
    rule += ", without the router's weights" if m.rule.router == "off" else ""
    return (
        f"Model {m.model}; task {m.task}, {problems}; n = {m.n}; temperature {p.temperature:g}, top-p {p.top_p:g}, "
        f"seed {p.seed}, at most {p.max_tokens:,} tokens; activation: {rule}."
    )


def file_name(figure: str, run: RunDigest) -> str:
    """A figure's name with the run's task and model."""
    return f"{figure}_{slug(run.manifest.task)}_{slug(run.manifest.model.rstrip('/').rsplit('/', 1)[-1])}"


def slug(text: str) -> str:
    """The text as part of a file name."""
    return "-".join("".join(c if c.isalnum() or c in "._+" else " " for c in text).split())


def literal(text: str) -> str:
    """The text with its dollar signs taken as they are: otherwise matplotlib reads what stands between two as maths."""
    return text.replace("$", r"\$")


def histograms(axis: "Axes", values: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both distributions over the same bins; returns the values of the correct and of the incorrect samples."""
    low, high = values[correct == 1], values[correct == 0]
    edges = np.histogram_bin_edges(np.concatenate([low, high]), bins=24)
    for part, colour, fill, label in ((low, CORRECT, True, "correct"), (high, INCORRECT, False, "incorrect")):
        share, _ = np.histogram(part, edges)
        style: dict[str, Any] = {"alpha": 0.35} if fill else {"linewidth": 1.4}
        axis.stairs(share / max(1, len(part)), edges, color=colour, fill=fill, label=label, **style)
    return low, high


def png(drawn: Drawn, dpi: int = _DPI) -> bytes:
    """The figure without its caption."""
    with _style():
        return _saved(drawn, format="png", dpi=dpi, metadata={"Software": None})


def save(drawn: Drawn, folder: Path) -> list[Path]:
    """Write NAME.png, NAME.svg (both with the caption below) and NAME.csv; returns their paths."""
    with _style(), _captioned(drawn):
        files = {
            "png": _saved(drawn, format="png", dpi=_DPI, metadata={"Software": None}),
            "svg": _saved(drawn, format="svg", metadata={"Date": None}),
        }
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(drawn.data)
    writer.writerows(zip(*map(_plain, drawn.data.values()), strict=True))
    files["csv"] = table.getvalue().encode()
    paths = {kind: folder / f"{drawn.name}.{kind}" for kind in files}
    for kind, data in files.items():
        write_whole(paths[kind], data)
    return list(paths.values())


def _saved(drawn: Drawn, **options: Any) -> bytes:
    out = io.BytesIO()
    drawn.figure.savefig(out, **options)
    return out.getvalue()


@contextmanager
def _captioned(drawn: Drawn) -> "Iterator[None]":
    """The figure made taller, with its caption in the new strip at the bottom."""
    figure = drawn.figure
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(f"{drawn.title}. {drawn.caption}", int(width * 18))
    strip = 0.13 * len(lines) + 0.12
    share = strip / (height + strip)
    engine: Any = figure.get_layout_engine()
    figure.set_size_inches(width, height + strip)
    engine.set(rect=(0, share, 1, 1 - share))
    note = figure.text(0.015, share, "\n".join(lines), va="top", ha="left", fontsize=7, parse_math=False)
    note.set_in_layout(False)
    yield
    note.remove()
    engine.set(rect=(0, 0, 1, 1))
    figure.set_size_inches(width, height)


def _plain(column: "Sequence[Any] | np.ndarray") -> list[Any]:
    """Python values; numbers to 7 digits, nan as an empty field."""
    values = column.tolist() if isinstance(column, np.ndarray) else list(column)
    return [("" if v != v else float(f"{v:.7g}")) if isinstance(v, float) else v for v in values]
