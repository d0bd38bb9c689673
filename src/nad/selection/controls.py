"""Choosing without looking: what every other selector has to be better than."""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from nad.selection.base import Candidates, Choice, largest


@dataclass(frozen=True)
class Random:
    """One of the candidates by chance: what Avg@n is the expectation of."""

    seed: int = field(default=0, metadata={"help": "with the problem's id it decides"})

    needs = frozenset[str]()

    def choose(self, candidates: Candidates) -> Choice:
        digest = hashlib.sha256(f"{self.seed}:{candidates.problem}".encode()).digest()
        return largest(np.random.default_rng(int.from_bytes(digest[:8], "big")).random(candidates.n))


@dataclass(frozen=True)
class First:
    """The first sample: no selection at all."""

    needs = frozenset[str]()

    def choose(self, candidates: Candidates) -> Choice:
        return largest(-np.arange(candidates.n, dtype=float))
