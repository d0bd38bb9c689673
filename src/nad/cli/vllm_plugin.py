"""`VLLM_PLUGINS=nad vllm serve ...`: vLLM's own server, with this one under /nad (docs/decisions/0064).

vLLM finds `VllmPlugin` by the entry point `vllm.endpoint_plugins`. It calls `attach_router` when it builds its
application, then `init_state` when its engine runs, both before it takes requests.
"""

import asyncio
import logging
import os
import shlex
import sys
import time
from collections.abc import Mapping
from typing import Any

import typer
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from nad.cli.options import model_options
from nad.cli.serve import LOG_FORMAT, register, settings_of
from nad.engines.vllm.engine import VllmEngine
from nad.engines.vllm.platform import check_version
from nad.engines.vllm.running import adopted
from nad.errors import NadError, UsageError
from nad.server.app import create_app
from nad.server.auth import Keys
from nad.server.work import Work

ROOT = "/nad"
OPTIONS = "NAD_SERVE"
"""The environment variable with the options of `nad serve` that are not vLLM's to decide."""
_METHOD = ("n", "stop_at", "selector", "temperature", "top_p", "activation", "fold_system", "thinking_tag")
_LIMITS = ("max_n", "max_tokens", "max_prompt_tokens", "max_body_kb", "max_running", "max_waiting", "max_seconds")
_ALLOWED = (*_METHOD, *_LIMITS, "log_prompts", "no_page", "untested_vllm")
_LEAVE_S = 5.0
"""What is ended has so long to give back what it holds in vLLM's workers."""
_log = logging.getLogger("nad.server")


class VllmPlugin:
    """Serves the method beside vLLM's own routes, on the same engine, behind the same keys."""

    name = "nad"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._entrance = Entrance()

    def attach_router(self, app: FastAPI) -> None:
        app.mount(ROOT, self._entrance)

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """What cannot be served ends `vllm serve` with one line: it was asked for by name."""
        try:
            self._entrance.app = await _application(engine_client, args)
        except NadError as error:
            raise SystemExit(f"nad: error: {error}") from None


class Entrance:
    """Where another application lets this one's requests in, once there is one."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outer, path = scope.get("app_root_path", ""), scope["path"]
        if not path.startswith(scope.get("root_path", "")):  # a proxy has taken `--root-path` off the address
            scope = {**scope, "path": outer + path}
        await self.app(scope, receive, send)


async def _application(llm: Any, args: Any) -> FastAPI:
    options = parse_options(os.environ.get(OPTIONS, ""))
    check_version(options["untested_vllm"])
    texts = model_options(False, options["fold_system"], options["thinking_tag"])
    vllm = await adopted(llm)
    engine = VllmEngine(
        vllm,
        await asyncio.to_thread(_tokenizer, llm.model_config, args.chat_template),
        llm.model_config.served_model_name,
        fold_system=texts["fold_system"],
        thinking_tags=texts["thinking_tags"],
        template_args=args.default_chat_template_kwargs,
    )
    app = create_app(engine, settings_of(options, keys_of(args.api_key, os.environ)))
    _log_requests()
    work: Work = app.state.service.work
    _end_first(llm, work)
    work.start()
    _log.info("%s with neuron agreement at %s/v1", engine.name, ROOT)
    return app


def parse_options(text: str) -> Mapping[str, Any]:
    """Every option of `nad serve`, as the variable says or by default. Raises UsageError."""
    program = typer.Typer(add_completion=False)
    register(program)
    try:
        context = typer.main.get_command(program).make_context(OPTIONS, shlex.split(text))
    except typer.BadParameter.__bases__[0] as error:  # type: ignore[misc]  # what the option parser raises
        raise UsageError(f"{OPTIONS}: {' '.join(error.format_message().split())}") from None
    except ValueError as error:  # a quotation mark is missing
        raise UsageError(f"{OPTIONS}: {error}") from None
    given = [name for name in context.params if context.get_parameter_source(name).name != "DEFAULT"]  # type: ignore[union-attr]
    if other := [name for name in given if name not in _ALLOWED]:
        allowed = ", ".join(f"--{name.replace('_', '-')}" for name in _ALLOWED)
        raise UsageError(f"{OPTIONS}: --{other[0].replace('_', '-')} is vLLM's to decide; allowed: {allowed}")
    return context.params


def keys_of(given: list[str] | None, environment: Mapping[str, str]) -> Keys:
    """vLLM's own keys: it asks for them only under /v1 and the like, so they are asked for here."""
    return Keys.of(key for key in given or [environment.get("VLLM_API_KEY", "")] if key)


def _tokenizer(config: Any, chat_template: str | None) -> Any:
    from transformers import AutoTokenizer
    from vllm.renderers.chat_utils import load_chat_template

    revision, trusted = config.tokenizer_revision, config.trust_remote_code
    tokenizer = AutoTokenizer.from_pretrained(config.tokenizer, revision=revision, trust_remote_code=trusted)
    if chat_template is not None:
        tokenizer.chat_template = load_chat_template(chat_template)
    return tokenizer


def _log_requests() -> None:
    """One line a request, as `nad serve` writes it; vLLM's loggers are its own."""
    _log.setLevel(logging.INFO)
    if not _log.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
        _log.addHandler(handler)


def _end_first(llm: Any, work: Work) -> None:
    """Let requests here end before vLLM's engine does, within the time vLLM gives its own (`--shutdown-timeout`).

    vLLM ends its engine before it ends its connections, and calls nothing of a plugin's before that.
    """
    shutdown = llm.shutdown

    def ended(timeout: float | None = None) -> None:
        begin = time.monotonic()
        work.finish(timeout or 0)
        work.join(_LEAVE_S)
        shutdown(timeout=timeout and max(0.0, timeout - (time.monotonic() - begin)))

    llm.shutdown = ended
