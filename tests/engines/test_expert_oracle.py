"""The sets of mixtures of experts equal the brute-force oracle's, for every family, rule and way of reading."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from expert_oracle import expert_contributions
from mixtures import EXPERTS, MIXTURES, RAN, WIDTH, mixture_engine, neurons_of, tiny_mixture
from oracle import Activated, activated
from sampled import continued, sampled
from tiny import LAYERS, VOCABULARY

from nad.neurons.activation import ActivationRule, ActivationSet
from nad.stopping import At
from nad.types import Completion, Group, SamplingParams

PROMPT = (257, 71, 68, 75, 75, 78, 258)
K, PER_LAYER, CHUNK = 30, 16, 5
PARAMS = SamplingParams(max_tokens=12)
_TOP_K = ActivationRule(k=K, per_layer=PER_LAYER)
RULES = {
    "top_k": _TOP_K,
    "top_k-off": replace(_TOP_K, router="off"),
    "eta": replace(_TOP_K, keep="eta"),
    "eta-off": replace(_TOP_K, keep="eta", router="off"),
    "chunk": replace(_TOP_K, per="chunk", chunk=CHUNK),
}

model_of = cache(tiny_mixture)
engine_of = cache(mixture_engine)


def expected(family: str, completion: Sequence[int], rule: str) -> Activated:
    name, _, off = rule.partition("-")
    model = model_of(family, torch.float64)
    scores = expert_contributions(model, PROMPT, completion, MIXTURES[family], not off)
    return activated(scores, name, K, PER_LAYER, CHUNK)


def assert_equal(found: ActivationSet | None, oracle: Activated) -> None:
    """Sets and first tokens exactly; peaks to the last place of float16, in which they are held."""
    assert found is not None
    assert found.neuron.tolist() == sorted(oracle)
    assert found.first_token.tolist() == [oracle[neuron][0] for neuron in sorted(oracle)]
    peaks = np.array([oracle[neuron][1] for neuron in sorted(oracle)]).astype(np.float16)
    np.testing.assert_array_max_ulp(found.peak, peaks, maxulp=1)


def sampled_by(family: str, rule: str, dtype: torch.dtype = torch.float32, share: bool = True) -> Group:
    return sampled(engine_of(family, dtype, share), PROMPT, 6, PARAMS, At(12), RULES[rule], signals=True)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("family", MIXTURES)
def test_sampled_sets_equal_the_oracle_on_the_emitted_tokens(family: str, rule: str) -> None:
    group = sampled_by(family, rule)
    assert group.distinct > 1
    assert group.computed_tokens < group.sampled_tokens, "some prefix must be shared for the test to say something"
    for completion in group.completions:
        assert_equal(completion.activations, expected(family, completion.tokens, rule))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("family", MIXTURES)
def test_scored_sets_equal_the_oracle(family: str, rule: str) -> None:
    tokens = tuple(np.random.default_rng(0).integers(0, VOCABULARY, 13).tolist())
    assert_equal(engine_of(family).score(PROMPT, tokens, RULES[rule]).activations, expected(family, tokens, rule))


def assert_same(one: Completion, other: Completion) -> None:
    assert one.tokens == other.tokens
    assert one.activations is not None and other.activations is not None
    assert one.activations.neuron.tolist() == other.activations.neuron.tolist()
    assert one.activations.first_token.tolist() == other.activations.first_token.tolist()


@pytest.mark.parametrize("family", MIXTURES)
def test_sharing_prefixes_changes_neither_tokens_nor_sets(family: str) -> None:
    shared, alone = (sampled_by(family, "top_k", torch.float64, share) for share in (True, False))
    assert shared.computed_tokens < alone.computed_tokens == alone.sampled_tokens
    for one, other in zip(shared.completions, alone.completions, strict=True):
        assert_same(one, other)
        assert one.signals is not None and other.signals is not None
        np.testing.assert_array_equal(one.signals.chunk_neurons, other.signals.chunk_neurons)


@pytest.mark.parametrize("family", MIXTURES)
def test_what_is_sampled_is_what_is_scored(family: str) -> None:
    engine = engine_of(family, torch.float64)
    for completion in sampled_by(family, "top_k", torch.float64).completions:
        assert_same(completion, engine.score(PROMPT, completion.tokens, RULES["top_k"]))


@pytest.mark.parametrize("family", ["qwen3-moe", "deepseek-v3", "gpt-oss"])
def test_the_kept_sample_goes_on_as_it_would_have(family: str) -> None:
    engine = engine_of(family, torch.float64)
    whole = sampled(engine, PROMPT, 6, PARAMS, At(12), None)
    for sample in (0, 5):
        assert continued(engine, PROMPT, 6, PARAMS, At(4), sample).tokens == whole.completions[sample].tokens


@pytest.mark.parametrize("family", ["qwen3-moe-dense-between", "deepseek-v2"])
@pytest.mark.parametrize("rule", ["top_k", "eta"])
def test_scoring_in_small_parts_changes_nothing(family: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sampled_by(family, rule)
    monkeypatch.setattr("nad.engines.capture.recorder._GATE_BYTES", 1)
    monkeypatch.setattr("nad.engines.capture.expert_scoring._LAYER_BYTES", 1)
    for one, other in zip(whole.completions, sampled_by(family, rule).completions, strict=True):
        assert_same(one, other)


def test_a_text_longer_than_one_piece_of_the_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = tuple(np.random.default_rng(2).integers(0, 256, 13).tolist())
    for module in ("engine", "decoder"):
        monkeypatch.setattr(f"nad.engines.transformers.{module}.PREFILL_TOKENS", 8)
    found = engine_of("deepseek-v3").score(PROMPT, tokens, RULES["top_k"]).activations
    assert_equal(found, expected("deepseek-v3", tokens, "top_k"))


@pytest.mark.parametrize("family", MIXTURES)
def test_a_neuron_is_a_layer_an_expert_and_a_place_in_it(family: str) -> None:
    """All neurons that one token can activate: those of the experts it goes to, the shared ones, a dense layer's."""
    engine, traits = engine_of(family), MIXTURES[family]
    assert (engine.layers, engine.experts, engine.neurons) == (LAYERS, traits.slots, neurons_of(family))
    found = engine.score(PROMPT, (7,), ActivationRule(k=10_000, per_layer=10_000)).activations
    assert found is not None
    layer, rest = np.divmod(found.neuron, engine.experts * WIDTH)
    expert = rest // WIDTH
    for number in range(LAYERS):
        here = expert[layer == number]
        if number in traits.dense:
            assert len(here) == engine._model.config.intermediate_size
        else:
            ran, places = np.unique(here[here < EXPERTS], return_counts=True)
            assert (len(ran), set(places.tolist())) == (RAN, {WIDTH})
            assert np.count_nonzero(here >= EXPERTS) == traits.shared


def test_the_weight_of_the_router_decides_what_is_kept() -> None:
    with_it, without = (
        engine_of("qwen3-moe").score(PROMPT, (7,), RULES[rule]).activations for rule in ("top_k", "top_k-off")
    )
    assert with_it is not None and without is not None
    assert set(with_it.neuron.tolist()) != set(without.neuron.tolist())


@pytest.mark.parametrize("family", ["qwen3-moe", "gpt-oss"])
def test_half_precision_is_read_as_well(family: str) -> None:
    tokens = tuple(np.random.default_rng(0).integers(0, VOCABULARY, 13).tolist())
    half = engine_of(family, torch.bfloat16).score(PROMPT, tokens, RULES["top_k"]).activations
    exact = set(expected(family, tokens, "top_k"))
    assert half is not None
    assert len(exact & set(half.neuron.tolist())) > 0.6 * len(exact)
