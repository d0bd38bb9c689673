"""Scoring where a worker has only some layers (pipeline parallel) or some neurons of each (tensor parallel)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from nad.engines.capture.scoring import Kept, Pairs, ScoredLayer, Scorer
from nad.neurons.activation import ActivationRule
from nad.neurons.contribution import strongest


@dataclass(frozen=True)
class Group:
    """Workers that share something, as torch knows them, and this one's place among them."""

    size: int = 1
    rank: int = 0
    handle: dist.ProcessGroup | None = None

    def gathered(self, mine: Tensor, dim: int) -> Tensor:
        """Everybody's, side by side; all workers of the group must call it."""
        if self.size == 1:
            return mine
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(parts, mine.contiguous(), group=self.handle)
        return torch.cat(parts, dim=dim)

    def of_last(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device, mine: Tensor | None) -> Tensor:
        """What the last worker of the group has; `mine` is looked at there only."""
        if self.size == 1:
            assert mine is not None
            return mine
        tensor = mine if self.rank == self.size - 1 else torch.empty(tuple(shape), dtype=dtype, device=device)
        assert tensor is not None
        tensor = tensor.contiguous()
        assert self.handle is not None
        dist.broadcast(tensor, src=dist.get_global_rank(self.handle, self.size - 1), group=self.handle)
        return tensor


@dataclass(frozen=True)
class Shard:
    """Which layers and neurons of the model a worker has: layers from `first_layer` on, of `neurons` a layer."""

    first_layer: int
    layers: int
    neurons: int
    tensor: Group = Group()
    pipeline: Group = Group()

    @property
    def whole(self) -> bool:
        return self.tensor.size == self.pipeline.size == 1


class ShardedScorer(Scorer):
    """Which neurons of the whole model count, found by all workers together; each of them learns it.

    The `per_layer` largest of a layer are among the `per_layer` largest of each worker's part of it (Eq. 5), and the k
    largest of all layers among the k largest of each stage's (Eq. 6).
    """

    def __init__(
        self,
        layers: Sequence[ScoredLayer],
        unembed: Callable[[Tensor], Tensor],
        rule: ActivationRule,
        shard: Shard,
    ) -> None:
        super().__init__(layers, unembed, rule)
        self._shard = shard

    def kept(self, pairs: Sequence[Pairs]) -> Kept:
        found = super().kept(pairs)
        stages = self._shard.pipeline
        if stages.size == 1:
            return found
        count, k = sum(len(p.token) for p in pairs), self._rule.k
        score = found.score.new_full((count, k), -torch.inf)
        neuron = found.neuron.new_zeros((count, k))
        each = len(found.pair) // count
        score[:, :each], neuron[:, :each] = found.score.view(count, each), found.neuron.view(count, each)
        score, neuron = stages.gathered(score, 1), stages.gathered(neuron, 1)
        top = torch.topk(score, min(k, int(score[0].isfinite().sum())), dim=1)
        pair = torch.arange(count, device=score.device).repeat_interleave(top.values.shape[1])
        return Kept(pair, neuron.gather(1, top.indices).flatten(), top.values.flatten())

    def _kept_in(self, scores: Float[Tensor, "pairs layers neurons"]) -> Kept:
        if self._shard.tensor.size == 1:
            found = super()._kept_in(scores)
            return found._replace(neuron=found.neuron + self._shard.first_layer * self._shard.neurons)
        mine = torch.topk(scores, min(self._rule.per_layer, scores.shape[2]), dim=2)
        score = self._shard.tensor.gathered(mine.values, 2)
        neuron = self._shard.tensor.gathered(mine.indices + self._shard.tensor.rank * scores.shape[2], 2)
        top, place = strongest(score, self._rule.k, self._rule.per_layer)
        pair = torch.arange(len(top), device=top.device).repeat_interleave(top.shape[1])
        return Kept(pair, self._named(neuron, place).flatten(), top.flatten())

    def _named(self, neuron: Int[Tensor, "pairs layers some"], place: Int[Tensor, "pairs k"]) -> Tensor:
        """layer * N + i of what `strongest` found among the gathered ones."""
        layer = self._shard.first_layer + place // neuron.shape[2]
        return layer * self._shard.neurons + neuron.flatten(1).gather(1, place)
