"""From gates and emitted tokens to the neurons that count: Eqs. 1, 5 and 6, many positions in one product per layer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nad.neurons.activation import ActivationRule
from nad.neurons.contribution import neuron_logits, strongest

_SCORE_BYTES = 16 << 20
"""Scores of all layers held at once: few enough to stay in a processor's cache from the product to the selection."""


@runtime_checkable
class ScoredLayer(Protocol):
    """One feed-forward layer, as far as Eq. 1 needs it."""

    @property
    def neurons(self) -> int: ...

    def gates(self, seen: Float[Tensor, "rows neurons"]) -> Float[Tensor, "rows neurons"]:
        """act(x W_g), in float32 or finer, from what was kept of it."""

    def down_proj(self) -> Float[Tensor, "hidden neurons"]:
        """W_out."""


S = TypeVar("S")


@dataclass(frozen=True, eq=False)
class Pairs(Generic[S]):
    """The gates of some rows by layer, and the (row, token) pairs that emitted a token there.

    Dense gates are as `kept_gate` has them: act(x W_g), or x W_g in half precision.
    """

    gates: list[S]
    row: Int[Tensor, " pairs"]
    token: Int[Tensor, " pairs"]


Part = list[tuple[Pairs[S], Int[Tensor, " _"]]]
"""Some of the pairs, by the Pairs they belong to: each with these pairs' rows."""


class Kept(NamedTuple):
    """One entry per activation, in order of the pairs, which are numbered through all Pairs."""

    pair: Int[Tensor, " m"]
    neuron: Int[Tensor, " m"]
    score: Float[Tensor, " m"]


class Scorer:
    """Which neurons count for an emitted token, by the rule (Eqs. 1, 5 and 6).

    W_u W_out of Eq. 1 does not depend on the context, so its rows are computed once for each different token of a
    call, and held (4 bytes for every such token and neuron) while these are scored; models in half precision are
    scored in float32. `unembed(tokens)` gives the tokens' rows of W_u.
    """

    def __init__(
        self, layers: Sequence[ScoredLayer], unembed: Callable[[Tensor], Tensor], rule: ActivationRule
    ) -> None:
        self._layers, self._unembed, self._rule = layers, unembed, rule

    def kept(self, pairs: Sequence[Pairs[Tensor]]) -> Kept:
        """The activations of all the pairs."""
        tokens, token = torch.unique(torch.cat([p.token for p in pairs]), return_inverse=True)
        push = self._pushes(tokens)
        begin, found = 0, []
        for part in parts_of(pairs, max(1, _SCORE_BYTES // push[:, :1].nbytes)):
            size = sum(len(row) for _, row in part)
            pair, neuron, score = self._kept_in(self._scores(part, push, token[begin : begin + size]))
            found.append(Kept(begin + pair, neuron, score))
            begin += size
        return Kept(*(torch.cat(column) for column in zip(*found, strict=True)))

    def _pushes(self, tokens: Int[Tensor, " tokens"]) -> Float[Tensor, "layers tokens neurons"]:
        """The rows of W_u W_out that belong to these tokens."""
        rows = self._unembed(tokens)
        unembed = rows.to(torch.promote_types(rows.dtype, torch.float32))
        push = unembed.new_empty(len(self._layers), len(tokens), self._layers[0].neurons)
        for of_layer, layer in zip(push, self._layers, strict=True):
            neuron_logits(layer.down_proj().to(unembed.dtype), unembed, out=of_layer)
        return push

    def _scores(
        self, part: Part[Tensor], push: Float[Tensor, "layers tokens neurons"], token: Int[Tensor, " pairs"]
    ) -> Float[Tensor, "pairs layers neurons"]:
        """Eq. 1 for some of the pairs."""
        scores = push.new_empty(len(token), len(push), push.shape[2])
        for i, layer in enumerate(self._layers):  # f(i, l, y_j) = (W_u W_out)[y_j, i] * act(x W_g)[i]
            seen = [pairs.gates[i].index_select(0, row) for pairs, row in part]
            gate = layer.gates(torch.cat(seen) if len(seen) > 1 else seen[0])
            torch.index_select(push[i], 0, token, out=scores[:, i]).mul_(gate)
        return scores

    def _kept_in(self, scores: Float[Tensor, "pairs layers neurons"]) -> Kept:
        """The activations among some pairs; the literal Eq. 2 also takes what Eq. 5 leaves out."""
        top, neuron = strongest(scores, self._rule.k, self._rule.per_layer)
        if self._rule.keep == "eta":
            pair, place = (scores.flatten(1) >= top.amin(dim=1, keepdim=True)).nonzero(as_tuple=True)
            return Kept(pair, place, scores.flatten(1)[pair, place])
        pair = torch.arange(len(top), device=top.device).repeat_interleave(top.shape[1])
        return Kept(pair, neuron.flatten(), top.flatten())


def parts_of(pairs: Sequence[Pairs[S]], size: int) -> Iterator[Part[S]]:
    """The pairs in order, at most `size` at a time."""
    part: Part[S] = []
    room = size
    for some in pairs:
        for row in some.row.split(size):
            if len(row) > room:
                yield part
                part, room = [], size
            part.append((some, row))
            room -= len(row)
    yield part
