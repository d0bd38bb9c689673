"""Neuron-Agreement Decoding: the best of n answers, chosen by the neurons that wrote them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nad.decoding import Event, Finished, Progressed, Request, Selected, Text, generate, stream
    from nad.engines import load_engine
    from nad.engines.base import Engine, Rollout
    from nad.errors import NadError, UsageError
    from nad.generation_strategy import custom_generate
    from nad.neurons.activation import ActivationRule, ActivationSet
    from nad.selection import SELECTORS, Candidates, Choice, Consensus, Selector
    from nad.stopping import At, Budget, Distinct, Never, Progress, StopRule
    from nad.types import Completion, Group, Message, Result, SamplingParams, Signals

_HOME = {
    "SELECTORS": "selection",
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
    "Event": "decoding",
    "Finished": "decoding",
    "Group": "types",
    "Message": "types",
    "NadError": "errors",
    "Never": "stopping",
    "Progress": "stopping",
    "Progressed": "decoding",
    "Request": "decoding",
    "Result": "types",
    "Rollout": "engines.base",
    "SamplingParams": "types",
    "Selected": "decoding",
    "Selector": "selection",
    "Signals": "types",
    "StopRule": "stopping",
    "Text": "decoding",
    "UsageError": "errors",
    "custom_generate": "generation_strategy",
    "generate": "decoding",
    "load_engine": "engines",
    "stream": "decoding",
}
"""The module each public name lives in."""

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
    "Event",
    "Finished",
    "Group",
    "Message",
    "NadError",
    "Never",
    "Progress",
    "Progressed",
    "Request",
    "Result",
    "Rollout",
    "SamplingParams",
    "Selected",
    "Selector",
    "Signals",
    "StopRule",
    "Text",
    "UsageError",
    "custom_generate",
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
