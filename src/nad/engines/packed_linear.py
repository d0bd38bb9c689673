"""Linear layers for the few dozen rows of a decoding batch on a CPU (docs/decisions/0011-packed-linear.md)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor, nn

_MOST_ROWS = 64
"""Weights are laid out for so many rows, what a step has at most; fewer or more give the same products."""
_MEMORY_SHARE = 0.25
"""Packed copies may take this share of the memory that is free."""


@dataclass(frozen=True)
class _Packing:
    """A library's layout of a weight: how to make it, and the product of x with the packed weight.

    Up to `few_rows` rows the product reads every weight once either way, and the plain one is as fast.
    """

    available: Callable[[], bool]
    few_rows: int
    pack: Callable[[Tensor], Tensor]
    product: Callable[[Tensor, Tensor, nn.Linear, int], Tensor]


def _mkl_product(x: Tensor, packed: Tensor, linear: nn.Linear, rows: int) -> Tensor:
    # The last argument says for how many rows the weight is packed; with another number than x has, the packed
    # weight would be left aside.
    return torch.ops.mkl._mkl_linear(x, packed, linear.weight, linear.bias, rows)


def _onednn_product(x: Tensor, packed: Tensor, linear: nn.Linear, rows: int) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, linear.bias, "none", [], "")


_PACKINGS: Mapping[torch.dtype, _Packing] = {
    torch.float32: _Packing(
        lambda: torch.backends.mkl.is_available() and hasattr(torch.ops.mkl, "_mkl_linear"),
        few_rows=3,
        pack=lambda weight: torch.ops.mkl._mkl_reorder_linear_weight(weight, _MOST_ROWS),
        product=_mkl_product,
    ),
    torch.bfloat16: _Packing(
        lambda: torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        few_rows=0,
        pack=lambda weight: torch.ops.mkldnn._reorder_linear_weight(weight, _MOST_ROWS),
        product=_onednn_product,
    ),
}


class PackedLinear(nn.Linear):
    """nn.Linear with a second copy of its weight, laid out for the processor once instead of in every product.

    With 8 to 64 rows, what a decoding step has, products take about 0.6 of the time. The copy is made in the first
    such step: a prefill alone would not pay for it.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows, packing = x.numel() // self.in_features, _PACKINGS[self.weight.dtype]
        packed = self.__dict__.get("packed")
        prefill = packed is None and len(x) == 1
        if rows <= packing.few_rows or prefill or not torch.is_inference_mode_enabled():
            return super().forward(x)
        if packed is None:
            packed = packing.pack(self.weight.detach())
            self.__dict__["packed"] = packed
        return packing.product(x, packed, self, rows)


def pack_linears(modules: Iterable[nn.Module]) -> None:
    """Make the plain float32 and bfloat16 linear layers on a CPU PackedLinear where torch can, if the memory allows."""
    packable = {dtype for dtype, packing in _PACKINGS.items() if packing.available()}
    linears = [
        m for m in modules if type(m) is nn.Linear and m.weight.device.type == "cpu" and m.weight.dtype in packable
    ]
    size = sum(linear.weight.nbytes for linear in linears)
    if size <= _MEMORY_SHARE * psutil.virtual_memory().available:
        for linear in linears:
            linear.__class__ = PackedLinear
