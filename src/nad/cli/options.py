"""Options that several commands share, and how their texts are read. Imports nothing heavy."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nad.cli.streams import read_input
from nad.errors import UsageError

if TYPE_CHECKING:
    from nad.types import Message

Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Hub id, folder or .gguf file. Default: a tiny, weak model (`nad models`)."),
]
EngineName = Annotated[str, typer.Option("--engine", help="What runs the model.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16 or float64.")]
FastCpu = Annotated[
    bool,
    typer.Option("--fast-cpu/--no-fast-cpu", help="On a CPU: packed weights and a decoding step of their own."),
]
EngineArg = Annotated[
    list[str] | None,
    typer.Option("--engine-arg", help="Argument of the engine's own, KEY=VALUE (vLLM's); may be repeated."),
]
TensorParallel = Annotated[
    int | None, typer.Option("--tensor-parallel", help="vLLM: split every layer among so many workers.")
]
PipelineParallel = Annotated[
    int | None, typer.Option("--pipeline-parallel", help="vLLM: split the layers among so many stages.")
]
UntestedVllm = Annotated[bool, typer.Option("--untested-vllm", help="Try a version of vLLM that was not tested.")]
Replicas = Annotated[
    int | None, typer.Option("--replicas", help="So many copies of the engine, each in a process of its own (Ray).")
]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray-address", help="Head of a Ray cluster, HOST:PORT. Default: one that ends with nad."),
]
System = Annotated[str | None, typer.Option(help="System message before the prompt.")]
Raw = Annotated[bool, typer.Option("--raw", help="Send the prompt as it is, without the chat template.")]
TemplateArg = Annotated[
    list[str] | None,
    typer.Option("--template-arg", help="Argument of the chat template, KEY=VALUE; may be repeated."),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run Python code that comes with the model; it can do all you can do."),
]
FoldSystem = Annotated[
    bool,
    typer.Option("--fold-system", help="System message into the first user turn, for a template that takes none."),
]
ThinkingTag = Annotated[
    list[str] | None,
    typer.Option("--thinking-tag", help="What opens thinking, as <NAME>, [NAME] or OPEN,CLOSE; may be repeated."),
]
Activation = Annotated[
    str, typer.Option(help="Which neurons count: top_k or eta; e.g. top_k:k=500,per_layer=64,per=chunk,position=own.")
]


def read_prompt(prompt: str) -> str:
    """The prompt, or for "-" standard input without its last line's end."""
    return read_input().removesuffix("\n") if prompt == "-" else prompt


def messages(prompt: str, system: str | None, raw: bool) -> "str | list[Message]":
    from nad.types import Message

    if system is None:
        return prompt
    if raw:
        raise UsageError("--system needs the chat template; drop --raw or --system")
    return [Message("system", system), Message("user", prompt)]


def model_options(trust_remote_code: bool, fold_system: bool, thinking_tag: Sequence[str] | None) -> dict[str, Any]:
    """What `load_engine` is told beside model, device and dtype."""
    from nad.thinking import parse_tags

    try:
        tags = tuple(parse_tags(text) for text in thinking_tag or ())
    except ValueError as error:
        raise UsageError(f"--thinking-tag: {error}") from error
    return {"trust_remote_code": trust_remote_code, "fold_system": fold_system, "thinking_tags": tags}


def engine_arguments(
    pairs: Sequence[str] | None, tensor_parallel: int | None, pipeline_parallel: int | None, untested_vllm: bool
) -> dict[str, str]:
    """What the engine alone is told (LoadOptions.arguments)."""
    found = dict(_pairs(pairs, "--engine-arg"))
    sizes = {"tensor_parallel_size": tensor_parallel, "pipeline_parallel_size": pipeline_parallel}
    for name, size in sizes.items():
        if size is not None:
            if size < 1:
                raise UsageError(f"--{name.removesuffix('_size').replace('_', '-')} must be at least 1, got {size}")
            found[name] = str(size)
    return {**found, **({"untested_vllm": "true"} if untested_vllm else {})}


def _pairs(pairs: Sequence[str] | None, option: str) -> Iterator[tuple[str, str]]:
    for pair in pairs or ():
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise UsageError(f"{option} must be KEY=VALUE, got {pair!r}")
        yield key, value


def parse_template_args(pairs: Sequence[str] | None) -> dict[str, object]:
    """KEY=VALUE pairs; a value that is JSON (true, 3, "x") is read as such, any other (NaN, too) is a text."""
    found: dict[str, object] = {}
    for key, value in _pairs(pairs, "--template-arg"):
        try:
            found[key] = json.loads(value, parse_constant=_no_constant)
        except (ValueError, RecursionError):  # a number too long, or brackets too deep
            found[key] = value
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
