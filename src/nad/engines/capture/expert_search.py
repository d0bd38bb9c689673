"""Finding the experts of a model by what they compute, as `gates.py` finds dense layers."""

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor, nn

from nad.engines.capture.expert_tap import seen_in
from nad.engines.capture.experts import Always, ClampedGating, ExpertLayer, Gating, PlainGating, Stack
from nad.engines.capture.gates import GatedFFN, close, gated_in
from nad.errors import NadError, UsageError

READS = (
    "nad reads experts that are stacked and gated, as in Qwen3-MoE, Mixtral, OLMoE, DeepSeek or gpt-oss, with shared "
    "experts and dense layers beside them"
)
_SCALES = (1.0, 16.0)
"""Of the random inputs on which a reading is tried: the large one reaches the limits of clamped experts."""
_TOKENS = 4


def has_experts(block: nn.Module, width: int) -> bool:
    """Whether linear maps of the model's width are stacked in it, one for each expert."""
    return bool(_stacks_in(block, width))


def _stacks_in(block: nn.Module, width: int) -> list[nn.Module]:
    """The modules that hold such stacks; a convolution's weights are none."""
    maps = (m for m in block.modules() if not isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d))
    return [m for m in maps if any(p.ndim == 3 and width in p.shape[1:] for p in m.parameters(recurse=False))]


def find_expert_layers(name: str, blocks: Sequence[nn.Module], width: int) -> list[ExpertLayer]:
    """The experts of each decoder layer, in order; `width` is the model's. Raises UsageError for unknown ones."""
    layers = []
    for number, block in enumerate(blocks):
        layer = _layer_in(block, width)
        if layer is None:
            raise UsageError(
                f"{name} is a mixture of experts, and what its layer {number} computes is not known; {READS}"
            )
        layers.append(layer)
    if len({layer.stack.neurons for layer in layers if layer.stack is not None}) > 1:
        raise UsageError(f"{name} is a mixture of experts whose widths differ between layers; {READS}")
    return layers


def _layer_in(block: nn.Module, width: int) -> ExpertLayer | None:
    stacks = _stacks_in(block, width)
    if not stacks:
        dense = gated_in(block)
        return ExpertLayer(dense[0][1].gate, None, Always(dense[0][1])) if len(dense) == 1 else None
    if len(stacks) > 1:
        return None
    (experts,) = stacks
    module = next(m for m in block.modules() if any(child is experts for child in m.children()))
    beside = gated_in(module)
    if len(beside) > 1 or len(gated_in(block)) > len(beside):  # more than one, or one that runs elsewhere
        return None
    shared = beside[0][0] if beside else None
    found = (ExpertLayer(experts, s, a) for s in _stacks(experts, width) for a in _always(module, beside))
    return next((layer for layer in found if _computes(module, layer, shared, width)), None)


def _always(module: nn.Module, beside: Sequence[tuple[nn.Module, GatedFFN]]) -> list[Always | None]:
    """What a module of experts may put beside the routed ones: nothing, or shared experts, gated as a whole or not."""
    if not beside:
        return [None]
    gates = [c for c in module.children() if isinstance(c, nn.Linear) and c.out_features == 1]
    return [Always(beside[0][1], gate) for gate in (*gates, None)]


def _stacks(module: nn.Module, width: int) -> Iterator[Stack]:
    """Each way to read the stacked weights: merged gate and up, and down."""
    weights = [p.detach() for p in module.parameters(recurse=False)]
    matrices, biases = [w for w in weights if w.ndim == 3], [w for w in weights if w.ndim == 2]
    if len(matrices) != 2 or len(biases) not in (0, 2):
        return
    none: list[Tensor | None] = [None, None]
    orders: list[list[Tensor | None]] = [[*biases], [*biases[::-1]]] if biases else [none]
    for transposed, (merged, down), (merged_bias, down_bias) in product(
        (False, True), (matrices, matrices[::-1]), orders
    ):
        inner, outer = (1, 2) if transposed else (2, 1)
        n = down.shape[inner]
        shapes = (merged.shape[inner], merged.shape[outer], down.shape[outer])
        fits = merged_bias is None or down_bias is None or (merged_bias.shape[1], down_bias.shape[1]) == (2 * n, width)
        if shapes == (width, 2 * n, width) and fits:
            for gating, (gate, up) in product(_gatings(module), _halves(n)):
                yield Stack(merged, merged_bias, gate, up, down, down_bias, transposed, gating)


def _halves(n: int) -> list[tuple[slice, slice]]:
    """Where gate and up may stand in the merged map: one after the other, or in turns."""
    first, second, even, odd = slice(0, n), slice(n, 2 * n), slice(0, 2 * n, 2), slice(1, 2 * n, 2)
    return [(first, second), (second, first), (even, odd), (odd, even)]


def _gatings(module: nn.Module) -> list[Gating]:
    found: list[Gating] = [PlainGating(child) for child in module.children() if not list(child.parameters())]
    alpha, limit = getattr(module, "alpha", None), getattr(module, "limit", None)
    if isinstance(alpha, int | float) and isinstance(limit, int | float):
        found.append(ClampedGating(alpha, limit))
    return found


def _computes(module: nn.Module, layer: ExpertLayer, shared: nn.Module | None, width: int) -> bool:
    """Whether the module's output on random inputs is what this reading gives for what its experts were given."""
    assert layer.stack is not None
    weight = layer.stack.down
    generator = torch.Generator().manual_seed(0)
    for scale in _SCALES:
        x = (scale * torch.randn(1, _TOKENS, width, generator=generator)).to(weight.device, weight.dtype)
        try:
            output, seen = seen_in(module, layer, x)
            got = layer.stack.output(seen)
            if layer.always is not None and shared is not None:
                share = layer.always.router(seen.hidden)
                got += shared(seen.hidden) if share is None else share * shared(seen.hidden)
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, NadError):
            return False
        expected = output[0] if isinstance(output, tuple) else output
        if not isinstance(expected, Tensor) or expected.numel() != got.numel():
            return False
        if not bool(expected.isfinite().all()):
            raise NadError("a layer's experts give no finite numbers: damaged weights, or try --dtype float32")
        if not close(got, expected.view_as(got)):
            return False
    return True
