"""The rollout contract: waiting for one's turn, dropping samples, pruning step by step."""

import gc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from sampled import sampled
from tiny import tiny_engine

import nad
from nad.errors import NadError
from nad.neurons.activation import ActivationRule
from nad.stopping import At, Budget, Never
from nad.types import SamplingParams

PROMPT = (257, 71, 68, 75, 75, 78, 258)
RULE = ActivationRule(k=30, per_layer=16)
PARAMS = SamplingParams(max_tokens=14)
CHUNKS = replace(RULE, per="chunk", chunk=4)


def test_eight_threads_get_what_each_would_get_alone() -> None:
    engine = tiny_engine("llama", torch.float64)
    requests = [(f"question {i}", SamplingParams(max_tokens=10, seed=i)) for i in range(40)]

    def answer(request: tuple[str, SamplingParams]) -> nad.Result:
        return nad.generate(engine, request[0], n=3, stop=4, params=request[1], rule=RULE)

    alone = [answer(request) for request in requests]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(answer, requests))
    for one, other in zip(alone, together, strict=True):
        assert one.completion == other.completion
        assert one.scores == other.scores
        assert [c.activations for c in one.group.completions] == [c.activations for c in other.group.completions]


def test_a_thread_that_would_wait_for_itself_is_told() -> None:
    engine = tiny_engine("llama")
    with engine.start(PROMPT, 2, PARAMS, None), pytest.raises(NadError, match="close it before it starts another"):
        engine.start(PROMPT, 2, PARAMS, None)
    assert sampled(engine, PROMPT, 2, PARAMS, At(2), None).position == 2


def test_a_rollout_that_is_dropped_does_not_block_the_engine() -> None:
    engine = tiny_engine("llama")
    engine.start(PROMPT, 2, PARAMS, None)
    gc.collect()
    assert sampled(engine, PROMPT, 2, PARAMS, At(2), None).position == 2


@pytest.mark.parametrize("fast_cpu", [True, False])
@pytest.mark.parametrize("rule", [RULE, CHUNKS, replace(RULE, position="own"), replace(CHUNKS, position="own")])
def test_pruning_step_by_step_gives_each_kept_sample_what_it_would_have_had(
    rule: ActivationRule, fast_cpu: bool
) -> None:
    engine = tiny_engine("llama", torch.float64, fast_cpu=fast_cpu)
    whole = sampled(engine, PROMPT, 8, PARAMS, Never(), rule, signals=True).completions
    with engine.start(PROMPT, 8, PARAMS, rule, signals=True) as rollout:
        for keep, stop in (([6, 1, 3, 2], At(3)), ([1, 3], At(6)), ([3], At(9))):
            assert [p.position for p in rollout.until(stop)][-1] == stop.tokens
            rollout.keep(keep)
            assert [c.index for c in rollout.group().completions] == sorted(keep)
            for completion in rollout.group().completions:
                whole_sample = whole[completion.index]
                assert completion.tokens == whole_sample.tokens[: stop.tokens]
                if rule.per == "token":
                    assert completion.activations.neuron.tolist() == (
                        whole_sample.activations.prefix(stop.tokens).neuron.tolist()
                    )
        for _ in rollout.until(Never()):
            pass
        (last,) = rollout.group().completions
    assert last.tokens == whole[3].tokens
    assert last.activations == whole[3].activations
    assert last.signals.logprob.tolist() == pytest.approx(whole[3].signals.logprob.tolist(), rel=1e-5)
    assert last.signals.chunk_neurons.tolist() == whole[3].signals.chunk_neurons.tolist()


def test_dropped_samples_free_what_they_held_at_once() -> None:
    """Tensors that are alive, in bytes: with one of 64 samples left, a small part of what all of them hold."""
    engine = tiny_engine("llama", max_position_embeddings=2048)
    params = SamplingParams(max_tokens=400, temperature=5.0, top_p=1.0)

    def held() -> int:
        gc.collect()
        tensors = [t for t in gc.get_objects() if issubclass(type(t), torch.Tensor) and t.layout is torch.strided]
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())

    before = held()
    with engine.start(PROMPT, 64, params, None) as rollout:
        for _ in rollout.until(At(100)):
            pass
        all_of_them = held() - before
        unfinished = next(c.index for c in rollout.group().completions if c.finish_reason is None)
        rollout.keep([unfinished])
        assert held() - before < all_of_them / 10


def test_a_rule_that_is_reached_samples_nothing() -> None:
    engine = tiny_engine("llama", torch.float64)
    with engine.start(PROMPT, 3, PARAMS, None) as rollout:
        assert len(list(rollout.until(At(4)))) == 4
        assert list(rollout.until(At(4))) == []
        assert list(rollout.until(Budget(1))) == []
        assert len(list(rollout.until(At(6)))) == 2


@pytest.mark.parametrize("rule", [RULE, replace(RULE, position="own")])
def test_leaving_until_early_leaves_the_samples_as_they_stand(rule: ActivationRule) -> None:
    engine = tiny_engine("llama", torch.float64)
    with engine.start(PROMPT, 3, PARAMS, rule) as rollout:
        for progress in rollout.until(Never()):
            if progress.position == 5:
                break
        assert {len(c.tokens) for c in rollout.group().completions} == {5}
        for _ in rollout.until(Never()):
            pass
        whole = rollout.group().completions
    assert whole == sampled(engine, PROMPT, 3, PARAMS, Never(), rule).completions


def test_samples_that_are_not_there_cannot_be_kept() -> None:
    engine = tiny_engine("llama")
    with engine.start(PROMPT, 3, PARAMS, None) as rollout:
        for keep in ([], [3], [-1]):
            with pytest.raises(NadError, match="cannot keep"):
                rollout.keep(keep)


def test_a_closed_rollout_says_so() -> None:
    engine = tiny_engine("llama")
    with engine.start(PROMPT, 3, PARAMS, None) as rollout:
        pass
    with pytest.raises(NadError, match="closed"):
        next(rollout.until(At(2)))
