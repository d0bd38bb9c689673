"""Recording a run: every problem sampled once, with capture, then graded (section 5.1). The only writer of runs."""

import importlib.metadata
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from nad.engines.base import Engine
from nad.errors import UsageError
from nad.runs.completions_file import Completions, score_problem
from nad.runs.folder import Folder
from nad.runs.grading_process import grader_of
from nad.runs.growth import Plan, digest_of, resumed
from nad.runs.in_flight import in_flight
from nad.runs.records import Manifest, ProblemRecord
from nad.runs.redo import redone
from nad.runs.sampling import Settings, prompt_tokens, sample_problem
from nad.runs.store import PENDING, RunStore
from nad.runs.text_ends import Spans
from nad.runs.universal_self_consistency import consistency_prompt
from nad.stopping import Never, stop_label
from nad.tasks.base import Problem, Task


@dataclass(frozen=True)
class EvalProgress:
    """Where a run stands: `done` problems of `total` are sampled, and of the `in_hand` next ones the furthest is at
    token `position`.

    `seconds_left` is None until a problem of this sitting is done.
    """

    done: int
    total: int
    position: int
    seconds_left: float | None
    in_hand: int = 1


def evaluate(
    engine: Engine,
    task: Task,
    path: str,
    settings: Settings = Settings(),
    resume: bool = False,
    watch: Callable[[EvalProgress], None] = lambda progress: None,
    report: Callable[[str], None] = lambda note: None,
    completions: Completions | None = None,
) -> RunStore:
    """Record a run at `path`, or with `resume` what it lacks: problems, or samples of each, that a larger run has more.

    What is damaged or not of this run is moved aside, named to `report` and done again. `engine.rollouts` problems are
    sampled at once; one whose replica dies is sampled again. A problem is stored as soon as it is sampled, and graded
    in another process while others are sampled: a kill loses the problems in hand. With `completions` these are the
    samples, scored and not drawn.
    Raises UsageError when the settings are not those of the run to resume, NadError when the disk is full.
    """
    problems = task.problems()
    if completions:
        settings = _of_completions(settings, completions)
    _check_prompts(engine, task, problems, settings)
    manifest = replace(manifest_of(engine, task, settings), completions=completions.origin if completions else None)
    plan = Plan(manifest, [p.id for p in problems], [digest_of(p) for p in problems])
    with Folder(path).only_writer() as lock:
        store = resumed(path, plan, report) if resume else RunStore.create(path, *plan)
        todo = sorted({*range(len(problems))} - {*store.graded(), *store.pending()})
        clock, record_of = _Clock(len(problems), len(todo), watch), _maker(engine, task, settings, completions)

        def made(index: int, check: Callable[[], None]) -> ProblemRecord:
            problem, tell = problems[index], clock.watcher(index, check)
            return redone(lambda: record_of(problem, store.smaller(index), tell), check, f"problem {problem.id}")

        with grader_of(task, store, lock) as grader:
            for index in [*store.pending(), *store.with_failed_grades()]:
                grader.submit(index)
            for index, record in in_flight(made, todo, engine.rollouts):
                store.write(index, record, PENDING)
                grader.submit(index)
                clock.finished(index)
    return store


Make = Callable[[Problem, ProblemRecord | None, Callable[[int], None]], ProblemRecord]
"""A problem's record, from the smaller one it has, if any; the last argument hears how many tokens are done."""


def _maker(engine: Engine, task: Task, settings: Settings, completions: Completions | None) -> Make:
    spans = Spans(engine.decode)

    def sampled(problem: Problem, had: ProblemRecord | None, tell: Callable[[int], None]) -> ProblemRecord:
        return sample_problem(engine, task, problem, settings, spans, lambda p: tell(p.position), had)

    def scored(problem: Problem, had: ProblemRecord | None, tell: Callable[[int], None]) -> ProblemRecord:
        assert completions is not None
        return score_problem(engine, task, problem, settings, spans, completions.answers[problem.id], tell)

    return scored if completions else sampled


def _of_completions(settings: Settings, completions: Completions) -> Settings:
    if not isinstance(settings.stop, Never):
        raise UsageError("answers from a file are whole; drop --stop-at")
    return replace(settings, n=completions.n)


def _check_prompts(engine: Engine, task: Task, problems: Sequence[Problem], settings: Settings) -> None:
    """Raise for a template or an engine that cannot take the prompts, before anything is sampled."""
    for problem in problems[:1]:
        prompt = task.prompt(problem)
        prompt_tokens(engine, prompt, settings)
        if settings.consistency:
            engine.encode(consistency_prompt(prompt, [""]), settings.raw, settings.template_args)


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
        experts=engine.experts,
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
        weights_digest=engine.weights_digest,
        thinking_tags=engine.thinking_tags,
    )


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
    """Tells the watcher of every token, with the time left at this sitting's mean pace."""

    def __init__(self, total: int, todo: int, watch: Callable[[EvalProgress], None]) -> None:
        self._total, self._todo, self._watch = total, todo, watch
        self._begin, self._finished = time.monotonic(), 0
        self._positions: dict[int, int] = {}
        self._lock = threading.Lock()

    def watcher(self, index: int, check: Callable[[], None]) -> Callable[[int], None]:
        """What hears of a problem's tokens; it calls `check` at each."""

        def tell(position: int) -> None:
            check()
            with self._lock:
                self._positions[index] = position
                self._tell()

        return tell

    def finished(self, index: int) -> None:
        with self._lock:
            self._finished += 1
            self._positions.pop(index, None)
            self._tell()

    def _tell(self) -> None:
        pace = (time.monotonic() - self._begin) / self._finished if self._finished else None
        left = self._todo - self._finished
        position, in_hand = max(self._positions.values(), default=0), max(1, len(self._positions))
        seconds_left = pace * left if pace is not None else None
        self._watch(EvalProgress(self._total - left, self._total, position, seconds_left, in_hand))
