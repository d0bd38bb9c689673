"""The house: which folder may import which, and how long files and functions may be (docs/decisions/0022-floors.md)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "nad"
FLOORS = [
    ["__init__", "__main__"],
    ["cli"],
    ["server"],
    ["analysis"],
    ["runs"],
    ["decoding", "generation_strategy"],
    ["schedules"],
    ["tasks", "result_json"],
    ["grading"],
    ["selection"],
    ["engines"],
    ["text_stream", "thinking", "whole_files"],
    ["types"],
    ["stopping"],
    ["prefixes"],
    ["neurons"],
    ["spec_grammar"],
    ["errors"],
    ["drawing"],
]
"""From the top of the house down: a room imports rooms of lower floors, its own, and no others."""
UP = {
    ("engines/__init__", "runs/replay_engine"): "an engine that serves a record; named in ENGINES as text",
}
"""The arrows that go up, and why."""
MOST_LINES, MOST_FUNCTION_LINES = 400, 60
NOTHING_BELOW = {"testing"}
"""Rooms nothing in the house may import."""


def room(module: str) -> str:
    return module.split("/")[0]


def floor(name: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


def modules() -> Iterator[tuple[str, ast.Module, str]]:
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        yield path.relative_to(SOURCE).with_suffix("").as_posix(), ast.parse(text), text


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        for name in names:
            if name.startswith("nad."):
                yield name.removeprefix("nad.").replace(".", "/")


def exists(name: str) -> bool:
    return (SOURCE / f"{name}.py").is_file() or (SOURCE / name / "__init__.py").is_file()


def arrows() -> Iterator[tuple[str, str]]:
    for module, tree, _ in modules():
        for target in imported(tree):
            if exists(target) and room(target) != room(module):
                yield module, target


def test_no_room_imports_one_above_it() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, target in arrows()
        if room(module) not in NOTHING_BELOW
        and floor(room(target)) <= floor(room(module))
        and not any(module == a and (target == b or target.startswith(f"{b}/")) for a, b in UP)
    ]
    assert not wrong


def test_the_arrows_that_go_up_are_needed() -> None:
    """An arrow that no import makes any longer is taken off the list; ENGINES names its engine as text."""
    made = {(module, room(target)) for module, target in arrows()}
    for module, target in UP:
        named = target.replace("/", ".") in (SOURCE / f"{module}.py").read_text()
        assert named or (module, room(target)) in made


def test_nothing_imports_what_is_only_for_tests() -> None:
    assert not [f"{module} imports {target}" for module, target in arrows() if room(target) in NOTHING_BELOW]


def test_analysis_imports_no_engine() -> None:
    assert not [module for module, target in arrows() if room(module) == "analysis" and room(target) == "engines"]


def test_files_and_functions_are_short() -> None:
    long = [
        f"{module}: {len(text.splitlines())} lines"
        for module, _, text in modules()
        if len(text.splitlines()) > MOST_LINES
    ]
    for module, tree, _ in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MOST_FUNCTION_LINES:
                    long.append(f"{module}.{node.name}: {lines} lines")
    assert not long


@pytest.mark.parametrize("folder", sorted(p.name for p in SOURCE.iterdir() if p.is_dir() and p.name != "__pycache__"))
def test_every_folder_says_what_it_is(folder: str) -> None:
    tree = ast.parse((SOURCE / folder / "__init__.py").read_text())
    assert ast.get_docstring(tree)
