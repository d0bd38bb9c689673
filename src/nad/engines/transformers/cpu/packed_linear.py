"""Linear layers for the few dozen rows of a decoding batch on a CPU (docs/decisions/0011-packed-linear.md)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor, nn

from nad.engines.transformers.cpu.layer import Product, Weight, mkl_product, onednn_product, plain_product

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
    product: Product


_PACKINGS: Mapping[torch.dtype, _Packing] = {
    torch.float32: _Packing(
        lambda: torch.backends.mkl.is_available() and hasattr(torch.ops.mkl, "_mkl_linear"),
        few_rows=3,
        pack=lambda weight: torch.ops.mkl._mkl_reorder_linear_weight(weight, _MOST_ROWS),
        product=mkl_product,
    ),
    torch.bfloat16: _Packing(
        lambda: torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        few_rows=0,
        pack=lambda weight: torch.ops.mkldnn._reorder_linear_weight(weight, _MOST_ROWS),
        product=onednn_product,
    ),
}


class PackedLinear(nn.Linear):
    """nn.Linear with a second copy of its weight, laid out for the processor once instead of in every product.

    With 8 to 64 rows, what a decoding step has, products take about 0.6 of the time. The copy is made in the first
    such step: a prefill alone would not pay for it.
    """

    def forward(self, x: Tensor) -> Tensor:
        prefill = "packed" not in self.__dict__ and len(x) == 1
        if prefill or not self.packs(x.numel() // self.in_features) or not torch.is_inference_mode_enabled():
            return super().forward(x)
        return _PACKINGS[self.weight.dtype].product(x, self.operands())

    def packs(self, rows: int) -> bool:
        """Whether a step of so many rows takes the packed weight. One row alone does not have it made."""
        return rows > _PACKINGS[self.weight.dtype].few_rows and (rows > 1 or "packed" in self.__dict__)

    def operands(self) -> Weight:
        """What the packing's product takes of this layer; the packed weight is made here, the first time."""
        packed = self.__dict__.get("packed")
        if packed is None:
            packed = _PACKINGS[self.weight.dtype].pack(self.weight.detach())
            self.__dict__["packed"] = packed
        return self.weight, packed, self.bias


def product_for(linears: Sequence[nn.Linear], rows: int) -> tuple[Product, list[Weight]]:
    """The product that so many rows take with these layers, and what it takes of each."""
    packed = [linear for linear in linears if isinstance(linear, PackedLinear)]
    if len(packed) == len(linears) and all(linear.packs(rows) for linear in packed):
        return _PACKINGS[linears[0].weight.dtype].product, [linear.operands() for linear in packed]
    return plain_product, [(linear.weight, linear.weight, linear.bias) for linear in linears]


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
