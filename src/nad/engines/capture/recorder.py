"""From gates to activation sets while sampling: steps are buffered, scored in one product per layer, and merged."""

import time
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt16
from torch import Tensor

from nad.engines.capture.gates import GatedFFN
from nad.errors import NadError
from nad.neurons.activation import ActivationRule, ActivationSet, activation_set
from nad.neurons.contribution import neuron_logits, strongest
from nad.stopping import CHUNK

_GATE_BYTES = 256 << 20
"""Gates held back before they are scored."""
_SCORE_BYTES = 16 << 20
"""Scores of all layers held at once: a part that stays in a processor's cache from the product to the selection."""
_NEVER = torch.iinfo(torch.int32).max


@dataclass(frozen=True, eq=False)
class Step:
    """One position: the gates of every row by layer, the distinct (row, token) pairs emitted there, and whose.

    Gates are as `kept_gate` has them: act(x W_g), or x W_g in half precision. `samples[i]` emitted pair number
    `pair[i]`.
    """

    gates: list[Float[Tensor, "rows neurons"]]
    row: Int[Tensor, " pairs"]
    token: Int[Tensor, " pairs"]
    samples: Int[Tensor, " samples"]
    pair: Int[Tensor, " samples"]
    position: int


_Part = list[tuple[Step, Int[Tensor, " _"]]]
"""Some of the pairs of some steps: of each step the rows the pairs continue."""


class _Activated(NamedTuple):
    """One entry per activation, sorted by `owner`: first a (row, token) pair, then, joined, a sample."""

    owner: Int[Tensor, " m"]
    position: Int[Tensor, " m"]
    neuron: Int[Tensor, " m"]
    score: Float[Tensor, " m"]


