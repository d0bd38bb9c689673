"""A plain Llama read straight from its folder (docs/decisions/0018-plain-llama.md).

Importing the model classes of transformers takes longer than everything else a start does. A folder whose files say
that nothing is special about the model, as those of the default model do, needs none of them; what is unknown here is
left to transformers.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from nad.engines.shared_prompt import SharedPromptCache, shared_prompt_attention

_SETTLED: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_act": "silu",
}
"""Settings a plain model has, and their only value."""
_READ = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
    "eos_token_id",
)
"""Settings it has, and any value."""
_IDLE = {
    "_model_name_or_path",
    "_name_or_path",
    "attention_dropout",
    "bos_token_id",
    "dtype",
    "initializer_range",
    "pad_token_id",
    "pretraining_tp",
    "torch_dtype",
    "transformers_version",
    "unk_token_id",
    "use_cache",
}
"""Settings that change nothing here."""
_TOKENIZER = "TokenizersBackend"
"""The tokenizer class whose tokenizer.json is all there is to know."""


@dataclass
class PlainConfig:
    """The settings of a plain Llama, as its config.json names them."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    eos_token_id: int | list[int] | None
    rope_theta: float
    _attn_implementation: str = "sdpa"

    def get_text_config(self) -> "PlainConfig":
        return self


