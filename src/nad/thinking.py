"""Thinking blocks: what a reasoning model writes before its answer, between tags that depend on the model."""

import re
from collections.abc import Iterator, Sequence

Tags = tuple[str, str]
"""What opens a thinking block, and what closes it."""

THINKING = "<think>"
"""What opens most models' thinking blocks. A grader puts it before a text whose prompt opened a block."""

KNOWN_TAGS: tuple[Tags, ...] = (
    (THINKING, "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reason>", "</reason>"),
    ("<reasoning>", "</reasoning>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<seed:think>", "</seed:think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel>", "<channel|>"),
    ("◁think▷", "◁/think▷"),
)
"""The tags of published models."""


def _any_of(texts: Sequence[str]) -> str:
    return "|".join(map(re.escape, texts))


_TAG = re.compile(rf"(?P<opens>{_any_of([o for o, _ in KNOWN_TAGS])})|{_any_of([c for _, c in KNOWN_TAGS])}")


def after_thinking(text: str) -> str | None:
    """What follows the last thinking block; None for a block that never closes: the answer is not there yet.

    A template may open the block in the prompt, so a closing tag alone ends one as well. If nothing comes after it, it
    is a stray one, and the text before it stands. A text that was cut inside a block which the prompt opened shows
    neither tag: the caller puts THINKING before it.
    """
    tags = list(_tags(text))
    begin, end, inside = 0, _end_without_tags(text, tags), False
    for tag in tags:
        if tag["opens"]:
            inside = True
        elif inside or tag.start() < end:
            begin, inside = tag.end(), False
    return None if inside else text[begin:end]


def _tags(text: str) -> Iterator[re.Match[str]]:
    """The tags that count: those that close, and those that open where a line begins or right after another tag, so
    that a sentence may speak of one.
    """
    before, counted = 0, True
    for tag in _TAG.finditer(text):
        *lines, line = text[before : tag.start()].split("\n")
        counted = not tag["opens"] or (not line.strip() and (counted or bool(lines)))
        before = tag.end()
        if counted:
            yield tag


def _end_without_tags(text: str, tags: Sequence[re.Match[str]]) -> int:
    """Where a text ends without the closing tags at its end."""
    end = len(text)
    for tag in reversed(tags):
        if tag["opens"] or text[tag.end() : end].strip():
            break
        end = tag.start()
    return end


def opens_thinking(prompt: str, tags: Sequence[Tags] = ()) -> bool:
    """Whether a prompt's text ends with a tag, a known one or one of `tags`, so that what follows is thinking."""
    return prompt.rstrip().endswith(tuple(opening for opening, _ in (*KNOWN_TAGS, *tags)))


def as_read(text: str, opened: bool, tags: Sequence[Tags]) -> str:
    """A completion in the form that `after_thinking` and graders read: the block that its prompt `opened` is put before
    it, and other tags (`tags`) are written as known ones.
    """
    return (THINKING if opened else "") + in_known_tags(text, tags)


def in_known_tags(text: str, tags: Sequence[Tags]) -> str:
    """The text with other tags written as known ones."""
    for opening, closing in tags:
        text = text.replace(opening, KNOWN_TAGS[0][0]).replace(closing, KNOWN_TAGS[0][1])
    return text


def parse_tags(text: str) -> Tags:
    """A pair of tags from "OPEN,CLOSE", or from the opening tag alone: <plan> is closed by </plan>, [PLAN] by [/PLAN].

    Raises ValueError for a text from which no two tags follow.
    """
    opening, _, closing = (part.strip() for part in text.partition(","))
    if not closing and (bracket := re.fullmatch(r"([<\[])([^<>\[\]/]+)([>\]])", opening)):
        closing = f"{bracket[1]}/{bracket[2]}{bracket[3]}"
    if not opening or not closing or opening == closing:
        raise ValueError(f"a thinking tag must be <NAME>, [NAME] or OPEN,CLOSE, got {text!r}")
    return opening, closing
