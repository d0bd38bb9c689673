"""Choosing by agreement (section 4.1): of neurons, or, as a control, of the tokens that a text has."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int

from nad.errors import UsageError
from nad.selection.base import SETS, WEIGHTS, Candidates, Choice, Consensus, best, check_at_least, check_sets, largest

_NEURONS = frozenset({"neurons"})


@dataclass(frozen=True, kw_only=True)
class _Agreement:
    """Which sets agree, and what a neuron counts for: 1, or its peak (docs/decisions/0024-weighted-agreement.md)."""

    of: str = field(default="neurons", metadata={"help": f"what agrees: {', '.join(SETS)}; also written knn@tokens"})
    weight: str = field(default="none", metadata={"help": f"what a neuron counts for: {', '.join(WEIGHTS)}"})

    def __post_init__(self) -> None:
        check_sets(self.of, self.weight)

    @property
    def needs(self) -> frozenset[str]:
        return _NEURONS if self.of == "neurons" else frozenset({"texts"})

    def choose(self, candidates: Candidates) -> Choice:
        return self.among(candidates.consensus(self.of, self.weight))

    def among(self, consensus: Consensus) -> Choice:
        """The choice, when the agreement is known."""
        raise NotImplementedError


@dataclass(frozen=True)
class KNN(_Agreement):
    """Largest sum of the k largest agreements with the others (kNN-agreement)."""

    k: int = field(default=3, metadata={"help": "neighbours counted; at most n - 1"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("k", self.k, 1)

    def among(self, consensus: Consensus) -> Choice:
        others = consensus.similarity.copy()
        np.fill_diagonal(others, -np.inf)
        k = min(self.k, len(others) - 1)
        nearest = np.sort(others, axis=1)[:, len(others) - k :]
        scores = nearest.sum(axis=1)
        return Choice(best(scores, consensus.mean_distance), scores)


@dataclass(frozen=True)
class Medoid(_Agreement):
    """Largest sum of agreements with all (the global medoid)."""

    def among(self, consensus: Consensus) -> Choice:
        return largest(consensus.similarity.sum(axis=1))


@dataclass(frozen=True)
class DBSCAN(_Agreement):
    """The medoid of the largest cluster of the distances 1 - S; without a cluster, the global medoid.

    The paper gives no eps: it is the `quantile` of the problem's own distances between different completions
    (docs/decisions/0005-dbscan.md). Scores are the agreement with the cluster's members, minus infinity outside.
    """

    quantile: float = field(default=0.3, metadata={"help": "eps is this quantile of the distances"})
    min_samples: int = field(default=3, metadata={"help": "neighbours, itself included, that make a core point"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("min_samples", self.min_samples, 1)
        if not 0 <= self.quantile <= 1:
            raise UsageError(f"quantile must be in [0, 1], got {self.quantile}")

    def among(self, consensus: Consensus) -> Choice:
        members = self._largest_cluster(consensus)
        if members is None:
            fallback = Medoid().among(consensus)
            return Choice(fallback.index, fallback.scores, "dbscan found no cluster; the global medoid was chosen")
        scores = np.full(len(consensus.similarity), -np.inf)
        scores[members] = consensus.similarity[np.ix_(members, members)].sum(axis=1)
        return Choice(best(scores), scores)

    def _largest_cluster(self, consensus: Consensus) -> Int[np.ndarray, " members"] | None:
        """Ties of size go to the tighter cluster (smaller mean distance), then to the smaller first index."""
        distance = np.clip(1 - consensus.similarity, 0, 1)
        n = len(distance)
        if n == 1:
            return None
        near = distance <= np.quantile(distance[~np.eye(n, dtype=bool)], self.quantile)
        clusters = _density_clusters(near, near.sum(axis=1) >= self.min_samples)
        if not clusters:
            return None
        return min(clusters, key=lambda c: (-len(c), round(float(distance[np.ix_(c, c)].mean()), 9), c[0]))


def _density_clusters(near: Bool[np.ndarray, "n n"], core: Bool[np.ndarray, " n"]) -> list[Int[np.ndarray, " members"]]:
    """DBSCAN's clusters (Ester et al. 1996) by their first core point: the core points in reach of one another.

    Points near a core point belong to its cluster, to the first one if there are several.
    """
    clusters, free = [], np.ones(len(core), dtype=bool)
    for seed in np.flatnonzero(core):
        if not free[seed]:
            continue
        members = np.arange(len(core)) == seed
        while (reached := near[members & core].any(axis=0) & free & ~members).any():
            members |= reached
        free &= ~members
        clusters.append(np.flatnonzero(members))
    return clusters


@dataclass(frozen=True)
class MinAct:
    """Fewest activated neurons."""

    needs = _NEURONS

    def choose(self, candidates: Candidates) -> Choice:
        return largest(-candidates.consensus().activated)


@dataclass(frozen=True)
class MaxAct:
    """Most activated neurons: the opposite of MinAct, for comparison (Fig. 6)."""

    needs = _NEURONS

    def choose(self, candidates: Candidates) -> Choice:
        return largest(candidates.consensus().activated)


@dataclass(frozen=True)
class ConsensusMin:
    """Of the winners of knn, medoid and dbscan the one with the fewest neurons.

    Scores are minus the number of neurons for the winners, and minus infinity for the others.
    """

    needs = _NEURONS

    def choose(self, candidates: Candidates) -> Choice:
        return _of_the_winners(candidates.consensus(), sign=-1)


@dataclass(frozen=True)
class ConsensusMax:
    """Of the winners of knn, medoid and dbscan the one with the most neurons.

    Scores are the number of neurons for the winners, and minus infinity for the others.
    """

    needs = _NEURONS

    def choose(self, candidates: Candidates) -> Choice:
        return _of_the_winners(candidates.consensus(), sign=1)


def _of_the_winners(consensus: Consensus, sign: int) -> Choice:
    choices = [selector.among(consensus) for selector in (KNN(), Medoid(), DBSCAN())]
    winners = sorted({choice.index for choice in choices if choice.index is not None})
    scores = np.full(len(consensus.activated), -np.inf)
    scores[winners] = sign * consensus.activated[winners]
    return Choice(best(scores), scores, " ".join(filter(None, (choice.note for choice in choices))))
