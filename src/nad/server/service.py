"""What the endpoints of one server share."""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from nad.decoding import Event, Request, stream
from nad.engines.base import Engine
from nad.errors import UsageError
from nad.selection import all_selectors
from nad.server.metrics import Metrics
from nad.server.names import ModelNames
from nad.server.refusals import Refusal, too_slow
from nad.server.schema import ChatRequest, CompletionRequest
from nad.server.settings import Settings
from nad.server.translate import library_request
from nad.server.work import Job, Work

_log = logging.getLogger("nad.server")
T = TypeVar("T")


@dataclass(frozen=True)
class Service:
    """An engine, how it may be used, and the work on its way."""

    engine: Engine
    settings: Settings
    names: ModelNames
    work: Work
    metrics: Metrics
    begun: int

    @classmethod
    def of(cls, engine: Engine, settings: Settings) -> "Service":
        limits = settings.limits
        work = Work(partial(stream, engine), min(limits.running or engine.rollouts, engine.rollouts), limits.waiting)
        names = ModelNames(engine.name, all_selectors())
        return cls(engine, settings, names, work, Metrics(work), int(time.time()))

    async def request(self, body: ChatRequest | CompletionRequest) -> Request:
        """What the library is asked for, its prompt short enough. Raises Refusal."""
        request = library_request(body, self.names, self.settings)
        await asyncio.to_thread(self._check_prompt, request)
        return request

    def _check_prompt(self, request: Request) -> None:
        window = self.engine.context_window or sys.maxsize
        most = min(self.settings.limits.prompt_tokens, window - 1)
        try:
            tokens = len(self.engine.encode(request.prompt, request.raw, request.template_args))
        except UsageError as error:
            raise Refusal(400, str(error), "messages" if not request.raw else "prompt", "invalid_value") from None
        if tokens > most:
            text = f"the prompt has {tokens} tokens; at most {most} are allowed"
            raise Refusal(400, text, code="context_length_exceeded")

    def submit(
        self, request: Request, convert: Callable[[Event], Iterable[T]], join: Callable[[T, T], T | None]
    ) -> Job[T]:
        """Queue a request, which then has its time. Raises Refusal when it cannot be taken."""
        job = Job(request, convert, join)
        self.work.submit(job)
        seconds = self.settings.limits.seconds
        job.limit = asyncio.get_running_loop().call_later(seconds, self.work.give_up, job, too_slow(seconds))
        return job

    def release(self, job: Job) -> None:
        """Nobody waits for it any more; one that has ended stays as it is."""
        if job.limit is not None:
            job.limit.cancel()
        self.work.give_up(job)

    def log(self, id: str, body: ChatRequest | CompletionRequest, job: Job, outcome: str) -> None:
        """One line a request; what it asked only where that is wanted."""
        line: dict[str, object] = {
            "id": id,
            "model": body.model,
            "user": body.user,
            "n": job.request.n,
            "seed": job.request.params.seed,
            "outcome": outcome,
            "seconds": round(time.monotonic() - job.arrived, 3),
        }
        if self.settings.log_prompts:
            line["prompt"] = body.model_dump(include={"messages", "prompt"}, exclude_unset=True)
        _log.info("%s", json.dumps(line))
