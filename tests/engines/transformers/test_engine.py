"""What the engine promises about samples: seeds, sharing, continuation, stop tokens, the window, and its errors."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sampled import continued, sampled
from tiny import END, NEURONS, VOCABULARY, WINDOW, Family, built, tiny_config, tiny_engine, tiny_model, tiny_tokenizer
from transformers import GPT2Config, MiniMaxConfig, PretrainedConfig

from nad.engines import load_engine
from nad.engines.transformers.decoder import Forward, State
from nad.engines.transformers.engine import TransformersEngine
from nad.engines.transformers.token_draws import uniforms
from nad.errors import NadError, UsageError
from nad.neurons.activation import ActivationRule
from nad.stopping import At, Budget, Distinct, Never
from nad.types import Completion, Group, Message, SamplingParams

PROMPT = (257, 71, 68, 75, 75, 78, 258)
RULE = ActivationRule(k=30, per_layer=16, chunk=4)
CHUNKS_OF_TWO = replace(RULE, per="chunk", chunk=2)
PARAMS = SamplingParams(max_tokens=14)
MANY_ENDS = [END, *range(40, 70)]
"""So many stop tokens that random samples meet one."""

engine_of = cache(tiny_engine)


def exact(share: bool = True) -> TransformersEngine:
    return engine_of("llama", torch.float64, share)


def assert_same_samples(one: Completion, other: Completion) -> None:
    assert (one.tokens, one.text, one.finish_reason) == (other.tokens, other.text, other.finish_reason)
    assert one.activations == other.activations


def stock_tokens(sample: int, params: SamplingParams) -> list[int]:
    """Nucleus sampling by inversion with a plain forward pass over everything for each token."""
    model = tiny_model("llama", torch.float64)
    tokens: list[int] = []
    for u in uniforms(params.seed, np.array([sample]), 0, params.max_tokens)[0]:
        with torch.no_grad():
            logits = model(torch.tensor([[*PROMPT, *tokens]]), use_cache=False).logits[0, -1].numpy()
        p = np.exp(logits / params.temperature - np.max(logits / params.temperature))
        order = np.argsort(-p)
        cdf = np.cumsum(p[order] / p.sum())
        nucleus = int(np.argmax(cdf >= params.top_p))
        tokens.append(int(order[np.argmax(cdf > u * cdf[nucleus])]))
        if tokens[-1] == END:
            break
    return tokens


def test_tokens_are_those_of_a_plain_loop_over_the_stock_model() -> None:
    group = sampled(exact(), PROMPT, 5, PARAMS, Never(), None)
    for completion in group.completions:
        assert list(completion.tokens) == stock_tokens(completion.index, PARAMS)


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3"])
def test_sharing_prefixes_changes_neither_tokens_nor_sets(family: str) -> None:
    with_, without = (
        sampled(engine_of(family, torch.float64, share), PROMPT, 8, PARAMS, At(10), RULE) for share in (True, False)
    )
    assert with_.computed_tokens < without.computed_tokens == without.sampled_tokens
    assert with_.computed_tokens == with_.prefixes.computed[-1]
    for one, other in zip(with_.completions, without.completions, strict=True):
        assert_same_samples(one, other)


def test_a_sample_does_not_depend_on_how_many_there_are() -> None:
    four, sixteen = (sampled(exact(), PROMPT, n, PARAMS, At(10), RULE) for n in (4, 16))
    for one, other in zip(four.completions, sixteen.completions, strict=False):
        assert_same_samples(one, other)


def test_the_seed_decides() -> None:
    tokens = [
        [c.tokens for c in sampled(exact(), PROMPT, 4, replace(PARAMS, seed=seed), At(8), None).completions]
        for seed in (1, 1, 2, 2**64 - 1)
    ]
    assert tokens[0] == tokens[1]
    assert tokens[1] != tokens[2]


@pytest.mark.parametrize("stop", [1, 5])
def test_continued_samples_equal_those_that_never_stopped(stop: int) -> None:
    full = sampled(exact(), PROMPT, 4, PARAMS, Never(), RULE)
    group = sampled(exact(), PROMPT, 4, PARAMS, At(stop), RULE)
    for prefix, whole in zip(group.completions, full.completions, strict=True):
        assert prefix.tokens == whole.tokens[:stop]
        assert prefix.finish_reason is None
        assert prefix.activations.neuron.tolist() == whole.activations.prefix(stop).neuron.tolist()
        assert continued(exact(), PROMPT, 4, PARAMS, At(stop), whole.index).tokens == whole.tokens


def test_every_stop_token_ends_a_sample_and_finished_samples_leave() -> None:
    engine = tiny_engine("llama", torch.float64, eos=MANY_ENDS)
    assert engine.eos == frozenset(MANY_ENDS)
    widths: list[int] = []
    step = engine._decoder.step

    def counted(state: State, tokens: torch.Tensor, capture: bool = False) -> Forward:
        widths.append(len(tokens))
        return step(state, tokens, capture)

    engine._decoder.step = counted  # type: ignore[method-assign]
    group = sampled(engine, PROMPT, 12, PARAMS, Never(), RULE)
    reasons = {c.finish_reason for c in group.completions}
    assert reasons == {"stop", "length"}
    assert len({c.tokens[-1] for c in group.completions if c.finish_reason == "stop"}) > 1
    for c in group.completions:
        inside, last = c.tokens[:-1], c.tokens[-1]
        assert not set(inside) & engine.eos
        assert (last in engine.eos) == (c.finish_reason == "stop")
        assert c.finish_reason == "stop" or len(c.tokens) == PARAMS.max_tokens
    alive = [len({c.tokens[:t] for c in group.completions if len(c.tokens) > t}) for t in range(1, PARAMS.max_tokens)]
    assert widths == alive
    assert group.computed_tokens == group.prefixes.computed[-1]


def test_a_continuation_ends_at_a_stop_token() -> None:
    engine = tiny_engine("llama", torch.float64, eos=MANY_ENDS)
    full = sampled(engine, PROMPT, 12, PARAMS, Never(), None).completions
    ended = [i for i, c in enumerate(full) if c.finish_reason == "stop" and len(c.tokens) > 2]
    assert ended
    for i in ended:
        assert continued(engine, PROMPT, 12, PARAMS, At(2), i) == replace(full[i], activations=None)


def test_a_sample_that_fills_max_tokens_is_finished_at_the_stop_position() -> None:
    group = sampled(exact(), PROMPT, 2, replace(PARAMS, max_tokens=5), At(5), None)
    assert {c.finish_reason for c in group.completions} == {"length"}


def test_stop_rules_stop_where_they_say() -> None:
    def position(group: Group) -> int:
        return group.position

    assert position(sampled(exact(), PROMPT, 4, PARAMS, At(3), None)) == 3
    distinct = sampled(exact(), PROMPT, 4, PARAMS, Distinct(), None)
    assert distinct.distinct == 4
    assert len({c.tokens[:-1] for c in distinct.completions}) < 4
    budget = sampled(exact(), PROMPT, 4, PARAMS, Budget(17), None)
    assert budget.prefixes.computed[-2] < 17 <= budget.computed_tokens


def test_temperature_zero_is_greedy_and_costs_one_sample() -> None:
    group = sampled(exact(), PROMPT, 5, replace(PARAMS, temperature=0), At(6), RULE)
    assert (group.distinct, group.computed_tokens) == (1, 6)
    model = tiny_model("llama", torch.float64)
    tokens: list[int] = []
    for _ in range(6):
        tokens.append(int(model(torch.tensor([[*PROMPT, *tokens]])).logits[0, -1].argmax()))
    assert list(group.completions[0].tokens) == tokens


def test_signals_of_sampled_and_scored_completions_are_the_same() -> None:
    for completion in sampled(exact(), PROMPT, 3, PARAMS, Never(), RULE, signals=True).completions:
        again = exact().score(PROMPT, completion.tokens, RULE, signals=True)
        assert again.activations == completion.activations
        assert completion.signals is not None and again.signals is not None
        for name in ("logprob", "entropy", "self_certainty", "confidence"):
            np.testing.assert_allclose(getattr(completion.signals, name), getattr(again.signals, name), rtol=1e-5)
        assert completion.signals.chunk_neurons.tolist() == again.signals.chunk_neurons.tolist()


@pytest.mark.parametrize("rule", [RULE, replace(RULE, chunk=7), replace(RULE, per="chunk"), CHUNKS_OF_TWO])
def test_unique_neurons_of_each_chunk(rule: ActivationRule, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted over the same chunks whatever the rule's own chunks are."""
    for module in ("recorder", "unions"):
        monkeypatch.setattr(f"nad.engines.capture.{module}.CHUNK", 4)
    tokens = tuple(range(60, 70))
    found = exact().score(PROMPT, tokens, rule, signals=True).signals
    assert found is not None
    per_chunk = []
    for start in range(0, len(tokens), 4):
        chunk = exact().score((*PROMPT, *tokens[:start]), tokens[start : start + 4], rule)
        per_chunk.append(len(chunk.activations))
    assert found.chunk_neurons.tolist() == per_chunk


