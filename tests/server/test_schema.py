"""Every standard field works or is refused by name; null and neutral values are as good as absent."""

from typing import Any

import pytest
from pydantic import ValidationError

from nad.server.schema import ChatRequest, CompletionRequest

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TEXT = {"model": "m", "prompt": "hi"}


def refusal(kind: type[ChatRequest] | type[CompletionRequest], body: dict[str, Any]) -> dict[str, Any]:
    with pytest.raises(ValidationError) as error:
        kind.model_validate(body)
    return dict(error.value.errors()[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("presence_penalty", 0.5),
        ("frequency_penalty", -1),
        ("logit_bias", {"5": 1}),
        ("top_logprobs", 2),
        ("response_format", {"type": "json_object"}),
        ("tools", [{"type": "function"}]),
        ("tool_choice", "auto"),
        ("functions", [{}]),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
        ("reasoning_effort", "low"),
        ("store", True),
        ("metadata", {"a": "b"}),
        ("service_tier", "flex"),
    ],
)
def test_what_does_not_work_is_refused_by_name(name: str, value: object) -> None:
    error = refusal(ChatRequest, {**CHAT, name: value})
    assert (error["type"], error["ctx"]["param"]) == ("unsupported", name)
    assert ChatRequest.model_validate({**CHAT, name: None}) == ChatRequest.model_validate(CHAT)


@pytest.mark.parametrize(
    ("name", "value"),
    [("presence_penalty", 0.0), ("tools", []), ("response_format", {"type": "text"}), ("store", False)],
)
def test_a_neutral_value_changes_nothing(name: str, value: object) -> None:
    assert ChatRequest.model_validate({**CHAT, name: value}) == ChatRequest.model_validate(CHAT)


@pytest.mark.parametrize(("name", "value"), [("echo", True), ("suffix", "x"), ("best_of", 4), ("logprobs", 2)])
def test_what_completions_do_not_do(name: str, value: object) -> None:
    error = refusal(CompletionRequest, {**TEXT, name: value})
    assert (error["type"], error["ctx"]["param"]) == ("unsupported", name)


@pytest.mark.parametrize("prompt", [["a", "b"], [1, 2], [[1, 2]], []])
def test_one_text_a_completion(prompt: object) -> None:
    assert refusal(CompletionRequest, {**TEXT, "prompt": prompt})["ctx"]["param"] == "prompt"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 2.1),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", "0.5"),
        ("temperature", True),
        ("top_p", 0),
        ("max_tokens", 0),
        ("n", 0),
        ("seed", -1),
        ("stop", ["a"] * 5),
        ("stop", ""),
        ("stream", 1),
        ("messages", []),
        ("messages", [{"role": "tool", "content": "x"}]),
        ("messages", [{"role": "user"}]),
        ("nad", {"n": 0}),
        ("nad", {"k": 1}),
        ("nad", {"stop_at": 0}),
        ("user", "x" * 201),
        ("surprise", 1),
    ],
)
def test_values_outside_their_range_name_their_field(field: str, value: object) -> None:
    assert refusal(ChatRequest, {**CHAT, field: value})["loc"][0] == field


def test_images_are_refused() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    error = refusal(ChatRequest, {**CHAT, "messages": [{"role": "user", "content": [image]}]})
    assert error["ctx"]["param"] == "messages.content"
    assert "no images" in error["msg"]


def test_contradictions_are_refused() -> None:
    assert refusal(ChatRequest, {**CHAT, "max_tokens": 5, "max_completion_tokens": 6})["ctx"]["param"] == "max_tokens"
    assert refusal(ChatRequest, {**CHAT, "stream_options": {"include_usage": True}})["ctx"]["param"] == "stream_options"
    both = ChatRequest.model_validate({**CHAT, "max_tokens": 5, "max_completion_tokens": 5})
    assert both.token_limit == 5
