"""Packed linear layers give the products of plain ones, whatever the number of rows."""

import pytest
import torch
from torch import nn

from nad.engines.packed_linear import PackedLinear, pack_linears

pytestmark = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch has no MKL")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(576, 960), (1536, 576), (7, 5), (64, 33), (130, 1), (1, 1)])
def test_products_equal_float64(inputs: int, outputs: int, bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(inputs, outputs, bias)
    pack_linears([linear])
    for rows in (*range(1, 70), 127, 128, 129, 513):
        x = torch.randn(rows, 1, inputs)
        exact = nn.functional.linear(x.double(), linear.weight.double(), linear.bias.double() if bias else None)
        with torch.inference_mode():
            got = linear(x)
        torch.testing.assert_close(got.double(), exact, rtol=0, atol=2e-6 * inputs**0.5)
    assert "packed" in linear.__dict__


def test_a_prefill_or_a_few_rows_do_not_pack() -> None:
    linear = nn.Linear(8, 8)
    pack_linears([linear])
    with torch.inference_mode():
        linear(torch.randn(1, 100, 8))
        linear(torch.randn(3, 1, 8))
    linear(torch.randn(50, 1, 8))  # with gradients
    assert "packed" not in linear.__dict__


def test_only_plain_float32_linears_are_packed() -> None:
    class Other(nn.Linear):
        pass

    modules = [nn.Linear(4, 4), nn.Linear(4, 4).double(), nn.Linear(4, 4).bfloat16(), Other(4, 4), nn.LayerNorm(4)]
    pack_linears(modules)
    assert [type(module) for module in modules] == [PackedLinear, nn.Linear, nn.Linear, Other, nn.LayerNorm]
