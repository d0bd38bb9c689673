"""Text that streams, and the whole of generate on a tiny engine."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sampled import sampled
from tiny import WINDOW, tiny_engine, tiny_tokenizer

import nad
from nad.decoding import Finished, Progressed, Request, Selected, Text, stream
from nad.engines.transformers.engine import TransformersEngine
from nad.errors import NadError, UsageError
from nad.neurons.activation import ActivationRule
from nad.selection import Candidates, Selector
from nad.selection.agreement import DBSCAN, ConsensusMin, Medoid, MinAct
from nad.stopping import At, Budget, Never
from nad.text_stream import TextStream, cut_at
from nad.types import Message, SamplingParams

RULE = ActivationRule(k=30, per_layer=16)
PARAMS = SamplingParams(max_tokens=14)


@cache
def engine() -> TransformersEngine:
    """Without the CPU's decoding step, of which every result would say something."""
    return tiny_engine("llama", torch.float64, fast_cpu=False)


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
    *progressed, selected, finished = [e for e in stream(engine(), request) if not isinstance(e, Text)]
    assert all(isinstance(e, Progressed) for e in progressed)
    assert [e.progress.position for e in progressed] == [1, 2, 3, 4, 5]
    assert isinstance(selected, Selected)
    assert isinstance(finished, Finished)
    result = finished.result
    expected = Medoid().choose(Candidates.of(selected.group.completions, full=False))
    assert (selected.choice.index, result.selected) == (expected.index, expected.index)
    assert result.scores == tuple(expected.scores.tolist())
    full = sampled(engine(), engine().encode("hello"), 6, PARAMS, Never(), None).completions[result.selected]
    assert result.completion == full
    assert result.continued_tokens == len(full.tokens) - 5
    assert (result.selector, result.stop_at, result.model) == ("medoid", "5", "tiny-llama")


def test_the_pieces_joined_are_the_text() -> None:
    events = list(stream(engine(), Request("hello", 6, At(5), Medoid(), PARAMS, RULE)))
    pieces = [e.text for e in events if isinstance(e, Text)]
    assert isinstance(events[-1], Finished)
    assert "".join(pieces) == events[-1].result.text
    assert len(pieces) > 2


def test_neurons_are_those_of_all_tokens_or_left_out() -> None:
    """The winner's were captured up to the choice; one that had ended by then keeps its own."""
    for stop in (At(5), Never()):
        result = nad.generate(engine(), "hello", n=4, stop=stop, params=PARAMS, rule=RULE)
        assert (result.completion.activations is not None) == isinstance(stop, Never)


def test_the_best_ranked_are_all_written_to_their_ends() -> None:
    events = list(stream(engine(), Request("hello", 6, At(5), Medoid(), PARAMS, RULE, best=3)))
    assert isinstance(events[-1], Finished)
    result = events[-1].result
    order = sorted(range(6), key=lambda i: (i != result.selected, -result.scores[i], i))
    full = sampled(engine(), engine().encode("hello"), 6, PARAMS, Never(), None).completions
    assert result.completions == tuple(full[i] for i in order[:3])
    for rank, completion in enumerate(result.completions):
        assert "".join(e.text for e in events if isinstance(e, Text) and e.rank == rank) == completion.text


def test_a_snapshot_shows_the_group_as_it_stands() -> None:
    sizes = []
    for event in stream(engine(), Request("hello", 4, At(6), Medoid(), PARAMS, RULE)):
        if isinstance(event, Progressed):
            group = event.snapshot()
            assert {len(c.tokens) for c in group.completions} == {event.progress.position}
            sizes.append(len(group.completions[0].activations))
    assert sizes == sorted(sizes)
    whole = sampled(engine(), engine().encode("hello"), 4, PARAMS, At(6), RULE)
    assert sizes[-1] == len(whole.completions[0].activations)


