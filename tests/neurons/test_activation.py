"""Activation sets: prefixes, growth, the strongest neurons, and the rule's parameters."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import activation_sets, of

from nad.errors import UsageError
from nad.neurons.activation import ActivationRule, ActivationSet, activation_set


def test_a_prefix_keeps_what_its_tokens_activated() -> None:
    found = of([3, 5, 9], first=[0, 2, 1], peak=[1, 2, 3])
    assert found.prefix(0) == of([])
    assert found.prefix(1) == of([3], [0], [1])
    assert found.prefix(2) == of([3, 9], [0, 1], [1, 3])
    assert found.prefix(3) == found


def test_growth_counts_the_neurons_seen_so_far() -> None:
    assert of([3, 5, 9], first=[0, 2, 2]).growth(4).tolist() == [1, 1, 3, 3]
    assert of([3, 5, 9], first=[0, 2, 2]).growth(2).tolist() == [1, 1]
    assert of([]).growth(2).tolist() == [0, 0]


def test_the_strongest_neurons_stay_sorted_and_ties_take_the_smaller_id() -> None:
    found = of([1, 2, 3, 4], peak=[5, 7, 5, 9])
    assert found.strongest(1).neuron.tolist() == [4]
    assert found.strongest(3).neuron.tolist() == [1, 2, 4]
    assert found.strongest(9) == found


def test_peaks_beyond_float16_are_cut_to_its_range() -> None:
    assert of([1, 2], peak=[1e6, -1e6]).peak.tolist() == [65504, -65504]


@pytest.mark.parametrize("neurons", [[2, 1], [1, 1]])
def test_neurons_must_be_sorted_and_unique(neurons: list[int]) -> None:
    with pytest.raises(ValueError, match="sorted and unique"):
        of(neurons)


def test_the_three_arrays_have_one_length() -> None:
    with pytest.raises((ValueError, TypeError)):
        activation_set(np.array([1, 2]), np.array([0]), np.array([1.0]))


def test_sets_are_equal_when_all_three_arrays_are() -> None:
    assert of([1], [2], [3]) == of([1], [2], [3])
    assert of([1], [2], [3]) != of([1], [1], [3])
    assert of([1], [2], [3]) != of([1], [2], [4])
    assert of([]) != "not a set"


@given(activation_sets(), st.integers(0, 9), st.integers(0, 9))
def test_prefixes_nest(found: ActivationSet, a: int, b: int) -> None:
    assert found.prefix(a).prefix(b) == found.prefix(min(a, b))


@given(activation_sets(), st.integers(1, 9))
def test_growth_is_the_size_of_every_prefix(found: ActivationSet, tokens: int) -> None:
    assert found.growth(tokens).tolist() == [len(found.prefix(t)) for t in range(1, tokens + 1)]


@given(activation_sets(), st.integers(0, 14))
def test_the_strongest_are_a_subset_no_other_neuron_beats(found: ActivationSet, k: int) -> None:
    best = found.strongest(k)
    assert len(best) == min(k, len(found))
    chosen = sorted(zip((-found.peak).tolist(), found.neuron.tolist(), strict=True))[:k]
    assert best.neuron.tolist() == sorted(neuron for _, neuron in chosen)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"keep": "top"}, "keep='top' is unknown; allowed: top_k, eta"),
        ({"per": "layer"}, "per='layer' is unknown; allowed: token, chunk"),
        ({"position": "next"}, "position='next' is unknown; allowed: emitting, own"),
        ({"router": "maybe"}, "router='maybe' is unknown; allowed: on, off"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"per_layer": 0}, "per_layer must be at least 1"),
        ({"chunk": -1}, "chunk must be at least 1"),
        ({"keep": "eta", "per": "chunk"}, "per token only"),
    ],
)
def test_rules_that_make_no_sense(values: dict[str, Any], message: str) -> None:
    """Set without the tests' type checker, which would refuse the names first."""
    rule = ActivationRule()
    for name, value in values.items():
        object.__setattr__(rule, name, value)
    with pytest.raises(UsageError, match=message):
        rule.__post_init__()
