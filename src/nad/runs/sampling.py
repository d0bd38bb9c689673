"""One problem sampled: all its answers, or those that a larger run adds to the ones it has."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from nad.engines.base import Engine
from nad.errors import UsageError
from nad.neurons.activation import ActivationRule
from nad.prefixes import prefix_curve
from nad.runs.records import GradedSample, ProblemRecord
from nad.runs.text_ends import Spans
from nad.runs.universal_self_consistency import most_consistent
from nad.stopping import Never, Progress, Schedule, StopRule, check_reachable, stop_label
from nad.tasks.base import Problem, Task
from nad.thinking import opens_thinking
from nad.types import Message, SamplingParams


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
        if isinstance(self.stop, Schedule):
            raise UsageError(
                f"stop {stop_label(self.stop)} depends on who chooses, and a run is for every selector: "
                "record full answers (none), then nad select at it"
            )


def prompt_tokens(engine: Engine, prompt: str, settings: Settings) -> tuple[int, ...]:
    """A prompt as the run sends it."""
    messages = [Message("system", settings.system), Message("user", prompt)] if settings.system else prompt
    return engine.encode(messages, settings.raw, settings.template_args)


def sample_problem(
    engine: Engine,
    task: Task,
    problem: Problem,
    settings: Settings,
    spans: Spans,
    watch: Callable[[Progress], None],
    had: ProblemRecord | None = None,
) -> ProblemRecord:
    """A problem's samples, not graded yet; those it `had` already are kept and not drawn again.

    Sample i depends on the seed and i alone, so the first ones are dropped before any work is done.
    """
    prompt = task.prompt(problem)
    tokens = prompt_tokens(engine, prompt, settings)
    params = replace(settings.params, seed=problem_seed(settings.params.seed, problem.id))
    first = len(had.samples) if had else 0
    with engine.start(tokens, settings.n, params, settings.rule, signals=True) as rollout:
        if first:
            rollout.keep(range(first, settings.n))
        for progress in rollout.until(settings.stop):
            watch(progress)
        group = rollout.group()
    seconds = (group.sample_s + group.capture_s) / len(group.completions)
    completions = (replace(c, text_end=spans.ends(c.tokens, c.text)) for c in group.completions)
    drawn = ProblemRecord(
        problem=problem.id,
        prompt_tokens=group.prompt_tokens,
        samples=tuple(GradedSample(c, None, None, seconds) for c in completions),
        computed_tokens=group.computed_tokens,
        prompt=prompt,
        seed=params.seed,
        thinking=opens_thinking(engine.decode(tokens), engine.thinking_tags),
    )
    return asked_for_consistency(engine, joined(had, drawn), settings)


def joined(had: ProblemRecord | None, more: ProblemRecord) -> ProblemRecord:
    """The record of all samples as if they had been drawn together: none graded, common prefixes counted once."""
    if had is None:
        return more
    samples = [*(replace(s, answer=None, correct=None, not_graded=None) for s in had.samples), *more.samples]
    computed = prefix_curve([s.completion.tokens for s in samples]).computed[-1]
    return replace(more, samples=tuple(samples), computed_tokens=int(computed))


def asked_for_consistency(engine: Engine, record: ProblemRecord, settings: Settings) -> ProblemRecord:
    """The record with the sample the model calls most consistent, where the run asks for it."""
    if not settings.consistency:
        return record
    found = most_consistent(engine, record.prompt, record.group, settings.raw, settings.template_args)
    return replace(record, consistent=found)


def problem_seed(seed: int, problem: str) -> int:
    """The seed of one problem: problems must neither share their draws nor depend on the others in the run."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{problem}".encode()).digest()[:8], "big")
