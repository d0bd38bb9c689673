"""Progress on a terminal: a line for what is going on, bars for what can be counted. Nothing where there is none.

All of it goes to standard error. NO_COLOR, an encoding without line-drawing characters and a narrow terminal are
respected; a log gets no control characters, whatever FORCE_COLOR says.
"""

import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from nad.engines.base import Engine, Report

if TYPE_CHECKING:
    from nad.runs.evaluate import EvalProgress

_PAUSE_S = 0.1
"""Seconds between two states of a line: nobody can read faster ones."""
_ROOM = 3
"""Columns left free at the right: a terminal shows Ctrl-C as ^C, which must not begin a new line."""


def on_terminal() -> bool:
    """Whether standard error is a terminal that can go back to the start of a line."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


class Line:
    """One line that is written over: only when it changes, never erased first, so that it does not flicker."""

    def __init__(self) -> None:
        self._shown, self._time = "", 0.0

    def show(self, text: str, at_once: bool = False) -> None:
        """Show a text, cut to the terminal's width. Of many in short order only some are seen, unless `at_once`."""
        now = time.monotonic()
        if not on_terminal() or not (at_once or now - self._time >= _PAUSE_S):
            return
        width = _columns() - _ROOM
        text = _cut(text, width)
        if text != self._shown:
            sys.stderr.write(f"\r{text}{' ' * (cell_len(self._shown) - cell_len(text))}")
            sys.stderr.flush()
            self._shown, self._time = text, now

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write(f"\r{' ' * (cell_len(self._shown) + _ROOM - 1)}\r")
            sys.stderr.flush()
            self._shown = ""


@contextmanager
def line(text: str) -> Iterator[Line]:
    """A line on the terminal, gone at the end."""
    shown = Line()
    shown.show(text, at_once=True)
    try:
        yield shown
    finally:
        shown.clear()


@contextmanager
def status(text: str = "starting") -> Iterator[Report]:
    """A line that says what takes long; a bar with the time left while it is told how much of it is done."""
    with line(text) as shown:
        bar: list[tuple[Progress, TaskID]] = []

        def end_bar() -> None:
            for progress, _ in bar:
                progress.stop()
            bar.clear()

        def report(text: str, share: float | None = None, /) -> None:
            if share is None or not on_terminal():
                end_bar()
                shown.show(text, at_once=True)
                return
            shown.clear()
            if not bar:
                progress = _bars(TimeRemainingColumn(compact=True))
                progress.start()
                bar.append((progress, progress.add_task("", total=1.0, count="")))
            progress, task = bar[0]
            done = min(share, 1.0)
            progress.update(task, description=_cut(text, _columns() // 2), completed=done, count=f"{done:.0%}")

        try:
            yield report
        finally:
            end_bar()


@contextmanager
def loaded(model: str | None, engine: str, **options: Any) -> Iterator[Engine]:
    """The engine, with its loading told of, and closed in the end."""
    from nad.engines import load_engine

    with status() as report:
        running = load_engine(model, engine, report=report, **options)
    try:
        yield running
    finally:
        running.close()


@contextmanager
def eval_progress(most_tokens: int) -> "Iterator[Callable[[EvalProgress], None]]":
    """A bar for the problems with the time left, and one for the tokens of the problem in hand."""
    with _bars(TextColumn("{task.fields[rest]}", table_column=Column(no_wrap=True))) as progress:
        problems = progress.add_task("problems", total=1, count="", rest="")
        tokens = progress.add_task("tokens", total=most_tokens, count="", rest="")

        def watch(now: "EvalProgress") -> None:
            left = "" if now.seconds_left is None else f"{duration(now.seconds_left)} left"
            progress.update(problems, total=now.total, completed=now.done, count=f"{now.done}/{now.total}", rest=left)
            progress.update(tokens, completed=now.position, count=f"{now.position}/{most_tokens}", rest=_in_hand(now))

        yield watch


def _in_hand(now: "EvalProgress") -> str:
    if now.in_hand > 1:
        return f"furthest of {now.in_hand}"
    return f"of problem {now.done + 1}" if now.done < now.total else ""


def for_terminal(lines: Iterable[str]) -> str:
    """Lines, wrapped between words where standard error is a terminal that is too narrow for them."""
    if not sys.stderr.isatty():
        return "\n".join(lines)
    width = max(20, _columns())
    return "\n".join(
        textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for text in lines
    )


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width)


def _columns() -> int:
    """The terminal's width; some terminals say 0 because they do not know it."""
    return os.get_terminal_size(sys.stderr.fileno()).columns or 80


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class _Console(Console):
    """A console that leaves some room at the right."""

    @property
    def options(self) -> ConsoleOptions:
        return super().options.update(max_width=self.width - _ROOM)


def _bars(rest: TextColumn | TimeRemainingColumn) -> Progress:
    """Bars as wide as the terminal allows, each with its name, its numbers and `rest`."""
    terminal = on_terminal()
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),
        TextColumn("{task.fields[count]}", table_column=Column(no_wrap=True, justify="right")),
        rest,
        console=_Console(stderr=True, force_terminal=terminal),
        transient=True,
        disable=not terminal,
        expand=True,
    )
