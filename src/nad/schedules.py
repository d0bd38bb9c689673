"""Sampling up to the choice: to a stop rule, or step by step where the rule looks at the choice on the way."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from nad.engines.base import Rollout
from nad.errors import UsageError
from nad.selection import Choice
from nad.stopping import Look, Progress, Prune, Schedule, Step, StopRule
from nad.types import Completion, Group


@dataclass(frozen=True, eq=False)
class Chosen:
    """The end of sampling: all n completions, those that were dropped on the way as they were then; and the choice.

    The scores of dropped samples are minus infinity.
    """

    group: Group
    choice: Choice
    select_s: float


Choose = Callable[[Group], Choice]
E = TypeVar("E")


def check_samples(stop: StopRule, n: int, best: int = 1) -> None:
    """Raise UsageError for a number of samples that the stop rule does not begin with, or one it does not end with."""
    if not isinstance(stop, Prune):
        return
    if stop.stages[0][0] != n:
        raise UsageError(f"prune {stop} begins with {stop.stages[0][0]} samples, not {n}")
    if stop.stages[-1][0] < best:
        raise UsageError(f"prune {stop} ends with {stop.stages[-1][0]} samples: the best {best} cannot be written")


def samples_of(stop: StopRule) -> int:
    """How many samples a stop rule begins with: what it says, or the paper's 64."""
    return stop.stages[0][0] if isinstance(stop, Prune) else 64


def sample(
    rollout: Rollout, stop: StopRule, choose: Choose, event: Callable[[Progress], E]
) -> Generator[E, None, Chosen]:
    """Sample until the choice stands; yields the event of every position on the way."""
    looks: list[Look] = []
    kept: dict[int, Completion] = {}
    select_s = 0.0
    step = _first(stop)
    while True:
        for progress in rollout.until(step.stop):
            yield event(progress)
        group = rollout.group()
        kept |= {c.index: c for c in group.completions}
        begin = time.perf_counter()
        choice = choose(group)
        select_s += time.perf_counter() - begin
        following = _following(stop, looks, group, choice)
        if following is None:
            return Chosen(*_of_all(group, choice, kept), select_s)
        if following.keep is not None:
            rollout.keep(looks[-1].best(following.keep))
        step = following


def choice_of(sampling: Generator[object, None, Chosen]) -> Chosen:
    """The end of `sample`, for those who do not follow it."""
    while True:
        try:
            next(sampling)
        except StopIteration as end:
            chosen: Chosen = end.value
            return chosen


def _first(stop: StopRule) -> Step:
    first = stop.step(()) if isinstance(stop, Schedule) else Step(stop)
    assert first is not None
    return first


def _following(stop: StopRule, looks: list[Look], group: Group, choice: Choice) -> Step | None:
    """The step after this choice, which is noted among the looks; none after a vote that failed."""
    if not isinstance(stop, Schedule) or choice.index is None:
        return None
    looks.append(look_at(group, choice))
    return stop.step(looks)


def look_at(group: Group, choice: Choice) -> Look:
    """What a schedule sees of a choice among these completions."""
    assert choice.index is not None
    samples = tuple(c.index for c in group.completions)
    return Look(
        position=group.position,
        computed=group.computed_tokens,
        distinct=group.distinct,
        samples=samples,
        scores=choice.scores,
        chosen=samples[choice.index],
    )


def _of_all(group: Group, choice: Choice, kept: dict[int, Completion]) -> tuple[Group, Choice]:
    """The group and the choice over all samples by their index, those that were dropped on the way too."""
    if len(kept) == len(group.completions):
        return group, choice
    samples = [c.index for c in group.completions]
    scores = np.full(len(kept), -np.inf)
    scores[samples] = choice.scores
    chosen = None if choice.index is None else samples[choice.index]
    everyone = tuple(kept[i] for i in sorted(kept))
    return replace(group, completions=everyone), Choice(chosen, scores, choice.note)
