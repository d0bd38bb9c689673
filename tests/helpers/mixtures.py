"""Tiny random mixtures of experts, made like the dense families of `tiny`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tiny import LAYERS, Family, built, tiny_config, tiny_tokenizer
from torch import nn
from transformers import PreTrainedModel

from nad.engines.transformers.engine import TransformersEngine

EXPERTS, RAN, WIDTH = 8, 2, 16
"""Routed experts of a layer, how many of them a token goes to, and neurons of each."""


@dataclass(frozen=True)
class Mixture(Family):
    """`shared` neurons of a layer belong to shared experts, `dense` layers to none; `slots` parts a layer has."""

    shared: int = 0
    dense: tuple[int, ...] = ()
    slots: int = EXPERTS


_ROUTED = {"num_experts": EXPERTS, "num_experts_per_tok": RAN, "moe_intermediate_size": WIDTH}
_DEEPSEEK = {
    "n_routed_experts": EXPERTS,
    "num_experts_per_tok": RAN,
    "moe_intermediate_size": WIDTH,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
}
_GPT_OSS = {
    "num_local_experts": EXPERTS,
    "num_experts_per_tok": RAN,
    "intermediate_size": WIDTH,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
}

MIXTURES: Mapping[str, Mixture] = {
    "qwen3-moe": Mixture("qwen3_moe", {**_ROUTED, "norm_topk_prob": True}),
    "qwen3-moe-unnormalised": Mixture("qwen3_moe", {**_ROUTED, "norm_topk_prob": False}),
    # The dense layer has 150 neurons: ten parts of 16, the last of them not whole.
    "qwen3-moe-dense-between": Mixture(
        "qwen3_moe", {**_ROUTED, "mlp_only_layers": [1], "intermediate_size": 150}, dense=(1,), slots=10
    ),
    "qwen2-moe": Mixture("qwen2_moe", {**_ROUTED, "shared_expert_intermediate_size": 24}, shared=24, slots=EXPERTS + 2),
    "mixtral": Mixture(
        "mixtral", {"num_local_experts": EXPERTS, "num_experts_per_tok": RAN, "intermediate_size": WIDTH}
    ),
    "olmoe": Mixture("olmoe", {"num_experts": EXPERTS, "num_experts_per_tok": RAN, "intermediate_size": WIDTH}),
    "deepseek-v2": Mixture(
        "deepseek_v2",
        {**_DEEPSEEK, "q_lora_rank": None, "n_shared_experts": 2, "topk_method": "group_limited_greedy"},
        shared=2 * WIDTH,
        dense=(0,),
        slots=EXPERTS + 2,
    ),
    "deepseek-v3": Mixture(
        "deepseek_v3",
        {**_DEEPSEEK, "q_lora_rank": 16, "n_shared_experts": 1},
        shared=WIDTH,
        dense=(0,),
        slots=EXPERTS + 1,
    ),
    "gpt-oss": Mixture("gpt_oss", _GPT_OSS),
}


def tiny_mixture(family: str, dtype: torch.dtype = torch.float32, **changes: Any) -> PreTrainedModel:
    """The same weights for the same arguments; biases, which models begin with as zeros, are random as well."""
    model = built(tiny_config(MIXTURES[family], **changes), torch.float32)
    generator = torch.Generator().manual_seed(1)
    for name, values in (*model.named_parameters(), *model.named_buffers()):
        if "bias" in name:
            nn.init.normal_(values, std=0.3, generator=generator)
    if dtype == torch.float64:
        model.set_experts_implementation("eager")
    return model.to(dtype)


def mixture_engine(
    family: str, dtype: torch.dtype = torch.float32, share: bool = True, **changes: Any
) -> TransformersEngine:
    return TransformersEngine(tiny_mixture(family, dtype, **changes), tiny_tokenizer(), f"tiny-{family}", share)


def neurons_of(family: str) -> int:
    return LAYERS * MIXTURES[family].slots * WIDTH
