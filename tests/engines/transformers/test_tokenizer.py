"""Prompts to tokens and tokens to text: end tokens, thinking tags, a text's first token, system messages."""

import re
from pathlib import Path

import pytest
from tiny import END, tiny_engine, tiny_model, tiny_tokenizer
from tiny_gguf import tiny_gguf
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from nad.engines import load_engine
from nad.engines.transformers.chat_template import ChatTemplate
from nad.engines.transformers.tokenizer import ChatTokenizer, end_tokens
from nad.errors import NadError, UsageError
from nad.thinking import after_thinking, opens_thinking
from nad.types import Message

SYSTEM = [Message("system", "Be brief."), Message("user", "hi")]
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LEFT_OUT = NO_SYSTEM.replace("{{ raise_exception('no system role') }}{% endif %}", "{% else %}").replace(
    "{% endfor %}", "{% endif %}{% endfor %}"
)
CLOSED = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}CLOSE\n{% endfor %}"
THOUGHTFUL = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.reasoning_content %}\nOPEN\n{{ m.reasoning_content }}\nSHUT\n\n{% endif %}{{ m.content }}{% endfor %}"
)


def tokenizer_with(template: str | None, special: list[str] | None = None) -> PreTrainedTokenizerBase:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.add_tokens([AddedToken(text, special=True) for text in special or []])
    return tokenizer


def starting() -> PreTrainedTokenizerBase:
    """A tokenizer that puts a token before every text."""
    tokenizer = tokenizer_with(None, ["<s>"])
    tokenizer.bos_token = "<s>"
    start = tokenizer.convert_tokens_to_ids("<s>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
    return tokenizer


@pytest.mark.parametrize(
    ("tokens", "ends"),
    [({}, {END}), ({"eot": 258}, {END, 258}), ({"eom": 259}, {END, 259}), ({"eot": 258, "eom": 259}, {END, 258, 259})],
)
def test_every_end_token_of_a_gguf_file(tokens: dict[str, int], ends: set[int], tmp_path: Path) -> None:
    engine = load_engine(str(tiny_gguf(tmp_path / "m.gguf", **tokens)))
    assert ends <= engine.eos
    assert not {257, 258, 259} & (engine.eos - ends)


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (CLOSED.replace("CLOSE", "<|done|>"), "<|done|>"),
        (CLOSED.replace("CLOSE", "\n <|done|><|end|>"), "<|done|>"),
        (CLOSED.replace("CLOSE", "{% if m.role == 'assistant' %}<|done|>{% endif %}"), "<|done|>"),
        (CLOSED.replace("CLOSE", "{% if m.role == 'user' %}<|done|>{% endif %}"), None),
        (CLOSED.replace("CLOSE", "."), None),
        ("{{ raise_exception('one user turn only') }}", None),
        ("{{ messages[0].content }}", None),
    ],
)
def test_the_token_that_closes_a_turn_ends_a_completion(template: str, end: str | None) -> None:
    tokenizer = tokenizer_with(template, ["<|done|>"])
    expected = {END} if end is None else {END, tokenizer.convert_tokens_to_ids(end)}
    assert end_tokens(tiny_model("llama"), tokenizer) == expected


@pytest.mark.parametrize("named", ["</s>", [2], {"id": 2}])
def test_end_tokens_that_are_no_numbers(named: object) -> None:
    model = tiny_model("llama")
    model.generation_config.eos_token_id = [named]
    with pytest.raises(NadError, match=re.escape(f"{named!r} as the token that ends an answer, which is not a number")):
        end_tokens(model, tiny_tokenizer())


def test_thinking_tags_that_are_special_tokens_stay_in_the_text() -> None:
    """Else a chain that was cut would be read as an answer."""
    texts = ChatTokenizer(tokenizer_with(None, ["[THINK]", "[/THINK]", "[IMG]"]))
    chain = texts.encode("[THINK]a[/THINK]b[IMG]<|end|>", raw=True)
    assert texts.decode(chain) == "[THINK]a[/THINK]b"
    assert after_thinking(texts.decode(chain[:2])) is None
    assert after_thinking(texts.decode(chain)) == "b"


