"""The decoding step of plain decoder layers in fewer operations (docs/decisions/0017-lean-step.md).

With a few dozen rows, every small operation costs as much as its arithmetic. Here q, k and v are one product, queries
and keys are turned in one go, and the modules between are left out; everything else is the model's own.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nad.engines.shared_prompt import SharedPromptCache, shared_prompt_attention

_LAYERS = {"LlamaDecoderLayer", "MistralDecoderLayer", "PlainLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer"}
_WINDOW: Mapping[str, Callable[[Any], int | None]] = {
    "LlamaAttention": lambda attention: None,
    "MistralAttention": lambda attention: getattr(attention.config, "sliding_window", None),
    "PlainAttention": lambda attention: None,
    "Qwen2Attention": lambda attention: attention.sliding_window,
    "Qwen3Attention": lambda attention: attention.sliding_window,
}
"""The attention whose forward pass is written out here, and where it keeps its sliding window.

A module of another type has a step of its own.
"""


class LeanStep:
    """One token for every row of a shared-prompt cache.

    The model's q, k and v weights become views of one merged weight; their values stay the same.
    """

    def __init__(self, model: Any) -> None:
        self._model, self._decoder = model, model.get_decoder()
        self._qkv = [_merged([a.q_proj, a.k_proj, a.v_proj]) for a in self._attentions()]

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether the model has plain layers throughout."""
        decoder = model.get_decoder()
        layers = getattr(decoder, "layers", ())
        attentions = [getattr(layer, "self_attn", None) for layer in layers]
        parts = [getattr(a, name, None) for a in attentions for name in ("q_proj", "k_proj", "v_proj")]
        return (
            bool(len(layers))
            and {type(layer).__name__ for layer in layers} <= _LAYERS
            and {type(attention).__name__ for attention in attentions} <= _WINDOW.keys()
            and all(type(part) is nn.Linear for part in parts)
        )

    @property
    def linears(self) -> list[nn.Linear]:
        """The merged projections, which take the place of the model's own."""
        return self._qkv

    def bypasses_hooks(self) -> bool:
        """Whether somebody listens to a module that is not called here."""
        skipped = [self._model, self._decoder, *self._decoder.layers, *self._attentions()]
        skipped += [part for a in self._attentions() for part in (a.q_proj, a.k_proj, a.v_proj)]
        return any(module._forward_hooks or module._forward_pre_hooks for module in skipped)

    def __call__(self, cache: SharedPromptCache, ids: Int[Tensor, "rows 1"]) -> Float[Tensor, "rows 1 v"]:
        """The logits behind one more token of every row; its keys and values join the cache.

        Raises NotShareable as the shared-prompt attention does. Source: the `forward` methods of `_LAYERS`.
        """
        x = self._decoder.embed_tokens(ids)
        # All rows are at the same position.
        position = torch.full((1, 1), cache.get_seq_length(), device=ids.device)
        cos, sin = self._decoder.rotary_emb(x, position)
        low, high = sin.chunk(2, dim=-1)
        turn = (cos[0], torch.cat([-low, high], dim=-1)[0])
        for i, layer in enumerate(self._decoder.layers):
            x = x + self._attend(i, layer.self_attn, layer.input_layernorm(x), turn, cache)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self._model.lm_head(self._decoder.norm(x))

    def _attend(
        self,
        i: int,
        attention: Any,
        x: Float[Tensor, "rows 1 hidden"],
        turn: tuple[Float[Tensor, "1 dim"], Float[Tensor, "1 dim"]],
        cache: SharedPromptCache,
    ) -> Float[Tensor, "rows 1 hidden"]:
        states = self._qkv[i](x).view(len(x), -1, attention.head_dim)
        values = attention.v_proj.out_features // attention.head_dim
        turned, value = states[:, :-values], states[:, -values:]
        if hasattr(attention, "q_norm"):
            query, key = turned[:, :-values], turned[:, -values:]
            turned = torch.cat([attention.q_norm(query), attention.k_norm(key)], dim=1)
        turned = turned * turn[0] + turned.roll(attention.head_dim // 2, dims=-1) * turn[1]
        key, value = cache.layers[i].update(turned[:, -values:, None], value[:, :, None])
        out, _ = shared_prompt_attention(
            attention,
            turned[:, :-values, None],
            key,
            value,
            None,
            scaling=attention.scaling,
            sliding_window=_WINDOW[type(attention).__name__](attention),
            nad_cache=cache,
        )
        return attention.o_proj(out.flatten(2))

    def _attentions(self) -> list[Any]:
        return [layer.self_attn for layer in self._decoder.layers]


def _merged(parts: list[nn.Linear]) -> nn.Linear:
    """One linear layer whose output is the parts' outputs side by side; their parameters become views of its own."""
    sizes = [part.out_features for part in parts]
    merged = nn.Linear(parts[0].in_features, sum(sizes), bias=parts[0].bias is not None, device="meta")
    for name, _ in list(merged.named_parameters()):
        whole = torch.cat([getattr(part, name).detach() for part in parts])
        setattr(merged, name, nn.Parameter(whole, requires_grad=False))
        for part, view in zip(parts, whole.split(sizes), strict=True):
            getattr(part, name).data = view
    return merged
