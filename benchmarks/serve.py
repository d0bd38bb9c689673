"""What `nad serve` adds to the library, when its first tokens come, and how much it does for many clients.

Run: python benchmarks/serve.py [--model M] [--rounds 30] [--samples 16] [--requests 32]

The server runs in this process, with the same engine as the library, on a loopback socket. Added latency is measured
in turns, library and server, on the same request and seed:
- a request, its connection included: answers of n samples, each cut at its first token, so that little of the time is
  the model's;
- a token: the difference between the two for a plain sample of TOKENS tokens, streamed, over its tokens.
The first selected token is timed from the request to the first text that a client sees, and set against the library's.
Throughput is answers and returned tokens a second of the same requests from 1, 8 and 32 clients. Differences of medians
mean something on a noisy machine, seconds do not.
"""

import argparse
import http.client
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

# As `nad serve` does, before torch is loaded: the library and the server take turns here, and each one's threads
# would by default look for work on the cores of the other's.
os.environ.setdefault("GOMP_SPINCOUNT", "4000")

from nad.decoding import Finished, Request, Text, stream
from nad.engines import load_engine
from nad.engines.base import Engine
from nad.selection import parse_selector
from nad.server.run import bound, server_of
from nad.server.settings import Defaults, Limits, Settings
from nad.stopping import At
from nad.types import SamplingParams

PROMPT = "Natalia sold 48 clips in April and half as many in May. How many in all?"
TOKENS, STOP, BLOCK = 64, 32, 10


def request(n: int, tokens: int, seed: int, stop: int) -> Request:
    selector = parse_selector("knn" if n > 1 else "first")
    return Request(PROMPT, n, At(stop), selector, SamplingParams(max_tokens=tokens, seed=seed))


def body(engine: Engine, n: int, tokens: int, seed: int, stop: int, streams: bool = False) -> dict[str, Any]:
    messages = [{"role": "user", "content": PROMPT}]
    method = {"n": n, "stop_at": stop}
    return {
        "model": engine.name,
        "messages": messages,
        "max_tokens": tokens,
        "seed": seed,
        "stream": streams,
        "nad": method,
    }


@contextmanager
def running(engine: Engine) -> Iterator[int]:
    """The port of a server of this engine."""
    listener = bound("127.0.0.1", 0)
    ready = threading.Event()
    server = server_of(engine, Settings(Defaults(), Limits(waiting=1000)), ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        ready.wait()
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def post(connection: http.client.HTTPConnection, value: dict[str, Any]) -> http.client.HTTPResponse:
    connection.request("POST", "/v1/chat/completions", json.dumps(value), {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200, response.read()
    return response


def by_library(engine: Engine, wanted: Request) -> tuple[float, float, int]:
    """Seconds to the first text, to the end, and the answer's tokens."""
    begin, first = time.perf_counter(), 0.0
    for event in stream(engine, wanted):
        if isinstance(event, Text) and not first:
            first = time.perf_counter() - begin
        if isinstance(event, Finished):
            tokens = len(event.result.completion.tokens)
    return first, time.perf_counter() - begin, tokens


def by_server(connection: http.client.HTTPConnection, value: dict[str, Any]) -> tuple[float, float]:
    """Seconds to the first text, and to the end."""
    begin, first = time.perf_counter(), 0.0
    connection.close()  # a kept one may be closed by the server while the library has its turn
    response = post(connection, value)
    for line in response:
        if not first and line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
            first = time.perf_counter() - begin
    whole = time.perf_counter() - begin
    response.close()  # or the connection could not be used again
    return first, whole


def in_turns(rounds: int, *measures: Callable[[int], Any]) -> list[list[Any]]:
    """Each measure in blocks of BLOCK rounds, the order turned around every time; its first, cold round is left out.

    Blocks, since the library and the server run in different threads, and each change of the thread costs both.
    """
    found: list[list[Any]] = [[] for _ in measures]
    for start in range(0, rounds, BLOCK):
        for place in sorted(range(len(measures)), reverse=bool(start // BLOCK % 2)):
            measures[place](start)
            found[place] += [measures[place](i) for i in range(start, start + BLOCK)]
    return found


def added(values: list[float], base: list[float]) -> float:
    """Median of the differences within each round."""
    return statistics.median(a - b for a, b in zip(values, base, strict=True))


def latency(engine: Engine, connection: http.client.HTTPConnection, rounds: int, n: int) -> None:
    for samples in (1, n):
        own, served = in_turns(
            rounds,
            lambda i, k=samples: by_library(engine, request(k, 1, i, 1))[1],
            lambda i, k=samples: by_server(connection, body(engine, k, 1, i, 1))[1],
        )
        print(
            f"a request of {samples} x 1 token: library {1e3 * statistics.median(own):.1f} ms, "
            f"server adds {1e3 * added(served, own):.2f} ms"
        )
    own, served = in_turns(
        rounds,
        lambda i: by_library(engine, request(1, TOKENS, i, 1)),
        lambda i: by_server(connection, body(engine, 1, TOKENS, i, 1, streams=True)),
    )
    a_token = [(s[1] - s[0] - (o[1] - o[0])) / max(1, o[2] - 1) for s, o in zip(served, own, strict=True)]
    base = statistics.median((o[1] - o[0]) / max(1, o[2] - 1) for o in own)
    print(f"a streamed token: library {1e3 * base:.1f} ms, server adds {1e3 * statistics.median(a_token):.2f} ms")
    own, served = in_turns(
        max(BLOCK, rounds // 3),
        lambda i: by_library(engine, request(n, TOKENS, i, STOP)),
        lambda i: by_server(connection, body(engine, n, TOKENS, i, STOP, streams=True)),
    )
    first = added([s[0] for s in served], [o[0] for o in own])
    print(
        f"the first selected token of {n} x {STOP}: library {statistics.median(o[0] for o in own):.2f} s, server "
        f"{statistics.median(s[0] for s in served):.2f} s (adds {1e3 * first:.1f} ms)"
    )


def throughput(engine: Engine, port: int, clients: int, requests: int, n: int) -> None:
    own = threading.local()

    def ask(seed: int) -> int:
        if not hasattr(own, "connection"):
            own.connection = http.client.HTTPConnection("127.0.0.1", port)
        answer = json.loads(post(own.connection, body(engine, n, TOKENS, seed, STOP)).read())
        return int(answer["usage"]["completion_tokens"])

    with ThreadPoolExecutor(clients) as pool:
        begin = time.perf_counter()
        tokens = sum(pool.map(ask, range(requests)))
        seconds = time.perf_counter() - begin
    print(
        f"{clients:>2} clients: {requests / seconds:.2f} answers/s, {tokens / seconds:.0f} returned tokens/s, "
        f"{n * requests / seconds:.0f} samples/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--requests", type=int, default=32)
    options = parser.parse_args()
    engine = load_engine(options.model)
    with running(engine) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        latency(engine, connection, options.rounds, options.samples)
        for clients in (1, 8, 32):
            throughput(engine, port, clients, options.requests, options.samples)


if __name__ == "__main__":
    main()
