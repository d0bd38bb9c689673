"""Packed linear layers give the products of plain ones, whatever the number of rows."""

import pytest
import torch
from marks import needs_bf16, needs_mkl
from torch import nn

from nad.engines.transformers.cpu.packed_linear import PackedLinear, pack_linears

# How far a product may be from the exact one: float32 sums in another order; bfloat16 is rounded once, at the end.
PRECISIONS = [
    pytest.param(torch.float32, 2e-6, 0.0, marks=needs_mkl),
    pytest.param(torch.bfloat16, 2e-6, 2**-8, marks=needs_bf16),
]


@pytest.mark.parametrize(("dtype", "absolute", "relative"), PRECISIONS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(576, 960), (1536, 576), (7, 5), (64, 33), (130, 1), (1, 1)])
def test_products_equal_float64(
    inputs: int, outputs: int, bias: bool, dtype: torch.dtype, absolute: float, relative: float
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(inputs, outputs, bias, dtype=dtype)
    pack_linears([linear])
    for rows in (*range(1, 70), 127, 128, 129, 513):
        x = torch.randn(rows, 1, inputs, dtype=dtype)
        exact = nn.functional.linear(x.double(), linear.weight.double(), linear.bias.double() if bias else None)
        with torch.inference_mode():
            got = linear(x)
        torch.testing.assert_close(got.double(), exact, rtol=relative, atol=absolute * inputs**0.5)
    assert "packed" in linear.__dict__


@needs_mkl
def test_a_prefill_or_a_few_rows_do_not_pack() -> None:
    linear = nn.Linear(8, 8)
    pack_linears([linear])
    with torch.inference_mode():
        linear(torch.randn(1, 100, 8))
        linear(torch.randn(3, 1, 8))
    linear(torch.randn(50, 1, 8))  # with gradients
    assert "packed" not in linear.__dict__


@needs_bf16
def test_in_bfloat16_few_rows_pack_and_a_prefill_does_not() -> None:
    linear = nn.Linear(8, 8, dtype=torch.bfloat16)
    pack_linears([linear])
    with torch.inference_mode():
        linear(torch.randn(1, 100, 8, dtype=torch.bfloat16))
        assert "packed" not in linear.__dict__
        linear(torch.randn(2, 1, 8, dtype=torch.bfloat16))
    assert "packed" in linear.__dict__


@needs_mkl
@needs_bf16
def test_only_plain_linears_in_a_packed_precision_are_packed() -> None:
    class Other(nn.Linear):
        pass

    dtypes = [torch.float32, torch.bfloat16, torch.float64, torch.float16]
    modules = [*(nn.Linear(4, 4, dtype=dtype) for dtype in dtypes), Other(4, 4), nn.LayerNorm(4)]
    pack_linears(modules)
    plain = [nn.Linear, nn.Linear, Other, nn.LayerNorm]
    assert [type(module) for module in modules] == [PackedLinear, PackedLinear, *plain]
