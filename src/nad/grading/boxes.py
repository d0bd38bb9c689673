"""The boxes of a text: what a model puts into \\boxed{...} is its answer."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_SIGN = re.compile(r"(\\(?:boxed|fbox)(?![a-zA-Z]))[ \t]{0,9}(\{)?|\\.|[{}]", re.DOTALL)
_BETWEEN = re.compile(
    r"[\s$]*(?:\\\)|\\\])?[\s$]*(?:\\text\s?\{)?\s*(?:,?\s?and|,?\s?or|,|;)\s*\}?[\s$]*(?:\\\(|\\\[)?[\s$]*"
)
_AFTER = re.compile(r"[\s$]{0,4}(?:\\text\s?\{)?\s?(\\?%|(?:hundred|thousand|million|billion|trillion|dozen)\b)")


@dataclass(frozen=True)
class Box:
    """A box's place in its text, and what it holds."""

    start: int
    end: int
    content: str


def boxed(text: str) -> str | None:
    """What the last boxes that are not empty hold; boxes joined by a comma, "and" or "or" are one answer.

    A box that never closes, or is empty, says nothing. A scale or a percent sign after the last box belongs to it.
    """
    found = list(_boxes(text))
    if not found:
        return None
    last = found.pop()
    parts = [last.content]
    if (after := _AFTER.match(text, last.end)) and last.content[-1:].isdigit():
        parts = [f"{last.content} {after[1]}"]
    while found and last.start - found[-1].end <= 40 and _BETWEEN.fullmatch(text, found[-1].end, last.start):
        last = found.pop()
        if last.content not in parts:
            parts.insert(0, last.content)
    return ", ".join(parts)


def open_box(text: str) -> bool:
    """Whether a text has a box that never closes: it was cut while it said its answer."""
    return _scan(text)[1]


def _boxes(text: str) -> Iterator[Box]:
    """The boxes that hold something and no other box, in the order in which they close."""
    latest = -1
    for box in _scan(text)[0]:
        if box.start > latest and box.content:
            yield box
        latest = max(latest, box.start)


def _scan(text: str) -> tuple[list[Box], bool]:
    """All boxes in the order in which they close, in one pass over the braces; whether one is left open."""
    found: list[Box] = []
    opened: list[tuple[int, int] | None] = []  # a brace's box: where it begins, and its content
    for sign in _SIGN.finditer(text):
        if sign[1] and sign[2]:
            opened.append((sign.start(), sign.end()))
        elif sign[1]:
            found += _bare(text, sign.start(), sign.end())
        elif sign[0] == "{":
            opened.append(None)
        elif sign[0] == "}" and opened and (box := opened.pop()):
            found.append(Box(box[0], sign.end(), text[box[1] : sign.start()].strip()))
    return found, any(opened)


def _bare(text: str, start: int, end: int) -> list[Box]:
    """A box without braces, \\boxed 7: it holds the next word."""
    word = re.compile(r"\s{0,9}(\S{1,99})").match(text, end)
    return [Box(start, word.end(), word[1].rstrip(".,$"))] if word else []
