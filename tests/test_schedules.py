"""Stops that look at the choice on the way: pruning step by step, and stopping once the choice has settled."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from tiny import tiny_engine

import nad
from nad.cli.main import main
from nad.decoding import Progressed, Request, Selected, stream
from nad.engines.transformers.engine import TransformersEngine
from nad.errors import UsageError
from nad.neurons.activation import ActivationRule
from nad.runs.sampling import Settings
from nad.selection import Candidates
from nad.selection.agreement import Medoid
from nad.stopping import At, Look, Prune, Settled, StopRule, parse_prune, parse_stop, stop_label
from nad.types import Completion, Group, SamplingParams

RULE = ActivationRule(k=30, per_layer=16)
PARAMS = SamplingParams(max_tokens=24, temperature=1.0)


@cache
def engine() -> TransformersEngine:
    return tiny_engine("llama", torch.float64, fast_cpu=False)


def selected(stop: StopRule, n: int = 8) -> tuple[Selected, nad.Result]:
    events = list(stream(engine(), Request("hello", n, stop, Medoid(), PARAMS, RULE)))
    (choice,) = [e for e in events if isinstance(e, Selected)]
    return choice, events[-1].result  # type: ignore[union-attr]


def look(position: int, chosen: int, distinct: int = 4, computed: int = 0) -> Look:
    return Look(position, computed, distinct, (0, 1, 2, 3), np.zeros(4), chosen)


def test_prune_is_the_same_as_pruning_by_hand() -> None:
    choice, result = selected(parse_prune("8:4,3:10,2:16"))
    with engine().start(engine().encode("hello"), 8, PARAMS, RULE) as rollout:
        for position, kept in ((4, 3), (10, 2), (16, 1)):
            for _ in rollout.until(At(position)):
                pass
            group = rollout.group()
            by_hand = Medoid().choose(Candidates.of(group.completions, full=False))
            order = sorted(range(len(by_hand.scores)), key=lambda i: -by_hand.scores[i])
            rollout.keep([group.completions[i].index for i in order[:kept]])
    winner = group.completions[order[0]]
    assert choice.choice.index == winner.index == result.selected
    assert choice.group.completions[winner.index] == winner
    assert choice.group.computed_tokens == group.computed_tokens
    lengths = sorted(len(c.tokens) for c in choice.group.completions)
    assert [c.index for c in choice.group.completions] == list(range(8))
    assert lengths[:5] == [4] * 5
    assert lengths[5] <= 10 < lengths[6] or max(lengths) <= 10
    assert np.isfinite(choice.choice.scores).sum() == 2


def test_dropped_samples_are_no_longer_sampled() -> None:
    events = stream(engine(), Request("hello", 8, parse_prune("8:4,2:8"), Medoid(), PARAMS, RULE))
    there = {e.progress.position: len(e.progress.tokens) for e in events if isinstance(e, Progressed)}
    assert [there[t] for t in (1, 4, 5, 8)] == [8, 8, 2, 2]


def test_a_dropped_beginning_of_a_sample_that_goes_on_is_not_another_one() -> None:
    def of(*texts: tuple[int, ...]) -> int:
        completions = tuple(Completion(i, tokens, "", "length", None) for i, tokens in enumerate(texts))
        return Group((), completions, computed_tokens=0).distinct

    assert of((1, 2), (1, 2, 3, 4), (1, 5), (1, 2)) == 2
    assert of((1, 2), (1, 3), (1, 2)) == 2
    assert of((7,)) == 1


def test_prune_needs_its_own_number_of_samples_and_enough_for_the_best() -> None:
    with pytest.raises(UsageError, match="begins with 8 samples, not 5"):
        Request("hello", 5, parse_prune("8:4,2:8"), Medoid(), PARAMS)
    with pytest.raises(UsageError, match="ends with 2 samples"):
        Request("hello", 8, parse_prune("8:4,2:8"), Medoid(), PARAMS, best=3)
    assert len(nad.generate(engine(), "hello", stop="6:4,2:8", params=PARAMS, rule=RULE).group.completions) == 6


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("8:4,8:8", "fewer samples"),
        ("8:4,2:4", "later than"),
        ("8:0", "token 1"),
        ("0:8", "at least 1"),
        ("8", "SAMPLES:POSITION"),
        ("8:4;2:8", "SAMPLES:POSITION"),
        ("", "SAMPLES:POSITION"),
    ],
)
def test_a_wrong_pruning_is_refused(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_prune(spec)


def test_specs_of_schedules_give_them_back() -> None:
    for spec in ("64:32,16:128,4:512", "auto", "auto:window=3,distinct=0.25"):
        assert stop_label(parse_stop(spec)) == spec
    assert parse_stop("8:4,2:8") == Prune(((8, 4), (2, 8)))
    assert parse_stop("auto:3") == Settled(window=3)


def test_auto_stops_where_looks_in_a_row_choose_the_same_sample() -> None:
    rule = Settled(tokens=10_000)
    assert rule.step(()) is not None
    positions, looks = [], [look(16, chosen=1)]
    for chosen in (2, 3, 0, 0):
        step = rule.step(looks)
        assert step is not None
        assert isinstance(step.stop, At)
        positions.append(step.stop.tokens)
        looks.append(look(step.stop.tokens, chosen))
    assert positions == [24, 32, 48, 64]
    assert rule.step(looks) is None


def test_auto_waits_until_enough_prefixes_differ() -> None:
    same = [look(16, 0, distinct=1), look(24, 0, distinct=1)]
    assert Settled(tokens=10_000).step(same) is not None
    assert Settled(tokens=10_000, distinct=0.25).step(same) is None
    assert Settled(tokens=10_000).step([*same, look(32, 0, distinct=2)]) is not None
    assert Settled(tokens=10_000).step([*same, look(32, 0, distinct=2), look(48, 0, distinct=2)]) is None


def test_auto_stops_before_its_bound_and_where_everything_has_ended() -> None:
    unsettled = [look(16, 0, computed=64), look(24, 1, computed=96)]
    assert Settled(tokens=128).step(unsettled) is not None  # 96 + 4 x 8
    assert Settled(tokens=127).step(unsettled) is None
    assert Settled(tokens=10_000).step([look(16, 0), look(20, 1), look(20, 0)]) is None


def test_auto_is_bounded_by_64_tokens_a_sample() -> None:
    choice, result = selected(Settled(window=50), n=4)
    assert choice.group.computed_tokens <= 4 * 64
    assert result.stop_at == "auto:window=50"
    assert result.text


@pytest.mark.parametrize("wrong", ["auto:window=0", "auto:distinct=2", "auto:tokens=-1", "auto:3,x=2"])
def test_a_wrong_auto_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="auto"):
        parse_stop(wrong)


def test_a_run_is_not_recorded_with_a_stop_that_depends_on_the_selector() -> None:
    with pytest.raises(UsageError, match="record full answers"):
        Settings(stop=parse_stop("auto"))


@pytest.mark.model
def test_prune_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    call = ["generate", "What is 2+2?", "--prune", "4:3,2:6", "--max-tokens", "10", "--json"]
    assert main(call) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["n"], result["stop_at"]) == (4, "4:3,2:6")
    assert [c["score"] is None for c in result["candidates"]].count(True) == 2
    assert main([*call, "--stop-at", "8"]) == 2
    assert main([*call, "-n", "5"]) == 2
