"""`nad serve`: the OpenAI API in front of a model."""

import logging
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nad.cli.options import (
    Activation,
    Device,
    Dtype,
    EngineArg,
    EngineName,
    FastCpu,
    FoldSystem,
    Model,
    PipelineParallel,
    RayAddress,
    Replicas,
    TensorParallel,
    ThinkingTag,
    TrustRemoteCode,
    UntestedVllm,
    engine_arguments,
    model_options,
)
from nad.errors import UsageError

if TYPE_CHECKING:
    from nad.engines.base import Engine
    from nad.server.auth import Keys
    from nad.server.run import Server
    from nad.server.settings import Settings

LOG_FORMAT = "%(asctime)s %(name)s %(levelname)s %(message)s"


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(serve)


def serve(
    model: Model = None,
    engine: EngineName = "transformers",
    engine_arg: EngineArg = None,
    tensor_parallel: TensorParallel = None,
    pipeline_parallel: PipelineParallel = None,
    untested_vllm: UntestedVllm = False,
    replicas: Replicas = None,
    ray_address: RayAddress = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    api_key_file: Annotated[str | None, typer.Option(help="File of API keys, one a line.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let others in without a key.")] = False,
    n: Annotated[int, typer.Option("-n", "--n", help="Samples, for requests that do not say.")] = 64,
    stop_at: Annotated[str, typer.Option(help="Where they stop, for requests that do not say.")] = "32",
    selector: Annotated[str, typer.Option(help="Who chooses, for requests that do not say.")] = "knn",
    temperature: Annotated[float, typer.Option(help="For requests that do not say.")] = 0.6,
    top_p: Annotated[float, typer.Option(help="For requests that do not say.")] = 0.9,
    max_n: Annotated[int, typer.Option(help="Most samples a request may ask for.")] = 128,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, also for requests that do not say.")] = 2048,
    max_prompt_tokens: Annotated[int, typer.Option(help="Longest prompt.")] = 16384,
    max_body_kb: Annotated[int, typer.Option(help="Largest request.")] = 1024,
    max_running: Annotated[int | None, typer.Option(help="Requests at once; by default what the engine can.")] = None,
    max_waiting: Annotated[int, typer.Option(help="Requests in the queue; one more gets 429.")] = 32,
    max_seconds: Annotated[float, typer.Option(help="Longest time of a request, waiting included.")] = 600,
    grace: Annotated[float, typer.Option(help="Seconds that running requests have left at the end.")] = 30,
    cors_origin: Annotated[list[str] | None, typer.Option(help="A site whose pages may call; repeatable.")] = None,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Write the prompts to the log.")] = False,
    no_page: Annotated[bool, typer.Option("--no-page", help="Only the API, no page at /.")] = False,
    fold_system: FoldSystem = False,
    thinking_tag: ThinkingTag = None,
    trust_remote_code: TrustRemoteCode = False,
    activation: Activation = "top_k",
    device: Device = "auto",
    dtype: Dtype = "auto",
    fast_cpu: FastCpu = True,
) -> None:
    """Serve a model over the OpenAI API: best-of-n answers for any client, at about the price of one."""
    options = dict(locals())
    check_installed()
    from nad.engines import load_engine

    keys = _keys(host, api_key_file, insecure)
    settings = settings_of(options, keys, _hosts(host, keys), tuple(cors_origin or ()))
    arguments = engine_arguments(engine_arg, tensor_parallel, pipeline_parallel, untested_vllm)
    extra = {**model_options(trust_remote_code, fold_system, thinking_tag), "arguments": arguments}
    extra |= {"replicas": replicas, "ray_address": ray_address}
    load = partial(load_engine, model, engine, device=device, dtype=dtype, fast_cpu=fast_cpu, **extra)
    _serve(load, settings, host, port)


def settings_of(
    options: Mapping[str, Any], keys: "Keys", hosts: tuple[str, ...] = (), origins: tuple[str, ...] = ()
) -> "Settings":
    """What the command's options say of the server, beside its address."""
    from nad.neurons.activation import parse_rule
    from nad.server.settings import Defaults, Limits, Settings

    n, temperature, top_p = options["n"], options["temperature"], options["top_p"]
    defaults = Defaults(n, options["stop_at"], options["selector"], temperature, top_p)
    limits = Limits(
        n=max(options["max_n"], n),
        max_tokens=options["max_tokens"],
        prompt_tokens=options["max_prompt_tokens"],
        body_bytes=options["max_body_kb"] << 10,
        running=options["max_running"],
        waiting=options["max_waiting"],
        seconds=options["max_seconds"],
        grace_s=options["grace"],
    )
    shown = {"log_prompts": options["log_prompts"], "page": not options["no_page"]}
    return Settings(defaults, limits, parse_rule(options["activation"]), keys, hosts, origins, **shown)


def check_installed() -> None:
    """Raise UsageError where the server's packages are missing."""
    for name in ("fastapi", "uvicorn", "prometheus_client"):
        if find_spec(name) is None:
            raise UsageError(f'nad serve needs {name}: pip install "nad[serve]"')


def _keys(host: str, file: str | None, insecure: bool) -> "Keys":
    from nad.server.auth import Keys, check_reach, read_keys

    keys = read_keys(file) if file else Keys()
    check_reach(host, keys, insecure)
    return keys


def _hosts(host: str, keys: "Keys") -> tuple[str, ...]:
    """The names an open server on loopback answers to; else a page anywhere could reach it by a name of its own."""
    from nad.server.auth import is_loopback

    return ("localhost", "127.0.0.1", "[::1]", host) if is_loopback(host) and not keys else ()


def _serve(load: Callable[..., "Engine"], settings: "Settings", host: str, port: int) -> None:
    """Load the model once the address is known to be free, and serve it."""
    from nad.cli.progress import status
    from nad.server.run import bound, server_of

    with bound(host, port) as listener:
        with status() as report:
            engine = load(report=report)
        try:
            ready = partial(_ready, engine.name, host, listener.getsockname()[1])
            _run(server_of(engine, settings, ready), listener)
        finally:
            engine.close()


def _ready(model: str, host: str, port: int) -> None:
    """What a person, or a script that took a free port, wants to know."""
    place = f"[{host}]" if ":" in host else host
    print(f"{model} at http://{place}:{port}/v1", flush=True)


def _run(server: "Server", listener: socket.socket) -> None:
    """Until Ctrl-C or SIGTERM, which both end it in order; one line a request goes to standard error."""
    logging.basicConfig(format=LOG_FORMAT, stream=sys.stderr)
    logging.getLogger("nad.server").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
