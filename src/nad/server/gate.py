"""What every request passes first: the host it asks for, its key, and how much it sends how fast."""

import asyncio
import re
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nad.server.auth import Keys
from nad.server.refusals import Refusal
from nad.server.settings import Settings

OPEN = ("/health", "/openapi.json")
"""What needs no key: liveness, and the public description of the API."""


class Gate:
    """Lets a request through, or answers it here."""

    def __init__(self, app: ASGIApp, settings: Settings, keyless: tuple[str, ...] = OPEN) -> None:
        self._app, self._settings, self._keyless = app, settings, keyless

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            _check_host(headers, self._settings.hosts)
            if not self._is_open(own_path(scope)):
                _check_key(headers, self._settings.keys)
            _check_length(headers, self._settings.limits.body_bytes)
        except Refusal as refusal:
            await refusal.response()(scope, receive, send)
            return
        body = _Body(receive, self._settings.limits.body_bytes, self._settings.limits.body_s)
        await self._app(scope, body.receive, send)

    def _is_open(self, path: str) -> bool:
        return any(path == own or (own.endswith("/") and own != "/" and path.startswith(own)) for own in self._keyless)


def own_path(scope: Scope) -> str:
    """The address within this application, which may be mounted below another's."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _check_host(headers: Headers, hosts: tuple[str, ...]) -> None:
    """A page of another site can make a browser send its requests here under that site's name."""
    name = re.sub(r":[0-9]*$", "", headers.get("host", ""))
    if hosts and name.lower() not in hosts:
        raise Refusal(421, f"this server answers to {', '.join(hosts)} only", code="wrong_host")


def _check_key(headers: Headers, keys: Keys) -> None:
    if not keys.fit(headers.get("authorization", "")):
        raise Refusal(
            401,
            "a valid API key is needed: Authorization: Bearer KEY",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _check_length(headers: Headers, most: int) -> None:
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length[:20]) > most:
        raise _too_large(most)


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the body is larger than {most} bytes", code="body_too_large")


class _Body:
    """A request's body as it comes: counted, also when it says nothing of its length, and against the clock."""

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self._receive, self._most, self._seconds = receive, most, seconds
        self._until = time.monotonic() + seconds
        self._bytes, self._whole = 0, False

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout(self._until - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(
                408, f"the body did not come within {self._seconds:g} seconds", code="body_too_slow"
            ) from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._most:
            raise _too_large(self._most)
        self._whole = not message.get("more_body", False)
        return message
