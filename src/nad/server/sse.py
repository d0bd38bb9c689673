"""Server-sent events, and responses that end when their client hangs up."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nad.server.json_text import json_bytes

DONE = b"data: [DONE]\n\n"
STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would hold the stream back
}
EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "server-sent events",
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "object",
                    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
                    "required": ["data"],
                }
            }
        },
    }
}
"""How the schema describes a stream: each event has `data`, and a name where it has one."""


def event(value: object, name: str = "") -> bytes:
    """One event; clients of the OpenAI API read those without a name."""
    return (b"event: " + name.encode() + b"\n" if name else b"") + b"data: " + json_bytes(value) + b"\n\n"


def comment(text: str) -> bytes:
    """What clients read over: it keeps the connection alive."""
    return b": " + text.encode() + b"\n\n"


class Attended(Response):
    """A response that somebody waits for: when the client hangs up, its making is cancelled.

    `release` is called at the end, whatever that is.
    """

    def __init__(self, make: Callable[[Send], Awaitable[None]], release: Callable[[], None]) -> None:
        self._make, self._release = make, release
        super().__init__()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        making = asyncio.ensure_future(self._make(send))
        gone = asyncio.create_task(_hung_up(receive))
        try:
            await asyncio.wait({making, gone}, return_when=asyncio.FIRST_COMPLETED)
            if making.done():
                making.result()
        finally:
            self._release()
            making.cancel()
            gone.cancel()
            await asyncio.gather(making, gone, return_exceptions=True)


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_stream(send: Send, parts: AsyncIterator[bytes], headers: dict[str, str]) -> None:
    """Each part at once, as it comes."""
    await _start(send, 200, {**STREAM_HEADERS, **headers})
    async for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def send_json(send: Send, value: object, headers: dict[str, str]) -> None:
    body = json_bytes(value)
    length = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    await _start(send, 200, {**length, "Cache-Control": "no-store", **headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _start(send: Send, status: int, headers: dict[str, str]) -> None:
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
