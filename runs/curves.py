"""The figures of docs/RESULTS.md: the gain over the mean answer against the computed tokens, task by task."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from evidence import AT_STOPS, END, METHODS, Problem, accuracy, average, cost, follow, medoid
from extract import POSITIONS
from jaxtyping import Float

from nad.analysis.figures.canvas import LINES, MARKS, STYLES, Drawn, canvas, save
from nad.analysis.statistics import estimates
from nad.stopping import Settled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Data = Mapping[str, Sequence[Problem]]
Point = tuple[str, str, str, float, float, float, float]
AUTO = "--stop-at auto"
AGAINST_TEXTS = ("medoid", "medoid@tokens", AUTO)
OTHERS = ("knn", "dbscan", "minact", "logprob", "entropy", "deepconf")


def curve_points(data: Data) -> Iterator[Point]:
    """Task, method, stop, share of computed tokens, and the gain with its interval, in percentage points."""
    for task, problems in data.items():
        base = average(problems)
        shares, right = dict[tuple[str, str], float](), dict[tuple[str, str], Float[np.ndarray, " problems"]]()
        for name in AT_STOPS:
            for place in range(1, END + 1):
                point = name, "none" if place == END else str(POSITIONS[place])
                right[point] = accuracy(problems, METHODS[name], place)
                shares[point] = float(cost(problems, METHODS[name], place).mean())
        ends = [follow(p, medoid(), Settled()) for p in problems]
        right[AUTO, "auto"] = np.array([e.correct for e in ends])
        shares[AUTO, "auto"] = float(np.mean([e.share for e in ends]))
        gains = estimates(np.stack([values - base for values in right.values()], axis=1))  # drawn once for all points
        for (point, share), gain in zip(shares.items(), gains, strict=True):
            yield task, *point, share, 100 * gain.value, 100 * gain.low, 100 * gain.high


def draw(data: Data, folder: Path) -> list[Path]:
    """Write the figures and their numbers."""
    found = list(curve_points(data))
    bars = "Bars are 95 % intervals by bootstrap over problems, for the neurons and for auto."
    title = "What a later stop buys"
    shown = [point for point in found if point[1] in AGAINST_TEXTS]
    files = _save("stop-curves", title, bars, _panels(data, found, AGAINST_TEXTS, {"medoid", AUTO}), shown, folder)
    others = "Their intervals (in the CSV file) are some ten points wide."
    return files + _save("stop-selectors", title, others, _panels(data, found, OTHERS, set()), found, folder)


def _panels(data: Data, found: Sequence[Point], lines: Sequence[str], with_bars: set[str]) -> "Figure":
    columns = 2
    rows = -(-len(data) // columns)
    with canvas(7.2, 2.6 * rows, columns, rows) as (figure, axes):
        for axis in axes[len(data) :]:
            axis.set_visible(False)
        for axis, (task, problems) in zip(axes, data.items(), strict=False):
            axis.axhline(0, color="#767676", linewidth=0.8)
            for number, name in enumerate(lines):
                some = [p for p in found if p[:2] == (task, name)]
                share, gain, low, high = (np.array([p[i] for p in some]) for i in (3, 4, 5, 6))
                axis.plot(share, gain, color=LINES[number], ls=STYLES[number], marker=MARKS[number], ms=4, label=name)
                if name in with_bars:
                    axis.vlines(share, low, high, color=LINES[number], alpha=0.25, linewidth=1.5)
            axis.set_title(f"{task}, {len(problems)} problems")
            axis.set_xlim(0, 1.03)
        for axis in axes[::columns]:
            axis.set_ylabel("points over the mean answer")
        for axis in axes[len(data) - columns : len(data)]:
            axis.set_xlabel("computed tokens, share of all full answers")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(lines), fontsize=7)
    return figure


def _save(name: str, title: str, note: str, figure: "Figure", found: Sequence[Point], folder: Path) -> list[Path]:
    names = ("task", "method", "stop", "computed", "gain", "low", "high")
    numbers = {name: list(column) for name, column in zip(names, zip(*found, strict=True), strict=True)}
    caption = f"Each mark is a stop from 16 tokens to full answers. {note}"
    return save(Drawn(name, title, caption, figure, numbers), folder)
