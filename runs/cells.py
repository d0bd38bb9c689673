"""The problems that the tables of docs/RESULTS.md are about, and what stands in their cells."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from evidence import (
    END,
    Method,
    Problem,
    accuracy,
    average,
    cost,
    difference,
    follow,
    load,
    majority,
    medoid,
    right_wrong_auroc,
)
from extract import FOLDER
from jaxtyping import Float

from nad.stopping import Schedule

TASKS = ("gsm8k", "svamp", "mbpp_sanitized", "humaneval")
STOPS = range(1, END)
"""The places in POSITIONS that the tables show as fixed stops: 16 tokens to 384."""
Data = Mapping[str, Sequence[Problem]]
Row = Sequence[str]


def read(folder: Path = FOLDER) -> Data:
    """The extracts that are there."""
    return {task: load(task, folder) for task in TASKS if (folder / f"{task}.parquet").exists()}


def with_more() -> Data:
    """The problems with 64 samples. A task has an extract for each sitting: TASK-64, then TASK-64-PLACE by the first
    problem's place.
    """
    found: dict[str, Sequence[Problem]] = {}
    for task in TASKS:
        files = sorted(FOLDER.glob(f"{task}-64*.parquet"), key=lambda file: (len(file.stem), file.stem))
        if files:
            found[task] = [problem for file in files for problem in load(file.stem, FOLDER)]
    return found


def with_all(data: Data) -> Data:
    """And all problems together, each counting alike."""
    return {**data, "all": [problem for problems in data.values() for problem in problems]}


def halves(problems: Sequence[Problem]) -> tuple[Sequence[Problem], Sequence[Problem]]:
    """For developing, the problems at even places; for judging, the others."""
    return problems[::2], problems[1::2]


def markdown(header: Row, rows: Iterable[Row]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def average_of(problems: Sequence[Problem]) -> str:
    return f"{100 * average(problems).mean():.1f} %"


def points(values: Float[np.ndarray, " problems"], base: Float[np.ndarray, " problems"]) -> str:
    """A difference in percentage points, with its interval."""
    found = difference(values, base)
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def vote(problems: Sequence[Problem]) -> str:
    voting = any((p.vote >= 0).any() for p in problems)
    return points(majority(problems), average(problems)) if voting else "-"


def beside(problems: Sequence[Problem], method: Method, place: int = END) -> str:
    return f"{points(accuracy(problems, method, place), average(problems))}; {ranked(problems, method, place)}"


def ranked(problems: Sequence[Problem], method: Method, place: int = END) -> str:
    found = [right_wrong_auroc(p, method(p, place)) for p in problems]
    return f"{np.nanmean(found):.2f}"


def gain(problems: Sequence[Problem], place: int) -> str:
    """The cost, the gain over the mean answer, and the AUROC of the medoid of neurons."""
    return f"{100 * cost(problems, medoid(), place).mean():.0f} %: {gain_of(problems, medoid(), place)}"


def gain_of(problems: Sequence[Problem], method: Method, place: int) -> str:
    gain = (accuracy(problems, method, place) - average(problems)).mean()
    return f"{100 * gain:+.1f}, {ranked(problems, method, place)}"


def followed(problems: Sequence[Problem], rule: Schedule) -> str:
    """The cost and the gain of a schedule."""
    ends = [follow(p, medoid(), rule) for p in problems]
    gain = np.mean([e.correct for e in ends]) - average(problems).mean()
    return f"{100 * np.mean([e.share for e in ends]):.0f} %: {100 * gain:+.1f}"
