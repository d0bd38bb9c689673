"""From gates to activation sets while sampling: steps are buffered, scored in one product per layer, and merged."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt16
from torch import Tensor

from nad.engines.capture.layers import FeedForwards
from nad.engines.capture.scoring import Kept, Pairs
from nad.engines.capture.unions import Activated, ActivationUnions
from nad.neurons.activation import ActivationRule, ActivationSet
from nad.stopping import CHUNK

_GATE_BYTES = 256 << 20
"""Bytes of gates that are held before they are scored."""


@dataclass(frozen=True, eq=False)
class Step(Pairs[Any]):
    """One token of every sample: the distinct (row, token) pairs, and whose. `samples[i]` emitted pair `pair[i]`.

    The rows' gates are those of the rule's position.
    """

    samples: Int[Tensor, " samples"]
    pair: Int[Tensor, " samples"]
    position: int


class ActivationRecorder:
    """Builds the activation sets of n samples from the steps it is shown (Eqs. 1-3, 5 and 6).

    Samples march in step. It holds 8 bytes for every sample and neuron, and one more with `count_chunks`.
    `seconds` is the time spent here.
    """

    def __init__(
        self, layers: FeedForwards, unembed: Tensor, rule: ActivationRule, n: int, count_chunks: bool = False
    ) -> None:
        self._scorer, self.rule, self._count_chunks = layers.scorer(unembed.__getitem__, rule), rule, count_chunks
        self._unions = ActivationUnions(n, layers.neurons, rule, unembed.device, count_chunks)
        self._steps: list[Step] = []
        self._shown = 0
        self._held = 0
        self._place = torch.arange(n, device=unembed.device)
        """Each sample's place in the unions; -1 once it was dropped."""
        self.seconds = 0.0

    def add(self, step: Step) -> None:
        """Show the next position. Scoring waits until the buffer is full, or until a chunk ends that is counted."""
        begin = time.perf_counter()
        self._steps.append(step)
        self._shown = step.position + 1
        self._held += sum(gate.nbytes for gate in step.gates)
        rule_ends = self.rule.per == "chunk" and self._shown % self.rule.chunk == 0
        count_ends = self._count_chunks and self._shown % CHUNK == 0
        if self._held >= _GATE_BYTES or rule_ends or count_ends:
            self._flush()
        if rule_ends:
            self._unions.end_chunk()
        self.seconds += time.perf_counter() - begin

    def keep(self, samples: Int[Tensor, " kept"]) -> None:
        """Forget all samples but these, in ascending order."""
        begin = time.perf_counter()
        self._flush()
        self._unions.keep(self._place[samples])
        self._place.fill_(-1)
        self._place[samples] = torch.arange(len(samples), device=samples.device)
        self.seconds += time.perf_counter() - begin

    def finish(self) -> tuple[list[ActivationSet], UInt16[np.ndarray, "n chunks"]]:
        """The samples' sets, and with `count_chunks` their unique neurons in each chunk of CHUNK tokens (else none).

        Sampling may go on afterwards. Raises NadError for a chunk of more neurons than 16 bits count.
        """
        begin = time.perf_counter()
        self._flush()
        found = self._unions.finish()
        self.seconds += time.perf_counter() - begin
        return found

    def _flush(self) -> None:
        """Score the buffered steps and hand their activations to the samples."""
        if not self._steps:
            return
        of_samples = _of_samples(self._steps, self._scorer.kept(self._steps))
        self._unions.add(of_samples._replace(owner=self._place[of_samples.owner]), self._shown)
        self._steps, self._held = [], 0


def _of_samples(steps: Sequence[Step], kept: Kept) -> Activated:
    """From activations of pairs to activations of the samples that emitted those pairs.

    Every emission takes a copy of its pair's run of entries:

        entries, by pair      a a a b b c          pair 0 has run 0:3, pair 1 run 3:5, pair 2 run 5:6
        emissions             sample 0: pair 1     sample 1: pair 0     sample 2: pair 1
        entries, by sample    b b | a a a | b b    owners 0 0 1 1 1 2 2
    """
    starts = np.cumsum([0] + [len(s.row) for s in steps])
    sample = torch.cat([s.samples for s in steps])
    pair = torch.cat([s.pair + int(start) for s, start in zip(steps, starts[:-1], strict=True)])
    position = torch.cat([torch.full_like(s.samples, s.position) for s in steps])
    length = torch.bincount(kept.pair, minlength=int(starts[-1]))
    run_start, run_length = (length.cumsum(0) - length)[pair], length[pair]
    copy_start = run_length.cumsum(0) - run_length
    emission = torch.arange(len(pair), device=pair.device).repeat_interleave(run_length)
    entry = torch.arange(len(emission), device=pair.device) + (run_start - copy_start)[emission]
    return Activated(sample[emission], position[emission], kept.neuron[entry], kept.score[entry])
