"""Own positions and experts together: a token is scored by the experts that it itself was sent to."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from expert_oracle import expert_contributions
from mixtures import MIXTURES, mixture_engine, tiny_mixture
from oracle import activated
from sampled import sampled

from nad.neurons.activation import ActivationRule
from nad.stopping import At
from nad.types import SamplingParams

PROMPT = (257, 71, 68, 75, 258)
RULE = ActivationRule(k=30, per_layer=16, position="own")
engine_of = cache(mixture_engine)


@pytest.mark.parametrize("family", ["qwen3-moe", "deepseek-v3", "gpt-oss"])
@pytest.mark.parametrize("router", ["on", "off"])
def test_the_oracle_reads_one_position_later(family: str, router: str) -> None:
    rule = replace(RULE, router=router)  # type: ignore[arg-type]
    engine = engine_of(family)
    group = sampled(engine, PROMPT, 4, SamplingParams(max_tokens=8), At(8), rule)
    model = tiny_mixture(family, torch.float64)
    for completion in group.completions:
        tokens = completion.tokens
        scores = expert_contributions(model, PROMPT, tokens, MIXTURES[family], router == "on", own=True)
        expected = activated(scores, "top_k", 30, 16)
        for found in (completion.activations, engine.score(PROMPT, tokens, rule).activations):
            assert found is not None
            assert found.neuron.tolist() == sorted(expected)
            assert found.first_token.tolist() == [expected[neuron][0] for neuron in sorted(expected)]
