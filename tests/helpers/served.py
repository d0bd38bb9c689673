"""A server in a thread of this process, on a real socket."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from openai import OpenAI
from tiny import tiny_model, tiny_tokenizer

from nad.engines.base import Engine
from nad.engines.transformers.engine import TransformersEngine
from nad.engines.transformers.sampling_loop import TransformersRollout
from nad.server.run import bound, server_of
from nad.server.service import Service
from nad.server.settings import Settings
from nad.stopping import Progress, StopRule

NO_END = 263
"""A token that the tiny models hardly draw: answers run to their limit."""
MODEL = "tiny-llama"
HELLO = [{"role": "user", "content": "hello"}]


@dataclass(frozen=True)
class Served:
    """Where it listens, and what it holds."""

    port: int
    service: Service
    stack: ExitStack
    """What is closed with it: the clients."""
    stop: Callable[[], None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, key: str = "none", **options: object) -> OpenAI:
        settings = {"max_retries": 0, "timeout": 30, **options}
        return self.stack.enter_context(OpenAI(base_url=f"{self.url}/v1", api_key=key, **settings))

    def wait_until_idle(self, seconds: float = 10.0) -> None:
        """Until no job waits or runs."""
        until = time.monotonic() + seconds
        while self.service.work.running or self.service.work.waiting:
            assert time.monotonic() < until, "work was left behind"
            time.sleep(0.01)


@contextmanager
def served(engine: Engine, settings: Settings | None = None) -> Iterator[Served]:
    listener = bound("127.0.0.1", 0)
    server = server_of(engine, settings or Settings())
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        with ExitStack() as stack:
            yield Served(listener.getsockname()[1], server.service, stack, lambda: setattr(server, "should_exit", True))
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"
        listener.close()


class PacedEngine(TransformersEngine):
    """The tiny engine, which calls `pace` before every token."""

    pace: Callable[[], None] = staticmethod(lambda: None)

    def start(self, *arguments: Any, **options: Any) -> TransformersRollout:
        rollout = super().start(*arguments, **options)
        until = rollout.until

        def paced(stop: StopRule) -> Iterator[Progress]:
            for progress in until(stop):
                self.pace()
                yield progress

        rollout.until = paced  # type: ignore[method-assign]
        return rollout


def paced_engine(pace: Callable[[], None], eos: int = NO_END) -> PacedEngine:
    model = tiny_model("llama")
    model.generation_config.eos_token_id = eos
    model.config.eos_token_id = eos
    engine = PacedEngine(model, tiny_tokenizer(), "tiny-llama")
    engine.eos = frozenset({eos})
    engine.pace = pace
    return engine


def seconds_a_token(seconds: float) -> PacedEngine:
    return paced_engine(lambda: time.sleep(seconds))


def post(url: str, body: object, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a request with nothing between the test and the socket but http.client."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return _sent(urllib.request.Request(url, data, {"Content-Type": "application/json", **headers}))


def get(url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return _sent(urllib.request.Request(url, headers=headers))


def _sent(request: urllib.request.Request) -> tuple[int, dict[str, str], bytes]:
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()
