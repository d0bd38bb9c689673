"""POST /api/live: the events of nad.server.live, for the page at /."""

from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import Send

from nad.server.forms import new_id
from nad.server.live import LiveEvent, LiveView, accepted, join_live, watched
from nad.server.refusals import Refusal
from nad.server.schema import ChatRequest
from nad.server.service import Service
from nad.server.sse import EVENT_STREAM, Attended, comment, event, send_stream
from nad.server.work import Job

_NOT_HERE = ("stream", "stream_options", "logprobs")


def install(app: FastAPI, service: Service) -> None:
    @app.post("/api/live", responses=EVENT_STREAM, response_class=Response)
    async def live(body: ChatRequest) -> Response:
        """The samples of a chat request as they are drawn, as named server-sent events (docs/how-to/serve.md)."""
        for name in _NOT_HERE:
            if getattr(body, name) is not None:
                raise Refusal(400, f"{name} is not for /api/live: it always streams", name, "unsupported_parameter")
        return await _watch(service, body)


async def _watch(service: Service, body: ChatRequest) -> Attended:
    id = new_id("live")
    request = watched(await service.request(body))
    job = service.submit(request, LiveView(request), join_live)
    first = accepted(id, body.model, request)
    outcome = ["hung up"]

    def release() -> None:
        service.release(job)
        service.log(id, body, job, outcome[-1])

    async def send(send: Send) -> None:
        await send_stream(send, _parts(service, job, first, outcome), {"X-Request-Id": id})

    return Attended(send, release)


async def _parts(service: Service, job: Job[LiveEvent], first: LiveEvent, outcome: list[str]) -> AsyncIterator[bytes]:
    yield event(first.data, first.name)
    try:
        async for message in job.outbox.read(service.settings.keep_alive_s):
            yield comment("working") if message is None else event(message.data, message.name)
        outcome.append("ok")
    except Refusal as refusal:
        outcome.append(str(refusal))
        yield event(refusal.body(), "error")
