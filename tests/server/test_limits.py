"""What is asked for too much, too slowly, or without a key."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from served import HELLO, MODEL, Served, paced_engine, post, seconds_a_token, served
from tiny import tiny_engine

from nad.errors import UsageError
from nad.server.auth import Keys, check_reach, is_loopback, read_keys
from nad.server.settings import Defaults, Limits, Settings

KEY = "k" * 32
BODY = {"model": MODEL, "messages": HELLO, "seed": 1}
LIMITS = Limits(n=8, max_tokens=16, prompt_tokens=40, body_bytes=2000, body_s=0.3)


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    settings = Settings(Defaults(n=2, stop="3"), LIMITS, keys=Keys.of([KEY, "other" * 8]), hosts=("127.0.0.1",))
    with served(tiny_engine(), settings) as running:
        yield running


def refused(server: Served, body: object, path: str = "/v1/chat/completions", **headers: str) -> tuple[int, dict]:
    status, _, answer = post(server.url + path, body, **{"Authorization": f"Bearer {KEY}", **headers})
    return status, json.loads(answer)["error"] if status != 200 else {}


@pytest.mark.parametrize(
    ("more", "param", "text"),
    [
        ({"max_tokens": 17}, "max_tokens", "at most 16 tokens"),
        ({"nad": {"n": 9}}, "nad.n", "at most 8"),
        ({"n": 3}, "n", "n (3) answers cannot be the best of nad.n (2) samples"),
        ({"nad": {"stop_at": 17}}, "nad.stop_at", "lies past max_tokens (16)"),
        ({"nad": {"stop_at": "soon"}}, "nad.stop_at", "unknown stop rule"),
        ({"nad": {"selector": "nobody"}}, "nad.selector", "unknown selector"),
        ({"nad": {"selector": "universal"}}, "nad.selector", "recorded runs only"),
        ({"nad": {"selector": "cons", "stop_at": 4}}, "nad.stop_at", "full answers"),
        ({"model": f"nad-knn/{MODEL}", "nad": {"selector": "medoid"}}, "nad.selector", "the model's name says"),
        ({"messages": [{"role": "user", "content": "x" * 50}]}, None, "at most 40 are allowed"),
        ({"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "messages", "chat_template"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, None, ""),
    ],
)
def test_a_request_within_the_limits(server: Served, more: dict, param: str | None, text: str) -> None:
    status, error = refused(server, {**BODY, **more})
    assert status == 400
    assert text in error["message"]
    assert param is None or error["param"] == param


def test_a_large_body_is_refused_by_its_length_and_while_it_comes(server: Served) -> None:
    assert refused(server, b" " * 3000)[1]["code"] == "body_too_large"
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.putrequest("POST", "/v1/chat/completions")
    for name, value in (("Authorization", f"Bearer {KEY}"), ("Transfer-Encoding", "chunked")):
        connection.putheader(name, value)
    connection.putheader("Content-Type", "application/json")
    connection.endheaders()
    for _ in range(3):
        connection.send(b"400\r\n" + b" " * 1024 + b"\r\n")
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read())["error"]["code"] == "body_too_large"
    connection.close()


def test_a_slow_body_is_refused(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
        slow.sendall(head.encode() + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        assert b" 408 " in slow.recv(100)


@pytest.mark.parametrize("header", ["", f"Bearer {KEY}x", f"Basic {KEY}", KEY, "Bearer", "Bearer \xff"])
def test_without_a_key_nothing_but_health_and_the_schema_opens(server: Served, header: str) -> None:
    for path in ("/v1/chat/completions", "/v1/completions", "/api/live", "/nothing"):
        status, error = refused(server, BODY, path, Authorization=header)
        assert (status, error["code"]) == (401, "invalid_api_key")
    for path, expected in (("/v1/models", 401), ("/metrics", 401), ("/health", 200), ("/openapi.json", 200)):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", path)
        assert connection.getresponse().status == expected
        connection.close()


def test_any_of_the_keys_opens(server: Served) -> None:
    assert refused(server, BODY, Authorization=f"Bearer {KEY}")[0] == 200
    assert server.client("other" * 8).models.list().data


def test_a_server_on_loopback_answers_to_its_own_name_only(server: Served) -> None:
    assert refused(server, BODY, Host="rebound.example:80")[1]["code"] == "wrong_host"


def test_a_full_queue_says_when_to_come_back_and_the_client_does() -> None:
    gate = threading.Event()
    settings = Settings(Defaults(n=1), Limits(max_tokens=4, waiting=1))
    with served(paced_engine(lambda: gate.wait(20) and None), settings) as server:
        threads = [threading.Thread(target=post, args=(f"{server.url}/v1/chat/completions", BODY)) for _ in range(2)]
        for thread in threads:
            thread.start()
        while server.service.work.running + server.service.work.waiting < 2:
            time.sleep(0.01)
        status, headers, body = post(f"{server.url}/v1/chat/completions", BODY)
        assert (status, json.loads(body)["error"]["code"]) == (429, "queue_full")
        assert 1 <= int(headers["retry-after"]) <= 60
        with pytest.raises(openai.RateLimitError):
            server.client().chat.completions.create(model=MODEL, messages=HELLO)
        threading.Timer(0.3, gate.set).start()
        assert server.client(max_retries=3).chat.completions.create(model=MODEL, messages=HELLO).choices
        for thread in threads:
            thread.join()


def test_a_request_has_its_time() -> None:
    with served(seconds_a_token(0.05), Settings(Defaults(n=1), Limits(max_tokens=200, seconds=0.4))) as server:
        status, headers, body = post(f"{server.url}/v1/chat/completions", BODY)
        assert (status, json.loads(body)["error"]["code"]) == (504, "timeout")
        assert headers["x-should-retry"] == "false"
        server.wait_until_idle(1)
        with pytest.raises(openai.APIError, match="longer than"):
            list(server.client().chat.completions.create(model=MODEL, messages=HELLO, stream=True))
        server.wait_until_idle(1)


def test_keys_are_read_from_a_file_and_kept_as_digests(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# the first\n\n{KEY}\n  {'z' * 20}\n")
    keys = read_keys(str(file))
    assert keys.fit(f"Bearer {KEY}") and keys.fit(f"bearer {'z' * 20}")
    assert not keys.fit("Bearer # the first") and not keys.fit("")
    assert KEY not in repr(keys) and KEY.encode() not in keys.digests
    for text, wrong in (("", "holds no API key"), ("short\n", "line 1"), (f"{KEY}\nwith a space in it\n", "line 2")):
        file.write_text(text)
        with pytest.raises(UsageError, match=wrong):
            read_keys(str(file))


def test_others_are_let_in_with_a_key_or_when_told() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.com")))
    check_reach("127.0.0.1", Keys(), insecure=False)
    check_reach("0.0.0.0", Keys.of([KEY]), insecure=False)
    check_reach("0.0.0.0", Keys(), insecure=True)
    with pytest.raises(UsageError, match="--api-key-file"):
        check_reach("0.0.0.0", Keys(), insecure=False)