class ActivationRecorder:
    """Builds the activation sets of n samples from the steps it is shown (Eqs. 1-3, 5 and 6).

    It holds 8 bytes for every sample and neuron, and one more with `count_chunks`. W_u W_out of Eq. 1 does not
    depend on the context, so its rows are computed once for each different token of the buffered steps, and held (4
    bytes for every such token and neuron) while these are scored; models in half precision are scored in float32.
    `seconds` is the time spent here.
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
        self._shown = 0
        self._held = 0
        self._of_chunk: list[_Activated] = []
        self._place = torch.arange(n, device=unembed.device)
        """Each sample's row in the tensors above; -1 once it was dropped."""
        self.seconds = 0.0

    def add(self, step: Step) -> None:
        """Show the next position. Scoring waits until the buffer is full, or a chunk ends that somebody counts."""
        begin = time.perf_counter()
        self._steps.append(step)
        self._shown = step.position + 1
        self._held += sum(gate.nbytes for gate in step.gates)
        rule_ends = self._rule.per == "chunk" and self._shown % self._rule.chunk == 0
        count_ends = self._in_chunk is not None and self._shown % CHUNK == 0
        if self._held >= _GATE_BYTES or rule_ends or count_ends:
            self._flush()
        if rule_ends:
            self._end_chunk()
        self.seconds += time.perf_counter() - begin

    def keep(self, samples: Int[Tensor, " kept"]) -> None:
        """Forget all samples but these, in ascending order."""
        begin = time.perf_counter()
        self._flush()
        rows = self._place[samples]
        self._place.fill_(-1)
        self._place[samples] = torch.arange(len(samples), device=samples.device)
        new_row = torch.full((len(self._first),), -1, device=rows.device)
        new_row[rows] = self._place[samples]
        self._of_chunk = [_renamed(part, new_row) for part in self._of_chunk]
        self._first, self._peak = self._first[rows], self._peak[rows]
        self._in_chunk = self._in_chunk[rows] if self._in_chunk is not None else None
        self._chunk_counts = [counts[rows] for counts in self._chunk_counts]
        self.seconds += time.perf_counter() - begin

    def finish(self) -> tuple[list[ActivationSet], UInt16[np.ndarray, "n chunks"]]:
        """The samples' sets, and with `count_chunks` their unique neurons in each chunk of CHUNK tokens (else none).

        Sampling may go on afterwards. Raises NadError for a chunk of more neurons than 16 bits count.
        """
        begin = time.perf_counter()
        self._flush()
        found = self._ended()._read()
        self.seconds += time.perf_counter() - begin
        return found

    def _ended(self) -> "ActivationRecorder":
        """This recorder as if sampling ended here, where a chunk that is not whole counts."""
        counted = self._in_chunk is not None and self._shown % CHUNK > 0
        if not counted and not self._of_chunk:
            return self
        ended = copy(self)
        ended._chunk_counts = list(self._chunk_counts)
        ended._in_chunk = self._in_chunk.clone() if self._in_chunk is not None else None
        if self._of_chunk:
            ended._first, ended._peak = self._first.clone(), self._peak.clone()
            ended._end_chunk()
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

    def _flush(self) -> None:
        """Score the buffered steps and hand their activations to the samples."""
        if not self._steps:
            return
        of_samples = _of_samples(self._steps, self._activated())
        joined = of_samples._replace(owner=self._place[of_samples.owner])
        self._steps, self._held = [], 0
        if self._rule.per == "chunk":
            self._of_chunk.append(joined)
        else:
            self._merge(joined)

    def _end_chunk(self) -> None:
        """The rule's chunk is over: what it kept counts."""
        if self._of_chunk:
            parts = [torch.cat(column) for column in zip(*self._of_chunk, strict=True)]
            self._merge(_strongest_of_each(_Activated(*parts), self._rule.k))
            self._of_chunk = []

    def _activated(self) -> _Activated:
        """The activations of all (row, token) pairs of the buffered steps (Eqs. 5 and 6); pairs counted through."""
        tokens, token = torch.unique(torch.cat([s.token for s in self._steps]), return_inverse=True)
        push = self._pushes(tokens)
        begin, found = 0, []
        for part in _parts(self._steps, max(1, _SCORE_BYTES // push[:, :1].nbytes)):
            size = sum(len(row) for _, row in part)
            pair, neuron, score = self._activated_in(self._scores(part, push, token[begin : begin + size]))
            position = torch.cat([row.new_full(row.shape, step.position) for step, row in part])
            found.append(_Activated(begin + pair, position[pair], neuron, score))
            begin += size
        return _Activated(*(torch.cat(column) for column in zip(*found, strict=True)))

    def _pushes(self, tokens: Int[Tensor, " tokens"]) -> Float[Tensor, "layers tokens neurons"]:
        """The rows of W_u W_out that belong to these tokens."""
        unembed = self._unembed[tokens].to(self._dtype)
        push = unembed.new_empty(len(self._ffns), len(tokens), self._ffns[0].neurons)
        for of_layer, ffn in zip(push, self._ffns, strict=True):
            neuron_logits(ffn.down.weight.detach().to(self._dtype), unembed, out=of_layer)
        return push

    def _scores(
        self, part: _Part, push: Float[Tensor, "layers tokens neurons"], token: Int[Tensor, " pairs"]
    ) -> Float[Tensor, "pairs layers neurons"]:
        """Eq. 1 for some of the pairs."""
        scores = push.new_empty(len(token), len(push), push.shape[2])
        for layer, ffn in enumerate(self._ffns):  # f(i, l, y_j) = (W_u W_out)[y_j, i] * act(x W_g)[i]
            seen = [step.gates[layer].index_select(0, row) for step, row in part]
            gate = ffn.gates(torch.cat(seen) if len(seen) > 1 else seen[0])
            torch.index_select(push[layer], 0, token, out=scores[:, layer]).mul_(gate)
        return scores

    def _activated_in(
        self, scores: Float[Tensor, "pairs layers neurons"]
    ) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"], Float[Tensor, " m"]]:
        """Pairs, neurons and scores of the activations; the literal Eq. 2 also takes what Eq. 5 leaves out."""
        top, neuron = strongest(scores, self._rule.k, self._rule.per_layer)
        if self._rule.keep == "eta":
            pair, place = (scores.flatten(1) >= top.amin(dim=1, keepdim=True)).nonzero(as_tuple=True)
            return pair, place, scores.flatten(1)[pair, place]
        pair = torch.arange(len(top), device=top.device).repeat_interleave(top.shape[1])
        return pair, neuron.flatten(), top.flatten()

    def _merge(self, activated: _Activated) -> None:
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


def _parts(steps: Sequence[Step], size: int) -> Iterator[_Part]:
    """The steps' pairs in order, at most `size` at a time."""
    part: _Part = []
    room = size
    for step in steps:
        for row in step.row.split(size):
            if len(row) > room:
                yield part
                part, room = [], size
            part.append((step, row))
            room -= len(row)
    yield part


def _of_samples(steps: Sequence[Step], activated: _Activated) -> _Activated:
    """From activations of pairs to activations of the samples that emitted those pairs.

    Every emission takes a copy of its pair's run of entries:

        entries, by pair      a a a b b c          pair 0 has run 0:3, pair 1 run 3:5, pair 2 run 5:6
        emissions             sample 0: pair 1     sample 1: pair 0     sample 2: pair 1
        entries, by sample    b b | a a a | b b    owners 0 0 1 1 1 2 2
    """
    starts = np.cumsum([0] + [len(s.row) for s in steps])
    sample = torch.cat([s.samples for s in steps])
    pair = torch.cat([s.pair + int(start) for s, start in zip(steps, starts[:-1], strict=True)])
    length = torch.bincount(activated.owner, minlength=int(starts[-1]))
    run_start, run_length = (length.cumsum(0) - length)[pair], length[pair]
    copy_start = run_length.cumsum(0) - run_length
    owner = sample.repeat_interleave(run_length)
    entry = torch.arange(len(owner), device=pair.device) + (run_start - copy_start).repeat_interleave(run_length)
    return _Activated(owner, activated.position[entry], activated.neuron[entry], activated.score[entry])


def _renamed(activated: _Activated, owner: Int[Tensor, " owners"]) -> _Activated:
    """With owner[i] in the place of owner i; entries of owners that become -1 are dropped."""
    there = owner[activated.owner] >= 0
    kept = _Activated(*(column[there] for column in activated))
    return kept._replace(owner=owner[kept.owner])


def _strongest_of_each(activated: _Activated, k: int) -> _Activated:
    """The k largest scores of every owner: the threshold per chunk (docs/decisions/0003-chunks.md)."""
    order = activated.score.argsort(descending=True, stable=True)
    order = order[activated.owner[order].argsort(stable=True)]
    owner = activated.owner[order]
    counts = torch.bincount(owner)
    rank = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner]
    return _Activated(*(column[order[rank < k]] for column in activated))
