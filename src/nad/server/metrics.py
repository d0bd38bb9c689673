"""What Prometheus sees of a server: a registry of its own for each."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nad.server.gate import own_path
from nad.server.work import Job, Work
from nad.types import Result

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_TOKENS = (
    "Tokens of finished requests: prompt; sampled (each prefix on its own) and computed (identical prefixes once), "
    "both with what the returned answers were continued by; returned; saved against n full answers."
)
_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/api/live", "/health", "/metrics")


class Metrics:
    """Requests by address and status; tokens sampled, computed and saved; seconds by phase; the queue."""

    def __init__(self, work: Work) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("nad_requests", "Requests answered.", ["path", "status"], registry=registry)
        self._tokens = Counter("nad_tokens", _TOKENS, ["kind"], registry=registry)
        self._seconds = Counter("nad_seconds", "Seconds of finished requests by phase.", ["phase"], registry=registry)
        self._first = Histogram(
            "nad_first_token_seconds",
            "From a request's arrival to its first text.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self._whole = Histogram(
            "nad_request_seconds", "Time of a finished request.", buckets=_BUCKETS, registry=registry
        )
        waiting = Gauge("nad_queue_waiting", "Requests in the queue.", registry=registry)
        waiting.set_function(lambda: work.waiting)
        running = Gauge("nad_running", "Requests that run.", registry=registry)
        running.set_function(lambda: work.running)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def answered(self, path: str, status: int) -> None:
        self._requests.labels(path, status).inc()

    def first_text(self, job: Job) -> None:
        self._first.observe(time.monotonic() - job.arrived)

    def finished(self, job: Job, result: Result) -> None:
        group, written = result.group, sum(len(c.tokens) for c in result.completions)
        computed = group.computed_tokens + result.continued_tokens
        full = len(group.completions) * len(result.completion.tokens)
        tokens = {
            "prompt": len(group.prompt_tokens),
            "sampled": group.sampled_tokens + result.continued_tokens,
            "computed": computed,
            "returned": written,
            "saved": max(0, full - computed),
        }
        for kind, count in tokens.items():
            self._tokens.labels(kind).inc(count)
        seconds = {
            "queue": job.begun - job.arrived,
            "sample": group.sample_s,
            "capture": group.capture_s,
            "select": result.select_s,
            "continue": result.continue_s,
        }
        for phase, value in seconds.items():
            self._seconds.labels(phase).inc(max(0.0, value))
        self._whole.observe(time.monotonic() - job.arrived)


class Counted:
    """Counts every response by its status, those that failed on the way as 500."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            status = 500
            raise
        finally:
            path = own_path(scope)
            self._metrics.answered(path if path in _PATHS else "other", status or 499)  # 499: the client hung up first
