"""Where the operation goes, and what it keeps; modules that stand for vLLM's, which need not be installed."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nad.engines.vllm.capture_op import Selection, find_ffns, gate_bytes, install
from nad.errors import UsageError

HIDDEN, NEURONS = 4, 6


class SiluAndMul(nn.Module):
    def forward(self, merged: Tensor) -> Tensor:
        gate, up = merged.chunk(2, dim=-1)
        return nn.functional.silu(gate) * up


class Swish(SiluAndMul):
    """An activation nobody knows."""


class Projection(nn.Module):
    """A linear map whose weight, when packed, only its method can use."""

    def __init__(self, inputs: int, outputs: int, packed: bool = False) -> None:
        super().__init__()
        self.matrix = torch.randn(outputs, inputs)
        self.input_size_per_partition, self.output_size, self.output_sizes = inputs, outputs, [outputs // 2] * 2
        self.quant_method = self
        self.weight = nn.Parameter(torch.zeros(0) if packed else self.matrix, requires_grad=False)

    def apply_to(self, x: Tensor) -> Tensor:
        return x @ self.matrix.T

    def apply(self, layer: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return layer.apply_to(x)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return self.apply_to(x), None


class FFN(nn.Module):
    def __init__(self, act: nn.Module, packed: bool) -> None:
        super().__init__()
        self.gate_up_proj, self.act_fn = Projection(HIDDEN, 2 * NEURONS), act
        self.down_proj = Projection(NEURONS, HIDDEN, packed)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_up_proj(x)[0]))[0]


def model(act: nn.Module | None = None, packed: bool = False, layers: int = 2, inside: str = "mlp") -> nn.Module:
    torch.manual_seed(0)
    found = nn.Module()
    found.layers = nn.ModuleList([nn.ModuleDict({inside: FFN(act or SiluAndMul(), packed)}) for _ in range(layers)])
    return found


@pytest.mark.parametrize("packed", [False, True])
def test_gates_of_the_chosen_rows_and_the_weights_of_the_way_out(packed: bool) -> None:
    whole = model(packed=packed)
    ffns = find_ffns(whole, 2)
    selection = Selection.of(3, trash=5, device=torch.device("cpu"))
    layers = install(ffns, selection, torch.float32, torch.device("cpu"))
    x = torch.randn(7, HIDDEN)
    selection.set([6, 2], [4, 1])
    for ffn, layer in zip(ffns, layers, strict=True):
        ffn(x)
        expected = (x @ ffn.gate_up_proj.matrix.T)[:, :NEURONS]
        torch.testing.assert_close(layer.kept[[4, 1]], expected[[6, 2]])
        assert not layer.kept[[0, 2, 3, 5]].any()
        torch.testing.assert_close(layer.gates(layer.kept[[4]]), nn.functional.silu(expected[[6]]))
        torch.testing.assert_close(layer.down_proj(), ffn.down_proj.matrix)
    assert gate_bytes(ffns, torch.bfloat16) == 2 * NEURONS * 2


@pytest.mark.parametrize(
    ("whole", "layers", "message"),
    [
        (model(Swish()), 2, r"feed-forward layers of an unknown kind \(Swish\)"),
        (model(), 3, "2 of 3 layers are gated as known"),
        (model(inside="experts"), 2, "is a mixture of experts"),
    ],
)
def test_layouts_that_are_refused_by_name(whole: nn.Module, layers: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_ffns(whole, layers)
