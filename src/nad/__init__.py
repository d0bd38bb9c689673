"""Neuron-Agreement Decoding: the best of n answers, chosen by the neurons that wrote them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nad.decoding import Request, Selection, generate, stream
    from nad.engines import load_engine
    from nad.engines.base import Engine
    from nad.errors import NadError, UsageError
    from nad.neurons.activation import ActivationRule, ActivationSet
    from nad.selection import SELECTORS, Candidates, Choice, Consensus, Selector
    from nad.stopping import At, Budget, Distinct, Never
    from nad.types import Completion, Group, Message, Result, SamplingParams, Signals

_HOME = {
    "ActivationRule": "neurons.activation",
    "ActivationSet": "neurons.activation",
    "At": "stopping",
    "Budget": "stopping",
    "Candidates": "selection",
    "Choice": "selection",
    "Completion": "types",
    "Consensus": "selection",
    "Distinct": "stopping",
    "Engine": "engines.base",
    "Group": "types",
    "Message": "types",
    "NadError": "errors",
    "Never": "stopping",
    "Request": "decoding",
    "Result": "types",
    "SELECTORS": "selection",
    "SamplingParams": "types",
    "Selection": "decoding",
    "Selector": "selection",
    "Signals": "types",
    "UsageError": "errors",
    "generate": "decoding",
    "load_engine": "engines",
    "stream": "decoding",
}

__all__ = [
    "SELECTORS",
    "ActivationRule",
    "ActivationSet",
    "At",
    "Budget",
    "Candidates",
    "Choice",
    "Completion",
    "Consensus",
    "Distinct",
    "Engine",
    "Group",
    "Message",
    "NadError",
    "Never",
    "Request",
    "Result",
    "SamplingParams",
    "Selection",
    "Selector",
    "Signals",
    "UsageError",
    "generate",
    "load_engine",
    "stream",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import nad` costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'nad' has no attribute {name!r}")
    return getattr(import_module(f"nad.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
