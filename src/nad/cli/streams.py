"""The standard streams as they are found: closed, or in an encoding that lacks characters."""

import io
import json
import os
import sys
import textwrap
from collections.abc import Sequence
from shutil import get_terminal_size

from nad.errors import NadError, UsageError


def prepare_streams() -> None:
    """Let what is printed survive any locale. Raises NadError where standard output is closed.

    A character that a stream's encoding lacks is printed as its escape (\\xe9), and input announced as ASCII is read
    as UTF-8, which contains it. Where standard error is closed its lines are dropped, not sent to standard output.
    """
    if sys.stdin is None:
        os.open(os.devnull, os.O_RDONLY)  # takes the closed stream's number, which the next file would get otherwise
    if sys.stdout is None:
        raise NadError("standard output is closed; send it to a file, or to /dev/null")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  it stays open to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper) and _is_ascii(sys.stdin.encoding):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")


def check_call(arguments: Sequence[str]) -> None:
    """Raise now for what would fail in the middle of the work: a call that is not text, a folder that is gone."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{argument!r} is not UTF-8 text; give another name, or convert it") from None
    try:
        os.getcwd()
    except FileNotFoundError:
        raise NadError("the current folder has been deleted; change to one that exists (cd)") from None


def read_input() -> str:
    """All of standard input. Raises UsageError where it is closed or not text."""
    if sys.stdin is None:
        raise UsageError("standard input is closed; pipe a text into it, or name a file instead of -")
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8 text ({error.reason} at byte {error.start})") from error


def entry_text(name: str, about: Sequence[str], width: int) -> str:
    """A name and what is said about it, in two columns, wrapped to the terminal; a narrow one gets one column."""
    columns = get_terminal_size().columns if sys.stdout.isatty() else None
    if columns is None or columns >= 3 * width:
        first, rest = f"{name:<{width}} ", " " * (width + 1)
    else:
        first, rest = f"{name}\n    ", "    "
    lines = [line for text in about for line in _wrapped(text, columns and max(24, columns - len(rest) - 1))]
    return first + f"\n{rest}".join(lines)


def _wrapped(text: str, width: int | None) -> list[str]:
    """The text in lines of this width, all indented as the text is."""
    own = text[: len(text) - len(text.lstrip())]
    if width is None:
        return [text]
    return textwrap.wrap(text, width, subsequent_indent=f"{own}  " if own else "", break_on_hyphens=False)


def to_json(value: object) -> str:
    """One line of JSON, with characters outside ASCII where standard output can carry them."""
    return json.dumps(value, ensure_ascii=not _is_unicode(sys.stdout.encoding))


def _is_unicode(encoding: str | None) -> bool:
    return (encoding or "utf-8").lower().replace("-", "").replace("_", "").startswith("utf")


def _is_ascii(encoding: str) -> bool:
    return encoding.lower() in ("ascii", "us-ascii", "646", "ansi_x3.4-1968")


def note(text: str) -> None:
    """A line about the work, to standard error."""
    print(f"note: {text}", file=sys.stderr)
