"""A client that leaves frees its work at once; a server that ends lets what runs finish and refuses the rest."""

import json
import socket
import threading
import time
from typing import Any

import openai
import pytest
from served import HELLO, MODEL, Served, paced_engine, post, seconds_a_token, served

from nad.server.settings import Defaults, Limits, Settings

SETTINGS = Settings(Defaults(n=2, stop="4"), Limits(max_tokens=200), keep_alive_s=0.05)
BODY = {"model": MODEL, "messages": HELLO, "seed": 1}


def raw(server: Served, body: dict[str, Any], path: str = "/v1/chat/completions") -> socket.socket:
    """A connection on which a request has been sent."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def wait_for(what: Any, seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("path", "stream"), [("/v1/chat/completions", False), ("/v1/chat/completions", True), ("/api/live", None)]
)
def test_a_client_that_hangs_up_frees_the_model(path: str, stream: bool | None) -> None:
    with served(seconds_a_token(0.02), SETTINGS) as server:
        connection = raw(server, BODY if stream is None else {**BODY, "stream": stream}, path)
        wait_for(lambda: server.service.work.running)
        connection.close()
        server.wait_until_idle(1)  # 200 tokens would take 4 s


def test_a_client_that_hangs_up_in_the_queue_leaves_it() -> None:
    gate = threading.Event()
    with served(paced_engine(lambda: gate.wait(20) and None), SETTINGS) as server:
        first = raw(server, BODY)
        wait_for(lambda: server.service.work.running)
        second = raw(server, {**BODY, "stream": True})
        wait_for(lambda: server.service.work.waiting)
        second.close()
        wait_for(lambda: not server.service.work.waiting, 1)
        gate.set()
        first.close()


def test_the_stream_speaks_while_it_waits_and_samples() -> None:
    with served(seconds_a_token(0.03), SETTINGS) as server:
        _, _, body = post(f"{server.url}/v1/chat/completions", {**BODY, "stream": True, "max_tokens": 6})
        before = body[: body.index(b"data:")].decode()
        comments = before.strip().split("\n\n")
        assert all(comment.startswith(": ") for comment in comments)
        assert any("distinct" in comment for comment in comments)
        assert body.endswith(b"data: [DONE]\n\n")


def test_a_reader_that_stops_reading_does_not_hold_the_model() -> None:
    with served(seconds_a_token(0), SETTINGS) as server:
        connection = raw(server, {**BODY, "stream": True, "max_tokens": 200})
        wait_for(lambda: server.service.work.running)
        assert post(f"{server.url}/v1/chat/completions", {**BODY, "max_tokens": 4})[0] == 200
        connection.close()


def test_half_closed_and_idle_connections_are_let_go() -> None:
    with served(seconds_a_token(0.02), SETTINGS) as server:
        idle = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        half = raw(server, BODY)
        half.shutdown(socket.SHUT_WR)
        assert half.recv(100) == b""
        server.wait_until_idle(2)
        assert post(f"{server.url}/v1/chat/completions", {**BODY, "max_tokens": 4})[0] == 200
        idle.close()
        half.close()


def test_slow_headers_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nad.server.run._HEADERS_S", 0.2)
    with served(seconds_a_token(0), SETTINGS) as server:
        slow = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        slow.sendall(b"GET /health HTTP/1.1\r\nX-Slow: ")
        assert slow.recv(100) == b""
        slow.close()
        second = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        second.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += second.recv(1000)
        second.sendall(b"GET /hea")
        assert second.recv(1000) == b""
        second.close()


def test_at_its_end_the_server_finishes_what_runs_and_refuses_what_waits() -> None:
    gate = threading.Event()
    answers: dict[str, Any] = {}

    def ask(name: str, server: Served) -> None:
        answers[name] = post(f"{server.url}/v1/chat/completions", {**BODY, "max_tokens": 4})

    threads = []
    with served(paced_engine(lambda: gate.wait(20) and None), SETTINGS) as server:
        work = server.service.work
        for name, there in (("running", lambda: work.running), ("waiting", lambda: work.waiting)):
            threads.append(threading.Thread(target=ask, args=(name, server)))
            threads[-1].start()
            wait_for(there)
        server.stop()
        wait_for(lambda: "waiting" in answers)
        assert "running" not in answers
        gate.set()
    for thread in threads:
        thread.join()
    assert answers["running"][0] == 200
    status, headers, body = answers["waiting"]
    assert (status, json.loads(body)["error"]["code"], headers["retry-after"]) == (503, "shutting_down", "10")


def test_what_runs_longer_than_the_grace_time_is_told_so() -> None:
    limits = Limits(max_tokens=200, grace_s=0.2)
    errors: list[Exception] = []

    def ask(client: openai.OpenAI) -> None:
        try:
            list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))  # type: ignore[call-overload]
        except openai.APIError as error:
            errors.append(error)

    with served(seconds_a_token(0.05), Settings(Defaults(n=1), limits)) as server, server.client() as client:
        thread = threading.Thread(target=ask, args=(client,))
        thread.start()
        wait_for(lambda: server.service.work.running)
        server.stop()
        thread.join(5)
    assert "shutting down" in str(errors[0])
