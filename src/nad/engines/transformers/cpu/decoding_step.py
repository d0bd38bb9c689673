"""The decoding step of plain decoder layers in fewer operations (docs/decisions/0017-lean-step.md).

With a few dozen rows, every small operation costs as much as its arithmetic, or more. Here q, k and v are one product,
queries and keys are turned in one go, and the modules between the linear layers are left out.
The arithmetic is in `nad.engines.transformers.cpu.layer`.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nad.engines.capture.gates import GateTap
from nad.engines.transformers.cpu.grouped_cache import GROUP, RowCache, Slots
from nad.engines.transformers.cpu.layer import Weight, halves, rms_norm
from nad.engines.transformers.cpu.packed_linear import PackedLinear, product_for

_LAYERS = {"LlamaDecoderLayer", "MistralDecoderLayer", "PlainLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer"}
_NORMS = {"LlamaRMSNorm", "MistralRMSNorm", "PlainNorm", "Qwen2RMSNorm", "Qwen3RMSNorm"}
_MLPS = {"LlamaMLP", "MistralMLP", "PlainFeedForward", "Qwen2MLP", "Qwen3MLP"}
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
    """One token for every row behind a shared prompt.

    The model's q, k and v weights become views of one merged weight; their values stay the same.
    """

    def __init__(self, model: Any) -> None:
        self._model, self._decoder = model, model.get_decoder()
        self._qkv = [
            _merged([a.q_proj, a.k_proj, a.v_proj]) for a in (layer.self_attn for layer in self._decoder.layers)
        ]
        self._prepared: dict[bool, _Layers] = {}

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether the model has plain layers throughout."""
        decoder = model.get_decoder()
        layers = getattr(decoder, "layers", ())
        attentions = [getattr(layer, "self_attn", None) for layer in layers]
        mlps = [getattr(layer, "mlp", None) for layer in layers]
        norms = [getattr(la, name, None) for la in layers for name in ("input_layernorm", "post_attention_layernorm")]
        linears = [getattr(a, name, None) for a in attentions for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
        linears += [getattr(mlp, name, None) for mlp in mlps for name in ("gate_proj", "up_proj", "down_proj")]
        return (
            bool(len(layers))
            and {type(layer).__name__ for layer in layers} <= _LAYERS
            and {type(attention).__name__ for attention in attentions} <= _WINDOW.keys()
            and {type(norm).__name__ for norm in [*norms, getattr(decoder, "norm", None)]} <= _NORMS
            and {type(mlp).__name__ for mlp in mlps} <= _MLPS
            and all(type(linear) is nn.Linear for linear in linears)
        )

    @property
    def linears(self) -> list[nn.Linear]:
        """The merged projections, which take the place of the model's own."""
        return self._qkv

    def has_listeners(self) -> bool:
        """Whether somebody listens to a module, or gave it a forward pass of its own; most are not called here."""
        return any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in self._model.modules())

    def __call__(
        self, cache: RowCache, ids: Int[Tensor, " rows"], tap: GateTap | None = None
    ) -> Float[Tensor, "rows v"]:
        """The logits behind one more token of every row; its keys and values join the cache, its gates go to the tap.

        Source: the `forward` methods of `_LAYERS`.
        """
        if tap is not None:
            tap.begin()
        slots = cache.next_token()
        x = self._decoder.embed_tokens(ids)
        turn = self._turn(x, cache.get_seq_length() - 1)
        turned = Turned.room(len(x), cache.places, slots[0], turn[0])
        to_gate, from_gate, layers = self._layers(len(x))
        for i, (layer, of_layer) in enumerate(zip(layers, slots, strict=True)):
            seen = of_layer.last(layer.window) if layer.window else of_layer
            normed, gate = to_gate(x, *layer.attention, turn, turned, seen)
            activated = layer.act(gate)
            if tap is not None:
                tap.note(i, gate, activated)
            from_gate(x, normed, activated, *layer.feed_forward)
        return self._model.lm_head(rms_norm(x, *self._norm))

    def _layers(self, rows: int) -> "_Layers":
        """Looked up once for packed weights, and once for others."""
        packed = isinstance(self._qkv[0], PackedLinear) and self._qkv[0].packs(rows)
        if packed not in self._prepared:
            self._prepared[packed] = _layers_of(self._decoder.layers, self._qkv, rows)
        return self._prepared[packed]

    @cached_property
    def _norm(self) -> tuple[Tensor, Tensor]:
        return _norm_of(self._decoder.norm)

    def _turn(self, x: Float[Tensor, "rows hidden"], position: int) -> tuple[Tensor, Tensor]:
        """What a token's queries (scaled) and keys are multiplied with, as they are and with their halves swapped.

        Both [query and key heads, dim], in float32 or finer.
        """
        attention = self._decoder.layers[0].self_attn
        turn = self._decoder.rotary_emb(x[:, None], torch.full((1, 1), position, device=x.device))
        cos, sin = (part[0].to(torch.promote_types(x.dtype, torch.float32)) for part in turn)
        low, high = sin.chunk(2, dim=-1)
        queries, keys = (part.out_features // attention.head_dim for part in (attention.q_proj, attention.k_proj))
        scale = cos.new_ones(queries + keys, 1)
        scale[:queries] = attention.scaling
        return cos * scale, torch.cat([-low, high], dim=-1) * scale


class _Layer(NamedTuple):
    """The parts of one layer. With hundreds of operations a step, looking for them on modules is felt."""

    attention: tuple[tuple[Tensor, Tensor, Tensor], Tensor | None, Weight, Weight, Weight]
    window: int | None
    act: Callable[[Tensor], Tensor]
    feed_forward: tuple[Weight, Weight]


class _Layers(NamedTuple):
    """All layers, and the functions that take their parts (`layer_step.halves`)."""

    to_gate: Callable[..., tuple[Tensor, Tensor]]
    from_gate: Callable[..., None]
    layers: list[_Layer]


def _layers_of(modules: Any, qkv: list[nn.Linear], rows: int) -> _Layers:
    """The layers as a step of so many rows takes them."""
    parts = [
        (merged, m.self_attn.o_proj, m.mlp.gate_proj, m.mlp.up_proj, m.mlp.down_proj)
        for m, merged in zip(modules, qkv, strict=True)
    ]
    product, weights = product_for([linear for of_layer in parts for linear in of_layer], rows)
    layers = [_layer_of(m, weights[5 * i : 5 * i + 5]) for i, m in enumerate(modules)]
    return _Layers(*halves(product), layers)


def _layer_of(module: Any, weights: list[Weight]) -> _Layer:
    attention = module.self_attn
    before, epsilon = _norm_of(module.input_layernorm)
    behind, _ = _norm_of(module.post_attention_layernorm)
    qkv, o, gate, up, down = weights
    return _Layer(
        attention=((before, behind, epsilon), _head_norms(attention), qkv, o, gate),
        window=_WINDOW[type(attention).__name__](attention),
        act=module.mlp.act_fn.forward,
        feed_forward=(up, down),
    )


def _norm_of(norm: Any) -> tuple[Tensor, Tensor]:
    """The weight and epsilon that `rms_norm` takes."""
    weight: Tensor = norm.weight.to(torch.promote_types(norm.weight.dtype, torch.float32))
    return weight, torch.tensor(
        norm.epsilon if hasattr(norm, "epsilon") else norm.variance_epsilon, device=weight.device
    )


def _head_norms(attention: Any) -> Float[Tensor, "heads dim"] | None:
    """The norms of every query's and key's head, where there are any."""
    if not hasattr(attention, "q_norm"):
        return None
    parts = ((attention.q_norm, attention.q_proj), (attention.k_norm, attention.k_proj))
    weights = [_norm_of(norm)[0].expand(linear.out_features // attention.head_dim, -1) for norm, linear in parts]
    return torch.cat(weights)


class Turned(NamedTuple):
    """Where a layer's queries and keys are turned to, and the same memory in the order they are read in."""

    rows: Float[Tensor, "rows heads dim"]
    queries: Float[Tensor, "key_heads places each dim"]
    keys: Float[Tensor, "key_heads groups group dim"]

    @staticmethod
    def room(rows: int, places: int, slots: Slots, turn: Float[Tensor, "heads dim"]) -> "Turned":
        """Places that fill the last group are attended as well; nobody reads what comes of them."""
        key_heads = len(slots.new_values)
        both = turn.new_zeros(places, *turn.shape)
        queries = both[:, :-key_heads].unflatten(1, (key_heads, -1)).transpose(0, 1)
        keys = both[:, -key_heads:].unflatten(0, (-1, GROUP)).permute(2, 0, 1, 3)
        return Turned(both[:rows], queries, keys)


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
