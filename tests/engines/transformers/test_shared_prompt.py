"""Attention that is not plain: sliding windows, soft caps, sinks, attention that cannot be replaced."""

from typing import Any

import numpy as np
import pytest
import torch
from oracle import activated, contributions
from sampled import continued, sampled
from tiny import FAMILIES, SLIDING, tiny_engine, tiny_model, tiny_tokenizer
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask
from transformers.models.llama.modeling_llama import LlamaAttention

from nad.engines.transformers.engine import TransformersEngine
from nad.neurons.activation import ActivationRule
from nad.stopping import At, Never
from nad.types import SamplingParams

K, PER_LAYER = 30, 16
RULE = ActivationRule(k=K, per_layer=PER_LAYER)
PROMPT = (257, *range(60, 80), 258)
"""Longer than any sliding window here."""

WINDOWS: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 6},
    "phi3": {"sliding_window": 6},
    "qwen2": {"use_sliding_window": True, "sliding_window": 6, "layer_types": SLIDING},
    "gemma2": {"sliding_window": 6, "layer_types": SLIDING, "attn_logit_softcapping": 2.0},
    "gemma3": {"sliding_window": 6, "layer_types": SLIDING},
}


def assert_reads_like_the_stock_model(engine: TransformersEngine, stock: PreTrainedModel, family: str) -> None:
    """Sampled prefixes, continuations and scored texts against one plain forward pass, `stock` in float64."""
    traits = FAMILIES[family]
    params = SamplingParams(max_tokens=14)
    group = sampled(engine, PROMPT, 4, params, At(10), RULE)
    assert group.distinct > 1
    for completion in group.completions:
        oracle = activated(
            contributions(stock, PROMPT, completion.tokens, traits.merged, traits.gelu), "top_k", K, PER_LAYER
        )
        scored = engine.score(PROMPT, completion.tokens, RULE).activations
        for found in (completion.activations, scored):
            assert found.neuron.tolist() == sorted(oracle)
            assert found.first_token.tolist() == [oracle[neuron][0] for neuron in sorted(oracle)]
    for whole in sampled(engine, PROMPT, 4, params, Never(), None).completions:
        assert continued(engine, PROMPT, 4, params, At(10), whole.index).tokens == whole.tokens


@pytest.mark.parametrize("family", WINDOWS)
def test_sliding_windows_shorter_than_the_prompt(family: str) -> None:
    engine = tiny_engine(family, torch.float64, **WINDOWS[family])
    assert not any("stock attention" in note for note in engine.notes)
    assert_reads_like_the_stock_model(engine, tiny_model(family, torch.float64, **WINDOWS[family]), family)


@pytest.mark.parametrize("family", WINDOWS)
def test_the_window_matters_to_the_test(family: str) -> None:
    """Otherwise the test above could pass without any window."""
    tokens = tuple(range(100, 108))
    wide = {**WINDOWS[family], "sliding_window": 200}
    found = [
        tiny_engine(family, **changes).score(PROMPT, tokens, RULE).activations for changes in (WINDOWS[family], wide)
    ]
    assert found[0] != found[1]


def test_soft_caps_matter_to_the_test() -> None:
    tokens = tuple(range(100, 108))
    changes = [{**WINDOWS["gemma2"], "attn_logit_softcapping": cap} for cap in (2.0, None)]
    found = [tiny_engine("gemma2", **change).score(PROMPT, tokens, RULE).activations for change in changes]
    assert found[0] != found[1]


@pytest.mark.parametrize("family", ["llama", *WINDOWS])
def test_attention_that_cannot_be_replaced(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = WINDOWS.get(family, {})
    model = tiny_model(family, torch.float64, **changes)
    monkeypatch.setattr(type(model), "_supports_attention_backend", False)
    engine = TransformersEngine(model, tiny_tokenizer(), "tiny")
    (note,) = engine.notes
    assert note.startswith("stock attention in use, right but slower")
    assert "cannot be replaced" in note
    assert_reads_like_the_stock_model(engine, tiny_model(family, torch.float64, **changes), family)


def sink_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Eager attention with one more logit a head that takes weight and gives nothing."""
    heads = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(heads, dim=1), value.repeat_interleave(heads, dim=1)
    scores = query @ key.transpose(2, 3) * options["scaling"]
    if attention_mask is not None:
        scores = scores + attention_mask
    sinks = options["s_aux"].reshape(1, -1, 1, 1).expand(len(scores), -1, scores.shape[2], 1)
    weights = torch.softmax(torch.cat([scores, sinks], dim=-1), dim=-1)[..., :-1]
    return (weights @ value).transpose(1, 2), None


class SinkAttention(LlamaAttention):
    """Llama's attention with a sink for each head, passed on as GPT-OSS does."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, s_aux=self.sinks, **kwargs)


def sink_model() -> PreTrainedModel:
    AttentionInterface.register("sinks_of_the_tests", sink_attention)
    AttentionMaskInterface.register("sinks_of_the_tests", eager_mask)
    model = tiny_model("llama", torch.float64)
    for i, layer in enumerate(model.model.layers):
        layer.self_attn.__class__ = SinkAttention
        layer.self_attn.sinks = nn.Parameter(torch.linspace(0, 2 + i, 4, dtype=torch.float64))
    model.config._attn_implementation = "sinks_of_the_tests"
    return model


def test_attention_with_sinks_falls_back_to_the_stock_attention_and_says_so() -> None:
    engine = TransformersEngine(sink_model(), tiny_tokenizer(), "tiny")
    assert engine.notes == ("stock attention in use, right but slower: the prompt is copied for each row (s_aux)",)
    assert_reads_like_the_stock_model(engine, sink_model(), "llama")


def test_attention_that_differs_unsaid_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A term that reaches the attention on no argument: only the logits show it."""
    model = tiny_model("llama", torch.float64)
    AttentionInterface.register("twice_of_the_tests", twice)
    AttentionMaskInterface.register("twice_of_the_tests", eager_mask)
    model.config._attn_implementation = "twice_of_the_tests"
    engine = TransformersEngine(model, tiny_tokenizer(), "tiny")
    (note,) = engine.notes
    assert "other logits" in note
    assert sampled(engine, PROMPT, 2, SamplingParams(max_tokens=4), At(4), RULE).position == 4


def twice(module: nn.Module, query: Tensor, *args: Any, **options: Any) -> tuple[Tensor, None]:
    return sink_attention(module, 2 * query, *args, **{**options, "s_aux": torch.full((4,), -1e9, dtype=query.dtype)})


def test_half_precision_takes_the_shared_form_as_well() -> None:
    engine = tiny_engine("llama", torch.bfloat16)
    assert not any("stock attention" in note for note in engine.notes)
    group = sampled(engine, PROMPT, 4, SamplingParams(max_tokens=6), At(6), RULE)
    assert all(np.isfinite(c.activations.peak).all() and len(c.activations) > K for c in group.completions)
