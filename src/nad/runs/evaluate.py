"""Recording a run: every problem sampled once, with capture, then graded (section 5.1). The only writer of runs."""

import hashlib
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime

from nad.engines.base import Engine
from nad.errors import NadError, UsageError
from nad.grading.thinking import opens_thinking
from nad.neurons.activation import ActivationRule
from nad.runs.grading_process import grader_of
from nad.runs.records import GradedSample, Manifest, ProblemRecord
from nad.runs.store import PARTS, PENDING, RunStore
from nad.runs.text_ends import Spans
from nad.runs.universal_self_consistency import most_consistent
from nad.stopping import Never, Progress, StopRule, check_reachable, stop_label
from nad.tasks.base import Problem, Task
from nad.types import Message, SamplingParams

_NOT_SETTINGS = ("versions", "hardware", "created", "command")
"""What may differ between the sittings of one run: where and when, not what."""


@dataclass(frozen=True)
class Settings:
    """How to record: n samples a problem, stopped where `stop` says. `consistency` asks for universal self-consistency.

    `limit` is the number of problems the task was cut to, as the manifest tells it.
    """

    n: int = 64
    stop: StopRule = Never()
    params: SamplingParams = SamplingParams()
    rule: ActivationRule = ActivationRule()
    system: str | None = None
    raw: bool = False
    template_args: Mapping[str, object] = field(default_factory=dict)
    consistency: bool = False
    limit: int | None = None
    command: str = ""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UsageError(f"n must be at least 1, got {self.n}")
        check_reachable(self.stop, self.params.max_tokens)


@dataclass(frozen=True)
class EvalProgress:
    """Where a run stands: `done` problems of `total` are sampled, the next one is at token `position`.

    `seconds_left` is None until a problem of this sitting is done.
    """

    done: int
    total: int
    position: int
    seconds_left: float | None


def evaluate(
    engine: Engine,
    task: Task,
    path: str,
    settings: Settings = Settings(),
    resume: bool = False,
    watch: Callable[[EvalProgress], None] = lambda progress: None,
    report: Callable[[str], None] = lambda note: None,
) -> RunStore:
    """Record a run at `path`, or with `resume` what it lacks; damaged parts are named to `report` and done again.

    A problem is stored as soon as it is sampled, and graded in another process while the next one is sampled: a kill
    loses the problem in hand. Raises UsageError when the settings are not those of the run to resume, NadError when
    the disk is full.
    """
    problems = task.problems()
    manifest = manifest_of(engine, task, settings)
    store = _resumed(path, manifest, report) if resume else _created(path, manifest, problems)
    with store.writing():
        for folder in (PARTS, PENDING):
            for index, what in store.damaged(folder).items():
                report(what)
                store.remove(index, folder)
        stored = {*store.graded(), *store.pending()}
        todo = [index for index in range(len(problems)) if index not in stored]
        clock = _Clock(len(problems), len(todo), watch)
        spans = Spans(engine.decode)
        with grader_of(task, store) as grader:
            for index in store.pending():
                grader.submit(index)
            for index in todo:
                record = sample_problem(engine, task, problems[index], settings, spans, clock)
                store.write(index, record, PENDING)
                grader.submit(index)
                clock.finished()
    return store


def sample_problem(
    engine: Engine,
    task: Task,
    problem: Problem,
    settings: Settings,
    spans: Spans,
    watch: Callable[[Progress], None],
) -> ProblemRecord:
    """A problem's samples, not graded yet."""
    prompt = task.prompt(problem)
    messages = [Message("system", settings.system), Message("user", prompt)] if settings.system else prompt
    tokens = engine.encode(messages, settings.raw, settings.template_args)
    params = replace(settings.params, seed=problem_seed(settings.params.seed, problem.id))
    with engine.start(tokens, settings.n, params, settings.rule, signals=True) as rollout:
        for progress in rollout.until(settings.stop):
            watch(progress)
        group = rollout.group()
    seconds = (group.sample_s + group.capture_s) / settings.n
    samples = [
        GradedSample(replace(c, text_end=spans.ends(c.tokens, c.text)), None, None, seconds) for c in group.completions
    ]
    consistent = most_consistent(engine, prompt, group, settings.template_args) if settings.consistency else None
    return ProblemRecord(
        problem=problem.id,
        prompt_tokens=group.prompt_tokens,
        samples=tuple(samples),
        computed_tokens=group.computed_tokens,
        prompt=prompt,
        seed=params.seed,
        consistent=consistent,
        thinking=opens_thinking(engine.decode(tokens), engine.thinking_tags),
    )


