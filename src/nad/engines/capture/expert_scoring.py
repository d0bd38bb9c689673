"""Which neurons of a mixture of experts count for an emitted token: Eqs. 1, 5 and 6, layer by layer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nad.engines.capture.experts import ExpertLayer, Routed
from nad.engines.capture.scoring import Kept, Pairs, Part, parts_of
from nad.errors import NadError
from nad.neurons.activation import ActivationRule

_LAYER_BYTES = 64 << 20
"""Scores of one layer held at once. The more pairs they are of, the more rows each expert's products have."""


@dataclass(frozen=True)
class ExpertScorer:
    """The activations of pairs by the rule; a layer's neurons are those of the experts that ran for the pair.

    `stride` is how far apart two layers' neurons are numbered.
    """

    layers: Sequence[ExpertLayer]
    stride: int
    unembed: Callable[[Tensor], Tensor]
    rule: ActivationRule

    def kept(self, pairs: Sequence[Pairs[Routed]]) -> Kept:
        """The activations of all the pairs."""
        seen = pairs[0].gates
        widest = max(layer.active(s.expert.shape[1]) for layer, s in zip(self.layers, seen, strict=True))
        tokens = torch.cat([p.token for p in pairs])
        begin, found = 0, []
        for part in parts_of(pairs, max(1, _LAYER_BYTES // (4 * widest))):
            size = sum(len(row) for _, row in part)
            rows = self.unembed(tokens[begin : begin + size])
            batch = _Batch(part, rows.to(torch.promote_types(rows.dtype, torch.float32)))
            pair, neuron, score = self._kept_in(batch)
            found.append(Kept(begin + pair, neuron, score))
            begin += size
        return Kept(*(torch.cat(column) for column in zip(*found, strict=True)))

    def _kept_in(self, batch: "_Batch") -> Kept:
        """The activations among some pairs; the literal Eq. 2 also takes what Eq. 5 leaves out."""
        largest = [self._largest(*layer) for layer in self._scores(batch)]
        scores, neurons = (torch.cat(column, dim=1) for column in zip(*largest, strict=True))
        if not bool(scores.isfinite().all()):
            raise NadError("neuron scores are not finite numbers; try --dtype float32")
        top = torch.topk(scores, min(self.rule.k, scores.shape[1]), dim=1, sorted=False)
        if self.rule.keep == "eta":
            return self._reaching(batch, top.values.amin(dim=1, keepdim=True))
        pair = torch.arange(len(scores), device=scores.device).repeat_interleave(top.values.shape[1])
        return Kept(pair, neurons.gather(1, top.indices).flatten(), top.values.flatten())

    def _scores(self, batch: "_Batch") -> Iterator[tuple[int, Routed, Float[Tensor, "pairs active"]]]:
        """Eq. 1, one layer after the other."""
        for number, layer in enumerate(self.layers):
            seen = batch.seen(number)
            yield number, seen, layer.scores(seen, batch.unembed, self.rule.router == "on")

    def _largest(
        self, number: int, seen: Routed, scores: Float[Tensor, "pairs active"]
    ) -> tuple[Float[Tensor, "pairs some"], Int[Tensor, "pairs some"]]:
        """The largest scores of a layer (Eq. 5), and whose they are."""
        top = torch.topk(scores, min(self.rule.per_layer, scores.shape[1]), dim=1, sorted=False)
        return top.values, self._numbered(number, seen.expert, top.indices)

    def _numbered(
        self, number: int, expert: Int[Tensor, "rows routed"], place: Int[Tensor, "rows some"]
    ) -> Int[Tensor, "rows some"]:
        return number * self.stride + self.layers[number].number(expert, place)

    def _reaching(self, batch: "_Batch", eta: Float[Tensor, "pairs 1"]) -> Kept:
        """Every neuron whose score is at least eta; the scores are computed once more, in the same way."""
        found = []
        for number, seen, scores in self._scores(batch):
            pair, place = (scores >= eta).nonzero(as_tuple=True)
            neuron = self._numbered(number, seen.expert[pair], place[:, None])[:, 0]
            found.append(Kept(pair, neuron, scores[pair, place]))
        pair, neuron, score = (torch.cat(column) for column in zip(*found, strict=True))
        order = pair.argsort(stable=True)
        return Kept(pair[order], neuron[order], score[order])


@dataclass(frozen=True, eq=False)
class _Batch:
    """Some of the pairs: what each layer's experts were given for them, and their tokens' rows of W_u."""

    part: Part[Routed]
    unembed: Float[Tensor, "pairs hidden"]

    def seen(self, layer: int) -> Routed:
        return Routed.together([pairs.gates[layer][row] for pairs, row in self.part])
