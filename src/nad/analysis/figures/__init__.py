"""The paper's figures from recorded runs: one function each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from nad.analysis.figures.canvas import Drawn
from nad.analysis.figures.experiments import figure_6, figure_7, figure_8
from nad.analysis.figures.pilot_study import figure_2, figure_3, figure_4a, figure_4b, figure_4c
from nad.analysis.requirements import Missing
from nad.analysis.summary import RunDigest

__all__ = [
    "all_figures",
    "figure_2",
    "figure_3",
    "figure_4a",
    "figure_4b",
    "figure_4c",
    "figure_6",
    "figure_7",
    "figure_8",
]

PER_RUN: Mapping[str, Callable[[RunDigest], Drawn]] = {
    "Fig. 2": figure_2,
    "Fig. 3": figure_3,
    "Fig. 4a": figure_4a,
    "Fig. 4b": figure_4b,
    "Fig. 4c": figure_4c,
    "Fig. 7": figure_7,
    "Figs. 8-10": figure_8,
}


def all_figures(runs: Sequence[RunDigest]) -> tuple[list[Drawn], list[str]]:
    """The figures that these runs give, and a line for each of the others."""
    drawn, missing = [], []
    jobs = [(name, partial(make, run)) for run in runs for name, make in PER_RUN.items()]
    for name, make in [*jobs, ("Fig. 6", partial(figure_6, runs))]:
        try:
            drawn.append(make())
        except Missing as error:
            missing.append(f"{name}: {error}")
    return [replace(figure, name=name) for figure, name in zip(drawn, _unique(drawn), strict=True)], missing


def _unique(drawn: Sequence[Drawn]) -> list[str]:
    """Names, numbered where two runs of one task and model would write to one file."""
    names: list[str] = []
    for figure in drawn:
        number = 1 + sum(name.partition("#")[0] == figure.name for name in names)
        names.append(figure.name if number == 1 else f"{figure.name}#{number}")
    return [name.replace("#", "_") for name in names]
