"""Progress as a terminal shows it: on a pseudo-terminal of a given width, read back as bytes."""

import fcntl
import io
import os
import pty
import re
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rich.cells import cell_len

from nad.cli.progress import duration, eval_progress, for_terminal, line, status
from nad.runs.evaluate import EvalProgress

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A pseudo-terminal in the place of standard error."""

    def __init__(self, columns: int, encoding: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = io.TextIOWrapper(
            os.fdopen(theirs, "wb", buffering=0), encoding=encoding, errors="backslashreplace", write_through=True
        )

    def read(self) -> str:
        """What was written since the last call."""
        time.sleep(0.05)
        os.set_blocking(self._ours, False)
        data = bytearray()
        try:
            while block := os.read(self._ours, 1 << 16):
                data += block
        except BlockingIOError:
            pass
        return data.decode("utf-8")

    def frames(self) -> list[str]:
        """The lines that could be seen, without colours; later ones over earlier ones."""
        return [text.rstrip() for text in re.split(r"[\r\n]+", CODES.sub("", self.read())) if text.strip()]

    def close(self) -> None:
        self.stream.close()
        os.close(self._ours)


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 80, encoding: str = "utf-8") -> Iterator[Terminal]:
    shown = Terminal(columns, encoding)
    for name in ("NO_COLOR", "FORCE_COLOR", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))  # rich asks the process's own streams, which are not terminals here
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stderr", shown.stream)
    try:
        yield shown
    finally:
        monkeypatch.undo()
        shown.close()


def test_a_line_is_written_over_without_being_erased_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as seen:
        with line("first, and long") as progress:
            progress.show("second", at_once=True)
            progress.show("second", at_once=True)
        assert seen.read() == "\rfirst, and long\rsecond         \r        \r"


def test_of_many_texts_in_short_order_only_some_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as seen:
        with line("begin") as progress:
            for i in range(1000):
                progress.show(f"token {i}")
            time.sleep(0.11)
            progress.show("end")
        frames = seen.frames()
        assert (frames[0], frames[-1]) == ("begin", "end")
        assert len(frames) < 10


@pytest.mark.parametrize("text", ["sampling 64 answers: token 12 of 32, 5 distinct", "模型" * 30])
def test_a_line_keeps_to_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with terminal(monkeypatch, columns=40) as seen:
        with line(text):
            pass
        (shown,) = seen.frames()
        assert 36 <= cell_len(shown) <= 37
        assert text.startswith(shown)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_an_evaluation_shows_problems_tokens_and_the_time_left(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    with terminal(monkeypatch, columns) as seen:
        with eval_progress(512) as watch:
            watch(EvalProgress(0, 20, 17, None))
            watch(EvalProgress(3, 20, 57, 700.0))
            time.sleep(0.2)
        frames = seen.frames()
        assert max(map(cell_len, frames)) <= columns - 3  # room for ^C
        problems = [f for f in frames if f.startswith("problems")][-1]
        tokens = [f for f in frames if f.startswith("tokens")][-1]
        assert re.search(r"3/20 +12 min left$", problems)
        assert tokens.endswith("57/512 of problem 4")
        assert "━" in problems


def test_several_problems_in_hand_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as seen:
        with eval_progress(512) as watch:
            watch(EvalProgress(3, 20, 57, None, in_hand=8))
            time.sleep(0.2)
        assert any(f.endswith("57/512 furthest of 8") for f in seen.frames())


def test_a_download_has_a_bar_and_the_line_before_and_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as seen:
        with status() as report:
            report("downloading")
            for share in (0.1, 0.4, 0.98, 1.3):
                report("downloading", share)
                time.sleep(0.12)
            report("unpacking")
        frames = seen.frames()
        assert frames[:2] == ["starting", "downloading"]
        assert frames[-1] == "unpacking"
        assert any("━" in f and "40%" in f for f in frames) and any("100%" in f for f in frames)
        assert any(re.search(r"\d+:\d\d$", f) for f in frames)  # the time left


def test_an_encoding_without_lines_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, encoding="ascii") as seen:
        with eval_progress(512) as watch:
            watch(EvalProgress(10, 20, 57, 5.0))
            time.sleep(0.2)
        shown = seen.read()
        assert shown.isascii() and "\\u" not in shown
        assert "10/20" in shown and "--" in shown


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    def colours() -> bool:
        with eval_progress(512) as watch:
            watch(EvalProgress(10, 20, 57, 5.0))
            time.sleep(0.2)
        return bool(re.search(r"\x1b\[[0-9;]*3[0-9]", seen.read()))

    with terminal(monkeypatch) as seen:
        assert colours()
        monkeypatch.setenv("NO_COLOR", "1")
        assert not colours()


@pytest.mark.parametrize("forced", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}])
def test_a_log_gets_nothing(monkeypatch: pytest.MonkeyPatch, forced: dict[str, str]) -> None:
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    for name, value in forced.items():
        monkeypatch.setenv(name, value)
    with line("working") as progress:
        progress.show("still", at_once=True)
    with status() as report:
        report("loading")
        report("downloading", 0.5)
    with eval_progress(8) as watch:
        watch(EvalProgress(1, 2, 3, 4.0))
    assert log.getvalue() == ""
    assert for_terminal(["a " * 300]) == "a " * 300


def test_a_dumb_terminal_gets_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as seen:
        monkeypatch.setenv("TERM", "dumb")
        with status() as report, eval_progress(8) as watch:
            report("downloading", 0.5)
            watch(EvalProgress(1, 2, 3, 4.0))
        assert seen.read() == ""


def test_what_is_said_wraps_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, columns=40):
        assert for_terminal(["short", "packed weights and the CPU decoding step in use (--no-fast-cpu)"]) == (
            "short\npacked weights and the CPU decoding step\n  in use (--no-fast-cpu)"
        )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5000, "83 min"), (12000, "3 h 20 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
