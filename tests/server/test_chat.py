"""The API through the official client, over a real socket; every answer is the library's."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from served import HELLO, MODEL, Served, served
from tiny import tiny_engine

from nad.decoding import generate
from nad.engines.transformers.engine import TransformersEngine
from nad.neurons.activation import ActivationRule
from nad.result_json import result_json
from nad.server.settings import Defaults, Limits, Settings
from nad.types import Message, Result, SamplingParams

RULE = ActivationRule(k=30, per_layer=16)
SETTINGS = Settings(Defaults(n=6, stop="5"), Limits(n=16, max_tokens=24, prompt_tokens=100), RULE)


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return tiny_engine("llama")


@pytest.fixture(scope="module")
def server(engine: TransformersEngine) -> Iterator[Served]:
    with served(engine, SETTINGS) as running:
        yield running


def library(engine: TransformersEngine, prompt: Any = "hello", **options: Any) -> Result:
    params = SamplingParams(0.6, 0.9, **{"max_tokens": 24, "seed": 7, **options.pop("params", {})})
    return generate(engine, prompt, **{"n": 6, "stop": 5, "rule": RULE, "params": params, **options})


def chat(server: Served, **options: Any) -> Any:
    return server.client().chat.completions.create(**{"model": MODEL, "messages": HELLO, "seed": 7, **options})


def without_timing(report: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report.items() if key != "timing"}


def test_an_answer_is_the_librarys(server: Served, engine: TransformersEngine) -> None:
    got, expected = chat(server), library(engine)
    (choice,) = got.choices
    assert (choice.message.role, choice.message.content) == ("assistant", expected.text)
    assert choice.finish_reason == expected.completion.finish_reason
    assert (got.object, got.model, got.id[:9]) == ("chat.completion", MODEL, "chatcmpl-")
    assert got.usage.prompt_tokens == len(expected.group.prompt_tokens)
    assert got.usage.completion_tokens == len(expected.completion.tokens)
    assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens
    assert not hasattr(got, "nad")


def test_the_field_nad_says_how_the_answer_is_chosen(server: Served, engine: TransformersEngine) -> None:
    options = {"n": 9, "stop_at": "budget:20", "selector": "medoid", "report": True}
    got = chat(server, extra_body={"nad": options})
    expected = library(engine, n=9, stop="budget:20", selector="medoid")
    assert without_timing(got.nad) == without_timing(result_json(expected))
    assert got.choices[0].message.content == expected.text


def test_a_model_name_carries_the_method(server: Served, engine: TransformersEngine) -> None:
    listed = [model.id for model in server.client().models.list()]
    assert {MODEL, f"plain/{MODEL}", f"nad-medoid/{MODEL}", f"nad-cons/{MODEL}"} <= set(listed)
    assert f"nad-universal/{MODEL}" not in listed
    name = f"nad-minact/{MODEL}"
    assert server.client().models.retrieve(name).id == name
    got = chat(server, model=name)
    assert (got.model, got.choices[0].message.content) == (name, library(engine, selector="minact").text)


def test_a_plain_sample_captures_nothing_and_streams_from_its_first_token(
    server: Served, engine: TransformersEngine
) -> None:
    by_name = chat(server, model=f"plain/{MODEL}", extra_body={"nad": {"report": True}})
    by_field = chat(server, extra_body={"nad": {"n": 1, "report": True}})
    assert without_timing(by_name.nad) == without_timing(by_field.nad)
    assert (by_name.nad["selector"], by_name.nad["stop_at"]) == ("first", "1")
    assert by_name.nad["candidates"][0]["activated"] is None
    assert by_name.choices[0].message.content == library(engine, n=1, stop=1, selector="first").text


def test_n_returns_the_best_ranked_answers(server: Served, engine: TransformersEngine) -> None:
    got, expected = chat(server, n=3), library(engine, best=3)
    assert [c.message.content for c in got.choices] == [c.text for c in expected.completions]
    assert [c.index for c in got.choices] == [0, 1, 2]
    assert got.usage.completion_tokens == sum(len(c.tokens) for c in expected.completions)


def test_a_stream_is_the_answer_in_pieces(server: Served, engine: TransformersEngine) -> None:
    chunks = list(chat(server, stream=True, stream_options={"include_usage": True}, n=2))
    expected = library(engine, best=2)
    *pieces, last = chunks
    texts, reasons = ["", ""], [None, None]
    for chunk in pieces:
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        reasons[choice.index] = reasons[choice.index] or choice.finish_reason
    assert texts == [c.text for c in expected.completions]
    assert reasons == [c.finish_reason for c in expected.completions]
    assert [chunks[i].choices[0].delta.role for i in (0, 1)] == ["assistant", "assistant"]
    assert last.choices == []
    assert last.usage == chat(server, n=2).usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_winners_first_tokens_come_at_once_then_one_by_one(server: Served, engine: TransformersEngine) -> None:
    pieces = [c.choices[0].delta.content for c in chat(server, stream=True) if c.choices[0].delta.content]
    winner = library(engine)
    prefix = engine.decode(winner.completion.tokens[:5])
    assert pieces[0].startswith(prefix[:-1].rstrip("\ufffd"))
    assert len(pieces) > 3


def test_a_streams_report_comes_with_its_end(server: Served, engine: TransformersEngine) -> None:
    *_, end = chat(server, stream=True, extra_body={"nad": {"report": True}})
    assert without_timing(end.nad) == without_timing(result_json(library(engine)))


def test_logprobs_are_those_of_the_tokens(server: Served, engine: TransformersEngine) -> None:
    expected = library(engine, signals=True).completion
    assert expected.signals is not None
    (choice,) = chat(server, logprobs=True).choices
    content = choice.logprobs.content
    assert "".join(token.token for token in content) == choice.message.content
    assert [t.logprob for t in content] == pytest.approx(expected.signals.logprob[: len(content)].tolist())
    assert len(expected.tokens) - len(content) == (expected.finish_reason == "stop")
    *_, end = chat(server, stream=True, logprobs=True)
    assert end.choices[0].logprobs.content == content


def test_stop_texts_end_an_answer_before_them(server: Served, engine: TransformersEngine) -> None:
    whole = chat(server).choices[0].message.content
    stop = whole[-3]
    got = chat(server, stop=[stop, "no such text"]).choices[0]
    assert got.message.content == library(engine, params={"stop": (stop, "no such text")}).text
    assert stop not in got.message.content
    assert got.finish_reason == "stop"


def test_without_a_seed_two_answers_differ(server: Served) -> None:
    first, second = (chat(server, seed=None, extra_body={"nad": {"report": True}}) for _ in range(2))
    assert first.nad["seed"] != second.nad["seed"]
    again = chat(server, seed=first.nad["seed"])
    assert again.choices[0].message.content == first.choices[0].message.content


def test_messages_and_template_arguments_reach_the_template(server: Served, engine: TransformersEngine) -> None:
    messages = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "bye"},
    ]
    got = chat(server, messages=messages, extra_body={"chat_template_kwargs": {"enable_thinking": True}})
    turns = [Message("system", "be kind"), Message("user", "hello"), Message("assistant", "hi"), Message("user", "bye")]
    expected = library(engine, turns, template_args={"enable_thinking": True})
    assert got.choices[0].message.content == expected.text
    assert got.usage.prompt_tokens == len(expected.group.prompt_tokens)


def test_completions_take_the_prompt_as_it_is(server: Served, engine: TransformersEngine) -> None:
    create = server.client().completions.create
    expected = library(engine, raw=True, signals=True)
    got = create(model=MODEL, prompt="hello", seed=7, logprobs=0)
    (choice,) = got.choices
    assert (got.object, choice.text, choice.finish_reason) == (
        "text_completion",
        expected.text,
        expected.completion.finish_reason,
    )
    assert choice.logprobs.text_offset == [
        len("".join(choice.logprobs.tokens[:i])) for i in range(len(choice.logprobs.tokens))
    ]
    chunks = list(create(model=MODEL, prompt=["hello"], seed=7, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected.text
    assert chunks[-1].choices[0].finish_reason == expected.completion.finish_reason


def test_the_asynchronous_client_asks_for_several_at_once(server: Served, engine: TransformersEngine) -> None:
    async def ask(seed: int) -> str:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            stream = await client.chat.completions.create(model=MODEL, messages=HELLO, seed=seed, stream=True)  # type: ignore[call-overload]
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def all_at_once() -> list[str]:
        return await asyncio.gather(*map(ask, range(5)))

    assert asyncio.run(all_at_once()) == [library(engine, params={"seed": i}).text for i in range(5)]


def test_errors_have_the_clients_classes(server: Served) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        chat(server, model="gpt-4")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        chat(server, temperature=3)
    assert (refused.value.param, refused.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.BadRequestError, match="the prompt is empty"):
        chat(server, messages=[{"role": "user", "content": " "}])
    with pytest.raises(openai.UnprocessableEntityError) as tied:
        chat(server, extra_body={"nad": {"n": 4, "selector": "cons"}})
    assert tied.value.code == "no_choice"
    with pytest.raises(openai.APIError, match="no answer was chosen"):
        list(chat(server, stream=True, extra_body={"nad": {"n": 4, "selector": "cons"}}))
