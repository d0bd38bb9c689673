"""The prefixes of n completions as one tree: distinct prefixes are the only tokens worth computing."""

from collections.abc import Iterator, Sequence
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
    In sorted order a completion adds the nodes after what it shares with its neighbour, so no tree is built.
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


@dataclass(frozen=True)
class Level:
    """The prefixes at one position of a PrefixTree.

    There are `distinct` different prefixes, for which `computed` tokens were computed so far. `unfinished` samples go
    on; they have `unfinished_prefixes` different prefixes.
    """

    position: int
    distinct: int
    computed: int
    unfinished: int
    unfinished_prefixes: int


class PrefixTree:
    """The tokens of n samples as they grow, in step or not, and the level of every position all of them have reached.

    It is what `prefix_curve` computes from complete samples, one position after the other. Without `shared` every
    sample's tokens count as computed on their own.
    """

    def __init__(self, n: int, shared: bool = True) -> None:
        self.tokens: dict[int, list[int]] = {i: [] for i in range(n)}
        self._ended: set[int] = set()
        self._node = dict.fromkeys(self.tokens, 0)
        """The node each sample's counted prefix ends in, numbered anew at every level."""
        self._shared, self._complete = shared, 0
        self.position, self.computed = 0, 0

    def add(self, sample: int, tokens: Sequence[int], ended: bool = False) -> None:
        """The sample's next tokens; `ended` says that they are its last."""
        self.tokens[sample].extend(tokens)
        if ended:
            self._ended.add(sample)

    def keep(self, samples: Sequence[int]) -> None:
        """Forget all other samples; what they computed stays counted."""
        kept = set(samples)
        self.tokens = {i: tokens for i, tokens in self.tokens.items() if i in kept}
        self._ended &= kept
        over = [i for i in self.tokens if self._over(i)]
        self._complete = len({tuple(self.tokens[i]) for i in over})

    def levels(self) -> Iterator[Level]:
        """The levels reached since the last call. A position is reached when no sample that goes on is shorter."""
        while going := [i for i in self.tokens if not self._over(i)]:
            if any(len(self.tokens[i]) <= self.position for i in going):
                return
            yield self._next(going)

    def _over(self, sample: int) -> bool:
        return sample in self._ended and len(self.tokens[sample]) <= self.position

    def _next(self, going: Sequence[int]) -> Level:
        nodes: dict[tuple[int, int], int] = {}
        for i in going:
            self._node[i] = nodes.setdefault((self._node[i], self.tokens[i][self.position]), len(nodes))
        self.position += 1
        self.computed += len(nodes) if self._shared else len(going)
        distinct = self._complete + len(nodes)
        self._complete += len({self._node[i] for i in going if self._over(i)})
        unfinished = [i for i in going if not self._over(i)]
        open_nodes = {self._node[i] for i in unfinished}
        return Level(self.position, distinct, self.computed, len(unfinished), len(open_nodes))