@pytest.mark.parametrize(
    ("opening", "closing", "found"),
    [
        ("<plan>", "</plan>", True),
        ("<|START_PLAN|>", "<|END_PLAN|>", True),
        ("[PLAN]", "[/PLAN]", True),
        ("<|message|>", "<|end|>", False),
        ("Thoughts:", "So:", False),
    ],
)
def test_thinking_tags_of_the_template(opening: str, closing: str, found: bool) -> None:
    template = THOUGHTFUL.replace("OPEN", opening).replace("SHUT", closing)
    tokenizer = tokenizer_with(template, [opening, closing] if found else None)
    texts = ChatTokenizer(tokenizer)
    assert texts.thinking_tags == (((opening, closing),) if found else ())
    if found:
        chain = texts.encode(f"{opening}a{closing}b<|end|>", raw=True)
        assert texts.decode(chain) == f"{opening}a{closing}b"
        assert opens_thinking(f"<|assistant|>{opening}\n", texts.thinking_tags)


def test_known_tags_of_a_template_and_those_a_user_names() -> None:
    known = THOUGHTFUL.replace("OPEN", "<think>").replace("SHUT", "</think>")
    assert ChatTokenizer(tokenizer_with(known)).thinking_tags == ()
    named = ChatTokenizer(tokenizer_with(None, ["<|a|>", "<|b|>"]), thinking_tags=[("<|a|>", "<|b|>")])
    assert named.thinking_tags == (("<|a|>", "<|b|>"),)
    assert named.decode(named.encode("<|a|>x<|b|>y", raw=True)) == "<|a|>x<|b|>y"


def test_decoding_leaves_special_tokens_out_as_the_tokenizer_does() -> None:
    engine = tiny_engine("llama")
    tokens = [257, 71, 72, 258, *range(60, 90), 256]
    assert engine.decode(tokens) == tiny_tokenizer().decode(tokens, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("text", "starts", "noted"),
    [("hi", 1, False), ("<s>hi", 1, True), ("<s><s>hi", 2, True), ("hi <s>", 1, False), ("", 1, False)],
)
def test_a_raw_text_begins_with_one_start_token(text: str, starts: int, noted: bool) -> None:
    tokenizer = starting()
    texts, start = ChatTokenizer(tokenizer), tokenizer.bos_token_id
    tokens = texts.encode(text, raw=True)
    assert tokens[:starts] == (start,) * starts
    assert tokens[starts : starts + 1] != (start,)
    notes = texts.prompt_notes(text, raw=True)
    assert notes == (("the text begins with <s>: none is put before it",) if noted else ())


@pytest.mark.parametrize("template", [NO_SYSTEM, LEFT_OUT])
def test_a_system_message_where_the_template_takes_none(template: str) -> None:
    refusing = ChatTokenizer(tokenizer_with(template))
    with pytest.raises(UsageError, match=r"takes no system message; --fold-system"):
        refusing.encode(SYSTEM)
    assert refusing.encode("hi") == (257, 71, 72, 258)
    folding = ChatTokenizer(tokenizer_with(template), fold_system=True)
    assert folding.encode(SYSTEM) == folding.encode("Be brief.\n\nhi")
    assert folding.prompt_notes(SYSTEM) == (
        "the chat template takes no system message: it stands in the first user turn",
    )
    assert folding.prompt_notes("hi") == ()
    longer = [*SYSTEM, Message("assistant", "a"), Message("user", "b")]
    assert folding.encode(longer) == folding.encode([Message("user", "Be brief.\n\nhi"), *longer[2:]])


def test_a_template_that_takes_a_system_message_gets_it() -> None:
    plain, folding = ChatTokenizer(tiny_tokenizer()), ChatTokenizer(tiny_tokenizer(), fold_system=True)
    assert folding.encode(SYSTEM) == plain.encode(SYSTEM)
    assert folding.prompt_notes(SYSTEM) == ()


def test_a_template_that_fails_in_its_own_way() -> None:
    with pytest.raises(UsageError, match="chat template refuses these messages: "):
        ChatTokenizer(tokenizer_with("{{ messages + 1 }}")).encode("hi")
    with pytest.raises(UsageError, match="chat template refuses these messages: "):
        ChatTokenizer(tokenizer_with("{% if %}")).encode("hi")


def test_a_template_is_seen_by_its_text_and_not_by_its_tokens() -> None:
    template = ChatTemplate(tiny_tokenizer())
    assert template.text([{"role": "user", "content": "hi"}], {}) == "<|user|>hi<|assistant|>"
    assert template.text([{"role": "user", "content": "hi"}], {}, answer=False) == "<|user|>hi"
