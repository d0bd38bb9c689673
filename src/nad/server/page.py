"""The page at /: files of this package that load nothing from anywhere else, and what the page has to know.

Scripts and sheets are files of their own, so the policy allows no inline ones: a text of a model can never run.
"""

import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from nad.drawing import ASSETS, asset
from nad.engines.model_files import DEFAULT
from nad.server.service import Service

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_OWN = ("index.html", "page.css", "page.js", "picture.js", "settings.js", "stream.js")
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # ask whether it has changed
}


class PageDefaults(BaseModel):
    n: int
    stop_at: str
    selector: str
    temperature: float


class PageLimits(BaseModel):
    n: int
    max_tokens: int


class PageSettings(BaseModel):
    """What the page's form starts with. `weak`: the small default model answers; `full`: selectors of full answers."""

    model: str
    weak: bool
    selectors: list[str]
    full: list[str]
    defaults: PageDefaults
    limits: PageLimits


def page_settings(service: Service) -> PageSettings:
    defaults, limits, names = service.settings.defaults, service.settings.limits, service.names
    return PageSettings(
        model=names.model,
        weak=names.model == DEFAULT,
        selectors=names.fresh(),
        full=[name for name in names.fresh() if "full" in names.selectors[name]().needs],
        defaults=PageDefaults(
            n=defaults.n, stop_at=defaults.stop, selector=defaults.selector, temperature=defaults.temperature
        ),
        limits=PageLimits(n=limits.n, max_tokens=limits.max_tokens),
    )


def install(app: FastAPI, service: Service) -> tuple[str, ...]:
    """Serve the page; the addresses that come back need no key, since they tell nothing of this server."""

    @app.get("/api/settings")
    async def settings() -> PageSettings:
        """What the page's form starts with."""
        return page_settings(service)

    found = {f"/{name}": asset(name) for name in ASSETS} | {f"/{name}": _own(name) for name in _OWN}
    found["/"] = found.pop("/index.html")
    for path, text in found.items():
        app.router.add_route(path, _file(path, text), include_in_schema=False)
    return tuple(found)


def _own(name: str) -> str:
    return (files("nad.server") / "static" / name).read_text(encoding="utf-8")


def _file(path: str, text: str) -> Callable[[Request], Awaitable[Response]]:
    body = text.encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    kind = _TYPES[path.rpartition(".")[2]] if path != "/" else _TYPES["html"]

    async def get(request: Request) -> Response:
        known = request.headers.get("if-none-match") == tag
        return Response(b"" if known else body, 304 if known else 200, {**_HEADERS, "ETag": tag}, kind)

    return get
