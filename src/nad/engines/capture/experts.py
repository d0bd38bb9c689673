"""The feed-forward of one layer in a mixture of experts: which weights its neurons have, and what they say of a token.

A neuron is (layer, expert, i). Routed experts come first; what every token goes through (shared experts, or the whole
layer where it is dense) follows them, cut into pieces as wide as a routed expert
(docs/decisions/0061-mixture-of-experts.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nad.engines.capture.gates import GatedFFN
from nad.neurons.contribution import neuron_logits


@dataclass(frozen=True, eq=False)
class Routed:
    """What one layer's experts were given for some rows: their input, which experts ran, and with which weight.

    Gates are not kept: they follow from the input, and only experts that ran have any.
    """

    hidden: Float[Tensor, "rows hidden"]
    expert: Int[Tensor, "rows routed"]
    weight: Float[Tensor, "rows routed"]

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, rows: slice | Tensor) -> "Routed":
        return Routed(self.hidden[rows], self.expert[rows], self.weight[rows])

    @property
    def nbytes(self) -> int:
        return self.hidden.nbytes + self.expert.nbytes + self.weight.nbytes

    @staticmethod
    def together(parts: "Sequence[Routed]") -> "Routed":
        """The rows of all parts, in order."""
        columns = zip(*((p.hidden, p.expert, p.weight) for p in parts), strict=True)
        return Routed(*(torch.cat(column) for column in columns))


@runtime_checkable
class Gating(Protocol):
    """How an expert joins its two maps: W_out reads gate(x W_g) * up(x W_up)."""

    def gate(self, x: Tensor) -> Tensor: ...

    def up(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class PlainGating:
    """act(x W_g) * x W_up."""

    act: nn.Module

    def gate(self, x: Tensor) -> Tensor:
        return self.act.forward(x)

    def up(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class ClampedGating:
    """gpt-oss: g sigmoid(alpha g) * (u + 1), where g is cut at `limit` and u at both its ends.

    Its gate is one in the sense of Eq. 1: a swish of x W_g alone, and a factor of what the other map gives.
    """

    alpha: float
    limit: float

    def gate(self, x: Tensor) -> Tensor:
        x = x.clamp(max=self.limit)
        return x * torch.sigmoid(self.alpha * x)

    def up(self, x: Tensor) -> Tensor:
        return x.clamp(-self.limit, self.limit) + 1


@dataclass(frozen=True, eq=False)
class Stack:
    """A layer's routed experts: gate and up merged, and down, each one stack of matrices.

    `gate` and `up` are the columns of the merged map's result. `transposed` matrices are [in, out], others [out, in].
    """

    merged: Float[Tensor, "experts _ _"]
    merged_bias: Float[Tensor, "experts _"] | None
    gate: slice
    up: slice
    down: Float[Tensor, "experts _ _"]
    down_bias: Float[Tensor, "experts _"] | None
    transposed: bool
    gating: Gating

    @property
    def experts(self) -> int:
        return len(self.down)

    @property
    def neurons(self) -> int:
        """Of one expert."""
        return self.down.shape[1 if self.transposed else 2]

    def mapped(self, expert: int, x: Float[Tensor, "rows hidden"], half: slice) -> Float[Tensor, "rows neurons"]:
        """x W_g or x W_up, with its bias, as the model computes it."""
        weight = self.merged[expert].T if self.transposed else self.merged[expert]
        bias = None if self.merged_bias is None else self.merged_bias[expert][half]
        return nn.functional.linear(x, weight[half], bias)

    def gates(self, expert: int, x: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows neurons"]:
        """act(x W_g), in float32 or finer."""
        return self.gating.gate(_exact(self.mapped(expert, x, self.gate)))

    def down_proj(self, expert: int) -> Float[Tensor, "hidden neurons"]:
        """W_out."""
        return self.down[expert].T if self.transposed else self.down[expert]

    def output(self, seen: Routed) -> Float[Tensor, "rows hidden"]:
        """What the experts that ran add to the residual stream."""
        total = torch.zeros_like(seen.hidden)
        for expert, entry, row in _by_expert(seen.expert):
            x = seen.hidden[row]
            gate, up = self.mapped(expert, x, self.gate), self.mapped(expert, x, self.up)
            bias = None if self.down_bias is None else self.down_bias[expert]
            out = nn.functional.linear(self.gating.gate(gate) * self.gating.up(up), self.down_proj(expert), bias)
            total.index_add_(0, row, (out * seen.weight.flatten()[entry, None]).to(total.dtype))
        return total


@dataclass(frozen=True, eq=False)
class Always:
    """A gated feed-forward that every token goes through; `weight`, where there is one, gates its whole output."""

    ffn: GatedFFN
    weight: nn.Linear | None = None

    @property
    def neurons(self) -> int:
        return self.ffn.neurons

    def gates(self, x: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows neurons"]:
        """act(x W_g), in float32 or finer."""
        return self.ffn.act.forward(_exact(self.ffn.gate(x)[..., self.ffn.half]))

    def router(self, x: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows 1"] | None:
        """The weight with which the output enters the residual stream; None: as it is."""
        return None if self.weight is None else torch.sigmoid(self.weight(x))


@dataclass(frozen=True, eq=False)
class ExpertLayer:
    """One layer: its routed experts (None where it is dense), and what every token goes through (None: nothing).

    `watched` is the module whose input is that of all its experts: a module of experts, called with the router's
    choice and weights, or a linear map.
    """

    watched: nn.Module
    stack: Stack | None
    always: Always | None

    @property
    def routed_neurons(self) -> int:
        """Of all the layer's routed experts; those of `always` are numbered from here on."""
        return 0 if self.stack is None else self.stack.experts * self.stack.neurons

    @property
    def all_neurons(self) -> int:
        return self.routed_neurons + (0 if self.always is None else self.always.neurons)

    def active(self, routed: int) -> int:
        """How many neurons can be active for a token that goes to so many experts."""
        of_routed = 0 if self.stack is None else routed * self.stack.neurons
        return of_routed + (0 if self.always is None else self.always.neurons)

    def scores(self, seen: Routed, unembed: Float[Tensor, "rows hidden"], router: bool) -> Float[Tensor, "rows active"]:
        """Eq. 1 of the neurons that can be active: those of the experts that ran, in the router's order, then `always`.

        `unembed` holds the rows y_j of W_u, in float32 or finer. With `router` an expert's neurons have its weight.
        """
        parts = []
        if self.stack is not None:
            parts.append(self._routed_scores(self.stack, seen, unembed, router))
        if self.always is not None:
            push = neuron_logits(self.always.ffn.down_proj().to(unembed.dtype), unembed)
            weight = self.always.router(seen.hidden) if router else None
            gate = self.always.gates(seen.hidden)
            parts.append(push.mul_(gate if weight is None else gate * weight))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    @staticmethod
    def _routed_scores(
        stack: Stack, seen: Routed, unembed: Float[Tensor, "rows hidden"], router: bool
    ) -> Float[Tensor, "rows active"]:
        scores = unembed.new_empty(seen.expert.numel(), stack.neurons)
        weight = seen.weight.to(unembed.dtype).flatten()
        for expert, entry, row in _by_expert(seen.expert):  # f = (W_u W_out)[y_j, i] * act(x W_g)[i] * weight
            push = neuron_logits(stack.down_proj(expert).to(unembed.dtype), unembed[row])
            push.mul_(stack.gates(expert, seen.hidden[row]))
            scores[entry] = push.mul_(weight[entry, None]) if router else push
        return scores.view(len(seen), -1)

    def number(self, expert: Int[Tensor, "rows routed"], place: Int[Tensor, "rows some"]) -> Int[Tensor, "rows some"]:
        """The neurons that stand at these places of `scores`, numbered within the layer: expert * N + i."""
        if self.stack is None:
            return place
        width, ran = self.stack.neurons, expert.shape[1]
        which = (place // width).clamp(max=ran - 1)
        routed = expert.gather(1, which) * width + place % width
        return torch.where(place < ran * width, routed, place - ran * width + self.routed_neurons)


def _by_expert(expert: Int[Tensor, "rows routed"]) -> list[tuple[int, Int[Tensor, " some"], Int[Tensor, " some"]]]:
    """Each expert that ran, with its entries in `expert`, read row by row, and their rows."""
    if not expert.numel():
        return []
    order = expert.flatten().argsort(stable=True)
    counts = torch.bincount(expert.flatten()).tolist()
    entries = order.split(counts)
    return [(e, entry, entry // expert.shape[1]) for e, entry in enumerate(entries) if len(entry)]


def _exact(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
