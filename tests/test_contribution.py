"""Eqs. 1, 5 and 6 on numbers one can check by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from nad.contribution import contribution_scores, largest_places, neuron_logits, strongest, strongest_per_layer

DOWN = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]])
"""W_out of three neurons in two dimensions."""


def ranked(values: Tensor, indices: Tensor) -> list[list[tuple[float, int]]]:
    pairs = zip(values.tolist(), indices.tolist(), strict=True)
    return [sorted(zip(v, i, strict=True), reverse=True) for v, i in pairs]


def test_what_a_unit_of_each_neuron_adds_to_a_tokens_logit() -> None:
    unembed = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert neuron_logits(DOWN, unembed).tolist() == [[3, 4, 2], [0, 1, -1]]


def test_the_score_is_that_times_the_gate_with_its_sign() -> None:
    gate = torch.tensor([[2.0, -1.0, 0.5]])
    assert contribution_scores(gate, DOWN, torch.tensor([[3.0, 4.0]])).tolist() == [[6, -4, 1]]


def test_each_layer_keeps_its_largest_scores() -> None:
    scores = torch.tensor([[1.0, 5.0, 3.0], [9.0, -1.0, -2.0]])
    assert ranked(*strongest_per_layer(scores, 2)) == [[(5, 1), (3, 2)], [(9, 0), (-1, 1)]]
    assert ranked(*strongest_per_layer(scores, 64)) == [[(5, 1), (3, 2), (1, 0)], [(9, 0), (-1, 1), (-2, 2)]]


_FEW_VALUES = st.sampled_from([-2.0, -0.0, 0.0, 1.0, 3.0, float("nan")])


@given(arrays(np.float32, (4, 9), elements=_FEW_VALUES | st.floats(-5, 5, width=32)), st.integers(1, 12))
def test_numpy_keeps_what_torch_keeps_through_ties_and_what_is_not_a_number(scores: np.ndarray, k: int) -> None:
    expected, _ = strongest_per_layer(torch.from_numpy(scores), k)
    kept, place = largest_places(scores, k)
    np.testing.assert_array_equal(np.sort(kept, axis=1), np.sort(expected.numpy(), axis=1))
    np.testing.assert_array_equal(np.take_along_axis(scores, place, axis=1), kept)
    assert all(len(set(row)) == min(k, 9) for row in place.tolist())


@pytest.mark.parametrize(("k", "neurons"), [(1, [20]), (2, [20, 10]), (9, [20, 10, 21, 11])])
def test_the_k_largest_over_all_layers(k: int, neurons: list[int]) -> None:
    kept, ids = torch.tensor([[5.0, 1.0, 7.0, 3.0]]), torch.tensor([[10, 11, 20, 21]])
    ((*pairs,),) = ranked(*strongest(kept, ids, k))
    assert [neuron for _, neuron in pairs] == neurons
