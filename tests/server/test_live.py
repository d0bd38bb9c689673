"""What a person sees: places that move smoothly, duplicates, the choice, the cost."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from made import of
from served import HELLO, MODEL, Served, post, served
from tiny import tiny_engine

from nad.decoding import Progressed, Request, Selected, generate
from nad.neurons.activation import ActivationRule
from nad.result_json import result_json
from nad.selection import Choice, parse_selector
from nad.server.live import LiveEvent, LiveView, closest, join_live, watched
from nad.server.settings import Defaults, Limits, Settings
from nad.stopping import Progress
from nad.types import Completion, Group, SamplingParams

RULE = ActivationRule(k=30, per_layer=16)
REQUEST = watched(Request("hello", 3, params=SamplingParams(max_tokens=40)))


def group(*neurons: list[int]) -> Group:
    return Group((1,), tuple(Completion(i, (1,), "", None, of(n)) for i, n in enumerate(neurons)), 0)


def progressed(*tokens: list[int], position: int, neurons: Any = ([1, 2], [2, 3], [7, 8])) -> Progressed:
    progress = Progress(3, position, 0, 0, 3, 3, dict(enumerate(tokens)))
    return Progressed(progress, lambda: group(*neurons))


def data(view: LiveView, event: Any) -> dict[str, Any]:
    (shown,) = view(event)
    return dict(shown.data)


def test_places_are_turned_and_mirrored_onto_the_last_ones() -> None:
    to = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    turned = to @ np.array([[0.0, -1.0], [-1.0, 0.0]])
    assert closest(turned, to) == pytest.approx(to)


def test_samples_with_the_same_tokens_have_one_number_until_they_differ() -> None:
    view = LiveView(REQUEST, clock=lambda: 0.0)
    shown = [
        data(view, progressed([5], [5], [6], position=1)),
        data(view, progressed([5, 1], [5, 1], [6, 1], position=2)),
        data(view, progressed([5, 1, 1], [5, 1, 2], [6, 1], position=3)),
        data(view, progressed([5, 1, 1, 4], [5, 1, 2, 4], [6, 1], position=4)),
    ]
    assert [each["prefix"] for each in shown] == [[0, 0, 2], [0, 0, 2], [0, 1, 2], [0, 1, 2]]
    assert [each["ended"] for each in shown] == [[False] * 3, [False] * 3, [False, False, True], [False, False, True]]


def test_a_picture_shows_sizes_agreement_and_distances() -> None:
    shown = data(LiveView(REQUEST), progressed([1], [1], [1], position=1))
    assert shown["neurons"] == [2, 2, 2]
    assert shown["agreement"] == pytest.approx([1 / 6, 1 / 6, 0], abs=1e-4)
    a, b, c = np.array(shown["points"])
    assert [np.linalg.norm(a - b), np.linalg.norm(a - c), np.linalg.norm(b - c)] == pytest.approx(
        [2 / 3, 1, 1], abs=1e-3
    )


def test_pictures_come_every_four_tokens_or_150_ms_and_take_a_quarter_of_the_time_at_most() -> None:
    now = [0.0]
    view = LiveView(REQUEST, clock=lambda: now[0])
    tokens: list[list[int]] = [[], [], []]

    def step(seconds: float) -> bool:
        now[0] += seconds
        for each in tokens:
            each.append(1)
        return "points" in data(view, progressed(*tokens, position=len(tokens[0])))

    assert [step(0.001) for _ in range(9)] == [True, False, False, False, True, False, False, False, True]
    assert [step(0.1) for _ in range(4)] == [False, True, False, True]

    def slow() -> Group:
        now[0] += 1.0
        return group([1], [2], [3])

    now[0] += 10
    assert "points" in data(view, Progressed(Progress(3, 14, 0, 0, 3, 3, dict(enumerate([[1] * 14] * 3))), slow))
    now[0] += 2.9
    assert not step(0.0)
    now[0] += 0.2
    assert step(0.0)


def test_the_choice_is_shown_with_every_candidate() -> None:
    choice = Choice(1, np.array([0.5, 1.0, -np.inf]), "a note")
    shown = data(LiveView(REQUEST), Selected(group([1], [1], [2]), choice))
    assert (shown["index"], shown["scores"], shown["note"]) == (1, [0.5, 1.0, None], "a note")
    assert [c["index"] for c in shown["candidates"]] == [0, 1, 2]
    assert len(shown["points"]) == 3


def test_a_reader_that_is_behind_keeps_the_last_picture() -> None:
    first, second = LiveEvent("progress", {"position": 1, "points": [1]}), LiveEvent("progress", {"position": 2})
    joined = join_live(first, second)
    assert joined == LiveEvent("progress", {"position": 2, "points": [1]})
    assert join_live(second, LiveEvent("selected", {})) is None
    texts = [LiveEvent("text", {"text": t, "rank": 0}) for t in "ab"]
    assert join_live(*texts) == LiveEvent("text", {"text": "ab", "rank": 0})
    assert join_live(texts[0], LiveEvent("text", {"text": "x", "rank": 1})) is None


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(tiny_engine(), Settings(Defaults(n=6, stop="6"), Limits(max_tokens=20), RULE)) as running:
        yield running


def live(server: Served, **more: object) -> list[tuple[str, dict[str, Any]]]:
    status, headers, body = post(f"{server.url}/api/live", {"model": MODEL, "messages": HELLO, "seed": 3, **more})
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    events = [dict(line.split(": ", 1) for line in part.split("\n")) for part in body.decode().split("\n\n") if part]
    return [(e["event"], json.loads(e["data"])) for e in events if "event" in e]


@pytest.mark.parametrize("selector", ["knn", "logprob", "first"])
def test_the_whole_stream_is_the_librarys_decoding(server: Served, selector: str) -> None:
    params = SamplingParams(max_tokens=20, seed=3)
    expected = generate(tiny_engine(), "hello", 6, stop=6, selector=selector, params=params, rule=RULE)
    events = live(server, nad={"selector": selector})
    names = [name for name, _ in events]
    assert names[0] == "accepted" and names[-1] == "finished"
    assert events[0][1] | {"id": ""} == {
        "id": "",
        "model": MODEL,
        "n": 6,
        "stop_at": "6",
        "selector": selector,
        "seed": 3,
        "max_tokens": 20,
        "temperature": 0.6,
        "top_p": 0.9,
    }
    assert "".join(d["text"] for name, d in events if name == "text") == expected.text
    (chosen,) = [d for name, d in events if name == "selected"]
    assert chosen["index"] == expected.selected
    assert all(count > 0 for count in chosen["neurons"])
    result = events[-1][1]["result"]
    assert (result["selector"], result["text"]) == (selector, expected.text)
    assert result["usage"] == result_json(expected)["usage"]
    computed = expected.group.computed_tokens + expected.continued_tokens
    full = 6 * len(expected.completion.tokens)
    assert events[-1][1]["cost"] == {"computed_tokens": computed, "full_tokens": full, "share": computed / full}


def test_a_failed_vote_ends_the_stream_with_an_error(server: Served) -> None:
    name, error = live(server, nad={"selector": "cons", "n": 4}, seed=7)[-1]
    assert (name, error["error"]["code"]) == ("error", "no_choice")


@pytest.mark.parametrize("field", ["stream", "logprobs"])
def test_what_a_live_request_does_not_take(server: Served, field: str) -> None:
    status, _, body = post(f"{server.url}/api/live", {"model": MODEL, "messages": HELLO, field: True})
    assert (status, json.loads(body)["error"]["param"]) == (400, field)


def test_a_selector_watched_is_the_selector() -> None:
    assert REQUEST.selector.needs == {"neurons"}
    assert watched(Request("hello", 1, selector=parse_selector("logprob"))).selector.needs == {"neurons", "signals"}