class PlainNorm(nn.Module):
    """x / rms(x) * weight, the division in float32."""

    def __init__(self, config: PlainConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.hidden_size))
        self.epsilon = config.rms_norm_eps

    def forward(self, x: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows hidden"]:
        exact = x.to(torch.float32)
        exact = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return self.weight * exact.to(x.dtype)


class PlainRotary(nn.Module):
    """Cosines and sines of the rotary position embedding."""

    frequencies: Tensor

    def __init__(self, config: PlainConfig) -> None:
        super().__init__()
        steps = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu") / config.head_dim
        self.register_buffer("frequencies", 1.0 / config.rope_theta**steps, persistent=False)

    def forward(self, x: Tensor, position_ids: Int[Tensor, "1 tokens"]) -> tuple[Tensor, Tensor]:
        """Both [1, tokens, head_dim], in the precision of x."""
        angles = position_ids[..., None].float() * self.frequencies.float()
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


class PlainAttention(nn.Module):
    """Causal attention with rotary positions; several query heads may share a key head."""

    def __init__(self, config: PlainConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx, self.head_dim, self.scaling = layer_idx, config.head_dim, config.head_dim**-0.5
        queries, keys = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)

    def forward(
        self,
        x: Float[Tensor, "b tokens hidden"],
        turn: tuple[Tensor, Tensor],
        cache: SharedPromptCache,
        nad_cache: SharedPromptCache | None = None,
    ) -> Float[Tensor, "b tokens hidden"]:
        parts = (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        query, key, value = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in parts)
        key, value = cache.layers[self.layer_idx].update(_turned(key, *turn), value)
        query = _turned(query, *turn)
        if nad_cache is not None:
            out, _ = shared_prompt_attention(self, query, key, value, None, self.scaling, nad_cache=nad_cache)
        else:
            out = self._causal(query, key, value)
        return self.o_proj(out.flatten(2))

    def _causal(self, query: Tensor, key: Tensor, value: Tensor) -> Float[Tensor, "b tokens heads dim"]:
        new, held = query.shape[2], key.shape[2]
        behind = 1 < new < held
        mask = torch.ones(new, held, dtype=torch.bool, device=query.device).tril(held - new) if behind else None
        out = functional.scaled_dot_product_attention(
            query, key, value, mask, is_causal=new == held and new > 1, scale=self.scaling, enable_gqa=True
        )
        return out.transpose(1, 2)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat([-high, low], dim=-1) * sin[:, None]


class PlainFeedForward(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, config: PlainConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.act_fn = nn.SiLU()

    def forward(self, x: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows hidden"]:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class PlainLayer(nn.Module):
    """Attention and feed-forward, each behind a norm and beside a residual."""

    def __init__(self, config: PlainConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = PlainAttention(config, layer_idx)
        self.mlp = PlainFeedForward(config)
        self.input_layernorm = PlainNorm(config)
        self.post_attention_layernorm = PlainNorm(config)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], cache: SharedPromptCache, **extra: Any) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turn, cache, **extra)
        return x + self.mlp(self.post_attention_layernorm(x))


class PlainDecoder(nn.Module):
    """Everything but the unembedding."""

    def __init__(self, config: PlainConfig) -> None:
        super().__init__()
        # The usual way would draw random weights, for which torch imports its compiler, even without memory for them.
        self.embed_tokens = nn.Embedding.from_pretrained(torch.empty(config.vocab_size, config.hidden_size))
        self.layers = nn.ModuleList([PlainLayer(config, i) for i in range(config.num_hidden_layers)])
        self.norm = PlainNorm(config)
        self.rotary_emb = PlainRotary(config)


class PlainLlama(nn.Module):
    """Named, called and filled with weights like transformers' LlamaForCausalLM, as far as the engine needs it."""

    _supports_attention_backend = True

    def __init__(self, config: PlainConfig, generation_config: SimpleNamespace) -> None:
        super().__init__()
        self.config, self.generation_config = config, generation_config
        self.model = PlainDecoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie()

    def tie(self) -> None:
        """Unembed with the embedding, where the model does."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @property
    def dtype(self) -> torch.dtype:
        return self.lm_head.weight.dtype

    def get_decoder(self) -> PlainDecoder:
        return self.model

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def forward(
        self,
        input_ids: Int[Tensor, "b tokens"],
        position_ids: Int[Tensor, "1 tokens"],
        past_key_values: SharedPromptCache,
        use_cache: bool,
        logits_to_keep: int,
        **extra: Any,
    ) -> SimpleNamespace:
        x = self.model.embed_tokens(input_ids)
        turn = self.model.rotary_emb(x, position_ids)
        for layer in self.model.layers:
            x = layer(x, turn, past_key_values, **extra)
        return SimpleNamespace(logits=self.lm_head(self.model.norm(x[:, -logits_to_keep:])))


def plain_llama(folder: Path) -> PlainLlama | None:
    """The model in the folder without its weights, or None where it is not a plain Llama throughout.

    None also for damaged files: transformers says what is wrong with them.
    """
    try:
        settings, tokenizer = (json.loads((folder / f).read_text()) for f in ("config.json", "tokenizer_config.json"))
        generation = json.loads((folder / "generation_config.json").read_text())
        config = _plain_config(settings)
        if config is None or tokenizer.get("tokenizer_class") != _TOKENIZER or "auto_map" in tokenizer:
            return None
        if (folder / "adapter_config.json").exists():  # transformers would apply the adapter
            return None
        with torch.device("meta"):
            model = PlainLlama(config, SimpleNamespace(eos_token_id=generation.get("eos_token_id")))
        with safe_open(_weights(folder), "pt") as held:
            shapes = {name: held.get_slice(name).get_shape() for name in held.keys()}  # noqa: SIM118
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        return None
    return model if shapes == {name: list(p.shape) for name, p in model.named_parameters()} else None


def read_plain_llama(model: PlainLlama, folder: Path, dtype: torch.dtype) -> tuple[PlainLlama, PreTrainedTokenizerBase]:
    """The model with its weights, and its tokenizer."""
    weights = {name: held.to(dtype) for name, held in load_file(_weights(folder)).items()}
    model.load_state_dict(weights, strict=not model.config.tie_word_embeddings, assign=True)
    model.tie()
    return model.requires_grad_(False), PreTrainedTokenizerFast.from_pretrained(folder)


def _weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def _plain_config(settings: dict[str, Any]) -> PlainConfig | None:
    """The settings, or None where one of them is unknown here."""
    rope = settings["rope_parameters"]
    known = {*_SETTLED, *_READ, *_IDLE, "rope_parameters"}
    plain = (
        known.issuperset(settings)
        and all(settings[name] == value for name, value in _SETTLED.items())
        and rope.keys() == {"rope_type", "rope_theta"}
        and rope["rope_type"] == "default"
    )
    return PlainConfig(**{name: settings[name] for name in _READ}, rope_theta=rope["rope_theta"]) if plain else None
