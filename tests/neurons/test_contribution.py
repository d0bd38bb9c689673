"""Eqs. 1, 5 and 6 on numbers one can check by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from nad.errors import NadError
from nad.neurons.contribution import neuron_logits, strongest

DOWN = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]])
"""W_out of three neurons in two dimensions."""


def ranked(values: Tensor, indices: Tensor) -> list[list[tuple[float, int]]]:
    pairs = zip(values.tolist(), indices.tolist(), strict=True)
    return [sorted(zip(v, i, strict=True), reverse=True) for v, i in pairs]


def test_what_a_unit_of_each_neuron_adds_to_a_tokens_logit() -> None:
    unembed = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert neuron_logits(DOWN, unembed).tolist() == [[3, 4, 2], [0, 1, -1]]


def test_the_largest_of_each_layer_and_of_those_the_k_largest() -> None:
    scores = torch.tensor([[[1.0, 5.0, 3.0], [9.0, 8.0, 7.0]]])
    assert ranked(*strongest(scores, 3, per_layer=2)) == [[(9, 3), (8, 4), (5, 1)]]
    assert ranked(*strongest(scores, 9, per_layer=2)) == [[(9, 3), (8, 4), (5, 1), (3, 2)]]
    assert ranked(*strongest(scores, 1, per_layer=64)) == [[(9, 3)]]


def by_sorting(scores: Tensor, k: int, per_layer: int) -> Tensor:
    """The values `strongest` has to find, in descending order."""
    kept = scores.sort(dim=2, descending=True).values[:, :, :per_layer]
    return kept.flatten(1).sort(dim=1, descending=True).values[:, :k]


_FEW_VALUES = st.sampled_from([-2.0, -0.0, 0.0, 1.0, 3.0])


@given(
    arrays(np.float32, (3, 4, 11), elements=_FEW_VALUES | st.floats(-5, 5, width=32)),
    st.integers(1, 50),
    st.integers(1, 12),
)
def test_the_bound_leaves_out_nothing_through_ties(scores: np.ndarray, k: int, per_layer: int) -> None:
    tensor = torch.from_numpy(scores)
    values, neuron = strongest(tensor, k, per_layer)
    assert torch.equal(values.sort(dim=1, descending=True).values, by_sorting(tensor, k, per_layer))
    assert torch.equal(tensor.flatten(1).gather(1, neuron), values)
    for row in neuron.tolist():
        assert len(set(row)) == min(k, 4 * min(per_layer, 11))
        assert max(np.bincount(np.array(row) // 11)) <= per_layer


@pytest.mark.parametrize("neurons", [64, 100, 1536])
def test_layers_of_unlike_strength(neurons: int) -> None:
    torch.manual_seed(0)
    scores = torch.randn(5, 12, neurons) * torch.logspace(0, 3, 12)[:, None]
    for k, per_layer in [(500, 64), (1, 1), (60, 3), (768, 64), (5000, 7)]:
        values, neuron = strongest(scores, k, per_layer)
        assert torch.equal(values.sort(dim=1, descending=True).values, by_sorting(scores, k, per_layer))
        assert torch.equal(scores.flatten(1).gather(1, neuron), values)


@pytest.mark.parametrize("place", [0, 63, 99])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scores_that_are_not_finite_are_an_error(place: int, value: float) -> None:
    scores = torch.randn(3, 4, 100)
    scores[1, 2, place] = value
    with pytest.raises(NadError, match="not finite"):
        strongest(scores, 10, 64)
