"""The files of the page at /: their policy, what needs a key, colours that can be told apart."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from served import MODEL, Served, get, served
from tiny import tiny_engine

from nad.drawing import asset
from nad.engines.model_files import DEFAULT
from nad.server.auth import Keys
from nad.server.names import ModelNames
from nad.server.page import POLICY, page_settings
from nad.server.settings import Defaults, Limits, Settings

SETTINGS = Settings(Defaults(n=6, stop="6"), Limits(n=16, max_tokens=24))
FILES = ("/", "/draw.js", "/theme.css", "/page.css", "/page.js", "/picture.js", "/settings.js", "/stream.js")


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(tiny_engine(), SETTINGS) as running:
        yield running


@pytest.mark.parametrize("path", FILES)
def test_every_file_has_the_policy_and_obeys_it(server: Served, path: str) -> None:
    status, headers, body = get(server.url + path)
    text = body.decode()
    assert (status, headers["content-security-policy"], headers["x-content-type-options"]) == (200, POLICY, "nosniff")
    assert set(re.findall(r"https?://[^\"'\s]*", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xhtml",
    }
    assert "url(" not in text and "innerHTML" not in text
    if path == "/":
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=", text)
        assert re.findall(r"<script[^>]*>[^<]", text) == []


def test_the_policy_lets_nothing_but_this_server_in() -> None:
    assert POLICY.split("; ") == [
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self' data:",
        "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'",
    ]  # fmt: skip


def test_a_file_that_has_not_changed_is_not_sent_again(server: Served) -> None:
    tag = get(f"{server.url}/page.js")[1]["etag"]
    assert get(f"{server.url}/page.js", **{"If-None-Match": tag})[::2] == (304, b"")


def test_other_addresses_are_not_files(server: Served) -> None:
    assert [get(server.url + path)[0] for path in ("/page.py", "/../page.py", "/index.html")] == [404] * 3


def test_what_the_form_starts_with(server: Served) -> None:
    found = json.loads(get(f"{server.url}/api/settings")[2])
    assert (found["model"], found["weak"], found["limits"]) == (MODEL, False, {"n": 16, "max_tokens": 24})
    assert found["defaults"] == {"n": 6, "stop_at": "6", "selector": "knn", "temperature": 0.6}
    assert {"knn", "medoid"} < set(found["selectors"]) and "cons" in found["full"] and "knn" not in found["full"]


def test_the_default_model_is_said_to_be_weak(server: Served) -> None:
    assert page_settings(replace(server.service, names=ModelNames(DEFAULT, {}))).weak


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_texts_and_edges_stand_out_in_both_themes(theme: int) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    colour = dict(re.findall(r"--(\w+): (#\w{6})", asset("theme.css").split(":root")[1 + theme]))
    for ground in ("paper", "raised"):
        for text in ("ink", "soft", "link", "bad"):
            assert contrast(colour[text], colour[ground]) >= 4.5, (text, ground)
        for mark in ("edge", "correct", "ring"):
            assert contrast(colour[mark], colour[ground]) >= 3, (mark, ground)
    assert contrast(colour["ink"], colour["warn"]) >= 4.5


def test_the_files_need_no_key_and_the_settings_do() -> None:
    settings = replace(SETTINGS, keys=Keys.of(["a-key-of-twenty-signs"]))
    with served(tiny_engine(), settings) as server:
        assert [get(server.url + path)[0] for path in FILES] == [200] * len(FILES)
        assert get(f"{server.url}/api/settings")[0] == 401


def test_without_the_page_there_is_nothing_at_its_address() -> None:
    with served(tiny_engine(), Settings(SETTINGS.defaults, SETTINGS.limits, page=False)) as server:
        assert [get(server.url + path)[0] for path in ("/", "/page.js", "/api/settings")] == [404] * 3
