"""One decoder layer's part of a decoding step, in few operations (docs/decisions/0017-cpu-decoding-step.md).

With a few dozen rows every small operation costs as much as its arithmetic, or more. So q, k and v are one product,
queries and keys are turned in one go, and the rows' own keys are read several rows at once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nad.engines.transformers.cpu.grouped_cache import GROUP, Slots
from nad.engines.transformers.cpu.packed_linear import Linear


@dataclass(frozen=True, eq=False)
class RmsNorm:
    """x / rms(x) * weight. Half precision is rounded once, at the end."""

    weight: Float[Tensor, "*heads width"]
    epsilon: float

    def __call__(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        if x.dtype == torch.float64:  # as in the modules, which compute it in float32 whatever they are in
            return self.weight * (wide * scale).to(x.dtype)
        return (self.weight * scale).mul_(wide).to(x.dtype)


@dataclass(frozen=True, eq=False)
class Turn:
    """The rotary embedding of one position: heads times `cos`, and their swapped halves times `sin`.

    The rows of queries also hold the attention's scale. Both in float32 or finer.
    """

    cos: Float[Tensor, "heads dim"]
    sin: Float[Tensor, "heads dim"]

    def __call__(self, states: Float[Tensor, "rows heads dim"]) -> Float[Tensor, "rows heads dim"]:
        return torch.addcmul(states * self.cos, states.roll(states.shape[-1] // 2, -1), self.sin)


@dataclass(frozen=True, eq=False)
class Layer:
    """The parts of one layer, packed. `head_norm` norms each query's and key's head, where there is such a norm."""

    attention_norm: RmsNorm
    qkv: Linear
    head_norm: RmsNorm | None
    o: Linear
    window: int | None
    feed_forward_norm: RmsNorm
    gate: Linear
    act: Callable[[Tensor], Tensor]
    up: Linear
    down: Linear

    def attend(self, x: Float[Tensor, "rows hidden"], turn: Turn, slots: Slots) -> Float[Tensor, "rows hidden"]:
        """x after the attention; the rows' new keys and values go to their slots."""
        heads, dim = turn.cos.shape
        projected = self.qkv(self.attention_norm(x)).view(len(x), -1, dim)
        states = projected[:, :heads]
        turned = turn(self.head_norm(states) if self.head_norm else states)
        key_heads = len(slots.new_values)
        query = _in_places(turned[:, :-key_heads].unflatten(1, (key_heads, -1)), slots)
        slots.new_keys.copy_(_in_places(turned[:, -key_heads:], slots).unflatten(1, (-1, GROUP)))
        slots.new_values.copy_(projected[:, heads:].transpose(0, 1))
        out = attend(query, slots.last(self.window) if self.window else slots)
        return x + self.o(out[:, : len(x)].transpose(0, 1).flatten(1).to(x.dtype))


def _in_places(rows: Float[Tensor, "rows heads *each"], slots: Slots) -> Float[Tensor, "heads places *each"]:
    """Rows in whole groups. Places that no row fills are attended too, and their results are not read."""
    placed = rows.new_zeros(rows.shape[1], slots.places, *rows.shape[2:])
    placed[:, : len(rows)] = rows.transpose(0, 1)
    return placed


def fast(x: Tensor) -> Tensor:
    """What small products are computed in: float32, since half precision costs more there than converting first."""
    return x if x.dtype == torch.float64 else x.float()


def attend(query: Float[Tensor, "heads places *each dim"], slots: Slots) -> Float[Tensor, "heads places each_dim"]:
    """What every place's queries read of the prompt and of its own row; they are scaled, in float32 or finer.

    The rows of a group share a product with all their keys; of its scores those of each place on its own keys are
    kept.
    """
    heads, places, each, dim = query.shape
    keys, values = fast(slots.keys), fast(slots.values)
    prompt, suffix, groups = slots.prompt_keys.shape[2], values.shape[1], places // GROUP
    query = query.view(heads, places * each, dim)
    on_prompt = torch.bmm(query.to(slots.prompt_keys.dtype), slots.prompt_keys)
    on_group = torch.bmm(query.view(heads * groups, GROUP * each, dim), keys)
    on_suffix = on_group.view(heads, groups, GROUP, each, suffix, GROUP).diagonal(0, 2, 5).permute(0, 1, 4, 2, 3)
    scores = torch.cat([on_prompt.view(heads, groups, GROUP, each, prompt), on_suffix], dim=-1)
    # Half precision is too coarse for a softmax: the stock attention takes it in float32 as well.
    weights = torch.softmax(scores, dim=-1, dtype=query.dtype).view(heads, places * each, prompt + suffix)
    out = torch.bmm(weights[:, :, :prompt].to(slots.prompt_values.dtype), slots.prompt_values).to(values.dtype)
    of_suffix = weights.view(heads * places, each, prompt + suffix)[:, :, prompt:]
    out.view(heads * places, each, dim).baddbmm_(of_suffix, values)
    return out.view(heads, places, each * dim)
