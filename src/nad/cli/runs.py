"""The commands that record runs and choose from them again: `nad eval`, `nad select`."""

import shlex
import sys
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated

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
    Raw,
    System,
    TemplateArg,
    TensorParallel,
    ThinkingTag,
    TrustRemoteCode,
    UntestedVllm,
    engine_arguments,
    model_options,
    parse_template_args,
)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(name="eval")(evaluate_task)
    app.command(name="select")(select)


def evaluate_task(
    task: Annotated[str, typer.Option(help="The benchmark; see `nad tasks`.")],
    model: Model = None,
    engine: EngineName = "transformers",
    n: Annotated[int | None, typer.Option("-n", "--n", help="Samples a problem. Default: 64.")] = None,
    engine_arg: EngineArg = None,
    tensor_parallel: TensorParallel = None,
    pipeline_parallel: PipelineParallel = None,
    untested_vllm: UntestedVllm = False,
    limit: Annotated[int | None, typer.Option(help="Only the first K problems.")] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Folder or address of the run. Default: runs/TASK-MODEL-tTEMPERATURE-sSEED."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run: what it has is kept; a larger --limit or -n adds to it.")
    ] = False,
    completions: Annotated[
        str | None, typer.Option(help="Score answers from this JSON Lines file instead of sampling them.")
    ] = None,
    stop_at: Annotated[
        str, typer.Option(help="none: full answers. A position, distinct or budget: prefixes.")
    ] = "none",
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 512,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.6,
    top_p: Annotated[float, typer.Option(help="Nucleus, in (0, 1].")] = 0.9,
    seed: Annotated[int, typer.Option(help="Each problem's seed follows from it and the problem's id.")] = 0,
    data: Annotated[Path | None, typer.Option(help="A local file with the task's columns.")] = None,
    task_seed: Annotated[int, typer.Option(help="Makes arithmetic problems, shuffles options.")] = 0,
    everything: Annotated[bool, typer.Option("--all", help="The whole release, not the paper's part of it.")] = False,
    consistency: Annotated[
        bool, typer.Option("--consistency", help="Also ask the model which answer is most consistent.")
    ] = False,
    unsafe_code_execution: Annotated[
        bool, typer.Option("--unsafe-code-execution", help="Run the model's programs without a sandbox.")
    ] = False,
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
) -> None:
    """Record a run: n graded answers to each problem of a task, with the neurons that wrote them."""
    from nad.cli.options import messages
    from nad.errors import UsageError
    from nad.neurons.activation import parse_rule
    from nad.runs.completions_file import read_completions
    from nad.runs.evaluate import evaluate
    from nad.runs.sampling import Settings
    from nad.stopping import parse_stop
    from nad.types import SamplingParams

    messages("", system, raw)
    extra = model_options(trust_remote_code, fold_system, thinking_tag)
    settings = Settings(
        n=64 if n is None else n,
        stop=parse_stop(stop_at),
        params=SamplingParams(temperature, top_p, max_tokens, seed),
        rule=parse_rule(activation),
        system=system,
        raw=raw,
        template_args=parse_template_args(template_arg),
        consistency=consistency,
        limit=limit,
        command=shlex.join(["nad", *sys.argv[1:]]),
    )
    from nad.tasks import load_task

    loaded_task = load_task(task, data, limit, task_seed, everything, unsafe_code_execution)
    answers = read_completions(completions, loaded_task, limit) if completions is not None else None
    if answers and n not in (None, answers.n):
        raise UsageError(f"{completions} has {answers.n} answers to each problem, not {n}; drop -n")
    from nad.cli.progress import eval_progress, status
    from nad.cli.show_runs import run_account
    from nad.engines import load_engine

    extra["arguments"] = engine_arguments(engine_arg, tensor_parallel, pipeline_parallel, untested_vllm)
    with status() as report:
        loaded = load_engine(model, engine, device=device, dtype=dtype, fast_cpu=fast_cpu, report=report, **extra)
    made = Path(answers.name).stem if answers else f"t{temperature:g}-s{seed}"
    path = out or f"runs/{task}-{loaded.name.rstrip('/').rpartition('/')[2]}-{made}"
    with eval_progress(settings.stop.latest or max_tokens) as watch:
        store = evaluate(loaded, loaded_task, path, settings, resume, watch, _note, answers)
    print("\n".join([*run_account(store), *(f"note: {note}" for note in loaded.notes)]))


def select(
    run: Annotated[str, typer.Argument(help="A run that `nad eval` recorded.")],
    selector: Annotated[
        list[str] | None,
        typer.Option(help="A selector; may be repeated; knn@tokens looks at text. Default: all."),
    ] = None,
    at: Annotated[str, typer.Option(help="Stop rules, comma-separated.")] = "32,budget,distinct,none",
    partial: Annotated[bool, typer.Option("--partial", help="Also read a run that is not finished.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The table as CSV.")] = False,
) -> None:
    """What every selector would have chosen in a recorded run, at every stop, without the model."""
    from nad.analysis.comparison import parse_stops, reselect
    from nad.errors import UsageError
    from nad.runs.store import open_run
    from nad.selection import default_selectors, parse_selector

    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other; drop one")
    selectors = [parse_selector(spec) for spec in selector] if selector else default_selectors()
    stops = parse_stops(at)
    from nad.cli.progress import status
    from nad.cli.show_runs import comparison_csv, comparison_json, comparison_text

    store = open_run(run, partial)
    if missing := store.missing():
        _note(f"{len(missing)} of {len(store.problems)} problems are not there yet")
    with status("reading the run"):
        comparison = reselect(store, selectors, stops)
    if as_json or as_csv:
        print(comparison_json(comparison) if as_json else comparison_csv(comparison))
    else:
        print(comparison_text(comparison, get_terminal_size().columns if sys.stdout.isatty() else None))


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