def problem_seed(seed: int, problem: str) -> int:
    """The seed of one problem: problems must not share their draws, nor depend on which others are in the run."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{problem}".encode()).digest()[:8], "big")


def manifest_of(engine: Engine, task: Task, settings: Settings) -> Manifest:
    """What a run with these settings is made with, here and now."""
    packages = ("nad", "torch", "transformers", "numpy", "pyarrow")
    installed = {name: _version(name) for name in packages}
    return Manifest(
        model=engine.name,
        engine=engine.kind,
        task=task.name,
        data_sha256=task.data_sha256(),
        n=settings.n,
        stop_at=stop_label(settings.stop),
        params=settings.params,
        rule=settings.rule,
        layers=engine.layers,
        neurons=engine.neurons,
        revision=engine.revision,
        limit=settings.limit,
        template_args=dict(settings.template_args),
        dtype=engine.dtype,
        versions={"python": platform.python_version(), **{k: v for k, v in installed.items() if v}},
        hardware=_hardware(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=settings.command,
        votes=task.votes,
        system=settings.system,
        raw=settings.raw,
        consistency=settings.consistency,
        thinking_tags=engine.thinking_tags,
    )


def _created(path: str, manifest: Manifest, problems: Sequence[Problem]) -> RunStore:
    ids = [problem.id for problem in problems]
    if len(set(ids)) < len(ids):
        raise NadError(f"task {manifest.task} has problems with the same id; ids must differ")
    return RunStore.create(path, manifest, ids)


def _resumed(path: str, manifest: Manifest, report: Callable[[str], None]) -> RunStore:
    store = RunStore.open(path)
    old, new = asdict(store.manifest), asdict(manifest)
    different = [_difference(name, old[name], new[name]) for name in old if old[name] != new[name]]
    refused = [text for name, text in different if name not in _NOT_SETTINGS]
    if refused:
        raise UsageError(f"{path} was recorded with other settings: {'; '.join(refused)}; use those, or another --out")
    for name, text in different:
        if name in ("versions", "hardware"):
            report(f"going on with other {text}")
    return store


def _difference(name: str, old: object, new: object) -> tuple[str, str]:
    """A setting's name, and how it differs; of settings with parts only the parts that do."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = [k for k in {**old, **new} if old.get(k) != new.get(k)]
        return name, ", ".join(f"{name}.{k} {old.get(k)!r}, now {new.get(k)!r}" for k in parts)
    return name, f"{name} {old!r}, now {new!r}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _hardware() -> str:
    torch = sys.modules.get("torch")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch else []
    return ", ".join([f"{platform.machine()}, {os.cpu_count()} cores", *gpus])


class _Clock:
    """Tells the watcher of every token, with the time left at the mean pace of the problems of this sitting."""

    def __init__(self, total: int, todo: int, watch: Callable[[EvalProgress], None]) -> None:
        self._total, self._todo, self._watch = total, todo, watch
        self._begin, self._finished = time.monotonic(), 0

    def __call__(self, progress: Progress) -> None:
        self._tell(progress.position)

    def finished(self) -> None:
        self._finished += 1
        self._tell(0)

    def _tell(self, position: int) -> None:
        pace = (time.monotonic() - self._begin) / self._finished if self._finished else None
        left = self._todo - self._finished
        done = self._total - left
        self._watch(EvalProgress(done, self._total, position, pace * left if pace is not None else None))
