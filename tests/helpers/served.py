"""A server in a thread of this process, on a real socket."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from openai import OpenAI

from nad.engines.base import Engine
from nad.server.run import bound, server_of
from nad.server.service import Service
from nad.server.settings import Settings


@dataclass(frozen=True)
class Served:
    """Where it listens, and what it holds."""

    port: int
    service: Service

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, key: str = "none", **options: object) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, **{"max_retries": 0, "timeout": 30, **options})

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
        yield Served(listener.getsockname()[1], server.service)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"
        listener.close()
