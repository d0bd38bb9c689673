"""Sets captured inside vLLM equal the transformers engine's teacher-forced ones, whatever moves rows."""

import gc
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sampled import continued, sampled
from vllm_engines import OWN, RULE, assert_teacher_forced

from nad.errors import NadError, UsageError
from nad.neurons.activation import ActivationRule
from nad.stopping import At, Budget, Distinct, Never, StopRule
from nad.types import SamplingParams

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]
PROMPT = (257, 71, 68, 75, 75, 78, 258)
LONG = tuple(np.random.default_rng(0).integers(0, 256, 130).tolist())


@pytest.mark.parametrize("rule", [RULE, OWN], ids=["emitting", "own"])
@pytest.mark.parametrize("prompt", [PROMPT, LONG], ids=["short", "in-parts"])
def test_sets_with_prompts_in_parts_preemption_and_prefix_caching(
    cramped: Any, reference: Any, prompt: Any, rule: ActivationRule
) -> None:
    before = cramped.held()[0][2]
    group = sampled(cramped, prompt, 16, SamplingParams(max_tokens=60), At(60), rule)
    assert group.distinct > 1
    assert_teacher_forced(reference, prompt, group.completions, rule)
    assert cramped.held()[0][2] > before, "no request was preempted: the test says nothing about it"
    assert cramped.held()[0][0] == 0


ETA, CHUNKS = ActivationRule("eta", 30, 16), ActivationRule("top_k", 30, 16, "chunk", 5)


@pytest.mark.parametrize("rule", [ETA, CHUNKS, replace(ETA, position="own"), replace(CHUNKS, position="own")])
def test_every_rule(cramped: Any, reference: Any, rule: ActivationRule) -> None:
    group = sampled(cramped, PROMPT, 4, SamplingParams(max_tokens=12), At(12), rule)
    assert_teacher_forced(reference, PROMPT, group.completions, rule)
    assert_teacher_forced(reference, PROMPT, [cramped.score(PROMPT, LONG[:40], rule)], rule)


@pytest.mark.parametrize("rule", [RULE, OWN], ids=["emitting", "own"])
def test_signals_equal_those_of_the_reference(cramped: Any, reference: Any, rule: ActivationRule) -> None:
    group = sampled(cramped, PROMPT, 4, SamplingParams(max_tokens=40), Never(), rule, signals=True)
    for completion in group.completions:
        expected = reference.score(PROMPT, completion.tokens, rule, signals=True).signals
        for name in ("logprob", "entropy", "self_certainty", "confidence"):
            np.testing.assert_allclose(getattr(completion.signals, name), getattr(expected, name), rtol=0, atol=2e-4)
        assert completion.signals.chunk_neurons.tolist() == expected.chunk_neurons.tolist()


