"""Every selector that applies to fresh samples chooses in `generate`, and only what it needs is captured."""

from functools import cache

import pytest
import torch
from tiny import tiny_engine

import nad
from nad.decoding import votes_of
from nad.engines.transformers.engine import TransformersEngine
from nad.errors import UsageError
from nad.selection import Candidates, default_selectors, parse_selector, selector_spec

PARAMS = nad.SamplingParams(max_tokens=10, temperature=1.0, top_p=1.0)
RULE = nad.ActivationRule(k=30, per_layer=16)
FRESH = {selector_spec(s): s for s in default_selectors() if not s.needs & {"verdict", "answers"}}
VOTES = [selector_spec(s) for s in default_selectors() if "answers" in s.needs]


@cache
def engine() -> TransformersEngine:
    return tiny_engine("llama", torch.float64)


@pytest.mark.parametrize("spec", [*FRESH, "knn:weight=peak"])
@pytest.mark.parametrize("stop", ["none", "5"])
def test_it_chooses_what_it_would_choose_among_the_completions(spec: str, stop: str) -> None:
    needs = FRESH[spec].needs if spec in FRESH else {"neurons"}
    options = {"n": 5, "stop": stop, "params": PARAMS, "rule": RULE}
    if stop != "none" and "full" in needs:
        with pytest.raises(UsageError, match="--stop-at none"):
            nad.generate(engine(), "hello", selector=spec, **options)  # type: ignore[arg-type]
        return
    result = nad.generate(engine(), "hello", selector=spec, **options)  # type: ignore[arg-type]
    completions = result.group.completions
    assert [c.activations is not None for c in completions] == ["neurons" in needs] * 5
    assert [c.signals is not None for c in completions] == ["signals" in needs] * 5
    if spec != "random":
        choice = parse_selector(spec).choose(Candidates.of(completions, full=stop == "none"))
        assert result.selected == choice.index
        assert result.scores == tuple(choice.scores.tolist())
    assert result.selector == spec


@pytest.mark.parametrize("spec", VOTES)
def test_votes_count_what_the_texts_end_with(spec: str) -> None:
    """The tiny model writes bytes by chance, some of them digits."""
    result = nad.generate(engine(), "hello", n=5, stop="none", selector=spec, params=PARAMS)
    group = result.group
    answers = votes_of(engine(), group.prompt_tokens, group.completions)
    assert 0 < sum(answer is not None for answer in answers) < 5
    choice = parse_selector(spec).choose(Candidates.of(group.completions, full=True, answers=answers))
    assert (result.selected, result.scores) == (choice.index, tuple(choice.scores.tolist()))
    assert answers[result.selected] is not None
