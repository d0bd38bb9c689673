"""Text that streams, and the whole of generate on a tiny engine."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import WINDOW, tiny_engine, tiny_tokenizer

import nad
from nad.decoding import Request, Selection, stream
from nad.engines.transformers.engine import TransformersEngine
from nad.errors import UsageError
from nad.neurons.activation import ActivationRule
from nad.selection import Candidates, Selector
from nad.selection.agreement import DBSCAN, ConsensusMin, Medoid, MinAct
from nad.stopping import At, Budget, Never, Progress
from nad.text_stream import TextStream
from nad.types import Message, Result, SamplingParams

RULE = ActivationRule(k=30, per_layer=16)
PARAMS = SamplingParams(max_tokens=14)


@cache
def engine() -> TransformersEngine:
    return tiny_engine("llama", torch.float64)


@cache
def tokenizer_decode() -> object:
    tokenizer = tiny_tokenizer()
    return lambda tokens: tokenizer.decode(list(tokens), skip_special_tokens=True)


def streamed(tokens: list[int], pieces: int = 1) -> list[str]:
    text = TextStream(tokenizer_decode())  # type: ignore[arg-type]
    shown = [text.add(tokens[i : i + pieces]) for i in range(0, len(tokens), pieces)]
    return [*shown, text.end()]


def test_characters_of_several_bytes_appear_when_they_are_whole() -> None:
    tokens = tiny_tokenizer()("aé€😀b")["input_ids"]
    assert len(tokens) == 1 + 2 + 3 + 4 + 1
    assert streamed(tokens) == ["a", "", "é", "", "", "€", "", "", "", "😀", "b", ""]


def test_special_tokens_show_nothing() -> None:
    assert streamed([256, *tiny_tokenizer()("a")["input_ids"], 257]) == ["", "a", "", ""]


def test_an_incomplete_character_is_shown_at_the_end() -> None:
    tokens = tiny_tokenizer()("a€")["input_ids"]
    assert streamed(tokens[:-1]) == ["a", "", "", "\ufffd"]


@given(st.lists(st.integers(0, 260), max_size=20), st.integers(1, 4))
def test_pieces_joined_are_the_text(tokens: list[int], pieces: int) -> None:
    assert "".join(streamed(tokens, pieces)) == tokenizer_decode()(tokens)  # type: ignore[operator]


def test_the_winner_is_the_selectors_and_is_written_to_its_end() -> None:
    request = Request("hello", 6, At(5), Medoid(), PARAMS, RULE)
    selection, *pieces, result = stream(engine(), request)
    assert isinstance(selection, Selection)
    assert isinstance(result, Result)
    expected = Medoid().choose(Candidates.of(selection.group.completions, full=False))
    assert (selection.choice.index, result.selected) == (expected.index, expected.index)
    assert result.scores == tuple(expected.scores.tolist())
    assert "".join(str(piece) for piece in pieces) == result.text == engine().decode(result.completion.tokens)
    full = engine().sample(engine().encode("hello"), 6, PARAMS, Never(), None).completions[result.selected]
    assert result.completion.tokens == full.tokens
    assert result.continued_tokens == len(full.tokens) - 5
    assert (result.selector, result.stop_at, result.model) == ("medoid", "5", "tiny-llama")
    assert result.completion.finish_reason == full.finish_reason
    assert all(c.cache is None for c in (*result.group.completions, result.completion))


def test_generate_takes_the_fields_of_a_request() -> None:
    options: dict[str, Any] = {"n": 4, "stop": At(3), "selector": MinAct(), "params": PARAMS, "rule": RULE}
    result = nad.generate(engine(), "hello", **options)
    counts = [len(c.activations) for c in result.group.completions]
    assert counts[result.selected] == min(counts)
    again = nad.generate(
        engine(), [Message("user", "hello")], n=4, stop=At(3), selector=MinAct(), params=PARAMS, rule=RULE
    )
    assert again.completion == result.completion


def test_selection_on_full_answers_continues_nothing() -> None:
    result = nad.generate(engine(), "hello", n=3, stop=Never(), params=PARAMS, rule=RULE)
    assert result.continued_tokens == 0
    assert result.completion.tokens == result.group.completions[result.selected].tokens
    assert result.stop_at == "none"


def test_a_watcher_sees_every_token() -> None:
    seen: list[Progress] = []
    list(stream(engine(), Request("hello", 4, At(3), params=PARAMS, rule=RULE), seen.append))
    assert [p.position for p in seen] == [1, 2, 3]


def test_few_distinct_prefixes_are_noted() -> None:
    cold = replace(PARAMS, temperature=0.01)
    (note,) = nad.generate(engine(), "hello", n=8, stop=At(3), params=cold, rule=RULE).notes
    assert note.startswith("only 1 of 8 prefixes are distinct: the choice carried little information")
    assert note.endswith("a later stop (--stop-at budget) tells more")
    for n, stop in ((2, At(3)), (8, Never()), (8, Budget(2))):
        (note,) = nad.generate(engine(), "hello", n=n, stop=stop, params=cold, rule=RULE).notes
        assert note.startswith(f"only 1 of {n} prefixes")
        assert note.endswith("more") == isinstance(stop, At)
    greedy = replace(PARAMS, temperature=0.0)
    (note,) = nad.generate(engine(), "hello", n=8, stop=At(3), params=greedy, rule=RULE).notes
    assert note == "temperature 0: all samples are the same"
    assert nad.generate(engine(), "hello", n=1, stop=At(3), params=greedy, rule=RULE).notes == ()
    assert nad.generate(engine(), "hello", n=8, stop=At(8), params=PARAMS, rule=RULE).notes == ()


@pytest.mark.parametrize(
    ("prompt", "n", "stop", "message"),
    [
        ("", 4, At(3), "prompt is empty"),
        (" \n", 4, At(3), "prompt is empty"),
        ([], 4, At(3), "prompt is empty"),
        ([Message("system", "s")], 4, At(3), "prompt is empty"),
        ("x", 0, At(3), "n must be at least 1, got 0"),
        ("x", 4, At(15), r"stop position 15 lies past max_tokens \(14\)"),
    ],
)
def test_requests_that_cannot_be_served(prompt: str, n: int, stop: At, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Request(prompt, n, stop, params=PARAMS)


def test_an_answer_the_context_window_cuts_is_noted() -> None:
    long = "a" * (WINDOW - 7)
    (note,) = nad.generate(engine(), long, n=2, stop=At(3), params=SamplingParams(), rule=RULE).notes
    assert note.startswith("the context window is full after ")


@pytest.mark.parametrize("selector", [DBSCAN(), ConsensusMin()])
def test_one_sample_needs_no_note_about_clusters(selector: Selector) -> None:
    assert nad.generate(engine(), "hello", n=1, stop=At(3), selector=selector, params=PARAMS, rule=RULE).notes == ()
