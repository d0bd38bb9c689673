"""Eqs. 1, 5 and 6 on numbers one can check by hand."""

import pytest
import torch
from torch import Tensor

from nad.contribution import contribution_scores, neuron_logits, strongest, strongest_per_layer

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


@pytest.mark.parametrize(("k", "neurons"), [(1, [20]), (2, [20, 10]), (9, [20, 10, 21, 11])])
def test_the_k_largest_over_all_layers(k: int, neurons: list[int]) -> None:
    kept, ids = torch.tensor([[5.0, 1.0, 7.0, 3.0]]), torch.tensor([[10, 11, 20, 21]])
    ((*pairs,),) = ranked(*strongest(kept, ids, k))
    assert [neuron for _, neuron in pairs] == neurons
