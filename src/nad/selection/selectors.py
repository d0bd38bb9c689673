"""Choosing one completion by its neurons (section 4.1). Nothing here reads a text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from nad.errors import UsageError
from nad.neurons.agreement import consensus_matrix
from nad.types import Group


@dataclass(frozen=True)
class Consensus:
    """What selectors look at: the consensus matrix S (Eq. 4) and the number of neurons of each completion."""

    similarity: Float[np.ndarray, "n n"]
    activated: Int[np.ndarray, " n"]

    @classmethod
    def of(cls, group: Group) -> "Consensus":
        sets = [c.activations for c in group.completions]
        return cls(consensus_matrix(sets), np.array([len(s) for s in sets]))

    @cached_property
    def mean_distance(self) -> Float[np.ndarray, " n"]:
        """Mean of 1 - S to all others; 0 for a single completion."""
        n = len(self.similarity)
        return (n - self.similarity.sum(axis=1)) / max(1, n - 1)


@dataclass(frozen=True)
class Choice:
    """The chosen index, each completion's score (larger is better), and what the user should know about it."""

    index: int
    scores: Float[np.ndarray, " n"]
    note: str = ""


@runtime_checkable
class Selector(Protocol):
    """Scores completions and chooses one; a frozen dataclass whose fields are its parameters."""

    def choose(self, consensus: Consensus) -> Choice: ...


def best(scores: Float[np.ndarray, " n"], tie: Float[np.ndarray, " n"] | None = None) -> int:
    """Index of the largest score; ties go to the smaller `tie`, then to the smaller index.

    Scores are sums over rows of one symmetric matrix, whose rounding depends on the order of the terms:
    what differs by less than 1e-9 of the largest is a tie.
    """
    close = np.flatnonzero(scores >= scores.max() - 1e-9 * max(1.0, abs(scores.max())))
    if tie is not None:
        close = close[tie[close] <= tie[close].min() + 1e-9]
    return int(close[0])


def _at_least(name: str, value: float, low: float) -> None:
    if value < low:
        raise UsageError(f"{name} must be at least {low}, got {value}")


@dataclass(frozen=True)
class KNN:
    """Largest sum of the k largest agreements with the others (kNN-agreement)."""

    k: int = field(default=3, metadata={"help": "neighbours counted; at most n - 1"})

    def __post_init__(self) -> None:
        _at_least("k", self.k, 1)

    def choose(self, consensus: Consensus) -> Choice:
        others = consensus.similarity.copy()
        np.fill_diagonal(others, -np.inf)
        k = min(self.k, len(others) - 1)
        nearest = np.sort(others, axis=1)[:, len(others) - k :]
        scores = nearest.sum(axis=1)
        return Choice(best(scores, consensus.mean_distance), scores)


@dataclass(frozen=True)
class Medoid:
    """Largest sum of agreements with all (the global medoid)."""

    def choose(self, consensus: Consensus) -> Choice:
        scores = consensus.similarity.sum(axis=1)
        return Choice(best(scores), scores)


@dataclass(frozen=True)
class DBSCAN:
    """The medoid of the largest cluster of the distances 1 - S; without a cluster, the global medoid.

    The paper gives no eps: it is the `quantile` of the problem's own distances between different completions
    (docs/decisions/0005-dbscan.md). Scores are the agreement with the cluster's members, minus infinity outside.
    """

    quantile: float = field(default=0.3, metadata={"help": "eps is this quantile of the distances"})
    min_samples: int = field(default=3, metadata={"help": "neighbours, itself included, that make a core point"})

    def __post_init__(self) -> None:
        _at_least("min_samples", self.min_samples, 1)
        if not 0 <= self.quantile <= 1:
            raise UsageError(f"quantile must be in [0, 1], got {self.quantile}")

    def choose(self, consensus: Consensus) -> Choice:
        members = self._largest_cluster(consensus)
        if members is None:
            fallback = Medoid().choose(consensus)
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

    def choose(self, consensus: Consensus) -> Choice:
        scores = -consensus.activated.astype(float)
        return Choice(best(scores), scores)


@dataclass(frozen=True)
class MaxAct:
    """Most activated neurons: the opposite of MinAct, for comparison (Fig. 6)."""

    def choose(self, consensus: Consensus) -> Choice:
        scores = consensus.activated.astype(float)
        return Choice(best(scores), scores)


@dataclass(frozen=True)
class ConsensusMin:
    """Of the winners of knn, medoid and dbscan the one with the fewest neurons.

    Scores are minus the number of neurons for the winners, and minus infinity for the others.
    """

    def choose(self, consensus: Consensus) -> Choice:
        choices = [selector.choose(consensus) for selector in (KNN(), Medoid(), DBSCAN())]
        scores = np.full(len(consensus.activated), -np.inf)
        winners = sorted({choice.index for choice in choices})
        scores[winners] = -consensus.activated[winners]
        return Choice(best(scores), scores, " ".join(filter(None, (choice.note for choice in choices))))


SELECTORS: Mapping[str, type[Selector]] = {
    "knn": KNN,
    "medoid": Medoid,
    "dbscan": DBSCAN,
    "minact": MinAct,
    "maxact": MaxAct,
    "consensus-min": ConsensusMin,
}
