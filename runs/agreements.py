"""The ways to agree that RESULTS.md compares, as matrices of one problem at several positions (Eq. 4 and its variants).

All are exact functions of what a run records: of each activated neuron the first token that activated it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from nad.neurons.activation import ActivationSet
from nad.neurons.agreement import consensus_curve, weighted_consensus_matrix
from nad.selection.text_sets import bigram_sets, token_sets
from nad.types import Completion

NEVER = np.iinfo(np.int32).max
BANDS = 4


@dataclass(frozen=True, eq=False)
class Problem:
    """What the agreements of one problem are made from.

    `first[i, v]` is the token of sample i that first activated neuron v of those that any sample activated, NEVER for
    none. `shared[i, j]` is the length of the prefix that i and j have in common. `common[v]` is the share of other
    problems' samples that activate neuron v.
    """

    completions: Sequence[Completion]
    sets: Sequence[ActivationSet]
    first: Int[np.ndarray, "n neurons"]
    layer: Int[np.ndarray, " neurons"]
    shared: Int[np.ndarray, "n n"]
    common: Float[np.ndarray, " neurons"]

    @classmethod
    def of(
        cls,
        completions: Sequence[Completion],
        layers: int,
        neurons: int,
        common: Float[np.ndarray, " all"] | None = None,
    ) -> "Problem":
        sets = [c.activations for c in completions if c.activations is not None]
        assert len(sets) == len(completions)
        used = np.unique(np.concatenate([s.neuron for s in sets]))
        first = np.full((len(sets), len(used)), NEVER, dtype=np.int32)
        for row, activations in zip(first, sets, strict=True):
            row[np.searchsorted(used, activations.neuron)] = activations.first_token
        layer = used // (neurons // layers)
        share = np.zeros(len(used)) if common is None else common[used]
        return cls(completions, sets, first, layer.astype(int), shared_prefixes(completions), share)


def shared_prefixes(completions: Sequence[Completion]) -> Int[np.ndarray, "n n"]:
    """The number of tokens that each two completions begin with in common."""
    n, longest = len(completions), max(len(c.tokens) for c in completions)
    table = np.full((n, longest + 1), -1)
    for i, completion in enumerate(completions):
        table[i, : len(completion.tokens)] = completion.tokens
        table[i, len(completion.tokens) :] = -2 - i  # an end is unlike another's
    return (table[:, None] == table[None, :]).cumprod(axis=2).sum(axis=2).clip(max=longest)


Agreement = Callable[[Problem, Sequence[int]], Float[np.ndarray, "positions n n"]]


def jaccard(active: Bool[np.ndarray, "n neurons"], weight: Float[np.ndarray, " neurons"]) -> Float[np.ndarray, "n n"]:
    """The weight of what two have in common over the weight of what either has; 1 where neither has any."""
    rows = active.astype(np.float32)
    both = rows @ (rows * weight.astype(np.float32)).T
    each = np.diag(both)
    union = each[:, None] + each[None, :] - both
    return np.divide(both, union, out=np.ones_like(both), where=union > 0)


def _plain(problem: Problem, positions: Sequence[int]) -> Float[np.ndarray, "positions n n"]:
    return consensus_curve(problem.sets, positions)


def _tokens(problem: Problem, positions: Sequence[int]) -> Float[np.ndarray, "positions n n"]:
    return consensus_curve(token_sets([c.tokens for c in problem.completions]), positions)


def _bigrams(problem: Problem, positions: Sequence[int]) -> Float[np.ndarray, "positions n n"]:
    return consensus_curve(bigram_sets([c.tokens for c in problem.completions]), positions)


def _rare_here(problem: Problem, positions: Sequence[int]) -> Float[np.ndarray, "positions n n"]:
    """A neuron counts log(n / samples that activate it): one that all activate counts nothing."""
    return np.stack([_weighted_by_share(problem.first < t) for t in positions])


def _weighted_by_share(active: Bool[np.ndarray, "n neurons"]) -> Float[np.ndarray, "n n"]:
    return jaccard(active, np.log(len(active) / active.sum(axis=0).clip(min=1)))


def _rare_elsewhere(problem: Problem, positions: Sequence[int]) -> Float[np.ndarray, "positions n n"]:
    """A neuron counts -log of the share of other problems' samples that activate it (at least one in 10,000)."""
    weight = -np.log(problem.common.clip(min=1e-4, max=1))
    return np.stack([jaccard(problem.first < t, weight) for t in positions])


def _after_parting(problem: Problem, positions: Sequence[int]) -> Float[np.ndarray, "positions n n"]:
    """Of each two samples only the neurons that are first activated after their common prefix."""
    return np.stack([_parted(problem, t) for t in positions])


def _parted(problem: Problem, position: int) -> Float[np.ndarray, "n n"]:
    first, n = problem.first, len(problem.first)
    found = np.ones((n, n))
    for i in range(n):
        begin = problem.shared[i, :, None]
        mine = (first[i] >= begin) & (first[i] < position)
        theirs = (first >= begin) & (first < position)
        both, either = (mine & theirs).sum(axis=1), (mine | theirs).sum(axis=1)
        found[i] = np.divide(both, either, out=np.ones(n), where=either > 0)
    return found


def _band(number: int) -> Agreement:
    def of_band(problem: Problem, positions: Sequence[int]) -> Float[np.ndarray, "positions n n"]:
        inside = problem.first[:, problem.layer * BANDS // (problem.layer.max() + 1) == number]
        return np.stack([jaccard(inside < t, np.ones(inside.shape[1])) for t in positions])

    return of_band


def _peaks(problem: Problem, positions: Sequence[int]) -> Float[np.ndarray, "positions n n"]:
    assert len(positions) == 1, "peaks are those of full answers"
    return weighted_consensus_matrix(problem.sets)[None]


def _strongest(count: int) -> Agreement:
    def of_strongest(problem: Problem, positions: Sequence[int]) -> Float[np.ndarray, "positions n n"]:
        assert len(positions) == 1, "peaks are those of full answers"
        return consensus_curve([s.strongest(count) for s in problem.sets], positions)

    return of_strongest


def _late(problem: Problem, positions: Sequence[int]) -> Float[np.ndarray, "positions n n"]:
    """Only the neurons that are first activated in the last 64 tokens before the position or the answer's end."""
    lengths = np.array([len(c.tokens) for c in problem.completions])
    begins = [np.minimum(lengths, t)[:, None] - 64 for t in positions]
    ones = np.ones(problem.first.shape[1])
    return np.stack(
        [jaccard((problem.first >= b) & (problem.first < t), ones) for b, t in zip(begins, positions, strict=True)]
    )


EVERYWHERE: Mapping[str, Agreement] = {
    "neurons": _plain,
    "tokens": _tokens,
}
"""Agreements that are kept at every position."""
AT_THE_END: Mapping[str, Agreement] = {
    "bigrams": _bigrams,
    "rare": _rare_here,
    "background": _rare_elsewhere,
    "parted": _after_parting,
    **{f"layers {number + 1}/{BANDS}": _band(number) for number in range(BANDS)},
    "peaks": _peaks,
    "strongest 500": _strongest(500),
    "strongest 2000": _strongest(2000),
    "strongest 8000": _strongest(8000),
    "late": _late,
}
"""Agreements that are kept for full answers."""
