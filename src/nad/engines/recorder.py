"""From gates to activation sets while sampling: steps are buffered, scored in one product per layer, and merged."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt16
from torch import Tensor

from nad.activation import ActivationRule, ActivationSet, activation_set
from nad.contribution import largest_places, neuron_logits, strongest, strongest_per_layer
from nad.engines.gates import GatedFFN
from nad.errors import NadError

_GATE_BYTES = 256 << 20
"""Gates held back before they are scored."""
_SCORE_BYTES = 1 << 20
"""Scores of one layer held at once: a part that stays in a core's cache from the product to the selection."""
_LAYERS_PER_THREAD = 4
"""Products W_u W_out held at once while their strongest neurons are found."""
_NEVER = torch.iinfo(torch.int32).max


@dataclass(frozen=True, eq=False)
class Step:
    """One position: the gates of every row by layer, the distinct (row, token) pairs emitted there, and whose.

    Gates are act(x W_g), in float32 or finer. `samples[i]` emitted pair number `pair[i]`.
    """

    gates: list[Float[Tensor, "rows neurons"]]
    row: Int[Tensor, " pairs"]
    token: Int[Tensor, " pairs"]
    samples: Int[Tensor, " samples"]
    pair: Int[Tensor, " samples"]
    position: int


class _Activated(NamedTuple):
    """One entry per activation, sorted by `owner`: first a (row, token) pair, then, joined, a sample."""

    owner: Int[Tensor, " m"]
    position: Int[Tensor, " m"]
    neuron: Int[Tensor, " m"]
    score: Float[Tensor, " m"]


