"""The paper's Tables 1 to 3 from recorded runs: methods of a model in rows, tasks in columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nad.analysis import metrics
from nad.analysis.metrics import Estimate
from nad.analysis.requirements import Missing, lacks
from nad.analysis.summary import ProblemDigest, RunDigest
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
_PAPER_COLUMNS = {1: SCIENCE + CODE, 2: SCIENCE, 3: CODE}
_STOPPED = tuple(method for method in METHODS if method != "cons")
_CODE_TASKS = {*(task for column in CODE for task in COLUMNS[column]), "mbpp_sanitized"}


@dataclass(frozen=True)
class Cell:
    """A method on a task. `tokens` counts all problems; `change` is relative to n full answers, in [-1, 0]."""

    accuracy: Estimate
    problems: int
    not_graded: int = 0
    tokens: int | None = None
    change: float | None = None
    paper: Published | None = None


@dataclass(frozen=True)
class Row:
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
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    position: int | None = None


@dataclass(frozen=True)
class _Block:
    """The runs of one model with the same settings, as columns of problems."""

    label: str
    model: str
    n: int
    columns: Mapping[str, tuple[ProblemDigest, ...]]
    voting: frozenset[str]
    """Columns whose answers can be compared."""


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


def _settings(run: RunDigest) -> dict[str, object]:
    m = run.manifest
    return {
        "n": m.n,
        "seed": m.params.seed,
        "temperature": m.params.temperature,
        "top_p": m.params.top_p,
        "rule": m.rule,
        "engine": m.engine,
        "revision": m.revision,
        "dtype": m.dtype,
        "system": m.system,
        "raw": m.raw,
        "template_args": m.template_args,
    }


def _blocks(runs: Sequence[RunDigest]) -> list[_Block]:
    """One block for each model and settings; a second run of a task with the same settings opens another."""
    groups: list[list[RunDigest]] = []
    for run in runs:
        for group in groups:
            same = group[0].manifest.model == run.manifest.model and _settings(group[0]) == _settings(run)
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
        mine, others = _settings(group[0]), [_settings(g[0]) for g in rivals]
        differing = [f"{key} {value}" for key, value in mine.items() if any(o[key] != value for o in others)]
        label = f"{model} ({', '.join(differing) or f'run {rivals.index(group) + 1}'})"
    tasks = {run.manifest.task: run for run in group}
    columns = {column: pooled for column, pooled in COLUMNS.items() if all(task in tasks for task in pooled)}
    pooled = {task for tasks in columns.values() for task in tasks}
    columns |= {task: (task,) for task in tasks if task not in pooled}
    problems = {column: tuple(p for task in of for p in tasks[task].problems) for column, of in columns.items()}
    voting = frozenset(column for column, of in columns.items() if all(tasks[task].manifest.votes for task in of))
    return _Block(label, model, group[0].manifest.n, problems, voting)


def _rows(
    number: int, block: _Block, columns: Sequence[str], methods: Sequence[str], position: int | None
) -> list[Row]:
    cells: dict[str, dict[str, Cell | None]] = {method: {} for method in methods}
    draws: dict[str, list[np.ndarray]] = {method: [] for method in methods}
    for seed, column in enumerate(column for column in columns if column in block.columns):
        problems = block.columns[column]
        values = np.array([[metrics.accuracy(p, method, position) for method in methods] for p in problems])
        estimates, drawn = metrics.estimates(values), metrics.drawn_means(values, seed)
        for j, method in enumerate(methods):
            if method == "cons" and column not in block.voting:
                cells[method][column] = None
                continue
            paper = published(number, block.model, method, column)
            cells[method][column] = _cell(problems, method, position, estimates[j], values[:, j], paper)
            draws[method].append(drawn[:, j])
    same_tasks = tuple(block.columns) == _PAPER_COLUMNS[number]
    for method, row in cells.items():
        paper = published(number, block.model, method, "Avg.") if same_tasks else None
        row["Avg."] = _average(row, draws[method], paper)
    return [Row(block.label, METHODS[method].format(n=block.n), row) for method, row in cells.items()]


def _cell(
    problems: Sequence[ProblemDigest],
    method: str,
    position: int | None,
    accuracy: Estimate,
    values: np.ndarray,
    paper: Published | None,
) -> Cell:
    tokens, change = None, None
    if position is not None:
        full = sum(metrics.full_tokens(p) for p in problems)
        stopped = method not in ("avg", "cons")
        tokens = sum(metrics.stopped_tokens(p, method, position) for p in problems) if stopped else full
        change = tokens / full - 1 if stopped else None
    return Cell(accuracy, len(problems), int(np.isnan(values).sum()), tokens, change, paper)


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


def _notes(number: int, rows: Sequence[Row]) -> list[str]:
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
        notes += ["The paper's values stand behind ours; its n is 64.", *_subsets(rows), *NOTES[number]]
    return notes


def _subsets(rows: Sequence[Row]) -> list[str]:
    """Where ours has other problems than the paper."""
    counts = {(column, cell.problems) for row in rows for column, cell in row.cells.items() if cell and cell.paper}
    return [
        f"{column}: ours are {count} problems, the paper's are {PROBLEMS[column]}."
        for column, count in sorted(counts)
        if PROBLEMS.get(column, count) != count
    ]
