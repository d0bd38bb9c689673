"""One request from its body to its last byte: queued, decoded, and answered whole or as a stream."""

import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from starlette.types import Send

from nad.decoding import Event, Finished, Progressed, Selected, Text
from nad.server.forms import Asked, Form
from nad.server.refusals import Refusal
from nad.server.schema import ChatRequest, CompletionRequest
from nad.server.service import Service
from nad.server.sse import DONE, Attended, comment, event, send_json, send_stream
from nad.server.work import Job


def join_events(last: Event, new: Event) -> Event | None:
    """What a reader that is behind needs of two events: the newest progress, the texts of one answer together."""
    if isinstance(last, Progressed) and isinstance(new, Progressed):
        return new
    if isinstance(last, Text) and isinstance(new, Text) and last.rank == new.rank:
        return replace(last, text=last.text + new.text)
    return None


def thinned(every: float) -> Callable[[Event], list[Event]]:
    """Lets a progress through every so many seconds: each would wake the event loop, for nothing to be sent."""
    told = time.monotonic()

    def convert(event: Event) -> list[Event]:
        nonlocal told
        if isinstance(event, Progressed):
            if time.monotonic() - told < every:
                return []
            told = time.monotonic()
        return [event]

    return convert


async def answer(service: Service, body: ChatRequest | CompletionRequest, form: Form, id: str) -> Attended:
    """The response to a checked body. Raises Refusal."""
    request = await service.request(body)
    options = body.stream_options
    asked = Asked(
        id=id,
        model=body.model,
        stream=bool(body.stream),
        usage=bool(options and options.include_usage),
        report=bool(body.nad and body.nad.report),
        logprobs=body.wants_logprobs,
        decode=service.engine.decode,
    )
    job = service.submit(request, thinned(service.settings.keep_alive_s if asked.stream else math.inf), join_events)
    exchange = Exchange(service, asked, form, job)

    def release() -> None:
        service.release(job)
        service.log(id, body, job, exchange.outcome)

    return Attended(exchange.send, release)


@dataclass
class Exchange:
    """One job's events on their way to one client."""

    service: Service
    asked: Asked
    form: Form
    job: Job[Event]
    outcome: str = "hung up"

    async def send(self, send: Send) -> None:
        headers = {"X-Request-Id": self.asked.id}
        if self.asked.stream:
            await send_stream(send, self.parts(), headers)
            return
        try:
            async for happened in self.events():
                if isinstance(happened, Finished):
                    await send_json(send, self.form.whole(self.asked, happened.result), headers)
        except Refusal as refusal:
            self.outcome = str(refusal)
            raise

    async def events(self) -> AsyncIterator[Event | None]:
        """The job's events, None while there are none. Raises Refusal, also when its time is over."""
        first = True
        async for happened in self.job.outbox.read(self.service.settings.keep_alive_s):
            if isinstance(happened, Text) and first:
                first = False
                self.service.metrics.first_text(self.job)
            if isinstance(happened, Finished):
                self.service.metrics.finished(self.job, happened.result)
                self.outcome = "ok"
            yield happened

    async def parts(self) -> AsyncIterator[bytes]:
        """The stream: comments until the choice, then each answer as it is written; an error ends it."""
        yield comment(f"{self.asked.id} waits for its turn")
        try:
            async for happened in self.events():
                for part in self._written(happened):
                    yield part
        except Refusal as refusal:
            self.outcome = str(refusal)
            yield event(refusal.body())
            return
        yield DONE

    def _written(self, happened: Event | None) -> list[bytes]:
        asked, form = self.asked, self.form
        match happened:
            case None:
                return [comment("working")]
            case Progressed(progress):
                return [comment(f"token {progress.position} of {progress.n} samples, {progress.distinct} distinct")]
            case Selected():
                opening = (form.opening(asked, rank) for rank in range(self.job.request.best))
                return [event(chunk) for chunk in opening if chunk is not None]
            case Text(text, rank):
                return [event(form.piece(asked, rank, text))]
            case Finished(result):
                last = [form.closing(asked, rank, result) for rank in range(len(result.completions))]
                return [event(chunk) for chunk in (*last, *([form.counted(asked, result)] if asked.usage else []))]
