"""Every error a client can meet, in OpenAI's format: {"error": {"message", "type", "param", "code"}}."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from nad.server.json_text import json_bytes

_log = logging.getLogger("nad.server")
_MOST_CHARACTERS = 500


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """What every refused request gets."""

    error: ErrorDetail


class Refusal(HTTPException):
    """A request that is not served, and why. `headers` go with the response."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.param, self.code = param, code

    def __str__(self) -> str:
        return str(self.detail)

    def body(self) -> dict[str, object]:
        kind = _TYPES.get(self.status_code, "server_error" if self.status_code >= 500 else "invalid_request_error")
        detail = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": detail}

    def response(self) -> Response:
        return Response(json_bytes(self.body()), self.status_code, self.headers, "application/json")


_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


def too_slow(seconds: float) -> Refusal:
    """The time limit was reached. Asking again would take as long, so clients are told not to."""
    return Refusal(
        504,
        f"the request took longer than {seconds:g} seconds; ask for fewer tokens or a smaller nad.n",
        code="timeout",
        headers={"x-should-retry": "false"},
    )


def shutting_down() -> Refusal:
    return Refusal(503, "the server is shutting down", code="shutting_down", headers={"Retry-After": "10"})


def last_resort() -> Refusal:
    """What a client is told of a failure nobody foresaw: nothing about the inside; the log has the rest."""
    return Refusal(500, "the server failed at this request; its log says more", code="internal_error")


def install(app: FastAPI) -> None:
    """Every failure of this app answers in OpenAI's format."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return error.response()

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return Refusal(error.status_code, _plain(error), headers=error.headers).response()

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _of_validation(error.errors()[0]).response()

    async def unforeseen(request: Request, error: Exception) -> Response:
        return last_resort().response()

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unforeseen)


def _plain(error: HTTPException) -> str:
    if error.status_code == 404:
        return "there is nothing at this address; see /openapi.json"
    if error.status_code == 405:
        return "this address does not take this method; see /openapi.json"
    return f"the request could not be read: {error.detail}"


def _of_validation(error: Mapping[str, Any]) -> Refusal:
    """The first thing that is wrong with a body, by the name of its field."""
    kind, place = error["type"], [str(part) for part in error["loc"][1:]]
    context = error.get("ctx", {})
    if kind == "json_invalid":
        return Refusal(400, f"the body is not JSON: {context.get('error', 'it cannot be parsed')}", code="invalid_json")
    name = ".".join(place)[:100] or None
    if kind == "extra_forbidden":
        return Refusal(400, f"unknown field {name}; it is not part of the API", name, "unknown_parameter")
    if kind == "unsupported":
        name = context["param"]
        return Refusal(400, error["msg"], name, "unsupported_parameter")
    if not place:
        return Refusal(400, "the body must be a JSON object, sent with Content-Type: application/json")
    if kind == "missing":
        return Refusal(400, f"the field {name} is missing", name, "missing_required_parameter")
    return Refusal(400, f"{name}: {error['msg'][:_MOST_CHARACTERS]}", name, "invalid_value")