@pytest.mark.parametrize("rule", [RULE, OWN], ids=["emitting", "own"])
def test_a_given_text_longer_than_what_is_kept_at_once(
    cramped: Any, reference: Any, rule: ActivationRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nad.engines.vllm.engine.SCORED_ROWS", 50)
    for _ in range(2):  # the second time vLLM has read the text before
        found = cramped.score(PROMPT, LONG, rule)
        assert found.tokens == LONG
        assert_teacher_forced(reference, PROMPT, [found], rule)


@pytest.mark.parametrize("rule", [RULE, OWN], ids=["emitting", "own"])
@pytest.mark.parametrize("stop", [At(5), Budget(60), Distinct(20), Never()], ids=["at", "budget", "distinct", "none"])
def test_the_stop_cuts_exactly_and_all_samples_alike(
    cramped: Any, reference: Any, stop: StopRule, rule: ActivationRule
) -> None:
    params = SamplingParams(max_tokens=30, temperature=1.0, top_p=1.0)
    with cramped.start(PROMPT, 8, params, rule) as rollout:
        seen = list(rollout.until(stop))
        group = rollout.group()
        assert [p.position for p in seen] == list(range(1, len(seen) + 1))
        assert stop.reached(seen[-1]) or isinstance(stop, Never)
        assert all(not stop.reached(p) for p in seen[:-1])
        assert list(rollout.until(stop)) == []
    assert group.position == len(seen)
    for completion in group.completions:
        goes_on = len(completion.tokens) == group.position < 30 and completion.tokens[-1] not in cramped.eos
        assert (completion.finish_reason is None) == goes_on
    assert_teacher_forced(reference, PROMPT, group.completions, rule)


def test_a_sample_depends_on_the_seed_and_its_number_alone(cramped: Any) -> None:
    params = SamplingParams(max_tokens=20, temperature=1.0, seed=5)
    few = sampled(cramped, PROMPT, 2, params, Never(), None)
    many = sampled(cramped, PROMPT, 12, params, Never(), RULE)
    assert [c.tokens for c in few.completions] == [c.tokens for c in many.completions[:2]]
    other = sampled(cramped, PROMPT, 2, SamplingParams(max_tokens=20, temperature=1.0, seed=6), Never(), None)
    assert [c.tokens for c in other.completions] != [c.tokens for c in few.completions]


def test_greedy_samples_are_the_reference_s(cramped: Any, reference: Any) -> None:
    params = SamplingParams(max_tokens=20, temperature=0)
    mine, theirs = (sampled(e, PROMPT, 2, params, Never(), None) for e in (cramped, reference))
    assert [c.tokens for c in mine.completions] == [c.tokens for c in theirs.completions]
    assert [c.finish_reason for c in mine.completions] == [c.finish_reason for c in theirs.completions]


def test_the_winner_runs_on_and_the_others_are_gone(cramped: Any) -> None:
    params = SamplingParams(max_tokens=25, temperature=1.0)
    whole = sampled(cramped, PROMPT, 6, params, Never(), None)
    with cramped.start(PROMPT, 6, params, RULE) as rollout:
        for _ in rollout.until(At(4)):
            pass
        rollout.keep([3], capture=False)
        assert cramped.held()[0][0] == 1
        positions = [p.position for p in rollout.until(Never())]
        (winner,) = rollout.group().completions
    assert winner.tokens == whole.completions[3].tokens
    assert winner.activations is None
    assert positions == list(range(5, len(winner.tokens) + 1))
    assert continued(cramped, PROMPT, 6, params, At(4), 2).tokens == whole.completions[2].tokens


@pytest.mark.parametrize("rule", [RULE, OWN], ids=["emitting", "own"])
def test_any_subset_is_kept_and_still_captured(cramped: Any, reference: Any, rule: ActivationRule) -> None:
    params = SamplingParams(max_tokens=30, temperature=1.0)
    with cramped.start(PROMPT, 8, params, rule) as rollout:
        for kept, stop in (([1, 4, 5, 7], At(6)), ([4, 7], At(12)), ([7], At(20))):
            for _ in rollout.until(stop):
                pass
            rollout.keep(kept)
            group = rollout.group()
            assert [c.index for c in group.completions] == kept
            assert_teacher_forced(reference, PROMPT, group.completions, rule)
        with pytest.raises(NadError, match=r"cannot keep the samples \[4\]"):
            rollout.keep([4])


def test_a_stop_text_ends_its_sample(cramped: Any, reference: Any) -> None:
    text = (
        sampled(reference, PROMPT, 1, SamplingParams(max_tokens=20, temperature=0), Never(), None).completions[0].text
    )
    params = SamplingParams(max_tokens=20, temperature=0, stop=(text[4:6],))
    mine, theirs = (sampled(e, PROMPT, 1, params, Never(), None).completions[0] for e in (cramped, reference))
    assert (mine.text, mine.tokens, mine.finish_reason) == (theirs.text, theirs.tokens, "stop")
    ended = sampled(cramped, PROMPT, 2, params, Never(), OWN)
    assert {c.tokens for c in ended.completions} == {mine.tokens}
    assert_teacher_forced(reference, PROMPT, ended.completions, OWN)


def test_at_own_positions_a_stop_token_counts_and_the_window_has_room_for_it(
    cramped: Any, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cramped, "eos", frozenset([*cramped.eos, *range(40, 70)]))
    params = SamplingParams(max_tokens=30, temperature=1.0, top_p=1.0)
    group = sampled(cramped, PROMPT, 12, params, Never(), OWN)
    assert "stop" in {c.finish_reason for c in group.completions}
    assert_teacher_forced(reference, PROMPT, group.completions, OWN)
    edge = LONG * 3 + LONG[:119]  # 509 of 512 tokens: three fit, and one of them must be left free
    for rule, tokens in ((RULE, 3), (OWN, 2)):
        group = sampled(cramped, edge, 1, SamplingParams(temperature=0), Never(), rule)
        assert [len(c.tokens) for c in group.completions] == [tokens]
        assert_teacher_forced(reference, edge, group.completions, rule)
    with pytest.raises(UsageError, match=r"512 tokens, but .* window of 512"):
        cramped.score(LONG * 3, LONG[:122], OWN)


@pytest.mark.parametrize("leave", ["close", "error", "iterator"])
def test_leaving_a_rollout_frees_it_on_every_path(cramped: Any, leave: str) -> None:
    def left() -> None:
        with cramped.start(PROMPT, 8, SamplingParams(max_tokens=200, temperature=1.0), RULE) as rollout:
            steps = rollout.until(Never())
            next(steps)
            if leave == "error":
                raise KeyboardInterrupt
            if leave == "iterator":
                steps.close()

    with suppress(KeyboardInterrupt):
        left()
    assert cramped.held()[0][0] == 0
    assert cramped._llm.get_num_unfinished_requests() == 0
    assert cramped._seats._free == cramped._seats.seats


def test_a_rollout_that_nobody_closed_is_freed_with_its_object(cramped: Any) -> None:
    rollout = cramped.start(PROMPT, 8, SamplingParams(max_tokens=200, temperature=1.0), RULE)
    next(rollout.until(Never()))
    del rollout
    gc.collect()
    assert cramped._seats._free == cramped._seats.seats
    end = time.monotonic() + 60
    while cramped.held()[0][0] and time.monotonic() < end:
        time.sleep(0.1)
    assert cramped.held()[0][0] == 0


def test_captured_and_plain_rollouts_of_many_threads_do_not_mix(cramped: Any, reference: Any) -> None:
    """Each of 6 threads holds 3 rollouts after another, some captured, of prompts of its own."""
    groups: list[tuple[tuple[int, ...], Any]] = []
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for round_ in range(3):
                prompt = (*PROMPT, number, round_)
                rule = RULE if (number + round_) % 3 else None
                params = SamplingParams(max_tokens=15, temperature=1.0)
                groups.append((prompt, sampled(cramped, prompt, 1 + 3 * round_, params, At(10 + round_), rule)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(groups) == 18
    for prompt, group in groups:
        captured = [c for c in group.completions if c.activations is not None]
        assert len(captured) in (0, len(group.completions))
        if captured:
            assert_teacher_forced(reference, prompt, captured)
    assert cramped.held()[0][0] == 0


def test_more_samples_than_the_batch_has_places(cramped: Any, reference: Any) -> None:
    group = sampled(cramped, PROMPT, 40, SamplingParams(max_tokens=6, temperature=1.0), At(6), RULE)
    assert len(group.completions) == 40
    assert_teacher_forced(reference, PROMPT, group.completions[::13])


def test_a_thread_cannot_wait_for_its_own_places(cramped: Any) -> None:
    with (
        cramped.start(PROMPT, 32, SamplingParams(max_tokens=5), None),
        pytest.raises(NadError, match="this thread holds 32 of 32 places"),
    ):
        cramped.start(PROMPT, 1, SamplingParams(max_tokens=5), None)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.start((), 1, SamplingParams(), None), "the prompt is empty"),
        (lambda e: e.start(PROMPT, 0, SamplingParams(), None), "n must be at least 1"),
        (lambda e: e.start((999_999,), 1, SamplingParams(), None), "no token 999999"),
        (lambda e: e.start(PROMPT * 100, 1, SamplingParams(), None), "context window of 512"),
        (lambda e: e.score(PROMPT, (), RULE), "at least one token each"),
        (lambda e: e.score(PROMPT, (1,), RULE, signals=True), "no signals of given texts"),
    ],
)
def test_calls_that_cannot_be_served(cramped: Any, call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call(cramped)


def test_what_it_says_of_itself(cramped: Any, reference: Any) -> None:
    for name in ("layers", "neurons", "eos", "dtype"):
        assert getattr(cramped, name) == getattr(reference, name)
    assert cramped.encode("Hé") == reference.encode("Hé")
    assert cramped.encode_completion("Hé") == reference.encode_completion("Hé")
    assert cramped.decode((72, 256)) == reference.decode((72, 256))
    assert cramped.rollouts == 16
