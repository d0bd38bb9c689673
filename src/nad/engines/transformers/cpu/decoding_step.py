"""The decoder of four families of models on a CPU: their decoding step in fewer and larger operations.

What their modules compute is written out here (docs/decisions/0017-cpu-decoding-step.md); the weights are packed while
the model is loaded. Prefill and single rows go through the modules.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psutil
import torch
from jaxtyping import Int
from torch import Tensor, nn

from nad.engines.capture.gates import kept_gate
from nad.engines.transformers.cpu.grouped_cache import GroupedCache, Prompt
from nad.engines.transformers.cpu.layer import Layer, RmsNorm, Turn
from nad.engines.transformers.cpu.packed_linear import packed_linear
from nad.engines.transformers.decoder import Forward, SharedPromptDecoder
from nad.engines.transformers.shared_prompt import SharedPromptCache

_LAYERS = {"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer"}
_NORMS = {"LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm"}
_MLPS = {"LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP"}
_WINDOW: Mapping[str, Callable[[Any], int | None]] = {
    "LlamaAttention": lambda attention: None,
    "MistralAttention": lambda attention: getattr(attention.config, "sliding_window", None),
    "Qwen2Attention": lambda attention: attention.sliding_window,
    "Qwen3Attention": lambda attention: attention.sliding_window,
}
"""The attention whose forward pass is written out here, and where it keeps its sliding window."""
_MEMORY_SHARE = 0.25
"""Packed copies of the weights may take this share of the memory that is free."""


class CpuDecoder:
    """The decoding step without the modules; all else goes through `modules`, the decoder it must agree with."""

    def __init__(self, model: Any, modules: SharedPromptDecoder) -> None:
        decoder = model.get_decoder()
        self._modules, self._decoder = modules, decoder
        self._layers = [_layer_of(layer) for layer in decoder.layers]
        self._norm = _norm_of(decoder.norm)
        self._unembed = packed_linear([model.get_output_embeddings()])

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether the model has plain layers of the four families throughout, on a CPU with room for packed copies."""
        decoder = model.get_decoder()
        layers = getattr(decoder, "layers", ())
        attentions = [getattr(layer, "self_attn", None) for layer in layers]
        mlps = [getattr(layer, "mlp", None) for layer in layers]
        norms = [getattr(la, name, None) for la in layers for name in ("input_layernorm", "post_attention_layernorm")]
        linears = [getattr(a, name, None) for a in attentions for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
        linears += [getattr(mlp, name, None) for mlp in mlps for name in ("gate_proj", "up_proj", "down_proj")]
        weights = list(model.parameters())
        return (
            bool(len(layers))
            and {p.device.type for p in weights} == {"cpu"}
            and {type(layer).__name__ for layer in layers} <= _LAYERS
            and {type(attention).__name__ for attention in attentions} <= _WINDOW.keys()
            and {type(norm).__name__ for norm in [*norms, getattr(decoder, "norm", None)]} <= _NORMS
            and {type(mlp).__name__ for mlp in mlps} <= _MLPS
            and all(type(linear) is nn.Linear for linear in [*linears, model.get_output_embeddings()])
            and sum(p.nbytes for p in weights) <= _MEMORY_SHARE * psutil.virtual_memory().available
        )

    def prefill(self, tokens: Sequence[int], capture: bool = False) -> tuple[Prompt, Forward]:
        cache, forward = self._modules.prefill(tokens, capture)
        return Prompt(cache), forward

    def step(
        self, state: SharedPromptCache | GroupedCache, tokens: Int[Tensor, " rows"], capture: bool = False
    ) -> Forward:
        """Source: the `forward` methods of `_LAYERS`."""
        if isinstance(state, SharedPromptCache):
            return self._modules.step(state, tokens, capture)
        gates = []
        slots = state.next_token()
        x = self._decoder.embed_tokens(tokens)
        turn = self._turn(x, state.length - 1)
        for layer, of_layer in zip(self._layers, slots, strict=True):
            x = layer.attend(x, turn, of_layer)
            normed = layer.feed_forward_norm(x)
            gate = layer.gate(normed)
            activated = layer.act(gate)
            if capture:
                gates.append(kept_gate(gate, activated))
            x += layer.down(layer.up(normed).mul_(activated))
        return Forward(self._unembed(self._norm(x)), gates if capture else None)

    def _turn(self, x: Tensor, position: int) -> Turn:
        """What a token's queries (scaled) and keys are multiplied with at this position."""
        attention = self._decoder.layers[0].self_attn
        turn = self._decoder.rotary_emb(x[:, None], torch.full((1, 1), position))
        cos, sin = (part[0].to(torch.promote_types(x.dtype, torch.float32)) for part in turn)
        low, high = sin.chunk(2, dim=-1)
        queries, keys = (part.out_features // attention.head_dim for part in (attention.q_proj, attention.k_proj))
        scale = cos.new_ones(queries + keys, 1)
        scale[:queries] = attention.scaling
        return Turn(cos * scale, torch.cat([-low, high], dim=-1) * scale)


def _layer_of(module: Any) -> Layer:
    attention, mlp = module.self_attn, module.mlp
    return Layer(
        attention_norm=_norm_of(module.input_layernorm),
        qkv=packed_linear([attention.q_proj, attention.k_proj, attention.v_proj]),
        head_norm=_head_norm(attention),
        o=packed_linear([attention.o_proj]),
        window=_WINDOW[type(attention).__name__](attention),
        feed_forward_norm=_norm_of(module.post_attention_layernorm),
        gate=packed_linear([mlp.gate_proj]),
        act=mlp.act_fn.forward,
        up=packed_linear([mlp.up_proj]),
        down=packed_linear([mlp.down_proj]),
    )


def _norm_of(norm: Any) -> RmsNorm:
    weight: Tensor = norm.weight.detach().to(torch.promote_types(norm.weight.dtype, torch.float32))
    return RmsNorm(weight, norm.variance_epsilon)


def _head_norm(attention: Any) -> RmsNorm | None:
    """The norms of each query's and each key's head as one norm, where there are any."""
    if not hasattr(attention, "q_norm"):
        return None
    parts = ((attention.q_norm, attention.q_proj), (attention.k_norm, attention.k_proj))
    norms = [(_norm_of(norm), linear.out_features // attention.head_dim) for norm, linear in parts]
    return RmsNorm(torch.cat([norm.weight.expand(heads, -1) for norm, heads in norms]), norms[0][0].epsilon)
