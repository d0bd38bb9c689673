"""The union of what each sample's tokens activate (Eq. 3): first tokens, peaks, and what the chunks add."""

from copy import copy
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt16
from torch import Tensor

from nad.errors import NadError
from nad.neurons.activation import ActivationRule, ActivationSet, activation_set
from nad.stopping import CHUNK

_NEVER = torch.iinfo(torch.int32).max


class Activated(NamedTuple):
    """One entry per activation: which sample's, at which position, which neuron, with which score (Eq. 1)."""

    owner: Int[Tensor, " m"]
    position: Int[Tensor, " m"]
    neuron: Int[Tensor, " m"]
    score: Float[Tensor, " m"]


class ActivationUnions:
    """The activation sets of n samples as their activations come in, chunk by chunk in ascending order.

    It holds 8 bytes for every sample and neuron, and one more with `count_chunks`.
    """

    def __init__(
        self, n: int, neurons: int, rule: ActivationRule, device: torch.device, count_chunks: bool = False
    ) -> None:
        self._rule = rule
        self._first = torch.full((n, neurons), _NEVER, dtype=torch.int32, device=device)
        self._peak = torch.full((n, neurons), -torch.inf, dtype=torch.float32, device=device)
        self._in_chunk = torch.zeros((n, neurons), dtype=torch.bool, device=device) if count_chunks else None
        self._chunk_counts: list[Tensor] = []
        self._of_chunk: list[Activated] = []
        self._shown = 0

    def add(self, activated: Activated, shown: int) -> None:
        """More activations; with these, `shown` tokens of every sample that goes on are known."""
        self._shown = shown
        if self._rule.per == "chunk":
            self._of_chunk.append(activated)
        else:
            self._merge(activated)

    def end_chunk(self) -> None:
        """The rule's chunk is over: what it kept counts."""
        if self._of_chunk:
            parts = [torch.cat(column) for column in zip(*self._of_chunk, strict=True)]
            self._merge(_strongest_of_each(Activated(*parts), self._rule.k))
            self._of_chunk = []

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Forget all samples but these: the one in place rows[i] moves to place i."""
        new_row = torch.full((len(self._first),), -1, device=rows.device)
        new_row[rows] = torch.arange(len(rows), device=rows.device)
        self._of_chunk = [_renamed(part, new_row) for part in self._of_chunk]
        self._first, self._peak = self._first[rows], self._peak[rows]
        self._in_chunk = self._in_chunk[rows] if self._in_chunk is not None else None
        self._chunk_counts = [counts[rows] for counts in self._chunk_counts]

    def finish(self) -> tuple[list[ActivationSet], UInt16[np.ndarray, "n chunks"]]:
        """The samples' sets, and with `count_chunks` their unique neurons in each chunk of CHUNK tokens (else none).

        More activations may follow. Raises NadError for a chunk of more neurons than 16 bits count.
        """
        return self._ended()._read()

    def _ended(self) -> "ActivationUnions":
        """These unions as if sampling ended here, so that a chunk that is not whole counts."""
        counted = self._in_chunk is not None and self._shown % CHUNK > 0
        if not counted and not self._of_chunk:
            return self
        ended = copy(self)
        ended._chunk_counts = list(self._chunk_counts)
        ended._in_chunk = self._in_chunk.clone() if self._in_chunk is not None else None
        if self._of_chunk:
            ended._first, ended._peak = self._first.clone(), self._peak.clone()
            ended.end_chunk()
        if counted:
            ended._close_count()
        return ended

    def _read(self) -> tuple[list[ActivationSet], UInt16[np.ndarray, "n chunks"]]:
        first, peak = self._first.cpu().numpy(), self._peak.cpu().numpy()
        sets = []
        for sample in range(len(first)):
            neuron = np.flatnonzero(first[sample] != _NEVER)
            sets.append(activation_set(neuron, first[sample, neuron], peak[sample, neuron]))
        counts = [c.cpu().numpy() for c in self._chunk_counts]
        chunks = np.stack(counts, axis=1) if counts else np.zeros((len(first), 0))
        most = np.iinfo(np.uint16).max
        if (chunks > most).any():
            raise NadError(f"more than {most:,} neurons in a chunk of {CHUNK} tokens, which no record holds; lower k")
        return sets, chunks.astype(np.uint16)

    def _merge(self, activated: Activated) -> None:
        """First tokens and peaks are a minimum and a maximum over a sample's activations (Eq. 3)."""
        place = activated.owner * self._first.shape[1] + activated.neuron
        self._first.view(-1).scatter_reduce_(0, place, activated.position.int(), "amin")
        self._peak.view(-1).scatter_reduce_(0, place, activated.score.float(), "amax")
        if self._in_chunk is not None:
            self._count(self._in_chunk.view(-1), place, activated.position // CHUNK)

    def _count(self, seen: Bool[Tensor, " places"], place: Int[Tensor, " m"], chunk: Int[Tensor, " m"]) -> None:
        """Note which neurons each chunk has, and count those of the chunks that are over."""
        while True:
            seen[place[chunk == len(self._chunk_counts)]] = True
            if (len(self._chunk_counts) + 1) * CHUNK > self._shown:
                return
            self._close_count()

    def _close_count(self) -> None:
        assert self._in_chunk is not None
        self._chunk_counts.append(self._in_chunk.sum(dim=1))
        self._in_chunk.zero_()


def _renamed(activated: Activated, owner: Int[Tensor, " owners"]) -> Activated:
    """With owner[i] instead of owner i; entries whose owner becomes -1 are dropped."""
    there = owner[activated.owner] >= 0
    kept = Activated(*(column[there] for column in activated))
    return kept._replace(owner=owner[kept.owner])


def _strongest_of_each(activated: Activated, k: int) -> Activated:
    """The k largest scores of every owner: the threshold per chunk (docs/decisions/0003-chunks.md)."""
    order = activated.score.argsort(descending=True, stable=True)
    order = order[activated.owner[order].argsort(stable=True)]
    owner = activated.owner[order]
    counts = torch.bincount(owner)
    rank = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner]
    return Activated(*(column[order[rank < k]] for column in activated))
