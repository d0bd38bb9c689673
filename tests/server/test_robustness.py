"""The schema's own fuzzer, malformed requests, and many clients of which many leave."""

import http.client
import json
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serve_tiny import RULE
from served import HELLO, MODEL, Served, post, served
from tiny import tiny_engine

from nad.decoding import generate
from nad.server.settings import Defaults, Limits, Settings
from nad.types import SamplingParams

SMALL = Settings(Defaults(n=2, stop="2"), Limits(n=4, max_tokens=6, body_bytes=20_000, body_s=0.5), RULE)
BODY = {"model": MODEL, "messages": HELLO, "seed": 1}
CLIENTS, REQUESTS = 32, 200
PROMISED = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(tiny_engine(), SMALL) as running:
        yield running


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_requests_made_from_the_schema_never_fail_the_server(server: Served, mode: GenerationMode) -> None:
    """Whatever is asked, the answer is one of those the schema describes, and no failure of the server."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    seen: list[int] = []
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and operation.method == "get":
            continue  # nothing can be wrong with it

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=40, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        def check(case: Any) -> None:
            if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
                case.body["model"] = MODEL  # else nearly all would end there
            response = case.call()
            case.validate_response(response, checks=PROMISED)
            assert response.status_code < 500
            seen.append(response.status_code)

        check()
    assert 400 in seen and (200 in seen or mode is GenerationMode.NEGATIVE)
    server.wait_until_idle()


def exchanged(server: Served, data: bytes) -> bytes:
    """What comes back for these bytes, until the server closes or says nothing more."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=2) as connection:
        answer = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(4096):
                answer += piece
        except OSError:  # it may close before it has read everything
            pass
    return answer


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b"NaN",
        b"\xff\xfe",
        b"[" * 9_000,
        b'{"model":' * 2_000,
        b'{"model": 1e999}',
        b'{"seed": ' + b"9" * 6_000 + b"}",
        b'{"model": "m", "model": "m"}',
        b'{"\\ud800": 1}',
        json.dumps({**BODY, "temperature": 1}).encode()[:-1] + b', "temperature": NaN}',
        json.dumps({**BODY, "model": "\x00"}).encode(),
        json.dumps({**BODY, "messages": [{"role": "user", "content": "\ud83d"}]}).encode(),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/api/live"])
def test_malformed_bodies_are_refused_in_the_format_of_the_api(server: Served, path: str, body: bytes) -> None:
    status, _, answer = post(server.url + path, body)
    error = json.loads(answer)["error"]
    assert 400 <= status < 500
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in error["message"] and "/src/" not in error["message"]


@given(data=st.binary(max_size=200) | st.from_regex(rb"(GET|POST|BREW) /\S* HTTP/1\.[01]\r\n(\w+: .*\r\n)*\r\n"))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_that_are_no_request_do_not_fail_the_server(server: Served, data: bytes) -> None:
    answer = exchanged(server, data)
    assert b" 500 " not in answer.partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"GET /%ff%fe/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/completions HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ],
)
def test_strange_heads_are_refused(server: Served, head: bytes) -> None:
    first = exchanged(server, head).partition(b"\r\n")[0]
    assert first == b"" or first.split()[1][:1] == b"4"


def test_after_all_that_the_server_answers(server: Served) -> None:
    server.wait_until_idle()
    assert post(f"{server.url}/v1/chat/completions", {**BODY, "max_tokens": 4})[0] == 200


@contextmanager
def tiny_program() -> Iterator[tuple[int, psutil.Process]]:
    """The port and the process of a server of the tiny model."""
    script = Path(__file__).parents[1] / "helpers" / "serve_tiny.py"
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        for _ in range(600):
            if reachable(port):
                break
            time.sleep(0.1)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def reachable(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def asked(port: int, i: int) -> str | None:
    """The answer to request i; None from a client that leaves on the way, which two of five do."""
    chance = random.Random(i)
    leaves, stream = chance.random() < 0.4, chance.random() < 0.5
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        body = json.dumps({**BODY, "seed": i % 20, "stream": stream})
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        if leaves:
            time.sleep(chance.random() * 0.5)
            return None
        answer = connection.getresponse().read()
    finally:
        connection.close()
    if not stream:
        return str(json.loads(answer)["choices"][0]["message"]["content"])
    lines = [line[6:] for line in answer.decode().split("\n\n") if line.startswith("data: {")]
    return "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines)


def gauges(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
        lines = response.read().decode().splitlines()
    return {line.split()[0]: float(line.split()[1]) for line in lines if line and line[0] != "#"}


def test_of_200_requests_from_32_clients_every_answer_is_right_and_nothing_is_left() -> None:
    engine = tiny_engine()
    right = [
        generate(engine, "hello", 6, stop=6, rule=RULE, params=SamplingParams(max_tokens=24, seed=seed)).text
        for seed in range(20)
    ]
    with tiny_program() as (port, process), ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(lambda i: asked(port, i), range(REQUESTS)))  # what is allocated once
        before = process.memory_info().rss
        answers = list(clients.map(lambda i: asked(port, i), range(REQUESTS)))
        after = process.memory_info().rss
        assert all(answer is None or answer == right[i % 20] for i, answer in enumerate(answers))
        assert sum(answer is not None for answer in answers) > REQUESTS / 2
        for _ in range(100):
            left = gauges(port)
            if left["nad_running"] == left["nad_queue_waiting"] == 0:
                break
            time.sleep(0.1)
        assert (left["nad_running"], left["nad_queue_waiting"]) == (0, 0)
        assert len(process.connections(kind="tcp")) < 10
        assert after <= 1.05 * before
