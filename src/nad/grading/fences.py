"""The fenced blocks of a Markdown text: CommonMark's pairing, with Python kept whole.

markdown-it-py reads the containers (lists and quotes, whose indentation is taken off); the rule for a fence is our own,
since a model's answer is Markdown by habit, not by the letter. Where CommonMark closes a fence too early or too late:
- A fence inside a triple-quoted string (an example in a docstring) does not end a block of Python.
- A fence that names a language opens a block; it ends the one before it, whose own closing fence was forgotten.
- Three backquotes outside a string cannot be Python: glued to the last line of code they close it too.
- Text before ```python on its line is passed over, and a block may be less indented than the list item it is in.
Any indentation is allowed, and a block that never closes goes to the end. The time is linear in the text's length.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock

PYTHON = frozenset({"python", "python2", "python3", "py", "py2", "py3", "pypy", "pypy3", "ipython", "ipython3"})
CONSOLE = frozenset({"pycon", "pycon3", "python-repl", "python-console", "pyrepl", "doctest"})
_MARKDOWN = frozenset({"markdown", "md", "mdx", "commonmark"})
_NESTED = 2  # levels of a block of Markdown inside another
_SCANS = 8  # how often a search for a string's end may reach the text's end in vain, so that the time stays linear

_OUTSIDE_STRINGS = re.compile(
    r"""\#.*|(?P<quote>\"{3}|'{3})|"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?|(?P<fence>`{3,})""", re.VERBOSE
)
_INSIDE_STRING = {quote: re.compile(rf"\\.|(?P<end>{quote})") for quote in ('"""', "'''")}
_CONTAINER = re.compile(r">|(?:[-+*]|\d{1,9}[.)])[ \t]")


@dataclass(frozen=True)
class Block:
    """One block: the language its fence names, in lower case ("" for none), its text, and whether it was closed."""

    language: str
    text: str
    closed: bool


class _End(NamedTuple):
    """Where a block ends: the first line after its text, whether that is a closing fence, what is glued before one."""

    line: int
    closed: bool
    glued: str = ""


def blocks(text: str, nested: int = _NESTED) -> list[Block]:
    """The blocks of a text in their order; those inside a block of Markdown stand in its place."""
    found: list[Block] = []
    for token in _parser().parse(text, {"scans": 0}):
        block = Block(_language(token.info), token.content, bool(token.meta.get("closed")))
        inner = blocks(block.text, nested - 1) if nested and block.language in _MARKDOWN else []
        found += inner or ([block] if token.type == "fence" else [])
    return found


@cache
def _parser() -> MarkdownIt:
    """Blocks only: no inline text, and no indented code, which would hide fences that are deep in a list."""
    parser = MarkdownIt("zero").enable(["list", "blockquote", "fence"])
    parser.core.ruler.enableOnly(["normalize", "block"])
    parser.block.ruler.at("fence", _fence, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    parser.block.ruler.at("paragraph", _text)
    return parser


def _text(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A rule of markdown-it: any other line. CommonMark's paragraph would take a deeply indented fence for its own."""
    state.line = start + 1
    return True


def _fence(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A rule of markdown-it: read the block that begins at line `start`, if one does."""
    opening = _opening(_line(state, start))
    if opening is None or silent:
        return opening is not None
    marker, info = opening
    found = _python_end(state, start, end, marker) if _language(info) in {*PYTHON, *CONSOLE, ""} else None
    found = found or _plain_end(state, start, end, marker)
    state.line = found.line + (1 if found.closed else 0)
    token = state.push("fence", "code", 0)
    token.info, token.meta = info, {"closed": found.closed}
    # A block's text may start further left than the fence: then it was not written relative to the fence.
    first = next((n for n in range(start + 1, found.line) if not state.isEmpty(n)), start)
    indent = min(state.sCount[start], state.sCount[first])
    token.content = state.getLines(start + 1, found.line, indent, True) + found.glued
    return True


def _opening(line: str) -> tuple[str, str] | None:
    """A line's fence and info string, if it opens a block. Backquotes in the info string make it inline code."""
    at = 0 if line.startswith("~~~") else line.find("```")
    if at < 0:
        return None
    info = line[at:].lstrip(line[at])
    marker = line[at : len(line) - len(info)]
    inline = marker[0] == "`" and "`" in info
    after_text = at and (_language(info) not in PYTHON or _CONTAINER.match(line))
    return None if inline or after_text else (marker, info.strip())


def _language(info: str) -> str:
    """The first word of an info string: "python" of `Python title=a.py`, `{.python}` and `python:a.py`."""
    found = re.match(r"[^\w\n]*([\w-]*)", info.lower())
    return found[1].removeprefix("language-") if found else ""


def _line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]].rstrip()


def _closes(line: str, marker: str) -> bool:
    """Whether a line is nothing but a fence at least as long as the one that opened the block."""
    return line.startswith(marker) and not line.strip(marker[0])


def _plain_end(state: StateBlock, start: int, end: int, marker: str) -> _End:
    """The first closing fence, or the next block that names its language."""
    for number in range(start + 1, end):
        line = _line(state, number)
        if _closes(line, marker):
            return _End(number, True)
        if _opens_another(line, marker):
            return _End(number, False)
    return _End(end, False)


def _opens_another(line: str, marker: str) -> bool:
    if not line.startswith(marker):
        return False
    opening = _opening(line)
    return opening is not None and _language(opening[1]) != ""


def _python_end(state: StateBlock, start: int, end: int, marker: str) -> _End | None:
    """The same outside triple-quoted strings; None where a string never ends."""
    if state.env["scans"] >= _SCANS:
        return None
    quote = ""
    for number in range(start + 1, end):
        line = _line(state, number)
        if not quote and _closes(line, marker):
            return _End(number, True)
        if not quote and _opens_another(line, marker):
            return _End(number, False)
        quote, fence = _quote_after(line, quote)
        if fence is not None and _closes(line[fence:], marker):
            indent = " " * max(0, state.sCount[number] - state.sCount[start])
            return _End(number, True, f"{indent}{line[:fence]}\n")
    if quote:
        state.env["scans"] += 1
        return None
    return _End(end, False)


def _quote_after(line: str, quote: str) -> tuple[str, int | None]:
    """The triple quote that is open after a line of Python, given the one open before it; where backquotes stand."""
    at = 0
    while True:
        found = (_INSIDE_STRING[quote] if quote else _OUTSIDE_STRINGS).search(line, at)
        if found is None:
            return quote, None
        at, groups = found.end(), found.groupdict()
        if groups.get("fence"):
            return quote, found.start()
        quote = "" if groups.get("end") else groups.get("quote") or quote


def prompts_stripped(text: str) -> str:
    """What was typed into an interactive session: its lines after `>>>` and `...`; output is left out."""
    return "".join(_typed(text.split("\n")))


def _typed(lines: list[str]) -> Iterator[str]:
    for line in map(str.strip, lines):
        if line.startswith((">>>", "...")):
            yield line[4:] + "\n"
