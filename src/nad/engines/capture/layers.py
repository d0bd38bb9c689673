"""A model's feed-forward layers as capture sees them: dense ones, or mixtures of experts."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from nad.engines.capture.expert_scoring import ExpertScorer
from nad.engines.capture.expert_search import READS, find_expert_layers, has_experts
from nad.engines.capture.expert_tap import ExpertTap
from nad.engines.capture.experts import ExpertLayer, Routed
from nad.engines.capture.gates import GatedFFN, GateTap, gated_in
from nad.engines.capture.scoring import Kept, Pairs, Scorer
from nad.errors import UsageError
from nad.neurons.activation import ActivationRule

Gates = list[Float[Tensor, "rows neurons"]] | list[Routed]
"""What was kept of the gates of some rows, layer by layer: them, or what they follow from."""

_GATED = (
    "nad reads gated feed-forward layers, down(act(gate(x)) * up(x)), as in Llama, Qwen, Mistral, Gemma, Phi-3 or GLM-4"
)


@runtime_checkable
class Tap(Protocol):
    """Keeps the gates of one forward pass."""

    def listening(self, positions: slice) -> AbstractContextManager[None]:
        """Keep those of these sequence positions while the forward pass runs through the modules."""

    def gates(self, rows: int) -> Gates:
        """What was kept; `rows` is the number of rows there must be."""


@runtime_checkable
class PairScorer(Protocol):
    """Which neurons count for an emitted token, by a rule."""

    def kept(self, pairs: Sequence[Pairs[Any]]) -> Kept: ...


@runtime_checkable
class FeedForwards(Protocol):
    """The feed-forward layers of a model."""

    @property
    def neurons(self) -> int:
        """How far the neurons of all layers are numbered; each layer has an equal part of the numbers."""

    @property
    def experts(self) -> int:
        """Into how many equal parts a layer's numbers are divided, one for each expert; 1: it has none."""

    def __len__(self) -> int: ...

    def tap(self) -> Tap: ...

    def scorer(self, unembed: Callable[[Tensor], Tensor], rule: ActivationRule) -> PairScorer: ...


@dataclass(frozen=True)
class DenseLayers:
    """Every layer is one gated feed-forward, and all are as wide."""

    ffns: Sequence[GatedFFN]
    experts = 1

    def __len__(self) -> int:
        return len(self.ffns)

    @property
    def neurons(self) -> int:
        return len(self.ffns) * self.ffns[0].neurons

    def tap(self) -> GateTap:
        return GateTap(self.ffns)

    def scorer(self, unembed: Callable[[Tensor], Tensor], rule: ActivationRule) -> Scorer:
        return Scorer(self.ffns, unembed, rule)


@dataclass(frozen=True)
class ExpertLayers:
    """Some layers at least have routed experts, which are all as wide (docs/decisions/0061-mixture-of-experts.md)."""

    layers: Sequence[ExpertLayer]

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def width(self) -> int:
        """Neurons of one routed expert."""
        return next(layer.stack.neurons for layer in self.layers if layer.stack is not None)

    @property
    def experts(self) -> int:
        """Parts as wide as a routed expert into which the layer with the most neurons goes."""
        return -(-max(layer.all_neurons for layer in self.layers) // self.width)

    @property
    def neurons(self) -> int:
        return len(self.layers) * self.experts * self.width

    def tap(self) -> ExpertTap:
        return ExpertTap(self.layers)

    def scorer(self, unembed: Callable[[Tensor], Tensor], rule: ActivationRule) -> ExpertScorer:
        return ExpertScorer(self.layers, self.experts * self.width, unembed, rule)


def find_feed_forwards(model: nn.Module, layers: int) -> FeedForwards:
    """The gated feed-forward of each of the model's `layers` decoder layers, in order.

    Raises UsageError for a model that has none, or whose experts are of an unknown kind.
    """
    name, text = type(model).__name__, _text_model(model)
    width = text.get_input_embeddings().weight.shape[1]
    for blocks in (m for m in text.modules() if isinstance(m, nn.ModuleList) and len(m) == layers):
        if any(has_experts(block, width) for block in blocks):
            return ExpertLayers(find_expert_layers(name, list(blocks), width))
        found = [[ffn for _, ffn in gated_in(block)] for block in blocks]
        if any(len(ffns) > 1 for ffns in found):
            raise UsageError(f"{name} is a mixture of experts that are not stacked; {READS}")
        if all(len(ffns) == 1 for ffns in found):
            ffns = [ffn for (ffn,) in found]
            if len({ffn.neurons for ffn in ffns}) > 1:
                raise UsageError(f"{name} has feed-forward layers of different widths; {_GATED}")
            return DenseLayers(ffns)
    raise UsageError(f"{name} has no gated feed-forward layer; {_GATED}")


def _text_model(model: Any) -> Any:
    """The part that reads text, of a model that also sees or hears."""
    return model.get_decoder() if hasattr(model, "get_decoder") else model
