"""Eq. 1 of mixtures of experts by brute force, in float64 and in plain loops; routers and gates are written out here.

Nothing here calls nad, and nothing reads what the model routed: the choice and the weights follow from the inputs.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from mixtures import WIDTH, Mixture
from oracle import ffn_inputs, silu
from transformers import PreTrainedModel


def _array(weight: Any) -> np.ndarray:
    return weight.detach().numpy()


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _largest(values: np.ndarray, k: int) -> list[int]:
    return sorted(range(len(values)), key=lambda i: -values[i])[:k]


def _in_best_groups(scores: np.ndarray, of_group: int, config: Any) -> np.ndarray:
    """Scores outside the best groups are out of reach; a group is as good as the sum of its `of_group` best."""
    groups = scores.reshape(config.n_group, -1)
    best = _largest(np.sort(groups, axis=1)[:, -of_group:].sum(axis=1), config.topk_group)
    reach = np.full_like(groups, -np.inf)
    reach[best] = groups[best]
    return reach.ravel()


def routed(mlp: Any, config: Any, x: np.ndarray) -> dict[int, float]:
    """The experts that one token goes to, with their weights."""
    kind, k = config.model_type, config.num_experts_per_tok
    logits = _array((mlp.router if kind == "gpt_oss" else mlp.gate).weight) @ x
    if kind == "gpt_oss":
        logits = logits + _array(mlp.router.bias)
        chosen = _largest(logits, k)
        return dict(zip(chosen, _softmax(logits[chosen]).tolist(), strict=True))
    if kind == "deepseek_v3":
        scores = _sigmoid(logits)
        chosen = _largest(_in_best_groups(scores + _array(mlp.gate.e_score_correction_bias), 2, config), k)
        return {e: float(scores[e] / scores[chosen].sum() * config.routed_scaling_factor) for e in chosen}
    scores = _softmax(logits)
    if kind == "deepseek_v2":
        chosen = _largest(_in_best_groups(scores, 1, config), k)
        return {e: float(scores[e] * config.routed_scaling_factor) for e in chosen}
    chosen = _largest(scores, k)
    total = scores[chosen].sum() if kind == "mixtral" or config.norm_topk_prob else 1.0
    return {e: float(scores[e] / total) for e in chosen}


def _expert(mlp: Any, config: Any, e: int, x: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """W_out of one expert, and its gates."""
    down, merged = _array(mlp.experts.down_proj[e]), _array(mlp.experts.gate_up_proj[e])
    if config.model_type != "gpt_oss":
        return down, [silu(float(g)) for g in merged[:WIDTH] @ x]
    before = (x @ merged + _array(mlp.experts.gate_up_proj_bias[e]))[0::2]
    cut = [min(float(g), 7.0) for g in before]
    return down.T, [g / (1 + math.exp(-1.702 * g)) for g in cut]


def _plain(mlp: Any, x: np.ndarray) -> tuple[np.ndarray, list[float]]:
    return _array(mlp.down_proj.weight), [silu(float(g)) for g in _array(mlp.gate_proj.weight) @ x]


def expert_contributions(
    model: PreTrainedModel,
    prompt: Sequence[int],
    completion: Sequence[int],
    family: Mixture,
    router: bool,
    own: bool = False,
) -> np.ndarray:
    """f[j, l, expert * N + i], -inf where the expert did not run; what every token passes comes after the routed."""
    config, unembed = model.config, _array(model.get_output_embeddings().weight)
    inputs = ffn_inputs(model, prompt, completion, own)
    scores = np.full((len(completion), len(inputs), family.slots * WIDTH), -np.inf)

    def put(j: int, layer: int, start: int, down: np.ndarray, gates: list[float], weight: float) -> None:
        row = unembed[completion[j]] @ down
        for i, gate in enumerate(gates):
            scores[j, layer, start + i] = row[i] * gate * (weight if router else 1.0)

    for layer, module in enumerate(model.model.layers):
        mlp = module.mlp
        for j, x in enumerate(inputs[layer]):
            if layer in family.dense:
                put(j, layer, 0, *_plain(mlp, x), 1.0)
                continue
            for e, weight in routed(mlp, config, x).items():
                put(j, layer, e * WIDTH, *_expert(mlp, config, e, x), weight)
            start = len(mlp.experts.down_proj) * WIDTH
            if config.model_type == "qwen2_moe":
                share = float(_sigmoid(_array(mlp.shared_expert_gate.weight) @ x)[0])
                put(j, layer, start, *_plain(mlp.shared_expert, x), share)
            elif family.shared:
                put(j, layer, start, *_plain(mlp.shared_experts, x), 1.0)
    return scores
