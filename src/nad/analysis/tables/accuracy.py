"""The paper's Tables 1 to 3 from recorded runs: methods of a model in rows, tasks in columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nad.analysis.outcomes import Tally
from nad.analysis.requirements import Missing, lacks
from nad.analysis.statistics import Estimate, drawn_means
from nad.analysis.summary import ProblemDigest, RunDigest, tallies_of
from nad.analysis.tables.paper_values import CODE, COLUMNS, NOTES, PROBLEMS, SCIENCE, Published, published
from nad.stopping import CHUNK

METHODS: Mapping[str, str] = {
    "avg": "Avg@{n}",
    "cons": "Cons@{n}",
    "knn": "NAD-kNN",
    "medoid": "NAD-Medoid",
    "dbscan": "NAD-DBSCAN",
    "minact": "NAD-MinAct",
    "knn@tokens": "Text-kNN",
    "medoid@tokens": "Text-Medoid",
    "dbscan@tokens": "Text-DBSCAN",
}
"""Row labels. The Text rows are a control the paper does not have: the same selectors on the sets of tokens."""
WHOLE = ("avg", "cons")
"""Methods that look at full answers, whatever the stop position."""
_PAPER_COLUMNS = {1: SCIENCE + CODE, 2: SCIENCE, 3: CODE}
_STOPPED = tuple(method for method in METHODS if method != "cons")
_CODE_TASKS = {*(task for column in CODE for task in COLUMNS[column]), "mbpp_sanitized"}


@dataclass(frozen=True)
class Cell:
    """A method on a task, over the `problems` whose choice is graded, as in `nad select`.

    `tokens` counts the `not_graded` ones too; `change` is relative to n full answers, in [-1, 0].
    """

    accuracy: Estimate
    problems: int
    not_graded: int = 0
    tokens: int | None = None
    change: float | None = None
    paper: Published | None = None


@dataclass(frozen=True)
class TableRow:
    """A method of a model; None where the method does not apply, no cell where the task was not run."""

    model: str
    method: str
    cells: Mapping[str, Cell | None]


@dataclass(frozen=True)
class Table:
    """`position` is the stop position in tokens, None for full answers."""

    number: int
    title: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...]
    position: int | None = None


@dataclass(frozen=True)
class _Block:
    """The runs of one model with the same settings, as columns of problems."""

    label: str
    model: str
    n: int
    columns: Mapping[str, tuple[ProblemDigest, ...]]


def table_1(runs: Sequence[RunDigest]) -> Table:
    """Accuracy of every method on full answers. Raises Missing when no run has what it takes."""
    return _table(1, "Accuracy (%) on full answers", runs, tuple(METHODS), None)


def table_2(runs: Sequence[RunDigest]) -> Table:
    """Accuracy and tokens after stopping at 32 tokens, on tasks with answers."""
    answers = [run for run in runs if run.manifest.task not in _CODE_TASKS]
    return _table(2, f"Accuracy (%) and tokens, stopped at {CHUNK} tokens", answers, _STOPPED, CHUNK)


def table_3(runs: Sequence[RunDigest]) -> Table:
    """The same on code."""
    code = [run for run in runs if run.manifest.task in _CODE_TASKS]
    return _table(3, f"Accuracy (%) and tokens on code, stopped at {CHUNK} tokens", code, _STOPPED, CHUNK)


TABLES = (table_1, table_2, table_3)


def all_tables(runs: Sequence[RunDigest]) -> tuple[list[Table], list[str]]:
    """The tables that these runs give, and a line for each of the others."""
    tables, missing = [], []
    for number, make in enumerate(TABLES, 1):
        try:
            tables.append(make(runs))
        except Missing as error:
            missing.append(f"Table {number}: {error}")
    return tables, missing


def _table(number: int, title: str, runs: Sequence[RunDigest], methods: Sequence[str], position: int | None) -> Table:
    if not runs:
        kind = "code task (humaneval, mbpp, mbpp_sanitized, lcb_v5)" if number == 3 else "task with answers"
        raise Missing(f"no run of a {kind}; record one with `nad eval --task`")
    reasons = [lacks(run, "full", "group", "grades") for run in runs]
    usable = [run for run, reason in zip(runs, reasons, strict=True) if reason is None]
    left_out = [reason for reason in reasons if reason]
    if not usable:
        raise Missing("; ".join(left_out))
    blocks = _blocks(usable)
    columns = _ordered({column for block in blocks for column in block.columns})
    rows = [row for block in blocks for row in _rows(number, block, columns, methods, position)]
    notes = [*_notes(number, rows), *(f"Left out: {reason}." for reason in left_out)]
    return Table(number, title, (*columns, "Avg."), tuple(rows), tuple(notes), position)


def _ordered(columns: set[str]) -> list[str]:
    paper = [column for column in COLUMNS if column in columns]
    return paper + sorted(columns - set(paper))


def _blocks(runs: Sequence[RunDigest]) -> list[_Block]:
    """One block for each model with its settings; a second run of a task with the same settings opens another block."""
    groups: list[list[RunDigest]] = []
    for run in runs:
        for group in groups:
            same = group[0].manifest.comparable == run.manifest.comparable
            if same and all(other.manifest.task != run.manifest.task for other in group):
                group.append(run)
                break
        else:
            groups.append([run])
    return [_block(group, groups) for group in groups]


def _block(group: Sequence[RunDigest], groups: Sequence[Sequence[RunDigest]]) -> _Block:
    model = group[0].manifest.model
    rivals = [g for g in groups if g[0].manifest.model == model]
    label = model
    if len(rivals) > 1:
        mine, others = group[0].manifest.comparable, [g[0].manifest.comparable for g in rivals]
        differing = [f"{key} {value}" for key, value in mine.items() if any(o[key] != value for o in others)]
        label = f"{model} ({', '.join(differing) or f'run {rivals.index(group) + 1}'})"
    tasks = {run.manifest.task: run for run in group}
    columns = {column: pooled for column, pooled in COLUMNS.items() if all(task in tasks for task in pooled)}
    pooled = {task for tasks in columns.values() for task in tasks}
    columns |= {task: (task,) for task in tasks if task not in pooled}
    problems = {column: tuple(p for task in of for p in tasks[task].problems) for column, of in columns.items()}
    return _Block(label, model, group[0].manifest.n, problems)


def _rows(
    number: int, block: _Block, columns: Sequence[str], methods: Sequence[str], position: int | None
) -> list[TableRow]:
    cells: dict[str, dict[str, Cell | None]] = {method: {} for method in methods}
    draws: dict[str, list[np.ndarray]] = {method: [] for method in methods}
    asked = [(method, None if method in WHOLE else position) for method in methods]
    for seed, column in enumerate(column for column in columns if column in block.columns):
        problems = block.columns[column]
        values = [[p.outcome(*pair).value for pair in asked] for p in problems]
        drawn = drawn_means(np.array(values, dtype=float), seed)  # another seed a task: tasks are drawn independently
        for method, tally, means in zip(methods, tallies_of(problems, asked), drawn.T, strict=True):
            applies = tally.problems + tally.not_graded == len(problems)
            paper = published(number, block.model, method, column)
            cells[method][column] = _cell(tally, method, position is not None, paper) if applies else None
            draws[method].append(means)
    same_tasks = tuple(block.columns) == _PAPER_COLUMNS[number]
    for method, row in cells.items():
        paper = published(number, block.model, method, "Avg.") if same_tasks else None
        row["Avg."] = _average(row, draws[method], paper)
    return [TableRow(block.label, METHODS[method].format(n=block.n), row) for method, row in cells.items()]


def _cell(tally: Tally, method: str, with_tokens: bool, paper: Published | None) -> Cell:
    tokens = tally.sampled if with_tokens else None
    change = -tally.saved if with_tokens and method not in WHOLE and tally.saved is not None else None
    return Cell(tally.accuracy, tally.problems, tally.not_graded, tokens, change, paper)


def _average(cells: Mapping[str, Cell | None], draws: Sequence[np.ndarray], paper: Published | None) -> Cell | None:
    """The plain mean over tasks; None unless the method applies to all of them."""
    applicable = [cell for cell in cells.values() if cell is not None]
    if len(applicable) < len(cells):
        return None
    values = np.array([cell.accuracy.value for cell in applicable])
    if any(np.isnan(cell.accuracy.low) for cell in applicable):
        low, high = np.nan, np.nan
    else:
        low, high = np.nanquantile(np.mean(draws, axis=0), [0.025, 0.975])
    problems = sum(cell.problems for cell in applicable)
    return Cell(Estimate(float(values.mean()), float(low), float(high)), problems, paper=paper)


def _notes(number: int, rows: Sequence[TableRow]) -> list[str]:
    cells = [cell for row in rows for cell in row.cells.values() if cell is not None]
    notes = ["Brackets hold 95 % intervals: bootstrap over problems. Avg. is the plain mean over tasks."]
    if any(row.method.startswith("Text") for row in rows):
        notes.append("The Text rows are a control: the same selectors on the sets of tokens instead of neurons.")
    if any(cell.tokens is not None for cell in cells):
        notes.append(
            "Tokens as the paper counts them: n prefixes and the winner's rest, shared prefixes once for each sample."
        )
    if any(np.isnan(cell.accuracy.low) for cell in cells):
        notes.append("No interval stands where a task has fewer than two graded problems.")
    worst = max(cell.not_graded for cell in cells)
    if worst:
        notes.append(f"Up to {worst} problems of a cell were not graded: left out of it, not counted as wrong.")
    if any(cell.paper for cell in cells):
        notes += ["The paper's values stand after ours; its n is 64.", *_subsets(rows), *NOTES[number]]
    return notes


def _subsets(rows: Sequence[TableRow]) -> list[str]:
    """Where ours has other problems than the paper."""
    cells = [(column, cell) for row in rows for column, cell in row.cells.items() if cell and cell.paper]
    counts = {(column, cell.problems + cell.not_graded) for column, cell in cells}
    return [
        f"{column}: ours are {count} problems, the paper's are {PROBLEMS[column]}."
        for column, count in sorted(counts)
        if PROBLEMS.get(column, count) != count
    ]
