"""uvicorn around the application: slow headers, and an end that lets running requests finish."""

import asyncio
import socket
from collections.abc import Callable

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from nad.engines.base import Engine
from nad.errors import NadError, UsageError
from nad.server.app import create_app
from nad.server.service import Service
from nad.server.settings import Settings

_HEADERS_S = 10.0
_CONNECTIONS = 1000


class PatientProtocol(H11Protocol):
    """HTTP that waits `_HEADERS_S` for a request's headers: uvicorn itself waits for ever."""

    _headers_late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._headers_late = self.loop.call_later(_HEADERS_S, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._cancel()
        elif self._headers_late is None:
            self._headers_late = self.loop.call_later(_HEADERS_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        super().connection_lost(exc)

    def _cancel(self) -> None:
        if self._headers_late is not None:
            self._headers_late.cancel()
            self._headers_late = None


class Server(uvicorn.Server):
    """At its end it refuses what waits at once, gives what runs its grace time, and then ends that too."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.service, self._ready = service, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        work, grace_s = self.service.work, self.service.settings.limits.grace_s
        work.drain()
        late = asyncio.get_running_loop().call_later(grace_s, work.stop)
        try:
            await super().shutdown(sockets)
        finally:
            late.cancel()


def bound(host: str, port: int) -> socket.socket:
    """A socket at this address, before a model is loaded for nothing. Nobody is let in before the server starts."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError):
        raise UsageError(f"no such address to listen at: {host}") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise NadError(f"cannot listen at {host}, port {port}: {error.strerror}; give another --port") from error
    return listener


def server_of(engine: Engine, settings: Settings, ready: Callable[[], None] = lambda: None) -> Server:
    """A server to be run on a bound socket; `ready` is called when it takes requests."""
    app = create_app(engine, settings)
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        proxy_headers=False,
        access_log=False,
        server_header=False,
        log_level="warning",
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=int(settings.limits.grace_s) + 5,
    )
    return Server(config, app.state.service, ready)
