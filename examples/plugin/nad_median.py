"""A selector of its own: the answer whose length is nearest to the median."""

from dataclasses import dataclass, field

import numpy as np

from nad.errors import UsageError
from nad.selection import Candidates, Choice


@dataclass(frozen=True)
class MedianLength:
    """The answer whose number of tokens is nearest to the given quantile of all lengths."""

    quantile: float = field(default=0.5, metadata={"help": "0.5: the median"})
    needs = frozenset({"full"})

    def __post_init__(self) -> None:
        if not 0 <= self.quantile <= 1:
            raise UsageError(f"median-length:quantile must be in [0, 1], got {self.quantile}")

    def choose(self, candidates: Candidates) -> Choice:
        lengths = np.asarray(candidates.full_lengths, dtype=float)
        scores = -np.abs(lengths - np.quantile(lengths, self.quantile))
        return Choice(int(scores.argmax()), scores)
