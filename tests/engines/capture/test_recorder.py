"""The recorder: neither the parts that buffered steps are cut into nor the precision of gates changes a set."""

import pytest
import torch
from torch import nn

from nad.engines.capture.gates import GatedFFN
from nad.engines.capture.layers import DenseLayers
from nad.engines.capture.recorder import ActivationRecorder, Step
from nad.neurons.activation import ActivationRule, ActivationSet

NEURONS, HIDDEN, VOCABULARY, LAYERS = 40, 8, 20, 11


def recorded(dtype: torch.dtype, rule: ActivationRule, activated: bool) -> list[ActivationSet]:
    """The sets of four samples over five steps; gates as the model computed them, or before the activation."""
    torch.manual_seed(0)
    linears = [nn.Linear(NEURONS, HIDDEN, bias=False, dtype=dtype) for _ in range(LAYERS)]
    ffns = DenseLayers([GatedFFN(linear, slice(0, NEURONS), nn.SiLU(), linear) for linear in linears])
    recorder = ActivationRecorder(ffns, torch.randn(VOCABULARY, HIDDEN, dtype=dtype), rule, n=4)
    exact = torch.promote_types(dtype, torch.float32)
    with torch.inference_mode():
        for position in range(5):
            inputs = [torch.randn(3, NEURONS).to(dtype) for _ in range(LAYERS)]
            gates = [nn.functional.silu(x.to(exact)) for x in inputs] if activated else inputs
            row, token = torch.tensor([0, 0, 2, 1]), torch.randint(0, VOCABULARY, (4,))
            recorder.add(Step(gates, row, token, torch.arange(4), torch.arange(4), position))
    return recorder.finish()[0]


@pytest.mark.parametrize("keep", ["top_k", "eta"])
@pytest.mark.parametrize("per_layer", [1, 7, 64])
@pytest.mark.parametrize("pairs", [1, 3, 5])
def test_parts_of_any_size_give_the_same_sets(
    keep: str, per_layer: int, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = ActivationRule(keep=keep, k=50, per_layer=per_layer)  # type: ignore[arg-type]
    whole = recorded(torch.float64, rule, activated=True)
    monkeypatch.setattr("nad.engines.capture.scoring._SCORE_BYTES", pairs * LAYERS * NEURONS * 8)
    assert recorded(torch.float64, rule, activated=True) == whole


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gates_are_activated_in_float32(dtype: torch.dtype) -> None:
    rule = ActivationRule(k=50)
    assert recorded(dtype, rule, activated=False) == recorded(dtype, rule, activated=True)
