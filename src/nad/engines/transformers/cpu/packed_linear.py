"""Linear maps for the few dozen rows of a decoding batch on a CPU (docs/decisions/0011-packed-linear.md).

A second copy of each weight is laid out for the processor once, while the model is loaded, instead of in every
product. With the 8 to 64 rows of a decoding step products then take about 0.6 of the time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

_MOST_ROWS = 64
"""Weights are laid out for so many rows, the most a step has; fewer or more rows give the same products."""

Linear = Callable[[Tensor], Tensor]
"""x [rows, in] to x W^T + b [rows, out]."""


@dataclass(frozen=True, eq=False)
class PlainLinear:
    """As torch multiplies."""

    weight: Float[Tensor, "out in"]
    bias: Float[Tensor, " out"] | None

    def __call__(self, x: Float[Tensor, "rows in"]) -> Float[Tensor, "rows out"]:
        return nn.functional.linear(x, self.weight, self.bias)


class MklLinear:
    """A float32 weight packed by MKL. Up to three rows read every weight once either way: they use the plain one."""

    def __init__(self, weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None) -> None:
        self._weight, self._bias = weight, bias
        self._packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, _MOST_ROWS)

    def __call__(self, x: Float[Tensor, "rows in"]) -> Float[Tensor, "rows out"]:
        if len(x) <= 3:
            return nn.functional.linear(x, self._weight, self._bias)
        # MKL asks for how many rows it packed; told any number but len(x), it would not use the packed weight.
        return torch.ops.mkl._mkl_linear(x, self._packed, self._weight, self._bias, len(x))


class OneDnnLinear:
    """A bfloat16 weight packed by oneDNN."""

    def __init__(self, weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None) -> None:
        self._packed, self._bias = torch.ops.mkldnn._reorder_linear_weight(weight, _MOST_ROWS), bias

    def __call__(self, x: Float[Tensor, "rows in"]) -> Float[Tensor, "rows out"]:
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")


def _has_mkl() -> bool:
    return torch.backends.mkl.is_available() and hasattr(torch.ops.mkl, "_mkl_linear")


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


_PACKINGS: Mapping[torch.dtype, tuple[Callable[[], bool], Callable[[Tensor, Tensor | None], Linear]]] = {
    torch.float32: (_has_mkl, MklLinear),
    torch.bfloat16: (_has_onednn, OneDnnLinear),
}
"""For each precision whether its weights can be packed here, and what packs them."""


def packed_linear(parts: Sequence[nn.Linear]) -> Linear:
    """One linear map whose output is the parts' outputs side by side, packed where torch can."""
    first, *others = parts
    weight = torch.cat([p.weight.detach() for p in parts]) if others else first.weight.detach()
    biases = [p.bias.detach() for p in parts if p.bias is not None]
    bias = torch.cat(biases) if biases else None
    available, pack = _PACKINGS.get(weight.dtype, (lambda: False, PlainLinear))
    return pack(weight, bias) if available() else PlainLinear(weight, bias)
