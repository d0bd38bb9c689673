"""The figure of docs/RESULTS.md: the gain over the mean answer against the computed tokens, task by task."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from evidence import END, Method, Problem, accuracy, average, cost, follow, medoid
from extract import POSITIONS

from nad.analysis.figures.canvas import LINES, MARKS, STYLES, Drawn, canvas, save
from nad.analysis.statistics import estimates
from nad.stopping import Settled

Data = Mapping[str, Sequence[Problem]]
Point = tuple[str, str, str, float, float, float, float]
METHODS: Mapping[str, Method] = {"medoid of neurons": medoid(), "medoid of tokens": medoid("tokens")}


def curve_points(data: Data) -> Iterator[Point]:
    """Task, method, stop, share of computed tokens, and the gain with its interval, in percentage points."""
    for task, problems in data.items():
        base = average(problems)
        for name, method in METHODS.items():
            for place in range(1, END + 1):
                stop = "none" if place == END else str(POSITIONS[place])
                gain = estimates((accuracy(problems, method, place) - base)[:, None])[0]
                share = float(cost(problems, method, place).mean())
                yield task, name, stop, share, 100 * gain.value, 100 * gain.low, 100 * gain.high
        ends = [follow(p, medoid(), Settled()) for p in problems]
        gain = estimates((np.array([e.correct for e in ends]) - base)[:, None])[0]
        share = float(np.mean([e.share for e in ends]))
        yield task, "--stop-at auto", "auto", share, 100 * gain.value, 100 * gain.low, 100 * gain.high


def draw(data: Data, folder: Path) -> list[Path]:
    """Write the figure and its numbers."""
    found = list(curve_points(data))
    columns = 2
    rows = -(-len(data) // columns)
    with canvas(7.2, 2.6 * rows, columns, rows) as (figure, axes):
        for axis in axes[len(data) :]:
            axis.set_visible(False)
        for axis, (task, problems) in zip(axes, data.items(), strict=False):
            axis.axhline(0, color="#767676", linewidth=0.8)
            for number, name in enumerate([*METHODS, "--stop-at auto"]):
                some = [p for p in found if p[:2] == (task, name)]
                share, gain, low, high = (np.array([p[i] for p in some]) for i in (3, 4, 5, 6))
                axis.plot(share, gain, color=LINES[number], ls=STYLES[number], marker=MARKS[number], ms=4, label=name)
                if number != 1:
                    axis.vlines(share, low, high, color=LINES[number], alpha=0.25, linewidth=1.5)
            axis.set_title(f"{task}, {len(problems)} problems")
            axis.set_xlim(0, 1.03)
        for axis in axes[::columns]:
            axis.set_ylabel("points over the mean answer")
        for axis in axes[len(data) - columns : len(data)]:
            axis.set_xlabel("computed tokens, share of all full answers")
        axes[0].legend(fontsize=7, loc="lower right")
        columns_of = zip(*found, strict=True)
        names = ("task", "method", "stop", "computed", "gain", "low", "high")
        drawn = Drawn(
            "stop-curves",
            "What a later stop buys",
            "Each mark is a stop from 16 tokens to full answers. Bars are 95 % intervals by bootstrap over problems, "
            "for the neurons and for auto.",
            figure,
            {name: list(column) for name, column in zip(names, columns_of, strict=True)},
        )
    return save(drawn, folder)
