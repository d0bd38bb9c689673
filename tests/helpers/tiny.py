"""Tiny random models of every family, with a byte-level tokenizer: made in code, the same on every run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from nad.engines.transformers.engine import TransformersEngine

LAYERS, HIDDEN, NEURONS, VOCABULARY, WINDOW = 3, 32, 48, 264, 256
SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<think>"]
"""They follow the 256 bytes, so they lie above `tokenizer.vocab_size`."""
END = 256
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is defined and enable_thinking %}<think>"
    "{% endif %}{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """One token a byte, and a chat template with the argument enable_thinking."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    *special, think = SPECIAL
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in special])
    tokenizer.add_tokens([AddedToken(think, special=False)])  # as reasoning models have it
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[0], chat_template=TEMPLATE)


@dataclass(frozen=True)
class Family:
    """A model type of transformers and what its configuration needs beside the sizes."""

    model_type: str
    extra: Mapping[str, Any]
    merged: bool = False
    gelu: bool = False


_GEMMA = {"query_pre_attn_scalar": 8, "tie_word_embeddings": True}
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]

FAMILIES: Mapping[str, Family] = {
    "llama": Family("llama", {}),
    "llama-tied": Family("llama", {"tie_word_embeddings": True}),
    "qwen2": Family("qwen2", {}),
    "qwen3": Family("qwen3", {}),
    "mistral": Family("mistral", {"sliding_window": None}),
    "gemma2": Family(
        "gemma2", {"query_pre_attn_scalar": 8, "initializer_range": 0.14, "tie_word_embeddings": True}, gelu=True
    ),
    "gemma3": Family(
        "gemma3_text", {"query_pre_attn_scalar": 8, "initializer_range": 0.2, "tie_word_embeddings": True}, gelu=True
    ),
    "phi3": Family("phi3", {"sliding_window": None}, merged=True),
    "glm4": Family("glm4", {}, merged=True),
}


def tiny_config(family: Family, **changes: Any) -> PretrainedConfig:
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": NEURONS,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": WINDOW,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
    }
    tokens = {"bos_token_id": None, "eos_token_id": END, "pad_token_id": None}
    return AutoConfig.for_model(family.model_type, **{**sizes, **tokens, **family.extra, **changes})


def tiny_model(family: str, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """The same weights for the same arguments, whatever the dtype."""
    return built(tiny_config(FAMILIES[family], **changes), dtype, seed)


def built(config: PretrainedConfig, dtype: torch.dtype = torch.float32, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    # Older versions of transformers leave the caps of attention scores out in their default attention.
    caps = {"attn_implementation": "eager"} if getattr(config, "attn_logit_softcapping", None) else {}
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, **caps).to(dtype).eval()


def tiny_engine(
    family: str = "llama",
    dtype: torch.dtype = torch.float32,
    share: bool = True,
    eos: Any = None,
    fast_cpu: bool = True,
    **changes: Any,
) -> TransformersEngine:
    """An engine on `tiny_model`; `eos` replaces the stop tokens of its generation settings."""
    model = tiny_model(family, dtype, **changes)
    if eos is not None:
        model.generation_config.eos_token_id = eos
    return TransformersEngine(model, tiny_tokenizer(), f"tiny-{family}", share_prefixes=share, fast_cpu=fast_cpu)
