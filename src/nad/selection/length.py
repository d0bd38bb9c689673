"""Choosing by length: what minact has to be better than."""

from dataclasses import dataclass

from nad.selection.base import Candidates, Choice, largest


@dataclass(frozen=True)
class Shortest:
    """The answer with the fewest tokens."""

    needs = frozenset({"full"})

    def choose(self, candidates: Candidates) -> Choice:
        return largest(-candidates.full_lengths)


@dataclass(frozen=True)
class Longest:
    """The answer with the most tokens."""

    needs = frozenset({"full"})

    def choose(self, candidates: Candidates) -> Choice:
        return largest(candidates.full_lengths)