class ActivationRecorder:
    """Builds the activation sets of n samples from the steps it is shown (Eqs. 1-3, 5 and 6).

    It holds 8 bytes for every sample and neuron, and one more with `count_chunks`. W_u W_out of Eq. 1 does not
    depend on the context, so its rows are computed once for each different token of the buffered steps; models
    in half precision are scored in float32. `seconds` is the time spent here.
    """

    def __init__(
        self, ffns: Sequence[GatedFFN], unembed: Tensor, rule: ActivationRule, n: int, count_chunks: bool = False
    ) -> None:
        self._ffns, self._unembed, self._rule = ffns, unembed, rule
        self._dtype = torch.promote_types(unembed.dtype, torch.float32)
        shape = (n, len(ffns) * ffns[0].neurons)
        self._first = torch.full(shape, _NEVER, dtype=torch.int32, device=unembed.device)
        self._peak = torch.full(shape, -torch.inf, dtype=torch.float32, device=unembed.device)
        self._in_chunk = torch.zeros(shape, dtype=torch.bool, device=unembed.device) if count_chunks else None
        self._chunk_counts: list[Tensor] = []
        self._steps: list[Step] = []
        self._held = 0
        self._of_chunk: list[_Activated] = []
        self._chunk_open = False
        self.seconds = 0.0

    def add(self, step: Step) -> None:
        """Show the next position. Scoring waits until the buffer is full, or a chunk ends that somebody counts."""
        begin = time.perf_counter()
        self._steps.append(step)
        self._chunk_open = True
        self._held += sum(gate.nbytes for gate in step.gates)
        chunk_ends = (step.position + 1) % self._rule.chunk == 0
        counted = self._in_chunk is not None or self._rule.per == "chunk"
        if self._held >= _GATE_BYTES or (counted and chunk_ends):
            self._flush()
        if counted and chunk_ends:
            self._end_chunk()
        self.seconds += time.perf_counter() - begin

    def finish(self) -> tuple[list[ActivationSet], UInt16[np.ndarray, "n chunks"]]:
        """The samples' sets, and with `count_chunks` their unique neurons in each chunk (else no chunks)."""
        begin = time.perf_counter()
        self._flush()
        if self._chunk_open:
            self._end_chunk()
        first, peak = self._first.cpu().numpy(), self._peak.cpu().numpy()
        sets = []
        for sample in range(len(first)):
            neuron = np.flatnonzero(first[sample] != _NEVER)
            sets.append(activation_set(neuron, first[sample, neuron], peak[sample, neuron]))
        counts = [c.cpu().numpy() for c in self._chunk_counts]
        chunks = np.stack(counts, axis=1) if counts else np.zeros((len(first), 0))
        self.seconds += time.perf_counter() - begin
        return sets, chunks.astype(np.uint16)

    def _flush(self) -> None:
        """Score the buffered steps and hand their activations to the samples."""
        if not self._steps:
            return
        joined = _join(self._steps, self._activated())
        self._steps, self._held = [], 0
        if self._rule.per == "chunk":
            self._of_chunk.append(joined)
        else:
            self._merge(joined)

    def _end_chunk(self) -> None:
        if self._of_chunk:
            parts = [torch.cat(column) for column in zip(*self._of_chunk, strict=True)]
            self._merge(_strongest_of_each(_Activated(*parts), self._rule.k))
            self._of_chunk = []
        if self._in_chunk is not None:
            self._chunk_counts.append(self._in_chunk.sum(dim=1))
            self._in_chunk.zero_()
        self._chunk_open = False

    def _activated(self) -> _Activated:
        """The activations of all (row, token) pairs of the buffered steps (Eqs. 5 and 6); pairs counted through."""
        rule = self._rule
        kept, neuron = self._kept_on_cpu() if self._first.device.type == "cpu" else self._kept()
        top, neuron = strongest(kept, neuron, rule.k)
        if not bool(top.isfinite().all()):
            raise NadError("neuron scores are not finite numbers; try --dtype float32")
        position = self._position_of_pairs()
        if rule.threshold == "threshold":
            return self._reaching(top.amin(dim=1), position)
        pair = torch.arange(len(top), device=top.device).repeat_interleave(top.shape[1])
        return _Activated(pair, position[pair], neuron.flatten(), top.flatten())

    def _kept(self) -> tuple[Float[Tensor, "pairs kept"], Int[Tensor, "pairs kept"]]:
        """What Eq. 5 keeps of every layer, side by side."""
        scores: list[list[Tensor]] = [[] for _ in self._ffns]
        ids: list[list[Tensor]] = [[] for _ in self._ffns]
        for layer, _, part_scores in self._scores():
            value, neuron = strongest_per_layer(part_scores, self._rule.per_layer)
            scores[layer].append(value)
            ids[layer].append(neuron.int() + layer * self._ffns[0].neurons)
        kept, neuron = (torch.cat([torch.cat(parts) for parts in column], dim=1) for column in (scores, ids))
        return kept, neuron

    def _kept_on_cpu(self) -> tuple[Float[Tensor, "pairs kept"], Int[Tensor, "pairs kept"]]:
        """The same in numpy, a layer to a thread: its partition is faster, and no thread of torch is in the way."""
        tokens, token = torch.unique(torch.cat([s.token for s in self._steps]), return_inverse=True)
        unembed = self._unembed[tokens].to(self._dtype)
        kept = min(self._rule.per_layer, self._ffns[0].neurons)
        shape = (len(token), len(self._ffns), kept)
        scores, neuron = np.empty(shape, unembed.numpy().dtype), np.empty(shape, np.int32)

        def keep(layer: int, push: Float[np.ndarray, "tokens neurons"]) -> None:
            gates = np.concatenate([s.gates[layer].numpy()[s.row.numpy()] for s in self._steps])
            size = max(1, _SCORE_BYTES // gates[:1].nbytes)
            for begin in range(0, len(gates), size):
                part = slice(begin, begin + size)
                scored = push[token[part].numpy()]
                scored *= gates[part]
                scores[part, layer], place = largest_places(scored, kept)
                neuron[part, layer] = place + layer * self._ffns[layer].neurons

        workers = torch.get_num_threads()
        with ThreadPoolExecutor(workers) as threads:
            for group in torch.arange(len(self._ffns)).split(_LAYERS_PER_THREAD * workers):
                layers = group.tolist()
                list(threads.map(keep, layers, [self._push(layer, unembed).numpy() for layer in layers]))
        return torch.from_numpy(scores).flatten(1), torch.from_numpy(neuron).flatten(1)

    def _push(self, layer: int, unembed: Float[Tensor, "tokens hidden"]) -> Float[Tensor, "tokens neurons"]:
        return neuron_logits(self._ffns[layer].down.weight.to(self._dtype), unembed)

    def _reaching(self, eta: Float[Tensor, " pairs"], position: Int[Tensor, " pairs"]) -> _Activated:
        """The literal Eq. 2: every neuron whose score is at least eta, outside the kept ones too."""
        found = []
        for layer, part, scores in self._scores():
            pair, neuron = (scores >= eta[part, None]).nonzero(as_tuple=True)
            found.append((part[pair], neuron.int() + layer * self._ffns[0].neurons, scores[pair, neuron]))
        pair, neuron, score = (torch.cat(column) for column in zip(*found, strict=True))
        order = pair.argsort(stable=True)
        return _Activated(pair[order], position[pair[order]], neuron[order], score[order])

    def _scores(self) -> Iterator[tuple[int, Int[Tensor, " part"], Float[Tensor, "part neurons"]]]:
        """Eq. 1 for the buffered steps: layer by layer, for a bounded part of the (row, token) pairs at a time."""
        steps = self._steps
        starts = np.cumsum([0] + [len(s.gates[0]) for s in steps])
        row = torch.cat([s.row + int(start) for s, start in zip(steps, starts[:-1], strict=True)])
        tokens, token = torch.unique(torch.cat([s.token for s in steps]), return_inverse=True)
        unembed = self._unembed[tokens].to(self._dtype)
        size = max(1, _SCORE_BYTES // (unembed.element_size() * self._ffns[0].neurons))
        for layer in range(len(self._ffns)):
            gate = torch.cat([s.gates[layer] for s in steps])
            push = self._push(layer, unembed)
            for part in torch.arange(len(row), device=row.device).split(size):
                yield layer, part, push[token[part]].mul_(gate[row[part]])

    def _position_of_pairs(self) -> Int[Tensor, " pairs"]:
        counts = [len(s.row) for s in self._steps]
        positions = np.repeat([s.position for s in self._steps], counts)
        return torch.from_numpy(positions).to(self._first.device)

    def _merge(self, activated: _Activated) -> None:
        """First tokens and peaks are a minimum and a maximum over a sample's activations (Eq. 3)."""
        place = activated.owner * self._first.shape[1] + activated.neuron
        self._first.view(-1).scatter_reduce_(0, place, activated.position.int(), "amin")
        self._peak.view(-1).scatter_reduce_(0, place, activated.score.float(), "amax")
        if self._in_chunk is not None:
            self._in_chunk.view(-1)[place] = True


def _join(steps: Sequence[Step], activated: _Activated) -> _Activated:
    """From activations of pairs to activations of the samples that emitted those pairs."""
    starts = np.cumsum([0] + [len(s.row) for s in steps])
    sample = torch.cat([s.samples for s in steps])
    pair = torch.cat([s.pair + int(start) for s, start in zip(steps, starts[:-1], strict=True)])
    counts = torch.bincount(activated.owner, minlength=int(starts[-1]))
    begin = counts.cumsum(0) - counts
    lengths = counts[pair]
    shift = begin[pair] - (lengths.cumsum(0) - lengths)
    entry = torch.arange(int(lengths.sum()), device=pair.device) + shift.repeat_interleave(lengths)
    owner = sample.repeat_interleave(lengths)
    return _Activated(owner, activated.position[entry], activated.neuron[entry], activated.score[entry])


def _strongest_of_each(activated: _Activated, k: int) -> _Activated:
    """The k largest scores of every owner: the threshold per chunk (docs/decisions/0003-chunks.md)."""
    order = activated.score.argsort(descending=True, stable=True)
    order = order[activated.owner[order].argsort(stable=True)]
    owner = activated.owner[order]
    counts = torch.bincount(owner)
    rank = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner]
    return _Activated(*(column[order[rank < k]] for column in activated))
