"""Where problems come from: a data set of the hub, or a local file with the same columns."""

import csv
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nad.errors import NadError, UsageError
from nad.tasks.base import Options, Problem

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """A data set of the hub: its id, configuration and splits, the columns a loader reads, and the paper's size.

    `files` names the data set's own JSON Lines files, for one that the library cannot load by its id.
    """

    hub: str
    size: int
    columns: tuple[str, ...]
    config: str | None = None
    split: str = "test"
    files: tuple[str, ...] = ()


def load_problems(
    name: str, source: Source, problem: Callable[[Row, int], Problem], options: Options
) -> tuple[Problem, ...]:
    """The problems of a source, in its order. Raises UsageError for another form, NadError for another number."""
    if options.everything:
        raise UsageError(f"--all has no use for {name}; allowed: lcb_v5")
    rows = read_rows(source, options.data)
    made: list[Problem] = []
    for index, row in enumerate(rows):
        if options.limit is not None and index >= options.limit:
            break
        made.append(problem(row, index))
    check_size(name, len(made), source.size, options)
    return tuple(made)


def check_size(name: str, found: int, expected: int, options: Options) -> None:
    if options.limit is None and found != expected:
        where = options.data or "the hub data set"
        raise NadError(f"{name} has {expected} problems, {where} has {found}; name the whole set, or pass --limit")
    if not found:
        raise UsageError(f"{options.data} has no problems; name a file with at least one row")


def read_rows(source: Source, data: Path | None) -> Iterator[Row]:
    """Rows that have the source's columns."""
    rows = _hub_rows(source) if data is None else _file_rows(data)
    for number, row in enumerate(rows, start=1):
        if missing := [c for c in source.columns if c not in row]:
            where = f"row {number} of {data or source.hub}"
            raise UsageError(f"{where} lacks the columns {', '.join(missing)}; needed: {', '.join(source.columns)}")
        yield row


def _file_rows(path: Path) -> Iterator[Row]:
    if path.suffix not in (".jsonl", ".csv"):
        raise UsageError(f"--data must be a .jsonl or .csv file, got {path}")
    if not path.is_file():
        raise UsageError(f"no file {path}; --data must name a .jsonl or .csv file")
    with path.open(encoding="utf-8-sig", newline="" if path.suffix == ".csv" else None) as file:
        yield from csv.DictReader(file) if path.suffix == ".csv" else _json_lines(path, file)


def _json_lines(path: Path, lines: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{path}, line {number} is no JSON ({error}); --data wants one object a line") from None
        if not isinstance(row, dict):
            raise UsageError(f"{path}, line {number} is no JSON object; --data wants one object a line")
        yield row


def _hub_rows(source: Source) -> Iterable[Row]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise NadError(
            "hub data sets need the package datasets: pip install 'nad[eval]', or pass --data FILE"
        ) from None
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # else it reports every attempt
    try:
        if source.files:
            urls = [f"hf://datasets/{source.hub}/{name}" for name in source.files]
            return load_dataset("json", data_files=urls, split="train")
        return load_dataset(source.hub, source.config, split=source.split)
    except Exception as error:  # the library raises what its many back ends raise
        reason = " ".join(str(error).split())[:200]
        raise NadError(
            f"cannot load {source.hub}: {type(error).__name__}: {reason}; "
            "check the network and, where the data set asks for it, your login; or pass --data FILE"
        ) from error


def sha256(problems: Iterable[Problem]) -> str:
    """Hash of the problems as used, order included."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(json.dumps(asdict(problem), sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()
