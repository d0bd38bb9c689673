"""Thinking blocks: tags of many models, blocks that are cut, stray tags, and tags that are only spoken of."""

import time

import pytest

from nad.grading.answers import extract_answer
from nad.thinking import KNOWN_TAGS, after_thinking, as_read, in_known_tags, opens_thinking, parse_tags


@pytest.mark.parametrize(("opening", "closing"), KNOWN_TAGS)
def test_every_known_pair_of_tags(opening: str, closing: str) -> None:
    assert after_thinking(f"{opening}\nx\n{closing}\ny") == "\ny"
    assert after_thinking(f"{opening}\nx") is None
    assert after_thinking(f"x{closing}y") == "y"
    assert opens_thinking(f"<|assistant|>{opening}\n")


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("y", "y"),
        ("", ""),
        ("<think>x</think>y", "y"),
        ("  <think>x</think>y", "y"),
        ("<think>x</think>\n\n<think>z</think>y", "y"),
        ("<think>x</think> <think>z", None),
        ("First.\n<think>z", None),
        ("<think>x</think>", ""),
        # A stray closing tag at the end.
        ("y</think>", "y"),
        ("y</think>\n", "y"),
        ("y</think></think> ", "y"),
        ("<think>x</think>y</think>", "y"),
        ("[THINK]x[/THINK]y[/THINK]", "y"),
        ("</think>", ""),
        # The template opened the block in the prompt.
        ("x</think>y", "y"),
        ("<think>x <think> and so on</think>y", "y"),
        # A sentence that speaks of a tag.
        ("Write <think> before it. y", "Write <think> before it. y"),
        ("The tags `<thinking>` and `<reasoning>`: y", "The tags `<thinking>` and `<reasoning>`: y"),
    ],
)
def test_what_follows_the_thinking(text: str, rest: str | None) -> None:
    assert after_thinking(text) == rest


def test_a_stray_tag_does_not_erase_the_answer() -> None:
    assert extract_answer(r"So \boxed{12}.</think>") == "12"
    assert extract_answer(r"[THINK]maybe \boxed{3}") is None


def test_tags_of_a_prompt() -> None:
    assert not opens_thinking("<think>\n\n</think>\n\n")
    assert not opens_thinking("<think> is a tag")
    assert opens_thinking("a <plan>", [("<plan>", "</plan>")])
    assert not opens_thinking("a <plan>")


def test_other_tags_are_read_as_known_ones() -> None:
    tags = [("<plan>", "</plan>"), ("BEGIN", "END")]
    assert after_thinking(in_known_tags("<plan>x", tags)) is None
    assert after_thinking(in_known_tags("<plan>x</plan>y", tags)) == "y"
    assert after_thinking(in_known_tags("BEGIN x END y", tags)) == " y"
    assert in_known_tags("<plan>", []) == "<plan>"


def test_what_the_prompt_opened_is_put_before_the_text() -> None:
    assert after_thinking(as_read("x", True, [])) is None
    assert after_thinking(as_read("x</plan>y", True, [("<plan>", "</plan>")])) == "y"
    assert after_thinking(as_read("y", False, [])) == "y"


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("<plan>", ("<plan>", "</plan>")),
        ("[PLAN]", ("[PLAN]", "[/PLAN]")),
        ("<a>,<b>", ("<a>", "<b>")),
        (" Hm: , So: ", ("Hm:", "So:")),
        ("<|plan|>", ("<|plan|>", "</|plan|>")),
    ],
)
def test_tags_named_by_the_user(text: str, tags: tuple[str, str]) -> None:
    assert parse_tags(text) == tags


@pytest.mark.parametrize("text", ["", "plan", "<plan", "</plan>", ",", "a,", "a,a"])
def test_texts_that_name_no_tags(text: str) -> None:
    with pytest.raises(ValueError, match="a thinking tag must be <NAME>, \\[NAME\\] or OPEN,CLOSE"):
        parse_tags(text)


@pytest.mark.parametrize(
    "piece", [" ", "\n", "\t", "<think>", "</think>", "x </think>", "a <think> ", "[/THINK]\n", "<"]
)
def test_long_texts_take_no_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    begin = time.perf_counter()
    after_thinking(text)
    after_thinking(text + "x")
    assert time.perf_counter() - begin < 1
