"""The engine's sets equal the brute-force oracle's, for every family, rule and way of reading a completion."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from oracle import Activated, activated, contributions
from sampled import sampled
from tiny import FAMILIES, LAYERS, NEURONS, VOCABULARY, tiny_engine, tiny_model

from nad.neurons.activation import ActivationRule, ActivationSet
from nad.stopping import At
from nad.types import Group, SamplingParams

PROMPT = (257, 71, 68, 75, 75, 78, 258)
K, PER_LAYER, CHUNK = 30, 16, 5
RULES = {
    "top_k": ActivationRule(k=K, per_layer=PER_LAYER),
    "eta": ActivationRule(keep="eta", k=K, per_layer=PER_LAYER),
    "chunk": ActivationRule(k=K, per_layer=PER_LAYER, per="chunk", chunk=CHUNK),
}
RULES |= {f"{name}-own": replace(rule, position="own") for name, rule in RULES.items()}


model_of = cache(tiny_model)
engine_of = cache(tiny_engine)


def expected(family: str, completion: Sequence[int], rule: str, prompt: Sequence[int] = PROMPT) -> Activated:
    traits = FAMILIES[family]
    model = model_of(family, torch.float64)
    name, _, own = rule.partition("-")
    scores = contributions(model, prompt, completion, traits.merged, traits.gelu, bool(own))
    return activated(scores, name, K, PER_LAYER, CHUNK)


def assert_equal(found: ActivationSet, oracle: Activated) -> None:
    """Sets and first tokens exactly; peaks to the last place of float16, in which they are held."""
    assert found.neuron.tolist() == sorted(oracle)
    assert found.first_token.tolist() == [oracle[neuron][0] for neuron in sorted(oracle)]
    peaks = np.array([oracle[neuron][1] for neuron in sorted(oracle)]).astype(np.float16)
    np.testing.assert_array_max_ulp(found.peak, peaks, maxulp=1)


def sampled_by(family: str, rule: str) -> Group:
    return sampled(engine_of(family), PROMPT, 6, SamplingParams(max_tokens=12), At(12), RULES[rule])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("family", FAMILIES)
def test_sampled_sets_equal_the_oracle_on_the_emitted_tokens(family: str, rule: str) -> None:
    group = sampled_by(family, rule)
    assert group.distinct > 1
    assert group.computed_tokens < group.sampled_tokens, "some prefix must be shared for the test to say something"
    for completion in group.completions:
        assert_equal(completion.activations, expected(family, completion.tokens, rule))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("family", FAMILIES)
def test_scored_sets_equal_the_oracle(family: str, rule: str) -> None:
    tokens = tuple(np.random.default_rng(0).integers(0, VOCABULARY, 13).tolist())
    completion = engine_of(family).score(PROMPT, tokens, RULES[rule])
    assert_equal(completion.activations, expected(family, tokens, rule))


def test_special_tokens_have_rows_in_the_unembedding() -> None:
    tokens = (256, 260, VOCABULARY - 1)
    found = engine_of().score(PROMPT, tokens, RULES["top_k"])
    assert_equal(found.activations, expected("llama", tokens, "top_k"))


@pytest.mark.parametrize("rule", RULES)
def test_a_prompt_of_one_token(rule: str) -> None:
    tokens = (10, 20, 30)
    engine = engine_of()
    assert_equal(engine.score((5,), tokens, RULES[rule]).activations, expected("llama", tokens, rule, (5,)))
    for sample in sampled(engine, (5,), 3, SamplingParams(max_tokens=4), At(4), RULES[rule]).completions:
        assert_equal(sample.activations, expected("llama", sample.tokens, rule, (5,)))


def test_texts_longer_than_one_piece_of_the_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("engine", "decoder"):
        monkeypatch.setattr(f"nad.engines.transformers.{module}.PREFILL_TOKENS", 8)
    prompt = tuple(np.random.default_rng(1).integers(0, 256, 21).tolist())
    tokens = tuple(np.random.default_rng(2).integers(0, 256, 13).tolist())
    engine = engine_of()
    for rule in RULES:
        assert_equal(engine.score(prompt, tokens, RULES[rule]).activations, expected("llama", tokens, rule, prompt))
    group = sampled(engine, prompt, 4, SamplingParams(max_tokens=6), At(6), RULES["top_k"])
    for sample in group.completions:
        assert_equal(sample.activations, expected("llama", sample.tokens, "top_k", prompt))


def test_scoring_in_small_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {rule: sampled_by("llama", rule) for rule in RULES}
    monkeypatch.setattr("nad.engines.capture.recorder._GATE_BYTES", 1)
    monkeypatch.setattr("nad.engines.capture.scoring._SCORE_BYTES", 1)
    for rule, group in whole.items():
        for one, other in zip(group.completions, sampled_by("llama", rule).completions, strict=True):
            assert one.tokens == other.tokens
            assert one.activations.neuron.tolist() == other.activations.neuron.tolist()
            assert one.activations.first_token.tolist() == other.activations.first_token.tolist()


def test_a_token_activates_at_most_k_neurons_and_at_most_per_layer_of_a_layer() -> None:
    found = engine_of().score(PROMPT, (7,), RULES["top_k"]).activations
    assert len(found) == K
    assert max(np.bincount(found.neuron // NEURONS, minlength=LAYERS)) <= PER_LAYER


def test_k_beyond_what_the_layers_keep_takes_all_they_keep() -> None:
    found = engine_of().score(PROMPT, (7,), ActivationRule(k=500, per_layer=4)).activations
    assert np.bincount(found.neuron // NEURONS).tolist() == [4] * LAYERS


def test_per_layer_beyond_the_layers_width_takes_the_layer() -> None:
    found = engine_of().score(PROMPT, (7,), ActivationRule(k=500, per_layer=64)).activations
    assert len(found) == LAYERS * NEURONS
