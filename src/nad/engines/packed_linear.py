"""Linear layers for the few dozen rows of a decoding batch on a CPU (docs/decisions/0011-packed-linear.md)."""

from collections.abc import Iterable

import psutil
import torch
from torch import Tensor, nn

_FEW_ROWS = 3
"""Up to so many rows a product reads every weight once either way, and the plain one is faster."""
_MOST_ROWS = 64
"""Weights are laid out for so many rows, what a step has at most; fewer or more give the same products."""
_MEMORY_SHARE = 0.25
"""Packed copies may take this share of the memory that is free."""


class PackedLinear(nn.Linear):
    """nn.Linear with a second copy of its weight, laid out for the processor once instead of in every product.

    With 8 to 64 rows, what a decoding step has, float32 products take about 0.6 of the time. The copy is
    made in the first such step: a prefill alone would not pay for it.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows = x.numel() // self.in_features
        packed = self.__dict__.get("packed")
        prefill = packed is None and len(x) == 1
        if rows <= _FEW_ROWS or prefill or not torch.is_inference_mode_enabled():
            return super().forward(x)
        if packed is None:
            packed = torch.ops.mkl._mkl_reorder_linear_weight(self.weight.detach(), _MOST_ROWS)
            self.__dict__["packed"] = packed
        # The last argument says for how many rows the weight is packed; with another number than x has, the packed
        # weight would be left aside.
        return torch.ops.mkl._mkl_linear(x, packed, self.weight, self.bias, rows)


def pack_linears(modules: Iterable[nn.Module]) -> None:
    """Make the plain float32 linear layers among the modules PackedLinear where torch has MKL, if the memory allows."""
    linears = [
        m for m in modules if type(m) is nn.Linear and m.weight.device.type == "cpu" and m.weight.dtype == torch.float32
    ]
    available = torch.backends.mkl.is_available() and hasattr(torch.ops.mkl, "_mkl_linear")
    size = sum(linear.weight.nbytes for linear in linears)
    if available and size <= _MEMORY_SHARE * psutil.virtual_memory().available:
        for linear in linears:
            linear.__class__ = PackedLinear
