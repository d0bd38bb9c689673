"""Rollouts in one call, for tests of what comes out of them."""

from collections.abc import Sequence

from nad.engines.base import Engine
from nad.neurons.activation import ActivationRule
from nad.stopping import Never, StopRule
from nad.types import Completion, Group, SamplingParams


def sampled(
    engine: Engine,
    prompt: Sequence[int],
    n: int,
    params: SamplingParams,
    stop: StopRule,
    rule: ActivationRule | None,
    signals: bool = False,
) -> Group:
    """n completions of the prompt, cut where `stop` says."""
    with engine.start(prompt, n, params, rule, signals) as rollout:
        for _ in rollout.until(stop):
            pass
        return rollout.group()


def continued(
    engine: Engine, prompt: Sequence[int], n: int, params: SamplingParams, stop: StopRule, sample: int
) -> Completion:
    """The sample after it alone has gone on from the stop to its end."""
    with engine.start(prompt, n, params, None) as rollout:
        for _ in rollout.until(stop):
            pass
        rollout.keep([sample])
        for _ in rollout.until(Never()):
            pass
        return rollout.group().completions[0]
