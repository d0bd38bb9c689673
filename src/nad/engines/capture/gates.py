"""Recognising gated feed-forward layers, and recording their gates while a model runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nad.errors import NadError


@dataclass(frozen=True, eq=False)
class GatedFFN:
    """One feed-forward layer: `gate` (or the merged gate and up, of which `half` is the gate), `act` and `down`."""

    gate: nn.Linear
    half: slice
    act: nn.Module
    down: nn.Linear

    @property
    def neurons(self) -> int:
        return self.down.in_features

    def gates(self, seen: Float[Tensor, "rows neurons"]) -> Float[Tensor, "rows neurons"]:
        """act(x W_g), in float32 or finer, from what a GateTap kept."""
        exact = torch.promote_types(seen.dtype, torch.float32)
        return seen if seen.dtype == exact else self.act.forward(seen.to(exact))

    def down_proj(self) -> Float[Tensor, "hidden neurons"]:
        """W_out."""
        return self.down.weight.detach()


def gated_in(block: nn.Module) -> list[tuple[nn.Module, GatedFFN]]:
    """The modules in a decoder layer that are gated feed-forwards.

    They are recognised by what they compute: three linear maps (or two, gate and up merged) and an activation that
    reproduce the module's own output.
    """
    return [(module, ffn) for module in block.modules() if (ffn := _recognise(module)) is not None]


def _recognise(module: nn.Module) -> GatedFFN | None:
    linears = [c for c in module.children() if isinstance(c, nn.Linear)]
    acts = [c for c in module.children() if not isinstance(c, nn.Dropout) and not list(c.parameters())]
    if len(linears) not in (2, 3) or len(acts) != 1:
        return None
    downs = [c for c in linears if all(c.out_features == o.in_features for o in linears if o is not c)]
    return next((c for down in downs for c in _candidates(linears, acts[0], down) if _computes(module, *c)), (None,))[0]


def _candidates(
    linears: list[nn.Linear], act: nn.Module, down: nn.Linear
) -> Iterator[tuple[GatedFFN, nn.Linear, slice]]:
    """Each way to read the linear maps as gate, up and down."""
    others = [c for c in linears if c is not down]
    width = down.in_features
    whole, first, second = slice(0, width), slice(0, width), slice(width, 2 * width)
    if len(others) == 2:
        for gate, up in (others, others[::-1]):
            yield GatedFFN(gate, whole, act, down), up, whole
    elif others[0].out_features == 2 * width:
        for gate_half, up_half in ((first, second), (second, first)):
            yield GatedFFN(others[0], gate_half, act, down), others[0], up_half


def _computes(module: nn.Module, ffn: GatedFFN, up: nn.Linear, up_half: slice) -> bool:
    """Whether the module's output on a random input is this reading's output."""
    weight = ffn.gate.weight
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, ffn.gate.in_features, generator=generator).to(weight.device, weight.dtype)
    try:
        expected = module(x)
        got = ffn.down(ffn.act(ffn.gate(x)[..., ffn.half]) * up(x)[..., up_half])
    except (RuntimeError, TypeError):
        return False
    if not isinstance(expected, Tensor) or expected.shape != got.shape:
        return False
    if not bool(expected.isfinite().all()):
        raise NadError("a feed-forward layer's outputs are not finite numbers: damaged weights, or try --dtype float32")
    return close(got, expected) and _tap_sees(module, ffn, x)


def _tap_sees(module: nn.Module, ffn: GatedFFN, x: Tensor) -> bool:
    """Whether the tap keeps act(x W_g), also after the pass: a module may overwrite its result."""
    tap = GateTap([ffn])
    with tap.listening(slice(None)):
        module(x)
    gate = ffn.gate(x)[..., ffn.half].flatten(0, 1)
    (seen,) = tap.gates(len(gate))
    seen = ffn.gates(seen)
    return close(seen, ffn.act(gate.to(seen.dtype)))


def close(got: Tensor, expected: Tensor) -> bool:
    """Whether two ways to compute the same differ by no more than rounding."""
    scale = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    return bool((expected - got).abs().max() <= 8 * torch.finfo(expected.dtype).eps * scale)


def kept_gate(
    gate: Float[Tensor, "rows neurons"], activated: Float[Tensor, "rows neurons"]
) -> Float[Tensor, "rows neurons"]:
    """What is kept of x W_g and act(x W_g): the second, as the model computed it.

    In half precision it is x W_g instead: `GatedFFN.gates` takes the activation again, in float32.
    """
    exact = torch.promote_types(activated.dtype, torch.float32)
    # A half of a merged gate and up is copied, so that the other half's memory is not held.
    return (activated if activated.dtype == exact else gate).contiguous()


class GateTap:
    """The gates of one forward pass at chosen positions, layer by layer, as `kept_gate` has them."""

    def __init__(self, ffns: Sequence[GatedFFN]) -> None:
        self._ffns = ffns
        self._seen: list[Tensor | None] = [None] * len(ffns)

    @contextmanager
    def listening(self, positions: slice) -> Iterator[None]:
        """Keep the gates of these sequence positions while the forward pass runs through the modules."""
        handles = [ffn.act.register_forward_hook(self._hook(layer, positions)) for layer, ffn in enumerate(self._ffns)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, layer: int, positions: slice) -> Callable[..., None]:
        def chosen(x: Tensor) -> Tensor:  # a step's rows may come without an axis of positions
            return x[:, positions].flatten(0, 1) if x.ndim == 3 else x

        def note(act: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if self._seen[layer] is not None:
                raise NadError(f"layer {layer} ran twice in one forward pass; its gates cannot be told apart")
            self._seen[layer] = kept_gate(chosen(args[0]), chosen(output))

        return note

    def gates(self, rows: int) -> list[Float[Tensor, "rows neurons"]]:
        """What was seen, layer by layer; `rows` is the number of rows there must be."""
        taken = [gate for gate in self._seen if gate is not None]
        if len(taken) != len(self._ffns) or any(len(gate) != rows for gate in taken):
            shapes = sorted({tuple(gate.shape) for gate in taken})
            raise NadError(f"captured {len(taken)} of {len(self._ffns)} layers as {shapes}, expected {rows} rows each")
        return taken
