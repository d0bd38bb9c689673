"""The prefixes of n completions as one tree: distinct prefixes are the only tokens worth computing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True, eq=False)
class PrefixCurve:
    """At position t = 1, 2, ..., T: `distinct[t - 1]` pairwise different prefixes, `computed[t - 1]` tokens in all."""

    distinct: Int[np.ndarray, " positions"]
    computed: Int[np.ndarray, " positions"]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    shorter = min(len(a), len(b))
    differ = np.flatnonzero(np.asarray(a[:shorter]) != np.asarray(b[:shorter]))
    return int(differ[0]) if len(differ) else shorter


def prefix_curve(completions: Sequence[Sequence[int]]) -> PrefixCurve:
    """Distinct prefixes and computed tokens of the completions cut at every position.

    A token is computed once for each distinct prefix that ends in it: the nodes of the completions' prefix tree.
    In sorted order a completion adds the nodes behind what it shares with its neighbour, so no tree is built.
    """
    ordered = sorted(completions, key=tuple)
    longest = max(map(len, ordered))
    nodes = np.zeros(longest + 1, dtype=np.int64)
    distinct = np.zeros(longest + 1, dtype=np.int64)
    previous: Sequence[int] = ()
    for i, tokens in enumerate(ordered):
        shared = _common(previous, tokens)
        nodes[shared] += 1
        nodes[len(tokens)] -= 1
        if i == 0:
            distinct[0] += 1
        elif shared < len(tokens):
            distinct[shared] += 1
        previous = tokens
    return PrefixCurve(np.cumsum(distinct)[:longest], np.cumsum(np.cumsum(nodes)[:longest]))
