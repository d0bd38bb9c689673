"""One decoder layer's part of a decoding step, as functions of plain tensors."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

Weight = tuple[Tensor, Tensor, Tensor | None]
"""What a product takes of a linear layer: the weight [out, in], its packed form (or itself), and the bias [out]."""
Product = Callable[[Tensor, Weight], Tensor]
"""x [..., in] and a linear layer to its output [..., out]."""


def plain_product(x: Tensor, linear: Weight) -> Tensor:
    """As torch multiplies."""
    return torch.nn.functional.linear(x, linear[0], linear[2])


def mkl_product(x: Tensor, linear: Weight) -> Tensor:
    """With a weight that MKL packed.

    MKL asks for how many rows it did; with another number than x has it would leave the packed weight aside.
    """
    return torch.ops.mkl._mkl_linear(x, linear[1], linear[0], linear[2], x.numel() // x.size(-1))


def onednn_product(x: Tensor, linear: Weight) -> Tensor:
    """With a weight that oneDNN packed."""
    return torch.ops.mkldnn._linear_pointwise(x, linear[1], linear[2], "none", [], "")


def rms_norm(x: Tensor, weight: Tensor, epsilon: Tensor) -> Tensor:
    """x [..., width] / rms(x) * weight [width]; `epsilon` is a scalar. Half precision is rounded once, at the end."""
    wide = x.float()
    if x.dtype == torch.float64:  # as in the modules, which compute it in float32 whatever they are in
        return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)).to(x.dtype)
    length = torch.linalg.vector_norm(wide, 2, [-1], True)
    scale = weight * torch.addcmul(epsilon, length, length, value=1 / x.size(-1)).rsqrt_()
    return scale.mul_(wide).to(x.dtype)


def fast(x: Tensor) -> Tensor:
    """What small products take: float32 on a CPU, where those of half precision cost more than converting first."""
    return x.float() if x.is_cpu and x.dtype != torch.float64 else x


def attend(query: Tensor, prompt_keys: Tensor, prompt_values: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What every place's queries read of the prompt and of its own row: [heads, places, each * dim].

    `query` is [heads, places, each, dim], scaled already, in float32 or finer; the others are those of
    `row_cache.Slots`. The rows of a group share a product with all their keys.
    """
    heads, places, each, dim = query.shape
    keys, values = fast(keys), fast(values)
    prompt, suffix, groups = prompt_keys.size(2), values.size(1), keys.size(0) // heads
    group = places // groups
    query = query.reshape(heads, places * each, dim)
    on_prompt = torch.bmm(query.to(prompt_keys.dtype), prompt_keys).view(heads, groups, group, each, prompt)
    on_group = torch.bmm(query.view(heads * groups, group * each, dim).to(keys.dtype), keys)
    # Of a group's scores those of every place on its own keys.
    on_suffix = on_group.view(heads, groups, group, each, suffix, group).diagonal(0, 2, 5).permute(0, 1, 4, 2, 3)
    scores = torch.cat([on_prompt, on_suffix], dim=-1)
    # Half precision is too coarse for a softmax: the stock attention takes it in float32 as well.
    weights = torch.softmax(scores, dim=-1, dtype=query.dtype).view(heads, places * each, prompt + suffix)
    out = torch.bmm(weights[:, :, :prompt].to(prompt_values.dtype), prompt_values).to(values.dtype)
    of_suffix = weights.view(heads * places, each, prompt + suffix)[:, :, prompt:].to(values.dtype)
    out.view(heads * places, each, dim).baddbmm_(of_suffix, values)
    return out.view(heads, places, each * dim)


@cache
def halves(product: Product) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The two functions of a layer whose linear layers are multiplied by `product`, around its activation."""

    def to_gate(
        x: Tensor,
        norms: tuple[Tensor, Tensor, Tensor],
        head_norms: Tensor | None,
        qkv: Weight,
        o: Weight,
        gate: Weight,
        turn: tuple[Tensor, Tensor],
        turned: tuple[Tensor, Tensor, Tensor],
        slots: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Adds the attention to x [rows, hidden]; what the feed-forward reads of it, and x W_g [rows, neurons].

        `norms` are the weights of the attention's and the feed-forward's, and epsilon; `head_norms` [heads, dim] those
        of the queries' and keys' heads, if there are any. `turn` is what these are multiplied with, and their swapped
        halves, [heads, dim] each; `turned` and `slots` as in `lean.Turned` and `row_cache.Slots`.
        """
        rows, heads, dim = turned[0].shape
        projected = product(rms_norm(x, norms[0], norms[2]), qkv).view(rows, -1, dim)
        states = projected[:, :heads]
        if head_norms is not None:
            states = rms_norm(states, head_norms, norms[2])
        torch.addcmul(states * turn[0], states.roll(dim // 2, -1), turn[1], out=turned[0])
        slots[4].copy_(turned[2])
        slots[5].copy_(projected[:, heads:].transpose(0, 1))
        out = attend(turned[1], slots[0], slots[1], slots[2], slots[3])
        in_order = out[:, :rows].transpose(0, 1).to(x.dtype, memory_format=torch.contiguous_format)
        x += product(in_order.reshape(rows, -1), o)
        normed = rms_norm(x, norms[1], norms[2])
        return normed, product(normed, gate)

    def from_gate(
        x: Tensor,
        normed: Tensor,
        activated: Tensor,
        up: Weight,
        down: Weight,
    ) -> None:
        """Adds the feed-forward to x [rows, hidden]; `activated` is act(x W_g) [rows, neurons]."""
        x += product(product(normed, up).mul_(activated), down)

    return to_gate, from_gate