def test_only_what_the_selector_needs_is_captured() -> None:
    by_text = nad.generate(engine(), "hello", n=4, stop=At(5), selector="medoid@tokens", params=PARAMS)
    assert all(c.activations is None and c.signals is None for c in by_text.group.completions)
    by_confidence = nad.generate(engine(), "hello", n=4, stop=At(5), selector="self-certainty", params=PARAMS)
    assert all(c.activations is None and c.signals is not None for c in by_confidence.group.completions)


def test_a_stop_text_ends_an_answer_and_is_not_shown() -> None:
    whole = nad.generate(engine(), "hello", n=1, stop=At(3), params=PARAMS, rule=RULE)
    stop = whole.text[4:6]
    events = list(stream(engine(), Request("hello", 1, At(3), Medoid(), replace(PARAMS, stop=(stop,)), RULE)))
    assert isinstance(events[-1], Finished)
    completion = events[-1].result.completion
    assert completion.text == whole.text[: whole.text.index(stop)]
    assert completion.finish_reason == "stop"
    assert len(completion.tokens) < len(whole.completion.tokens)
    assert "".join(e.text for e in events if isinstance(e, Text)) == completion.text


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=3), max_size=2), st.integers(1, 3))
def test_text_streams_up_to_a_stop_text(text: str, stop: list[str], pieces: int) -> None:
    tokens = tiny_tokenizer()(text)["input_ids"]
    stream_ = TextStream(tokenizer_decode(), stop)  # type: ignore[arg-type]
    shown = [stream_.add(tokens[i : i + pieces]) for i in range(0, len(tokens), pieces)]
    assert "".join([*shown, stream_.end()]) == cut_at(text, stop)
    assert stream_.stopped == (cut_at(text, stop) != text)


def test_generate_takes_what_the_command_line_takes() -> None:
    by_name = nad.generate(
        engine(), "hello", n=4, stop="3", selector="minact", params=PARAMS, rule="top_k:k=30,per_layer=16"
    )
    counts = [len(c.activations) for c in by_name.group.completions]
    assert counts[by_name.selected] == min(counts)
    as_values = nad.generate(
        engine(), [Message("user", "hello")], n=4, stop=At(3), selector=MinAct(), params=PARAMS, rule=RULE
    )
    assert as_values.completion == by_name.completion
    assert nad.generate(engine(), "hello", n=2, params=PARAMS, rule=RULE).stop_at == "14"  # clipped to max_tokens


def test_a_vote_that_fails_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nad.decoding.extract_answer", lambda text, last_number: None)
    with pytest.raises(NadError, match=r"no answer was chosen: .*another --selector"):
        nad.generate(engine(), "hello", n=2, stop="none", selector="cons", params=PARAMS)


@pytest.mark.parametrize("opened", [False, True])
def test_answers_are_read_inside_the_block_the_prompt_opened(opened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a chain that was cut would vote."""
    seen: list[str] = []
    monkeypatch.setattr("nad.decoding.extract_answer", lambda text, last_number: seen.append(text) or "1")
    asked = {"enable_thinking": opened}
    nad.generate(engine(), "hello", n=2, stop="none", selector="cons", params=PARAMS, template_args=asked)
    assert [text.startswith("<think>") for text in seen] == [opened] * 2


@pytest.mark.parametrize("leave", ["close", "exception", "interrupt"])
def test_every_way_out_frees_the_engine(leave: str) -> None:
    events = stream(engine(), Request("hello", 4, At(5), Medoid(), PARAMS, RULE))
    next(events)
    if leave == "close":
        events.close()
    else:
        error = NadError("x") if leave == "exception" else KeyboardInterrupt()
        with pytest.raises(type(error)):
            events.throw(error)
    assert nad.generate(engine(), "hello", n=2, stop=At(3), params=PARAMS, rule=RULE).text


def test_selection_on_full_answers_continues_nothing() -> None:
    result = nad.generate(engine(), "hello", n=3, stop=Never(), params=PARAMS, rule=RULE)
    assert result.continued_tokens == 0
    assert result.completion.tokens == result.group.completions[result.selected].tokens
    assert result.stop_at == "none"


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
