"""Which samples share a row of the batch: samples with the same tokens so far are one row, computed once."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int


class Emission(NamedTuple):
    """The distinct (row, token) pairs of one step; `pair[i]` is the one the i-th unfinished sample emitted."""

    row: Int[np.ndarray, " pairs"]
    token: Int[np.ndarray, " pairs"]
    pair: Int[np.ndarray, " samples"]


class RowSharing:
    """The unfinished samples and the row of the batch that carries each."""

    def __init__(self, n: int, share: bool = True) -> None:
        self.samples: Int[np.ndarray, " samples"] = np.arange(n)
        self.row: Int[np.ndarray, " samples"] = np.zeros(n, dtype=np.int64)
        self._share = share

    def emit(self, tokens: Int[np.ndarray, " samples"]) -> Emission:
        """Group the samples by what they now have in common; without sharing each is a group of its own."""
        keys = np.stack([self.row, tokens]) if self._share else self.samples[None]
        _, first, pair = np.unique(keys, axis=1, return_index=True, return_inverse=True)
        return Emission(self.row[first], tokens[first], pair.reshape(-1))

    def advance(
        self, emission: Emission, living: Bool[np.ndarray, " pairs"]
    ) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
        """Drop the finished samples; each living pair becomes a row. Returns every row's parent row and its token."""
        row, token = emission.row[living], emission.token[living]
        place = _places(row)
        parents, tokens = np.empty_like(row), np.empty_like(token)
        parents[place], tokens[place] = row, token
        row_of_pair = np.full(len(living), -1)
        row_of_pair[living] = place
        keep = living[emission.pair]
        self.samples, self.row = self.samples[keep], row_of_pair[emission.pair[keep]]
        return parents, tokens

    def keep(self, samples: Int[np.ndarray, " kept"]) -> Int[np.ndarray, " rows"]:
        """Drop all samples but these. Returns the rows that still carry one; they are numbered anew in that order."""
        kept = np.isin(self.samples, samples)
        rows, self.row = np.unique(self.row[kept], return_inverse=True)
        self.samples = self.samples[kept]
        return rows

    def end(self, ended: Bool[np.ndarray, " samples"]) -> None:
        """Forget these samples. Rows that carried nothing else stay until the next `advance` or `keep`."""
        self.samples, self.row = self.samples[~ended], self.row[~ended]


def _places(parent: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
    """A place for each new row: its parent's for the parent's first child, whose cache then needs no copy."""
    place = np.full(len(parent), -1)
    _, first = np.unique(parent, return_index=True)
    stays = first[parent[first] < len(parent)]
    place[stays] = parent[stays]
    place[place < 0] = np.setdiff1d(np.arange(len(parent)), place)
    return place
