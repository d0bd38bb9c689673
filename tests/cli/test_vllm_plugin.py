"""What `vllm serve` mounts, on an application that stands for vLLM's; no vLLM is needed."""

import asyncio
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from served import HELLO, MODEL
from starlette.testclient import TestClient
from tiny import tiny_engine

import nad
from nad.cli import vllm_plugin
from nad.cli.vllm_plugin import OPTIONS, VllmPlugin, keys_of, parse_options
from nad.decoding import Event, Request, Text
from nad.errors import NadError, UsageError
from nad.neurons.activation import ActivationRule
from nad.server.answers import join_events
from nad.server.app import create_app
from nad.server.auth import Keys
from nad.server.settings import Defaults, Limits, Settings
from nad.server.work import Job, Work
from nad.types import Message, SamplingParams

KEY = "k" * 20
BEARER = {"Authorization": f"Bearer {KEY}"}
RULE = ActivationRule(k=30, per_layer=16)
ASK = {"model": MODEL, "messages": HELLO, "seed": 3, "max_tokens": 9}


def mounted(root_path: str = "") -> tuple[FastAPI, Work]:
    """vLLM's application, with ours mounted by the plugin as vLLM would do it."""
    outer, plugin = FastAPI(), VllmPlugin()
    outer.root_path = root_path

    @outer.get("/v1/models")
    async def models() -> str:
        return "vLLM's own"

    plugin.attach_router(outer)
    settings = Settings(Defaults(n=4, stop="5"), Limits(max_tokens=20), RULE, Keys.of([KEY]))
    plugin._entrance.app = inner = create_app(tiny_engine(), settings)
    return outer, inner.state.service.work


@pytest.fixture
def client() -> Iterator[TestClient]:
    outer, work = mounted()
    work.start()
    yield TestClient(outer)
    work.stop()
    work.join(5)


def test_the_method_is_served_beside_the_routes_that_were_there(client: TestClient) -> None:
    assert client.get("/v1/models").json() == "vLLM's own"
    got = client.post("/nad/v1/chat/completions", json=ASK, headers=BEARER).json()
    params = SamplingParams(max_tokens=9, seed=3)
    expected = nad.generate(tiny_engine(), [Message("user", "hello")], 4, stop=5, params=params, rule=RULE)
    assert got["choices"][0]["message"]["content"] == expected.text
    page = client.get("/nad/")
    assert page.status_code == 200
    assert 'src="page.js"' in page.text
    assert client.get("/nad", follow_redirects=False).headers["location"].endswith("/nad/")
    assert client.get("/nad/openapi.json").json()["servers"] == [{"url": "/nad"}]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nad/health", 200),
        ("/nad/page.js", 200),
        ("/nad/v1/models", 401),
        ("/nad/metrics", 401),
        ("/nad/api/settings", 401),
        ("/nad/nad/health", 401),
        ("/nad//health", 401),
    ],
)
def test_what_is_open_without_a_key_is_what_nad_serve_opens(client: TestClient, path: str, status: int) -> None:
    assert client.get(path).status_code == status


def test_requests_are_counted_by_their_own_addresses(client: TestClient) -> None:
    client.get("/nad/v1/models", headers=BEARER)
    text = client.get("/nad/metrics", headers=BEARER).text
    assert 'nad_requests_total{path="/v1/models",status="200"} 1.0' in text


def test_a_proxy_may_take_its_prefix_off_or_leave_it() -> None:
    outer, _ = mounted("/far")
    for path in ("/nad/v1/models", "/far/nad/v1/models"):
        assert TestClient(outer).get(path, headers=BEARER).json()["data"][0]["id"] == MODEL
        assert TestClient(outer).get(path).status_code == 401


def test_options_are_those_of_nad_serve() -> None:
    options = parse_options("-n 8 --max-tokens 100 --thinking-tag '<a>' --no-page")
    assert (options["n"], options["max_tokens"], options["no_page"]) == (8, 100, True)
    assert (options["selector"], options["stop_at"]) == ("knn", "32")
    assert parse_options("")["n"] == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--port 9000", r"--port is vLLM's to decide; allowed: --n, --stop-at"),
        ("--model m", r"--model is vLLM's to decide"),
        ("--api-key-file f", r"--api-key-file is vLLM's to decide"),
        ("--max-m 3", "No such option: --max-m"),
        ("-n many", "Invalid value for '-n'"),
        ("-n '8", "No closing quotation"),
    ],
)
def test_options_that_are_wrong_are_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"{OPTIONS}: .*{message}"):
        parse_options(text)


def test_keys_are_vllms() -> None:
    assert keys_of([KEY], {"VLLM_API_KEY": "other"}).fit(f"Bearer {KEY}")
    assert not keys_of([KEY], {"VLLM_API_KEY": "other"}).fit("Bearer other")
    assert keys_of(None, {"VLLM_API_KEY": "other"}).fit("Bearer other")
    assert not keys_of(None, {})
    assert not keys_of([""], {"VLLM_API_KEY": ""})


@pytest.mark.parametrize("error", [NadError("no vLLM is installed"), UsageError("no vLLM is installed")])
def test_what_cannot_be_served_ends_the_program_with_one_line(error: NadError, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr(vllm_plugin, "_application", fails)
    with pytest.raises(SystemExit, match=r"^nad: error: no vLLM is installed$"):
        asyncio.run(VllmPlugin().init_state(None, None, None))


@pytest.mark.parametrize(("timeout", "outcome", "left"), [(10, "finished", 9), (0, "given up", 0)])
def test_requests_end_before_the_engine_does_within_vllms_own_time(timeout: int, outcome: str, left: int) -> None:
    said: list[str] = []
    begun = threading.Event()

    def decode(request: Request) -> Iterator[Event]:
        begun.set()
        try:
            for _ in range(20):
                time.sleep(0.02)
                yield Text("a")
            said.append("finished")
        except GeneratorExit:
            said.append("given up")
            raise

    work, ended = Work(decode, 1, 1), []
    llm = SimpleNamespace(shutdown=lambda timeout: ended.append(timeout))
    vllm_plugin._end_first(llm, work)

    async def serve() -> None:
        work.start()
        work.submit(Job(Request("p", 1), lambda event: [event], join_events))
        assert await asyncio.to_thread(begun.wait, 5)
        await asyncio.to_thread(llm.shutdown, timeout=timeout)

    asyncio.run(serve())
    assert said == [outcome]
    assert left <= (ended[0] or 0) <= timeout
    assert not work.open
    llm.shutdown()  # vLLM calls it again at its end
    assert len(ended) == 2