@pytest.mark.parametrize("chunk", [6, 8, 64])
def test_unique_neurons_where_the_rules_chunks_are_longer(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("recorder", "unions"):
        monkeypatch.setattr(f"nad.engines.capture.{module}.CHUNK", 4)
    rule = replace(RULE, per="chunk", chunk=chunk)
    scored = exact().score(PROMPT, tuple(range(60, 70)), rule, signals=True)
    assert scored.signals is not None
    counts = scored.signals.chunk_neurons.tolist()
    growth = scored.activations.growth(10)
    assert counts[0] == growth[3]
    assert len(counts) == 3
    assert max(counts) <= growth[9] <= sum(counts)


def test_more_neurons_than_a_record_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nad.engines.capture.unions.np.iinfo", lambda kind: SimpleNamespace(max=10))
    with pytest.raises(NadError, match="more than 10 neurons in a chunk of 32 tokens"):
        exact().score(PROMPT, (60, 61), RULE, signals=True)


def test_signals_without_capture() -> None:
    completion = sampled(exact(), PROMPT, 2, PARAMS, At(4), None, signals=True).completions[0]
    assert completion.signals is not None
    assert len(completion.signals.logprob) == 4
    assert len(completion.signals.chunk_neurons) == 0
    assert completion.activations is None


def test_max_tokens_is_cut_to_the_context_window() -> None:
    engine = engine_of("llama")
    prompt = tuple([65] * (WINDOW - 3))
    group = sampled(engine, prompt, 2, SamplingParams(), Never(), None)
    assert [len(c.tokens) for c in group.completions] == [3, 3]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.start((65,) * WINDOW, 2, PARAMS, None), f"prompt has {WINDOW} tokens.*window of {WINDOW}"),
        (lambda e: e.score((65,) * 200, (65,) * 58, RULE), f"258 tokens.*window of {WINDOW}"),
        (lambda e: e.start((), 2, PARAMS, None), "prompt is empty"),
        (lambda e: e.start(PROMPT, 10**9, PARAMS, RULE), r"1,000,000,000 samples need at least 1264\.0 GB"),
        (lambda e: e.score((1,), (), RULE), "at least one token"),
        (lambda e: e.score((1,), (VOCABULARY,), RULE), f"no token {VOCABULARY}:.*{VOCABULARY - 1}"),
        (lambda e: e.score((1, -1), (3,), RULE), f"no token -1:.*{VOCABULARY - 1}"),
        (lambda e: e.start((VOCABULARY + 5,), 2, PARAMS, None), f"token {VOCABULARY + 5}"),
        (lambda e: e.encode([Message("user", "x")], raw=True), "raw prompt must be one text"),
        (lambda e: e.encode("x", False, {"thinking": True}), "no argument thinking"),
        (lambda e: e.encode("x", False, {"add_generation_prompt": False}), "add_generation_prompt is not for"),
        (lambda e: e.encode("x", False, {"messages": 1}), "messages is not for"),
        (lambda e: e.encode("x", True, {"enable_thinking": True}), "drop --raw or --template-arg"),
    ],
)
def test_calls_that_cannot_be_served(call: Callable[[TransformersEngine], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call(engine_of("llama"))


def test_the_longest_text_that_fits_is_scored() -> None:
    assert len(engine_of("llama").score((65,) * 200, (65,) * 57, RULE).tokens) == 57


def test_chat_template_and_its_arguments() -> None:
    engine = engine_of("llama")
    assert engine.encode("hi") == (257, 71, 72, 258)
    assert engine.encode([Message("system", "a"), Message("user", "b")]) == (259, 64, 257, 65, 258)
    assert engine.encode("hi", False, {"enable_thinking": True}) == (257, 71, 72, 258, 260)
    assert engine.encode("hi", raw=True) == engine.encode_completion("hi") == (71, 72)
    assert engine.decode((257, 71, 72, 258)) == "hi"


def test_a_model_without_chat_template_wants_raw() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    engine = TransformersEngine(tiny_model("llama"), tokenizer, "tiny")
    assert engine.encode("hi", raw=True) == (71, 72)
    with pytest.raises(UsageError, match="no chat template; pass --raw"):
        engine.encode("hi")


def test_a_template_that_refuses_is_the_callers_mistake() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no system messages') }}"
    with pytest.raises(UsageError, match="no system messages"):
        TransformersEngine(tiny_model("llama"), tokenizer, "tiny").encode("hi")


_SIZES = {"vocab_size": 264, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_EXPERTS = {**_SIZES, "intermediate_size": 48, "num_key_value_heads": 2, "pad_token_id": None, "bos_token_id": None}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GPT2Config(vocab_size=264, n_embd=32, n_layer=2, n_head=4), "GPT2LMHeadModel has no gated feed-forward"),
        (
            MiniMaxConfig(**_EXPERTS, num_local_experts=4, layer_types=["linear_attention", "full_attention"]),
            "MiniMaxForCausalLM does not run with a cache of keys and values: MiniMax uses cache of its own",
        ),
    ],
)
def test_models_it_cannot_read(config: PretrainedConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        TransformersEngine(built(config), tiny_tokenizer(), "tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["lm_head", "model.layers.1.mlp.gate_proj", "model.layers.1.self_attn.o_proj"])
def test_weights_that_are_not_numbers(where: str) -> None:
    model = tiny_model("llama")
    model.get_submodule(where).weight.data.fill_(torch.nan)
    with pytest.raises(NadError, match="not finite numbers"):
        sampled(TransformersEngine(model, tiny_tokenizer(), "tiny"), PROMPT, 2, PARAMS, At(3), RULE)


def test_merged_gate_is_the_first_half_whatever_the_activation() -> None:
    model = built(tiny_config(Family("phi3", {"sliding_window": None}), hidden_act="relu"))
    engine = TransformersEngine(model, tiny_tokenizer(), "tiny")
    assert engine._ffns.ffns[0].half == slice(0, NEURONS)


def test_a_layer_that_overwrites_its_gates_is_refused() -> None:
    """What a tap keeps would silently be act(x W_g) times x W_up."""
    model = tiny_model("llama")
    for layer in model.model.layers:
        mlp = layer.mlp
        mlp.forward = lambda x, mlp=mlp: mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)).mul_(mlp.up_proj(x)))
    with pytest.raises(UsageError, match="has no gated feed-forward layer"):
        TransformersEngine(model, tiny_tokenizer(), "tiny")


@pytest.mark.gpu
def test_a_gpu_samples_what_the_cpu_samples() -> None:
    on_gpu = TransformersEngine(tiny_model("llama", torch.float64).to("cuda"), tiny_tokenizer(), "tiny")
    groups = [sampled(engine, PROMPT, 8, PARAMS, At(10), RULE) for engine in (exact(), on_gpu)]
    for one, other in zip(groups[0].completions, groups[1].completions, strict=True):
        assert_same_samples(one, other)
        ends = [continued(engine, PROMPT, 8, PARAMS, At(10), one.index) for engine in (exact(), on_gpu)]
        assert ends[0].tokens == ends[1].tokens


def test_unknown_engine_is_named_with_the_known() -> None:
    with pytest.raises(UsageError, match="unknown engine 'magic'; allowed: transformers"):
        load_engine(engine="magic")
