"""The recorder's two ways to find the strongest neurons of a layer: numpy on a CPU, torch elsewhere."""

import pytest
import torch
from torch import nn

from nad.activation import ActivationRule
from nad.engines.gates import GatedFFN
from nad.engines.recorder import ActivationRecorder, Step


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("per_layer", [1, 7, 64])
def test_a_cpu_keeps_what_another_device_keeps(
    dtype: torch.dtype, per_layer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr("nad.engines.recorder._SCORE_BYTES", 1000)
    neurons, hidden, vocabulary, layers = 40, 8, 20, 11
    linears = [nn.Linear(neurons, hidden, bias=False, dtype=dtype) for _ in range(layers)]
    ffns = [GatedFFN(linear, slice(0, neurons), nn.SiLU(), linear) for linear in linears]
    rule = ActivationRule(per_layer=per_layer)
    recorder = ActivationRecorder(ffns, torch.randn(vocabulary, hidden, dtype=dtype), rule, n=4)
    with torch.inference_mode():
        for position in range(5):
            gates = [torch.randn(3, neurons).to(torch.promote_types(dtype, torch.float32)) for _ in ffns]
            row, token = torch.tensor([0, 0, 2, 1]), torch.randint(0, vocabulary, (4,))
            recorder.add(Step(gates, row, token, torch.arange(4), torch.arange(4), position))
        found, neuron = recorder._kept_on_cpu()
        expected, expected_neuron = recorder._kept()
    order, expected_order = neuron.argsort(dim=1), expected_neuron.argsort(dim=1)
    assert torch.equal(neuron.gather(1, order), expected_neuron.gather(1, expected_order))
    torch.testing.assert_close(found.gather(1, order), expected.gather(1, expected_order))
