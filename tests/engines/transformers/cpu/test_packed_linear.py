"""Packed linear maps give the products of plain ones, whatever the number of rows."""

import pytest
import torch
from marks import needs_bf16, needs_mkl
from torch import nn

from nad.engines.transformers.cpu.packed_linear import MklLinear, OneDnnLinear, PlainLinear, packed_linear

# How far a product may be from the exact one: float32 sums in another order; bfloat16 is rounded once, at the end.
PRECISIONS = [
    pytest.param(torch.float32, MklLinear, 2e-6, 0.0, marks=needs_mkl),
    pytest.param(torch.bfloat16, OneDnnLinear, 2e-6, 2**-8, marks=needs_bf16),
    pytest.param(torch.float64, PlainLinear, 1e-14, 0.0),
]


@pytest.mark.parametrize(("dtype", "kind", "absolute", "relative"), PRECISIONS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(576, 960), (1536, 576), (7, 5), (64, 33), (130, 1), (1, 1)])
def test_products_equal_float64(
    inputs: int, outputs: int, bias: bool, dtype: torch.dtype, kind: type, absolute: float, relative: float
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(inputs, outputs, bias, dtype=dtype)
    packed = packed_linear([linear])
    assert type(packed) is kind
    for rows in (*range(1, 70), 127, 128, 129, 513):
        x = torch.randn(rows, inputs, dtype=dtype)
        exact = nn.functional.linear(x.double(), linear.weight.double(), linear.bias.double() if bias else None)
        with torch.inference_mode():
            got = packed(x)
        torch.testing.assert_close(got.double(), exact, rtol=relative, atol=absolute * inputs**0.5)


@pytest.mark.parametrize("bias", [False, True])
def test_several_maps_become_one_whose_outputs_stand_side_by_side(bias: bool) -> None:
    parts = [nn.Linear(8, outputs, bias, dtype=torch.float64) for outputs in (6, 2, 3)]
    x = torch.randn(5, 8, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(packed_linear(parts)(x), torch.cat([part(x) for part in parts], dim=1))
