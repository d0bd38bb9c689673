"""The documentation holds: its programs run, its commands parse, its option tables are those of the command line."""

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tiny import tiny_engine

import nad
from nad.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = sorted(p for p in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if "decisions" not in p.parts)
ELSEWHERE = {"read-a-run.md", "serve.md"}
"""Pages whose programs other tests run, on a recorded run or against a server."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def with_programs() -> list[Path]:
    return [page for page in PAGES if blocks(page, "python") and page.name not in ELSEWHERE]


@pytest.mark.parametrize("page", with_programs(), ids=lambda page: page.name)
def test_the_programs_of_a_page_run(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One after the other, as a reader would run them, on a tiny random model."""
    monkeypatch.setattr(nad, "load_engine", lambda *args, **options: tiny_engine("llama"), raising=False)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    for program in blocks(page, "python"):
        exec(compile(program, page.name, "exec"), names)


def commands() -> Iterator[tuple[str, str]]:
    """The lines of all pages that call nad, without what a shell does around them."""
    for page in PAGES:
        for line in page.read_text().splitlines():
            found = re.match(r"(?: {4}|\$ )(?:.*&& )?(?:\S*bin/)?nad ([a-z].*)", line)
            if found:
                yield page.name, found[1].split(" | ")[0].split(" > ")[0].split(" && ")[0].split("  #")[0]


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_the_commands_of_a_page_are_understood(page: str, line: str) -> None:
    name, *arguments = shlex.split(line.replace("[...]", ""))
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    if hasattr(command, "commands") and arguments:
        command, arguments = command.commands[arguments[0]], arguments[1:]
    command.make_context(f"nad {name}", [a for a in arguments if a != "--debug"], resilient_parsing=False)


def test_there_are_programs_and_commands() -> None:
    assert len(with_programs()) >= 4
    assert len(list(commands())) >= 15


def test_the_option_tables_are_those_of_the_command_line() -> None:
    made = runpy.run_path(str(ROOT / "dev" / "write_options.py"))["options_page"]()
    assert (ROOT / "docs" / "options.md").read_text() == made, "run python dev/write_options.py"


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_the_examples_run(example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(nad, "load_engine", lambda *args, **options: tiny_engine("llama"), raising=False)
    monkeypatch.setattr("sys.argv", [str(example)])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", re.sub(r"`[^`]*`", "", page.read_text())):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
