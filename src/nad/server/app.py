"""The application: its addresses, and what stands before them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.responses import Response

from nad.engines.base import Engine
from nad.server import live_stream, page, refusals
from nad.server.answer_schema import ChatCompletion, Health, Model, ModelList, TextCompletion
from nad.server.answers import answer
from nad.server.forms import ChatForm, TextForm, new_id
from nad.server.gate import OPEN, Gate
from nad.server.json_text import json_bytes
from nad.server.metrics import Counted
from nad.server.refusals import ErrorBody
from nad.server.schema import ChatRequest, CompletionRequest
from nad.server.service import Service
from nad.server.settings import Settings
from nad.server.sse import EVENT_STREAM

_SUMMARY = "Neuron-Agreement Decoding behind the OpenAI API"
_REFUSED: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "what was wrong with the request"},
    "5XX": {"model": ErrorBody, "description": "the server is busy, shutting down or failed"},
}


def create_app(engine: Engine, settings: Settings | None = None) -> FastAPI:
    """The server for one engine, as an ASGI application. It starts no thread before the application starts."""
    service = Service.of(engine, settings or Settings())
    app = FastAPI(
        title="nad",
        summary=_SUMMARY,
        version=version("nad"),
        docs_url=None,  # its page would load from a CDN
        redoc_url=None,
        lifespan=_lifespan(service),
        responses=_REFUSED,
    )
    app.state.service = service
    refusals.install(app)
    _completions(app, service)
    _models(app, service)
    _operations(app, service)
    live_stream.install(app, service)
    files = page.install(app, service) if service.settings.page else ()
    app.add_middleware(Gate, settings=service.settings, keyless=(*OPEN, *files))
    if service.settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(service.settings.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    app.add_middleware(Counted, metrics=service.metrics)
    return app


def _lifespan(service: Service) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        service.work.start()
        yield
        service.work.stop()
        service.work.join(service.settings.limits.grace_s)

    return running


def _completions(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions", response_model=ChatCompletion, responses=EVENT_STREAM)
    async def chat_completions(body: ChatRequest) -> Response:
        """The best of n answers to a conversation."""
        return await answer(service, body, ChatForm(), new_id("chatcmpl"))

    @app.post("/v1/completions", response_model=TextCompletion, responses=EVENT_STREAM)
    async def completions(body: CompletionRequest) -> Response:
        """The best of n continuations of a text."""
        return await answer(service, body, TextForm(), new_id("cmpl"))


def _models(app: FastAPI, service: Service) -> None:
    def described(name: str) -> Model:
        return Model(id=name, object="model", created=service.begun, owned_by="nad")

    @app.get("/v1/models")
    async def models() -> ModelList:
        """The names a request may use: the model, and the model with a method before it."""
        return ModelList(object="list", data=[described(name) for name in service.names.all()])

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Model:
        """One of them."""
        service.names.options(name)
        return described(name)


def _operations(app: FastAPI, service: Service) -> None:
    @app.get("/health", response_model=Health, responses={503: {"model": Health}})
    async def health() -> Response:
        """Whether new requests are taken."""
        open = service.work.open
        body = Health(status="ok" if open else "shutting down")
        return Response(json_bytes(body), 200 if open else 503, media_type="application/json")

    text: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}

    @app.get("/metrics", responses=text, response_class=Response)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
