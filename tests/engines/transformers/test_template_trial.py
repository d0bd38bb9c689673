"""Chat templates that do not end, or take all memory: refused in seconds, before anything is rendered here."""

import time

import pytest
from tiny import tiny_model, tiny_tokenizer

from nad.engines.transformers.engine import TransformersEngine
from nad.engines.transformers.tokenizer import ChatTokenizer
from nad.errors import NadError
from nad.types import Message

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (LOOP, "does not end within 3 s"),
        ("{{ 'x' * 3000000000 }}", "takes more than 512 MB"),
        ("{{ 'x' * 300000000 }}", "takes more than 512 MB"),
        ("{{ '%2000000000d' % 1 }}", "takes more than 512 MB"),
        (
            "{% set s = namespace(x='x') %}{% for i in range(40) %}{% set s.x = s.x ~ s.x %}{% endfor %}",
            "more than 512 MB",
        ),
        ("{{ 9 ** (9 ** 9) }}", "does not end within 3 s"),
    ],
)
def test_hostile_templates(template: str, message: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    begin = time.perf_counter()
    with pytest.raises(NadError, match=message) as caught:
        TransformersEngine(tiny_model("llama"), tokenizer, "tiny")
    assert "hostile; take the model from a source you trust" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - begin < 20


def test_a_template_that_waits_for_a_longer_conversation() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% if messages|length > 2 %}" + LOOP + "{% endif %}{{ messages[0].content }}"
    texts = ChatTokenizer(tokenizer)
    assert texts.encode("hi") == (71, 72)
    with pytest.raises(NadError, match="does not end"):
        texts.encode([Message("user", "a"), Message("assistant", "b"), Message("user", "c")])


@pytest.mark.parametrize(
    "template",
    [
        "{% generation %}{{ messages[0].content }}{% endgeneration %}",
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
        "{{ messages|tojson(indent=2)|length * 0 if false else messages[0].content }}",
        "{{ strftime_now('%Y')[:0] }}{{ messages[0].content }}",
    ],
)
def test_what_templates_may_use(template: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    assert ChatTokenizer(tokenizer).encode("hi") == (71, 72)
