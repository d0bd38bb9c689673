"""A schedule followed on recorded answers: where it drops samples, where its choice stands, and what that costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nad.prefixes import PrefixCurve, prefix_curve
from nad.selection import Choice
from nad.stopping import Look, Schedule, stop_position


@dataclass(frozen=True, eq=False)
class Followed:
    """The choice that stands, None for a vote that failed; dropped samples have a score of minus infinity.

    It is made at `position`. `sampled` counts all tokens up to there, `computed` identical prefixes once.
    """

    index: int | None
    scores: Float[np.ndarray, " n"]
    position: int
    sampled: int
    computed: int


def follow(
    schedule: Schedule,
    completions: Sequence[Sequence[int]],
    choose: Callable[[Sequence[int], int], Choice],
) -> Followed:
    """`choose(samples, position)` chooses among these samples, by their place, cut at a position."""
    looks: list[Look] = []
    samples = list(range(len(completions)))
    scores = np.full(len(samples), -np.inf)
    position = sampled = computed = 0
    while step := schedule.step(looks):
        if step.keep is not None and looks:
            samples = sorted(looks[-1].best(step.keep))
        tokens = [completions[i] for i in samples]
        curve, begin = prefix_curve(tokens), position
        position = max(position, stop_position(step.stop, tokens))
        sampled += sum(min(len(t), position) - min(len(t), begin) for t in tokens)
        computed += _until(curve, position) - _until(curve, begin)
        choice = choose(samples, position)
        scores[:] = -np.inf
        scores[samples] = choice.scores
        if choice.index is None:
            return Followed(None, scores, position, sampled, computed)
        distinct = len({tuple(t[:position]) for t in tokens})
        looks.append(Look(position, computed, distinct, tuple(samples), choice.scores, samples[choice.index]))
    return Followed(looks[-1].chosen, scores, position, sampled, computed)


def _until(curve: PrefixCurve, position: int) -> int:
    """Tokens computed up to a position, which may lie past the longest answer."""
    return int(curve.computed[min(position, len(curve.computed)) - 1]) if position else 0
