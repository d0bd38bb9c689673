"""The page at / in a browser: ask, watch, stop, reload, link, key, errors."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from chromium import chromium
from served import MODEL, Served, seconds_a_token, served
from tiny import tiny_engine

from nad.decoding import generate
from nad.neurons.activation import ActivationRule
from nad.server.auth import Keys
from nad.server.settings import Defaults, Limits, Settings
from nad.types import SamplingParams

RULE = ActivationRule(k=30, per_layer=16)
SETTINGS = Settings(Defaults(n=6, stop="6"), Limits(n=16, max_tokens=24), RULE)
KEY = "a-key-of-twenty-signs"
EVIL = "<img src=x onerror='window.hacked=1'></p><script>window.hacked=1</script>"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(tiny_engine(), SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def slow() -> Iterator[Served]:
    """Its answers take a second and more, and never end by themselves."""
    with served(seconds_a_token(0.1), SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


class Window:
    """The page of a server in a window of its own, with whatever the browser complained about or asked for."""

    def __init__(self, browser: Any, server: Served, fragment: str = "", **options: Any) -> None:
        self.url, self.complaints, self.asked = server.url, [], []
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(f"{server.url}/{fragment}")

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))

    def wait(self, selector: str, text: str) -> None:
        """A locator, not wait_for_function: that would evaluate a string, which the policy forbids."""
        self.page.locator(selector, has_text=re.compile(text)).wait_for()

    def focus(self) -> str:
        return str(self.page.evaluate("document.activeElement.id"))

    def close(self, *complaints: str) -> None:
        found = [url for url in self.asked if not url.startswith((f"{self.url}/", "data:"))]
        hacked = self.page.evaluate("window.hacked ?? null")
        self.context.close()
        assert (found, hacked) == ([], None)
        assert len(self.complaints) == len(complaints), self.complaints
        assert all(part in whole for part, whole in zip(complaints, self.complaints, strict=True))


def test_ask_watch_and_the_answer_is_the_librarys(browser: Any, server: Served) -> None:
    window = Window(browser, server, "#q=hello&seed=3&max_tokens=20")
    window.wait("#model", MODEL)
    window.page.click("#ask")
    window.wait("#status", "^Done: ")
    expected = generate(tiny_engine(), "hello", 6, stop=6, params=SamplingParams(max_tokens=20, seed=3), rule=RULE)
    assert window.page.locator("#answer").text_content() == expected.text
    computed, full = expected.group.computed_tokens + expected.continued_tokens, 6 * len(expected.completion.tokens)
    assert window.text("#cost-text").startswith(f"{computed} tokens computed in ")
    assert f"6 full answers of this length have {full}." in window.text("#cost-text")
    assert f"The ring is sample {expected.selected}" in window.text("#legend")
    assert window.text("#counts").startswith("Token 6 of 6.")
    assert window.page.locator("#map .chosen").count() == 1
    window.close()


def test_the_keyboard_alone(browser: Any, slow: Served) -> None:
    window = Window(browser, slow)
    window.wait("#model", MODEL)
    keys = window.page.keyboard
    keys.press("Tab")
    assert window.focus() == "question"
    outline = window.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    keys.type("one")
    keys.press("Shift+Enter")
    keys.type("two")
    assert window.page.input_value("#question") == "one\ntwo"
    keys.press("Tab")
    assert window.focus() == "ask"
    keys.press("Enter")
    window.wait("#counts", "Token [1-6] of 6")
    assert window.focus() == "stop"
    keys.press("Enter")
    window.wait("#status", "^Stopped")
    assert window.focus() == "ask"
    keys.press("Shift+Tab")
    keys.press("Enter")
    window.wait("#counts", "Token [1-6] of 6")
    keys.press("Escape")
    window.wait("#status", "^Stopped")
    slow.wait_until_idle()
    window.close()


def test_stop_frees_the_server_and_asking_again_works(browser: Any, slow: Served) -> None:
    window = Window(browser, slow, "#q=hello&stop_at=none&max_tokens=24")
    window.wait("#model", MODEL)
    window.page.click("#ask")
    window.wait("#counts", "Token 2")
    assert slow.service.work.running == 1
    window.page.click("#stop")
    window.wait("#status", "^Stopped")
    slow.wait_until_idle(2)
    window.page.locator(".example").first.click()
    window.wait("#counts", "Token [1-6] of|Token 1")
    assert window.page.input_value("#question").startswith("Tom has 12 eggs")
    window.page.reload()
    slow.wait_until_idle(2)
    window.close()


def test_the_link_carries_question_and_settings(browser: Any, server: Served) -> None:
    window = Window(browser, server)
    window.wait("#model", MODEL)
    page = window.page
    page.fill("#question", "a & b #c?")
    page.click("#settings summary")
    page.fill("#n", "5")
    page.select_option("#stop_at", "8")
    page.select_option("#selector", "medoid")
    page.fill("#temperature", "0.25")
    page.fill("#seed", "7")
    page.click("#ask")
    window.wait("#status", "^Done: ")
    assert page.url == page.evaluate("document.getElementById('link').href")
    asked = {name: page.input_value(f"#{name}") for name in ("n", "stop_at", "selector", "temperature", "seed")}
    assert asked == {"n": "5", "stop_at": "8", "selector": "medoid", "temperature": "0.25", "seed": "7"}
    answer = page.locator("#answer").text_content()
    other = Window(browser, server, "#" + page.url.partition("#")[2])
    other.wait("#model", MODEL)
    assert {name: other.page.input_value(f"#{name}") for name in asked} == asked
    assert other.page.input_value("#question") == "a & b #c?"
    assert not any("/api/live" in url for url in other.asked), "a link asks nothing by itself"
    other.page.reload()
    other.wait("#model", MODEL)
    other.page.focus("#question")
    other.page.keyboard.press("Enter")
    other.wait("#status", "^Done: ")
    assert other.page.locator("#answer").text_content() == answer
    other.close()
    window.close()


def test_a_vote_asks_for_full_answers(browser: Any, server: Served) -> None:
    window = Window(browser, server)
    window.wait("#model", MODEL)
    window.page.click("#settings summary")
    window.page.select_option("#selector", "cons")
    assert window.page.input_value("#stop_at") == "none"
    window.close()
    linked = Window(browser, server, "#selector=cons")
    linked.wait("#model", MODEL)
    assert linked.page.input_value("#stop_at") == "none"
    linked.close()


def test_what_the_server_refuses_is_its_one_line(browser: Any, server: Served) -> None:
    window = Window(browser, server, "#q=hello&selector=nonsense")
    window.wait("#model", MODEL)
    window.page.click("#ask")
    window.wait("#error", "nonsense")
    assert window.page.get_attribute("#error", "role") == "alert"
    window.page.click("#settings summary")
    window.page.select_option("#selector", "knn")
    window.page.click("#ask")
    window.wait("#status", "^Done: ")
    assert window.page.is_hidden("#error")
    window.close("400")


def test_a_value_that_cannot_be_is_shown_in_its_field(browser: Any, server: Served) -> None:
    window = Window(browser, server, "#q=hello&n=999")
    window.wait("#model", MODEL)
    window.page.click("#ask")
    window.page.locator("#n:focus").wait_for()
    assert window.page.evaluate("document.getElementById('n').validity.rangeOverflow")
    assert not any("/api/live" in url for url in window.asked)
    window.close()


def test_a_key_is_asked_for_and_forgotten(browser: Any) -> None:
    settings = Settings(SETTINGS.defaults, SETTINGS.limits, RULE, Keys.of([KEY]))
    with served(tiny_engine(), settings) as server:
        window = Window(browser, server, "#q=hello&n=5")
        window.wait("#error", "a valid API key is needed")
        assert window.focus() == "key"
        window.page.keyboard.type("wrong")
        window.page.click("#ask")
        window.page.wait_for_timeout(300)
        assert window.page.is_visible("#error")
        window.page.fill("#key", KEY)
        window.page.focus("#question")
        window.wait("#model", MODEL)
        assert window.page.is_hidden("#error")
        assert window.page.input_value("#n") == "5"
        window.page.keyboard.press("Enter")
        window.wait("#status", "^Done: ")
        assert KEY not in window.page.url
        kept = window.page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]")
        assert kept == [0, 0, ""]
        window.page.reload()
        window.wait("#error", "a valid API key is needed")
        assert window.page.input_value("#key") == ""
        refusals = len(window.complaints)
        window.close(*["401"] * refusals)


def stream(*events: tuple[str, dict[str, Any]]) -> str:
    return ": working\n\n" + "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)


ACCEPTED = ("accepted", {"id": "x", "model": "m", "n": 4, "stop_at": "2", "selector": "knn", "seed": 1})
PICTURE = {
    "points": [[0.2, 0], [0.2, 0], [-0.4, 0], [0, 0.4]],
    "agreement": [0.5, 0.5, 0.4, 0.1],
    "neurons": [10, 10, 20, 5],
}
COUNTS = {"n": 4, "computed": 5, "unfinished": 4, "ended": [False] * 4}
FIRST = ("progress", {**COUNTS, "position": 1, "distinct": 1, "prefix": [0] * 4, **PICTURE, "points": [[0, 0]] * 4})
SECOND = ("progress", {**COUNTS, "position": 2, "distinct": 3, "prefix": [0, 0, 2, 3], **PICTURE})
CANDIDATES = [{"index": i, "text": f"{EVIL} {i}", "tokens": 2, "finish_reason": None} for i in (0, 0, 2, 3)]
SELECTED = (
    "selected",
    {"index": 2, "scores": [1.0, 1.0, 1.5, None], "note": "", "position": 2, "candidates": CANDIDATES, **PICTURE},
)


def shown(browser: Any, server: Served, *events: tuple[str, dict[str, Any]]) -> Window:
    """The page after a stream made by hand."""
    window = Window(browser, server, "#q=hello", reduced_motion="reduce")
    window.wait("#model", MODEL)
    kind = "text/event-stream"
    window.page.route("**/api/live", lambda route: route.fulfill(body=stream(*events), content_type=kind))
    window.page.click("#ask")
    window.wait("#error", "the connection ended before the answer did")
    return window


def test_duplicates_are_one_larger_point(browser: Any, server: Served) -> None:
    together = shown(browser, server, ACCEPTED, FIRST)
    assert together.page.locator("#map .mark").get_attribute("r") == "10.0"  # 5 * sqrt(4)
    together.close()
    window = shown(browser, server, ACCEPTED, FIRST, SECOND)
    marks = window.page.locator("#map .mark")
    assert [marks.nth(i).get_attribute("r") for i in range(marks.count())] == ["7.1", "5.0", "5.0"]
    titles = window.page.locator("#map title").all_text_contents()
    assert titles[0] == "2 samples with the same text: 10 neurons, agreement 0.50"
    assert titles[2] == "sample 3: 5 neurons, agreement 0.10"
    # The largest distance from the middle, 0.4, is the map's half width of 176 units: 0.2 lies half way.
    place = window.page.evaluate("document.querySelector('#map .dot').style.transform")
    assert place == "translate(288px, 200px)"
    # 20 neurons are the full height of 208 units above a floor at 216; the first two tokens are the width.
    paths = [path.get_attribute("d") for path in window.page.locator("#curves .curve").all()]
    assert paths[1] == "M0.0,216.0L200.0,8.0L400.0,8.0"
    assert window.text("#counts") == "Token 2 of 2. 3 different texts among 4 samples. 5 tokens computed."
    window.close()


def test_losers_fade_and_texts_of_a_model_are_never_markup(browser: Any, server: Served) -> None:
    text = ("text", {"text": f"{EVIL} 2 and on", "rank": 0})
    window = shown(browser, server, ACCEPTED, FIRST, SECOND, SELECTED, text)
    page = window.page
    assert (page.locator("#map .lost").count(), page.locator("#curves .lost").count()) == (2, 2)
    assert (page.locator("#map .dot:not(.lost) .chosen").count(), page.locator("#curves .won").count()) == (1, 1)
    opacity = page.evaluate("getComputedStyle(document.querySelector('#map .lost')).opacity")
    assert float(opacity) < 0.5
    assert page.evaluate("getComputedStyle(document.querySelector('#map .dot')).transitionProperty") == "none"
    assert page.locator("#answer .prefix").text_content() == f"{EVIL} 2"
    assert page.locator("#answer").text_content() == f"{EVIL} 2 and on"
    page.click("#samples summary")
    rows = [row.locator("td").all_text_contents() for row in page.locator("#candidates tr").all()]
    assert [row[0] for row in rows[1:]] == ["2", "0, 1", "3"]
    assert rows[1] == ["2", f"{EVIL} 2", "1.500", "0.400", "20", "2"]
    assert rows[3][2] == "–"  # noqa: RUF001
    window.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_and_dark_mode(browser: Any, server: Served, scheme: str) -> None:
    options = {"viewport": {"width": 390, "height": 800}, "color_scheme": scheme}
    window = Window(browser, server, "#q=hello", **options)
    window.wait("#model", MODEL)
    window.page.click("#settings summary")
    window.page.click("#ask")
    window.wait("#status", "^Done: ")
    window.page.click("#samples summary")
    assert window.page.evaluate("document.documentElement.scrollWidth") <= 390
    background = window.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 200) == (scheme == "dark")
    window.close()


def test_a_server_that_is_gone_is_said_to_be_gone(browser: Any) -> None:
    with served(tiny_engine(), SETTINGS) as server:
        window = Window(browser, server, "#q=hello")
        window.wait("#model", MODEL)
    window.page.click("#ask")
    window.wait("#error", "the server cannot be reached")
    window.close("ERR_CONNECTION_REFUSED")
