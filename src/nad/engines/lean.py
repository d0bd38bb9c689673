"""The decoding step of plain decoder layers in fewer operations (docs/decisions/0017-lean-step.md).

With a few dozen rows, every small operation costs as much as its arithmetic, or more. Here q, k and v are one product,
queries and keys are turned in one go, and the modules between the linear layers are left out.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nad.engines.gates import GateTap
from nad.engines.row_cache import GROUP, RowCache, Slots, attend

_Map = Callable[[Tensor], Tensor]
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

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether the model has plain layers throughout."""
        decoder = model.get_decoder()
        layers = getattr(decoder, "layers", ())
        attentions = [getattr(layer, "self_attn", None) for layer in layers]
        norms = [getattr(la, name, None) for la in layers for name in ("input_layernorm", "post_attention_layernorm")]
        parts = [getattr(a, name, None) for a in attentions for name in ("q_proj", "k_proj", "v_proj")]
        return (
            bool(len(layers))
            and {type(layer).__name__ for layer in layers} <= _LAYERS
            and {type(attention).__name__ for attention in attentions} <= _WINDOW.keys()
            and {type(norm).__name__ for norm in [*norms, getattr(decoder, "norm", None)]} <= _NORMS
            and {type(getattr(layer, "mlp", None)).__name__ for layer in layers} <= _MLPS
            and all(type(part) is nn.Linear for part in parts)
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
        turned = _Turned.room(len(x), cache.places, slots[0], turn[0])
        for i, (layer, of_layer) in enumerate(zip(self._layers, slots, strict=True)):
            x += _attend(layer, layer.attention_norm(x), turn, turned, of_layer)
            normed = layer.mlp_norm(x)
            gate = layer.gate(normed)
            activated = layer.act(gate)
            if tap is not None:
                tap.note(i, gate, activated)
            x += layer.down(layer.up(normed).mul_(activated))
        return self._model.lm_head(self._norm(x))

    @cached_property
    def _layers(self) -> list["_Layer"]:
        """Looked up once, at the first step: the weights may be packed until then."""
        return [_layer_of(layer, qkv) for layer, qkv in zip(self._decoder.layers, self._qkv, strict=True)]

    @cached_property
    def _norm(self) -> _Map:
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
    """The parts of one layer. With hundreds of small operations a step, looking for them on modules is felt."""

    attention_norm: _Map
    qkv: _Map
    head_norms: tuple[_Map, _Map] | None
    window: int | None
    o: _Map
    mlp_norm: _Map
    gate: _Map
    act: _Map
    up: _Map
    down: _Map


def _layer_of(layer: Any, qkv: nn.Linear) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return _Layer(
        attention_norm=_norm_of(layer.input_layernorm),
        qkv=qkv.forward,
        head_norms=(attention.q_norm, attention.k_norm) if hasattr(attention, "q_norm") else None,
        window=_WINDOW[type(attention).__name__](attention),
        o=attention.o_proj.forward,
        mlp_norm=_norm_of(layer.post_attention_layernorm),
        gate=mlp.gate_proj.forward,
        act=mlp.act_fn.forward,
        up=mlp.up_proj.forward,
        down=mlp.down_proj.forward,
    )


def _norm_of(norm: Any) -> _Map:
    """x / rms(x) * weight in fewer operations than the module's; in half precision rounded once, at the end."""
    if norm.weight.dtype == torch.float64:  # the modules compute in float32, whatever they are in
        return norm.forward
    weight: Tensor = norm.weight.float()
    epsilon = weight.new_tensor(norm.epsilon if hasattr(norm, "epsilon") else norm.variance_epsilon)
    share = 1 / len(weight)

    def normed(x: Tensor) -> Tensor:
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
        scale = weight * torch.addcmul(epsilon, length, length, value=share).rsqrt_()
        return scale.mul_(wide).to(x.dtype)

    return normed


class _Turned(NamedTuple):
    """Where a layer's queries and keys are turned to, and the same memory in the order they are read in."""

    rows: Float[Tensor, "rows heads dim"]
    queries: Float[Tensor, "key_heads places each dim"]
    keys: Float[Tensor, "key_heads groups group dim"]

    @staticmethod
    def room(rows: int, places: int, slots: Slots, turn: Float[Tensor, "heads dim"]) -> "_Turned":
        """Places that fill the last group are attended as well; nobody reads what comes of them."""
        key_heads = len(slots.new_values)
        both = turn.new_zeros(places, *turn.shape)
        queries = both[:, :-key_heads].unflatten(1, (key_heads, -1)).transpose(0, 1)
        keys = both[:, -key_heads:].unflatten(0, (-1, GROUP)).permute(2, 0, 1, 3)
        return _Turned(both[:rows], queries, keys)


def _attend(
    layer: _Layer,
    x: Float[Tensor, "rows hidden"],
    turn: tuple[Float[Tensor, "heads dim"], Float[Tensor, "heads dim"]],
    turned: _Turned,
    slots: Slots,
) -> Float[Tensor, "rows hidden"]:
    rows, heads, dim = turned.rows.shape
    projected = layer.qkv(x).view(rows, -1, dim)
    states = projected[:, :heads]
    if layer.head_norms:
        parts = states.split([heads - len(turned.keys), len(turned.keys)], dim=1)
        states = torch.cat([norm(part) for norm, part in zip(layer.head_norms, parts, strict=True)], dim=1)
    torch.addcmul(states * turn[0], states.roll(dim // 2, dims=-1), turn[1], out=turned.rows)
    slots.new_keys.copy_(turned.keys)
    slots.new_values.copy_(projected[:, heads:].transpose(0, 1))
    out = attend(slots.last(layer.window) if layer.window else slots, turned.queries)
    in_order = out[:, :rows].transpose(0, 1).to(x.dtype, memory_format=torch.contiguous_format)
    return layer.o(in_order.reshape(rows, -1))


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
