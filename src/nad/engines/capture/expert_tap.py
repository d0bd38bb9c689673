"""Noting, while a model runs, what each layer's experts were given."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nad.engines.capture.experts import ExpertLayer, Routed
from nad.errors import NadError


class ExpertTap:
    """What the experts of one forward pass were given at chosen positions, layer by layer.

    It hooks what calls the experts, so it does not matter how they are computed.
    """

    def __init__(self, layers: Sequence[ExpertLayer]) -> None:
        self._layers = layers
        self._seen: list[Routed | None] = [None] * len(layers)

    @contextmanager
    def listening(self, positions: slice) -> Iterator[None]:
        """Keep what is given at these positions of a single row, or (all of them) of rows with one position each."""

        def note(layer: int) -> Any:
            return lambda module, args, named: self._note(layer, positions, args, named)

        handles = [
            layer.watched.register_forward_pre_hook(note(i), with_kwargs=True) for i, layer in enumerate(self._layers)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, layer: int, positions: slice, args: tuple, named: dict[str, Any]) -> None:
        if self._seen[layer] is not None:
            raise NadError(f"layer {layer} ran twice in one forward pass; its experts cannot be told apart")
        given = (*args, *named.values())
        routed = _routed(*given) if self._layers[layer].stack is not None else _without_router(*given)
        # The model may overwrite what it gave, and a part of it must not hold the rest.
        chosen = routed[positions]
        self._seen[layer] = Routed(chosen.hidden.clone(), chosen.expert.clone(), chosen.weight.clone())

    def gates(self, rows: int) -> list[Routed]:
        """What was seen, layer by layer; `rows` is the number of rows there must be."""
        taken = [seen for seen in self._seen if seen is not None]
        if len(taken) != len(self._layers) or any(len(seen) != rows for seen in taken):
            lengths = sorted({len(seen) for seen in taken})
            raise NadError(f"captured {len(taken)} of {len(self._layers)} layers with {lengths} rows, expected {rows}")
        return taken


def _routed(hidden: Tensor, expert: Tensor, weight: Tensor) -> Routed:
    return Routed(hidden.flatten(0, -2), expert, weight)


def _without_router(hidden: Tensor) -> Routed:
    hidden = hidden.flatten(0, -2)
    return Routed(hidden, hidden.new_empty(len(hidden), 0, dtype=torch.long), hidden.new_empty(len(hidden), 0))


def seen_in(module: nn.Module, layer: ExpertLayer, x: Tensor) -> tuple[Any, Routed]:
    """What the module gives for x [1, tokens, hidden], and what this layer's experts in it were given.

    Raises NadError, TypeError or ValueError where they are not called once as experts are.
    """
    tap = ExpertTap([layer])
    with tap.listening(slice(None)):
        output = module(x)
    (seen,) = tap.gates(x.shape[1])
    if seen.expert.shape != seen.weight.shape or seen.expert.is_floating_point():
        raise ValueError("not a choice of experts and their weights")
    return output, seen
