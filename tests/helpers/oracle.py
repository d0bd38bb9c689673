"""Brute-force oracles, one per equation, in float64 and in plain loops. Nothing here calls nad or uses a cache."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

Activated = dict[int, tuple[int, float]]
"""neuron -> (first token, peak), for one completion."""


def ffn_inputs(
    model: PreTrainedModel, prompt: Sequence[int], completion: Sequence[int], own: bool = False
) -> list[np.ndarray]:
    """x^l at the positions that emitted the completion's tokens, layer by layer: one plain forward pass, no cache.

    With `own` at the positions where the completion's tokens stand, the last one's too.
    """
    seen: list[np.ndarray] = []
    hooks = [
        layer.mlp.register_forward_pre_hook(lambda module, args: seen.append(args[0][0].detach().numpy()))
        for layer in model.model.layers
    ]
    with torch.no_grad():
        model(torch.tensor([[*prompt, *completion]]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return [x[len(prompt) :] if own else x[len(prompt) - 1 : -1] for x in seen]


def silu(x: float) -> float:
    return x / (1 + math.exp(-x))


def gelu_tanh(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def contributions(
    model: PreTrainedModel,
    prompt: Sequence[int],
    completion: Sequence[int],
    merged: bool,
    gelu: bool,
    own: bool = False,
) -> np.ndarray:
    """Eq. 1: f[j, l, i] = (W_u W_out^l)[y_j, i] * act(x^l W_g^l)[i], the product over the whole vocabulary built."""
    act: Callable[[float], float] = gelu_tanh if gelu else silu
    unembed = model.get_output_embeddings().weight.detach().numpy()
    scores = []
    for layer, x in zip(model.model.layers, ffn_inputs(model, prompt, completion, own), strict=True):
        down = layer.mlp.down_proj.weight.detach().numpy()
        gate = (layer.mlp.gate_up_proj if merged else layer.mlp.gate_proj).weight.detach().numpy()[: down.shape[1]]
        product = unembed @ down
        scores.append(
            [
                [product[y, i] * act(float(x[j] @ gate[i])) for i in range(down.shape[1])]
                for j, y in enumerate(completion)
            ]
        )
    return np.array(scores).transpose(1, 0, 2)


def threshold(token_scores: np.ndarray, k: int, per_layer: int) -> float:
    """Eqs. 5 and 6: the k-th largest of the per_layer largest scores of every layer."""
    kept = [score for layer in token_scores for score in sorted(layer, reverse=True)[:per_layer]]
    return sorted(kept, reverse=True)[:k][-1]


def kept_by_top_k(token_scores: np.ndarray, k: int, per_layer: int) -> set[tuple[int, int]]:
    """The (layer, neuron) pairs among the per_layer largest of their layer that reach the threshold."""
    eta = threshold(token_scores, k, per_layer)
    kept = set()
    for layer, row in enumerate(token_scores):
        largest = sorted(range(len(row)), key=lambda i: -row[i])[:per_layer]
        kept |= {(layer, i) for i in largest if row[i] >= eta}
    return kept


def kept_by_eta(token_scores: np.ndarray, k: int, per_layer: int) -> set[tuple[int, int]]:
    """The literal Eq. 2: every neuron whose score is at least eta."""
    eta = threshold(token_scores, k, per_layer)
    return {(int(layer), int(i)) for layer, i in zip(*np.where(token_scores >= eta), strict=True)}


def union(scores: np.ndarray, kept: Sequence[set[tuple[int, int]]]) -> Activated:
    """Eq. 3: the union over tokens, with the first token of each neuron and the largest of its counted scores."""
    found: Activated = {}
    for token, pairs in enumerate(kept):
        for layer, i in pairs:
            neuron, score = layer * scores.shape[2] + i, float(scores[token, layer, i])
            first, peak = found.get(neuron, (token, -math.inf))
            found[neuron] = (first, max(peak, score))
    return found


def activated(scores: np.ndarray, rule: str, k: int, per_layer: int, chunk: int = 32) -> Activated:
    """The neurons of one completion under `top_k`, `eta` or `chunk`."""
    if rule == "chunk":
        return union(scores, _kept_per_chunk(scores, k, per_layer, chunk))
    keep = {"top_k": kept_by_top_k, "eta": kept_by_eta}[rule]
    return union(scores, [keep(token, k, per_layer) for token in scores])


def _kept_per_chunk(scores: np.ndarray, k: int, per_layer: int, chunk: int) -> list[set[tuple[int, int]]]:
    """The k largest of what a chunk's tokens keep, each token bounded by Eqs. 5 and 6 as well."""
    kept = [kept_by_top_k(token, k, per_layer) for token in scores]
    for start in range(0, len(kept), chunk):
        entries = [
            (float(scores[t, layer, i]), t, layer, i)
            for t in range(start, min(start + chunk, len(kept)))
            for layer, i in kept[t]
        ]
        best = {(t, layer, i) for _, t, layer, i in sorted(entries, reverse=True)[:k]}
        for t in range(start, min(start + chunk, len(kept))):
            kept[t] = {(layer, i) for layer, i in kept[t] if (t, layer, i) in best}
    return kept


def jaccard(a: set[int], b: set[int]) -> float:
    """Eq. 4."""
    return len(a & b) / len(a | b) if a | b else 1.0


def weighted_jaccard(a: dict[int, float], b: dict[int, float]) -> float:
    """Sum of minima over sum of maxima of the peaks, by neuron; negative peaks count as 0, and so do absent ones."""
    ids = {*a, *b}
    larger = math.fsum(max(a.get(i, 0.0), b.get(i, 0.0), 0.0) for i in ids)
    smaller = math.fsum(max(min(a.get(i, 0.0), b.get(i, 0.0)), 0.0) for i in ids)
    return smaller / larger if larger else 1.0
