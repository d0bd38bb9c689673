"""`position=own`: the gates where a token stands, also the last one's, which nothing after it made the model read."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from sampled import continued, sampled
from tiny import WINDOW, tiny_engine

from nad.engines.transformers.decoder import Forward, State
from nad.engines.transformers.engine import TransformersEngine
from nad.errors import UsageError
from nad.neurons.activation import ActivationRule
from nad.stopping import At, Budget, Distinct, Never, StopRule
from nad.types import Completion, Group, SamplingParams

PROMPT = (257, 71, 68, 75, 75, 78, 258)
EMITTING = ActivationRule(k=30, per_layer=16)
OWN = replace(EMITTING, position="own")
CHUNKS = replace(OWN, per="chunk", chunk=4)
ETA = replace(OWN, keep="eta")
PARAMS = SamplingParams(max_tokens=14)
MANY_ENDS = (256, *range(40, 70))
"""So many stop tokens that random samples meet one."""


@cache
def engine_of(
    family: str = "llama", share: bool = True, fast_cpu: bool = True, eos: tuple[int, ...] | None = None
) -> TransformersEngine:
    return tiny_engine(family, torch.float64, share, list(eos) if eos else None, fast_cpu)


def assert_teacher_forced(engine: TransformersEngine, group: Group, rule: ActivationRule) -> None:
    """The oracle's tests say that scored sets are right."""
    for completion in group.completions:
        expected = engine.score(PROMPT, completion.tokens, rule).activations
        assert completion.activations == expected


@pytest.mark.parametrize("rule", [OWN, CHUNKS, ETA], ids=["token", "chunk", "eta"])
@pytest.mark.parametrize("stop", [At(1), At(5), Distinct(), Budget(40), Never()])
@pytest.mark.parametrize(
    "engine",
    [
        {},
        {"fast_cpu": False},
        {"share": False},
        {"eos": MANY_ENDS},
        {"family": "gemma2", "eos": MANY_ENDS},
        {"share": False, "fast_cpu": False, "eos": MANY_ENDS},
    ],
    ids=["fast", "modules", "alone", "ends", "modules-ends", "alone-ends"],
)
def test_sets_at_a_stop_are_those_of_teacher_forcing(
    engine: dict[str, object], stop: StopRule, rule: ActivationRule
) -> None:
    source = engine_of(**engine)  # type: ignore[arg-type]
    group = sampled(source, PROMPT, 10, PARAMS, stop, rule)
    if isinstance(stop, Never):
        assert {c.finish_reason for c in group.completions} == {"stop", "length"} if "eos" in engine else {"length"}
    assert_teacher_forced(source, group, rule)


def test_the_two_positions_give_the_same_tokens_and_other_sets() -> None:
    own, emitting = (sampled(engine_of(), PROMPT, 8, PARAMS, Never(), rule, signals=True) for rule in (OWN, EMITTING))
    assert own.computed_tokens == emitting.computed_tokens
    for one, other in zip(own.completions, emitting.completions, strict=True):
        assert one.tokens == other.tokens
        assert one.activations != other.activations
        assert one.signals.logprob.tolist() == pytest.approx(other.signals.logprob.tolist(), rel=1e-5)


def test_an_own_position_is_the_emitting_one_of_the_token_after_it() -> None:
    """The same gates, of the token that stands there instead of the one that comes."""
    engine, (one, two) = engine_of(), (70, 80)
    found = engine.score(PROMPT, (one,), OWN).activations
    gates = engine.score((*PROMPT, one), (one,), EMITTING).activations
    assert found == gates
    assert found != engine.score((*PROMPT, one), (two,), EMITTING).activations


def test_a_stop_text_ends_its_sample_with_the_token_that_completes_it() -> None:
    engine = engine_of()
    text = sampled(engine, PROMPT, 1, PARAMS, Never(), None).completions[0].text
    group = sampled(engine, PROMPT, 6, replace(PARAMS, stop=(text[3:5],)), Never(), OWN)
    assert "stop" in {c.finish_reason for c in group.completions}
    assert_teacher_forced(engine, group, OWN)


def test_every_computed_token_is_read_once() -> None:
    """Those that end their sample, too: the count of computed tokens is the number of rows that were read."""
    engine = tiny_engine("llama", torch.float64, eos=list(MANY_ENDS))
    widths: list[int] = []
    step = engine._decoder.step

    def counted(state: State, tokens: torch.Tensor, capture: bool = False) -> Forward:
        widths.append(len(tokens))
        return step(state, tokens, capture)

    engine._decoder.step = counted  # type: ignore[method-assign]
    group = sampled(engine, PROMPT, 12, PARAMS, Never(), OWN)
    assert widths == [len({c.tokens[:t] for c in group.completions if len(c.tokens) >= t}) for t in range(1, 15)]
    assert sum(widths) == group.computed_tokens


@pytest.mark.parametrize("fast_cpu", [True, False])
def test_the_winner_goes_on_without_capture_as_it_would_have(fast_cpu: bool) -> None:
    engine = engine_of(fast_cpu=fast_cpu, eos=MANY_ENDS)
    whole = sampled(engine, PROMPT, 8, PARAMS, Never(), None).completions
    for sample in range(8):
        with engine.start(PROMPT, 8, PARAMS, OWN) as rollout:
            for _ in rollout.until(At(4)):
                pass
            rollout.keep([sample], capture=False)
            for _ in rollout.until(Never()):
                pass
            (winner,) = rollout.group().completions
        assert winner == whole[sample]
        assert continued(engine, PROMPT, 8, PARAMS, At(4), sample).tokens == winner.tokens


def test_the_context_window_has_room_for_the_last_token() -> None:
    engine = engine_of()
    prompt = tuple([65] * (WINDOW - 3))
    group = sampled(engine, prompt, 2, SamplingParams(), Never(), OWN)
    for completion in group.completions:
        assert len(completion.tokens) == 3
        assert completion.activations == engine.score(prompt, completion.tokens, OWN).activations
    with pytest.raises(UsageError, match=f"{WINDOW + 1} tokens.*window of {WINDOW}"):
        engine.score((65,) * 200, (65,) * (WINDOW - 199), OWN)


def test_signals_are_those_of_the_emitting_position_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of two, the last of which emits nothing."""
    engine, tokens = engine_of(), tuple(range(60, 72))

    def scored(rule: ActivationRule) -> Completion:
        return engine.score(PROMPT, tokens, rule, signals=True)

    whole, emitting = scored(OWN), scored(EMITTING)
    for module in ("engine", "decoder"):
        monkeypatch.setattr(f"nad.engines.transformers.{module}.PREFILL_TOKENS", 8)
    in_pieces = scored(OWN)
    assert in_pieces.activations == whole.activations
    for name in ("logprob", "entropy", "self_certainty", "confidence"):
        expected = getattr(emitting.signals, name).tolist()
        for found in (whole, in_pieces):
            assert getattr(found.signals, name).tolist() == pytest.approx(expected, rel=1e-5)
