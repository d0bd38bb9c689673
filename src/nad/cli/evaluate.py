"""`nad eval`: recording a run."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    RayAddress,
    Replicas,
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
)
from nad.cli.streams import note
from nad.errors import UsageError

if TYPE_CHECKING:
    from nad.engines.base import Engine
    from nad.runs.completions_file import Completions
    from nad.runs.sampling import Settings
    from nad.tasks import Task
    from nad.types import SamplingParams

TaskName = Annotated[str, typer.Option(help="The benchmark; see `nad tasks`.")]
Samples = Annotated[int | None, typer.Option("-n", "--n", help="Samples a problem. Default: 64.")]
Limit = Annotated[int | None, typer.Option(help="Only the first K problems.")]
Out = Annotated[
    str | None, typer.Option(help="Folder or address of the run. Default: runs/TASK-MODEL-tTEMPERATURE-sSEED.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with a run: what it has is kept; a larger --limit or -n adds to it.")
]
CompletionsFile = Annotated[
    str | None,
    typer.Option("--completions", help="Score answers from this JSON Lines file instead of sampling them."),
]
StopAt = Annotated[str, typer.Option(help="none: full answers. A position, distinct or budget: prefixes.")]
MaxTokens = Annotated[int, typer.Option(help="Longest answer, in tokens.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
TopP = Annotated[float, typer.Option(help="Nucleus, in (0, 1].")]
Seed = Annotated[int, typer.Option(help="Each problem's seed follows from it and the problem's id.")]
Data = Annotated[Path | None, typer.Option(help="A local file with the task's columns.")]
TaskSeed = Annotated[int, typer.Option(help="Makes arithmetic problems, shuffles options.")]
Everything = Annotated[bool, typer.Option("--all", help="The whole release, not the paper's part of it.")]
Consistency = Annotated[bool, typer.Option("--consistency", help="Also ask the model which answer is most consistent.")]
Unsafe = Annotated[bool, typer.Option("--unsafe-code-execution", help="Run the model's programs without a sandbox.")]


def evaluate_task(
    task: TaskName,
    model: Model = None,
    engine: EngineName = "transformers",
    engine_arg: EngineArg = None,
    tensor_parallel: TensorParallel = None,
    pipeline_parallel: PipelineParallel = None,
    untested_vllm: UntestedVllm = False,
    replicas: Replicas = None,
    ray_address: RayAddress = None,
    n: Samples = None,
    limit: Limit = None,
    out: Out = None,
    resume: Resume = False,
    completions: CompletionsFile = None,
    stop_at: StopAt = "none",
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.6,
    top_p: TopP = 0.9,
    seed: Seed = 0,
    data: Data = None,
    task_seed: TaskSeed = 0,
    everything: Everything = False,
    consistency: Consistency = False,
    unsafe_code_execution: Unsafe = False,
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
    from nad.runs.store import RunStore
    from nad.tasks import load_task
    from nad.types import SamplingParams

    params = SamplingParams(temperature, top_p, max_tokens, seed)
    made = _settings(params, n, stop_at, activation, system, raw, template_arg, consistency, limit)
    arguments = engine_arguments(engine_arg, tensor_parallel, pipeline_parallel, untested_vllm)
    extra = {**model_options(trust_remote_code, fold_system, thinking_tag), "arguments": arguments}
    extra |= {"replicas": replicas, "ray_address": ray_address}
    problems = load_task(task, data, limit, task_seed, everything, unsafe_code_execution)
    answers = _answers(completions, problems, limit, n)
    if resume and out:
        RunStore.open(out)  # a run that is not there is known before a model is loaded
    from nad.cli.progress import loaded

    with loaded(model, engine, device=device, dtype=dtype, fast_cpu=fast_cpu, **extra) as running:
        _record(running, problems, made, out, resume, answers)


def _settings(
    params: "SamplingParams",
    n: int | None,
    stop_at: str,
    activation: str,
    system: str | None,
    raw: bool,
    template_arg: list[str] | None,
    consistency: bool,
    limit: int | None,
) -> "Settings":
    from nad.neurons.activation import parse_rule
    from nad.runs.sampling import Settings
    from nad.stopping import parse_stop

    messages("", system, raw)
    return Settings(
        n=64 if n is None else n,
        stop=parse_stop(stop_at),
        params=params,
        rule=parse_rule(activation),
        system=system,
        raw=raw,
        template_args=parse_template_args(template_arg),
        consistency=consistency,
        limit=limit,
        command=shlex.join(["nad", *sys.argv[1:]]),
    )


def _answers(file: str | None, task: "Task", limit: int | None, n: int | None) -> "Completions | None":
    """What --completions names, of which there must be n to a problem if n is given."""
    from nad.runs.completions_file import read_completions

    answers = read_completions(file, task, limit) if file is not None else None
    if answers and n not in (None, answers.n):
        raise UsageError(f"{file} has {answers.n} answers to each problem, not {n}; drop -n")
    return answers


def _record(
    engine: "Engine", task: "Task", settings: "Settings", out: str | None, resume: bool, answers: "Completions | None"
) -> None:
    from nad.cli.progress import eval_progress
    from nad.cli.show_runs import run_account
    from nad.runs.evaluate import evaluate

    params = settings.params
    made = Path(answers.name).stem if answers else f"t{params.temperature:g}-s{params.seed}"
    path = out or f"runs/{task.name}-{engine.name.rstrip('/').rpartition('/')[2]}-{made}"
    with eval_progress(settings.stop.latest or params.max_tokens) as watch:
        store = evaluate(engine, task, path, settings, resume, watch, note, answers)
    print("\n".join([*run_account(store), *(f"note: {line}" for line in engine.notes)]))
